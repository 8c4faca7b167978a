//! Bulk both ways, and requests with responses.

use super::{Amounts, Mix, Part, Place, Shared, Traffic};
use crate::peer::{Stream, echo};
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;
use strata::demo::bytes::Bytes;

/// Bytes of a write in bulk.
const BLOCK: usize = 64 * 1024;

pub(super) fn add(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    for number in 0..amounts.bulk {
        let (theirs, ours) = place.connect(number % 4 < 2)?;
        let pause = amounts.bulk_pause;
        let seed = number as u64;
        if number % 2 == 0 {
            add_bulk(mix, format!("bulk {number} up"), ours, theirs, seed, pause)?;
        } else {
            add_bulk(
                mix,
                format!("bulk {number} down"),
                theirs,
                ours,
                seed,
                pause,
            )?;
        }
    }
    for number in 0..amounts.requests {
        let (theirs, ours) = place.connect(number % 2 == 0)?;
        let name = format!("requests {number}");
        if number % 4 < 2 {
            add_requests(mix, name, ours, theirs)?;
        } else {
            add_requests(mix, name, theirs, ours)?;
        }
    }
    Ok(())
}

fn add_bulk(
    mix: &mut Mix,
    name: String,
    from: impl Stream,
    to: impl Stream,
    seed: u64,
    pause: Duration,
) -> Result<()> {
    let sent = Arc::new(AtomicU64::new(u64::MAX));
    let told = Arc::clone(&sent);
    mix.spawn(format!("{name}, sender"), move |shared| {
        let total = send(from, seed, pause, shared)?;
        told.store(total, Ordering::Release);
        Ok(())
    })?;
    mix.spawn(format!("{name}, receiver"), move |shared| {
        let receiver = shared.silence.begin(Traffic::Streams);
        let received = receive(to, seed, shared, receiver);
        shared.silence.end(receiver);
        let received = received?;
        let sent = sent.load(Ordering::Acquire);
        // The sender notes its sum after the FIN that we have seen, so it may be a little late.
        ensure!(
            sent == received || sent == u64::MAX,
            "{received} bytes came of {sent}"
        );
        Ok(())
    })
}

fn send(mut stream: impl Stream, seed: u64, pause: Duration, shared: &Shared) -> Result<u64> {
    let mut bytes = Bytes::new(seed);
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    while !shared.is_stopping() {
        bytes.fill(&mut block);
        stream
            .write_all(&block)
            .with_context(|| format!("sending behind {total}"))?;
        total += block.len() as u64;
        sleep(pause);
    }
    stream.shut(Shutdown::Write)?;
    // The other end closes when it has everything.
    let rest = stream.read(&mut [0]).context("waiting for the end")?;
    ensure!(rest == 0, "something came back");
    Ok(total)
}

fn receive(mut stream: impl Stream, seed: u64, shared: &Shared, receiver: usize) -> Result<u64> {
    let total = compare(&mut stream, seed, || {
        shared.silence.hear(receiver);
        shared.did(Part::Bulk);
    })?;
    stream.shut(Shutdown::Write)?;
    Ok(total)
}

/// Reads until FIN and compares with the stream of `seed`; answers how many bytes there were.
fn compare(stream: &mut impl Read, seed: u64, mut each: impl FnMut()) -> Result<u64> {
    let mut comparison = Comparison::new(seed);
    while comparison.read(stream)? > 0 {
        each();
    }
    Ok(comparison.total)
}

/// A stream that is read and compared with what it should be.
pub(super) struct Comparison {
    expected: Bytes,
    /// A block of what should come, of which so many bytes have not.
    wanted: Vec<u8>,
    have: usize,
    buffer: Vec<u8>,
    /// Bytes that have come.
    pub(super) total: u64,
}

impl Comparison {
    /// With the stream of `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            expected: Bytes::new(seed),
            wanted: vec![0; BLOCK],
            have: 0,
            buffer: vec![0; BLOCK],
            total: 0,
        }
    }

    /// Reads once; answers how much came, 0 at the end.
    pub(super) fn read(&mut self, stream: &mut impl Read) -> Result<usize> {
        let total = self.total;
        let n = stream
            .read(&mut self.buffer)
            .with_context(|| format!("receiving at {total}"))?;
        let mut got = self.buffer.get(..n).unwrap_or_default();
        while !got.is_empty() {
            if self.have == 0 {
                self.expected.fill(&mut self.wanted);
                self.have = self.wanted.len();
            }
            let from = self.wanted.len() - self.have;
            let want = self.wanted.get(from..).unwrap_or_default();
            let k = got.len().min(want.len());
            ensure!(
                got.get(..k) == want.get(..k),
                "bytes {} to {} differ",
                self.total,
                self.total + k as u64
            );
            got = got.get(k..).unwrap_or_default();
            self.have -= k;
            self.total += k as u64;
        }
        Ok(n)
    }
}

fn add_requests(
    mix: &mut Mix,
    name: String,
    client: impl Stream,
    server: impl Stream,
) -> Result<()> {
    mix.spawn(format!("{name}, server"), move |_| {
        echo(server)?;
        Ok(())
    })?;
    mix.spawn(format!("{name}, client"), move |shared| {
        request(client, shared)
    })
}

fn request(mut stream: impl Stream, shared: &Shared) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut count = 0u64;
    while !shared.is_stopping() {
        let mut asked = vec![0; random.usize(1..2000)];
        random.fill(&mut asked);
        let mut answered = vec![0; asked.len()];
        stream
            .write_all(&asked)
            .with_context(|| format!("request {count}"))?;
        stream
            .read_exact(&mut answered)
            .with_context(|| format!("response {count}"))?;
        ensure!(asked == answered, "response {count} differs");
        count += 1;
        shared.did(Part::Requests);
        sleep(Duration::from_millis(2));
    }
    stream.shut(Shutdown::Write)?;
    let rest = stream.read(&mut [0]).context("waiting for the end")?;
    ensure!(rest == 0, "something more came");
    Ok(())
}
