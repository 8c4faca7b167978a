//! Moving bytes and comparing every one of them.

use crate::peer::Stream;
use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};
use strata::demo::bytes::Bytes;

/// How a sender cuts its data.
#[derive(Debug, Clone, Copy)]
pub struct Writes {
    /// Smallest write in bytes.
    pub from: usize,
    /// Largest.
    pub to: usize,
}

impl Writes {
    /// Writes of 64 KiB.
    pub const BIG: Self = Self {
        from: 65_536,
        to: 65_536,
    };
    /// Writes of 1 to 100 bytes.
    pub const TINY: Self = Self { from: 1, to: 100 };
    /// Anything.
    pub const MIXED: Self = Self {
        from: 1,
        to: 65_536,
    };
}

/// Sends `len` bytes of the stream of `seed`, then FIN.
///
/// # Errors
/// When the connection breaks.
pub fn send(stream: &mut impl Stream, seed: u64, len: u64, writes: Writes) -> Result<()> {
    let mut bytes = Bytes::new(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut block = vec![0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let block = block.get_mut(..n).unwrap_or_default();
        bytes.fill(block);
        let mut rest = &*block;
        while !rest.is_empty() {
            let n = random.usize(writes.from..=writes.to).min(rest.len());
            let (now, later) = rest.split_at(n);
            stream.write_all(now).with_context(|| {
                format!(
                    "sending, {} of {len} bytes before the end",
                    left - (block.len() - rest.len()) as u64
                )
            })?;
            rest = later;
        }
        left -= n as u64;
    }
    stream
        .shut(Shutdown::Write)
        .context("shutting the sending side down")
}

/// Receives until FIN and compares with the stream of `seed`, which must be `len` bytes. Answers
/// the longest silence.
///
/// # Errors
/// When a byte differs, the length does, or the connection breaks.
pub fn receive(stream: &mut impl Read, seed: u64, len: u64) -> Result<Duration> {
    let mut expected = Bytes::new(seed);
    let mut buffer = vec![0; 64 * 1024];
    let mut wanted = vec![0; 64 * 1024];
    let (mut at, mut have) = (0u64, 0usize);
    let (mut last, mut silence) = (Instant::now(), Duration::ZERO);
    loop {
        let n = stream
            .read(&mut buffer)
            .with_context(|| format!("receiving at {at} of {len}"))?;
        silence = silence.max(last.elapsed());
        last = Instant::now();
        if n == 0 {
            break;
        }
        let mut got = buffer.get(..n).unwrap_or_default();
        while !got.is_empty() {
            if have == 0 {
                expected.fill(&mut wanted);
                have = wanted.len();
            }
            let want = wanted.get(wanted.len() - have..).unwrap_or_default();
            let k = got.len().min(want.len());
            let (a, rest) = got.split_at(k);
            if !want.starts_with(a) {
                let same = a.iter().zip(want).take_while(|(x, y)| x == y).count();
                bail!("byte {} of {len} differs", at + same as u64);
            }
            at += k as u64;
            have -= k;
            got = rest;
        }
    }
    ensure!(at == len, "{at} bytes came instead of {len}");
    Ok(silence)
}

/// Both ends at once: `a` sends `len` bytes to `b` and `b` as many to `a`. Answers the longest
/// silence of either.
///
/// # Errors
/// As [`send`] and [`receive`].
pub fn both_ways(a: impl Stream, b: impl Stream, len: u64, writes: Writes) -> Result<Duration> {
    for_each_end(a, b, len, len, writes)
}

/// One way: `a` sends `len` bytes to `b`.
///
/// # Errors
/// As [`send`] and [`receive`].
pub fn one_way(a: impl Stream, b: impl Stream, len: u64, writes: Writes) -> Result<Duration> {
    for_each_end(a, b, len, 0, writes)
}

fn for_each_end(
    mut a: impl Stream,
    mut b: impl Stream,
    forth: u64,
    back: u64,
    writes: Writes,
) -> Result<Duration> {
    let patience = Duration::from_secs(60);
    a.patience(patience)?;
    b.patience(patience)?;
    let (mut a2, mut b2) = (a.again()?, b.again()?);
    let threads = [
        thread::spawn(move || send(&mut a, 1, forth, writes).map(|()| Duration::ZERO)),
        thread::spawn(move || receive(&mut b2, 1, forth)),
        thread::spawn(move || send(&mut b, 2, back, writes).map(|()| Duration::ZERO)),
        thread::spawn(move || receive(&mut a2, 2, back)),
    ];
    let mut longest = Duration::ZERO;
    let mut failure = None;
    for (thread, who) in threads
        .into_iter()
        .zip(["a sends", "b receives", "b sends", "a receives"])
    {
        match thread.join() {
            Ok(Ok(silence)) => longest = longest.max(silence),
            Ok(Err(error)) => failure = failure.or(Some(error.context(who))),
            Err(_) => bail!("{who}: panicked"),
        }
    }
    failure.map_or(Ok(longest), Err)
}

/// One end that talks to an echo: sends `len` bytes and receives them back.
///
/// # Errors
/// As [`send`] and [`receive`].
pub fn both_ways_end(stream: impl Stream, len: u64) -> Result<Duration> {
    stream.patience(Duration::from_secs(60))?;
    let mut sender = stream.again()?;
    let mut receiver = stream;
    let thread = thread::spawn(move || send(&mut sender, 5, len, Writes::MIXED));
    let silence = receive(&mut receiver, 5, len)?;
    match thread.join() {
        Ok(result) => result.map(|()| silence),
        Err(_) => bail!("the sender panicked"),
    }
}
