//! A download and an upload over TCP against the kernel's HTTP server, with SHA-256 compared.

use super::bytes::{Bytes, digest};
use super::fault::{self, Fault, Progress, Victim};
use super::screen::Screen;
use super::server::{SILENCE, Silence};
use crate::commands::fetch::hex;
use crate::http::{self, Url};
use crate::lab::Lab;
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use libsocket::{Stack, TcpStream};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// No transfer may be silent for longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    /// From the kernel to the stack.
    Download,
    /// From the stack to the kernel.
    Upload,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// What to transfer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    direction: Direction,
    pub(super) bytes: u64,
    pub(super) victims: &'static [Victim],
    seed: u64,
}

impl Transfer {
    pub(super) fn new(direction: Direction, bytes: u64, victims: &'static [Victim]) -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let seed = SEED.fetch_add(1, Ordering::Relaxed);
        Self {
            direction,
            bytes,
            victims,
            seed,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Transferred {
    pub(super) direction: Direction,
    bytes: u64,
    seconds: f64,
    sha256: String,
    /// Longest time in which the receiver got nothing.
    longest_silence_ms: f64,
    pub(super) faults: Vec<Fault>,
}

/// Transfers, with deaths in the middle if some are planned.
pub(super) fn run(
    screen: &Screen,
    lab: &Lab,
    stack: &Stack,
    server: SocketAddr,
    plan: Transfer,
) -> Result<Transferred> {
    let name = plan.direction.name();
    let expected = digest(plan.seed, plan.bytes);
    let progress = Progress::default();
    let bar = screen.progress(name, plan.bytes);
    let begin = Instant::now();
    let (moved, faults) = thread::scope(|scope| {
        let killer = (!plan.victims.is_empty()).then(|| {
            let (progress, bar) = (&progress, &bar);
            let told = move |text: &str| bar.set_message(text.to_owned());
            scope.spawn(move || fault::kill_all(lab, &plan, progress, told))
        });
        let moved = match plan.direction {
            Direction::Download => download(stack, server, plan, &progress, &bar),
            Direction::Upload => upload(stack, server, plan, &progress, &bar),
        };
        progress.over.store(true, Ordering::Relaxed);
        let faults = killer.map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the killing thread panicked"),
        });
        (moved.map(|m| (m, begin.elapsed())), faults)
    });
    bar.finish_and_clear();
    let ((sha256, silence), took) = moved.with_context(|| format!("the {name}"))?;
    ensure!(
        sha256 == expected,
        "the {name} has the SHA-256 {sha256} instead of {expected}"
    );
    Ok(Transferred {
        direction: plan.direction,
        bytes: plan.bytes,
        seconds: took.as_secs_f64(),
        sha256,
        longest_silence_ms: silence.as_secs_f64() * 1e3,
        faults: faults.transpose()?.unwrap_or_default(),
    })
}

fn connect(stack: &Stack, server: SocketAddr) -> Result<TcpStream> {
    let stream = stack
        .connect_timeout(server, PATIENCE)
        .context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Answers the digest of what came, and the longest silence.
fn download(
    stack: &Stack,
    server: SocketAddr,
    plan: Transfer,
    progress: &Progress,
    bar: &ProgressBar,
) -> Result<(String, Duration)> {
    let url = Url::parse(&format!("http://{server}/{}/{}", plan.seed, plan.bytes))?;
    let response = http::get(connect(stack, server)?, &url)?;
    let mut hash = Sha256::new();
    let mut silence = Silence::default();
    response.body(|piece| {
        let gap = silence.broken();
        let gap = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        progress.silence_us.fetch_max(gap, Ordering::Relaxed);
        hash.update(piece);
        bar.inc(piece.len() as u64);
        if progress.moved(piece.len(), &plan) {
            // A silence of our own making.
            silence.pause();
        }
        Ok(())
    })?;
    Ok((hex(&hash.finalize()), silence.longest()))
}

/// Answers the digest of what the server got, and its longest silence.
fn upload(
    stack: &Stack,
    server: SocketAddr,
    plan: Transfer,
    progress: &Progress,
    bar: &ProgressBar,
) -> Result<(String, Duration)> {
    let mut stream = connect(stack, server)?;
    write!(
        stream,
        "PUT / HTTP/1.1\r\nHost: {server}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        plan.bytes
    )?;
    let mut bytes = Bytes::new(plan.seed);
    let mut buffer = vec![0; 256 * 1024];
    let mut left = plan.bytes;
    while left > 0 {
        let len = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let piece = buffer.get_mut(..len).unwrap_or_default();
        bytes.fill(piece);
        stream.write_all(piece).context("sending")?;
        left -= len as u64;
        bar.inc(len as u64);
        progress.moved(len, &plan);
    }
    answer(stream)
}

/// Reads the server's answer to an upload.
fn answer(stream: TcpStream) -> Result<(String, Duration)> {
    let mut reader = BufReader::new(stream);
    let mut silence = Duration::ZERO;
    let mut first = String::new();
    reader
        .read_line(&mut first)
        .context("waiting for the answer")?;
    ensure!(
        first.starts_with("HTTP/1.1 200"),
        "the server said {first:?}"
    );
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case(SILENCE) {
            silence = Duration::from_micros(value.trim().parse()?);
        }
    }
    let mut body = String::new();
    reader.read_to_string(&mut body)?;
    Ok((body, silence))
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Transferred {
    pub(super) fn gbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8e-9 / self.seconds.max(1e-9)
    }

    pub(super) fn longest_silence_ms(&self) -> f64 {
        self.longest_silence_ms
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!(
            "{:<9} {} MiB in {:.2} s, {:.1} Gbit/s; SHA-256 {}… is right",
            self.direction.name(),
            self.bytes >> 20,
            self.seconds,
            self.gbit_per_second(),
            self.sha256.get(..16).unwrap_or_default(),
        );
        for fault in &self.faults {
            text += &format!(
                "\n          at {:2.0} % {:<11} killed, back after {:5.1} ms",
                100.0 * fault.at_bytes as f64 / self.bytes.max(1) as f64,
                fault.victim,
                fault.back_after_ms,
            );
            if let Some(silence) = fault.silence_ms {
                text += &format!(", the receiver went without data for {silence:5.1} ms at most");
            }
        }
        if self.faults.iter().any(|fault| fault.silence_ms.is_none()) {
            text += &format!(
                "\n          the receiver went without data for {:.1} ms at most in all",
                self.longest_silence_ms
            );
        }
        text
    }
}
