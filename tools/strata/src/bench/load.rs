//! What the threads at both ends do: send, receive, answer. All of them end when the round is
//! over or their socket is.

use super::sides::{Datagrams, Stream};
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Bytes of a read or write in the bulk rows.
pub(super) const BLOCK: usize = 64 * 1024;
/// Bytes of a message in the others.
pub(super) const MESSAGE: usize = 64;

/// What the threads of a round share.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Bytes, messages or round trips so far, counted where they arrive.
    pub(super) arrived: AtomicU64,
    /// Measuring has begun.
    pub(super) measuring: AtomicBool,
    pub(super) over: AtomicBool,
}

impl Round {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count(&self, n: u64) {
        self.arrived.fetch_add(n, Ordering::Relaxed);
    }
}

/// Writes until the round is over.
pub(super) fn pour(stream: &mut dyn Stream, round: &Round) -> io::Result<()> {
    let block = vec![0x5a; BLOCK];
    while !round.is_over() {
        stream.write_all(&block)?;
    }
    stream.finish()
}

/// Reads to the end.
pub(super) fn drain(stream: &mut dyn Stream, round: &Round) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            n => round.count(n as u64),
        }
    }
}

/// Sends a message and waits for it to come back, until the round is over; times in nanoseconds.
pub(super) fn ping(stream: &mut dyn Stream, round: &Round) -> io::Result<Histogram<u64>> {
    stream.nodelay()?;
    // Recording must not allocate: from 1 ns to 10 s, to three digits.
    let mut times = Histogram::new_with_bounds(1, 10_000_000_000, 3).map_err(io::Error::other)?;
    let mut message = [0x5a; MESSAGE];
    while !round.is_over() {
        let begin = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        if round.measuring.load(Ordering::Relaxed) {
            let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            times.saturating_record(nanos.max(1));
        }
        round.count(1);
    }
    stream.finish()?;
    Ok(times)
}

/// Sends every message back.
pub(super) fn pong(stream: &mut dyn Stream) -> io::Result<()> {
    stream.nodelay()?;
    let mut message = [0; MESSAGE];
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends datagrams until the round is over. A full device is no failure of a datagram service.
pub(super) fn scatter(socket: &dyn Datagrams, to: SocketAddr, round: &Round) -> io::Result<()> {
    let message = [0x5a; MESSAGE];
    while !round.is_over() {
        match socket.send_to(&message, to) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives datagrams until the round is over. The socket must have a timeout.
pub(super) fn gather(socket: &dyn Datagrams, round: &Round) -> io::Result<()> {
    let mut message = [0; 2 * MESSAGE];
    while !round.is_over() {
        match socket.recv(&mut message) {
            Ok(_) => round.count(1),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
