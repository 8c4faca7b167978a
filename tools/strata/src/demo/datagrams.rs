//! UDP both ways: one side sends, the other sends everything back, and bytes are compared.

use super::bytes::Bytes;
use crate::lab::Lab;
use anyhow::{Context, Result, bail, ensure};
use libsocket::Stack;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Payload sizes; the last ones do not fit a frame and travel in fragments.
const SIZES: [usize; 6] = [0, 1, 512, 1472, 1473, 8000];
/// Rounds over all sizes.
const ROUNDS: usize = 10;
/// Times that a datagram is sent before it counts as lost for good.
const TRIES: usize = 3;
/// Wait for an answer, and how often the answering side looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);

/// Datagrams of one side and what came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Exchange {
    from: &'static str,
    to: String,
    exchanged: usize,
    sent_again: usize,
    largest: usize,
    avg_us: f64,
}

impl Exchange {
    pub(super) fn render(&self) -> String {
        let again = match self.sent_again {
            0 => String::new(),
            n => format!(", {n} of them sent again"),
        };
        format!(
            "{:<28} {} datagrams of 0 to {} bytes and back{again}, {:.0} us on average",
            self.title(),
            self.exchanged,
            self.largest,
            self.avg_us
        )
    }

    pub(super) fn title(&self) -> String {
        format!("{} -> {}", self.from, self.to)
    }

    pub(super) fn result(&self) -> String {
        format!("{} and back, {:.0} us", self.exchanged, self.avg_us)
    }
}

/// What the two sides need of a socket.
trait Datagrams: Send + 'static {
    fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize>;
    fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
    fn patience(&self, time: Duration) -> io::Result<()>;
    fn address(&self) -> io::Result<SocketAddr>;
}

macro_rules! datagrams {
    ($socket:ty) => {
        impl Datagrams for $socket {
            fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
                self.send_to(bytes, to)
            }
            fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
                self.recv_from(into)
            }
            fn patience(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))
            }
            fn address(&self) -> io::Result<SocketAddr> {
                self.local_addr()
            }
        }
    };
}

datagrams!(std::net::UdpSocket);
datagrams!(libsocket::UdpSocket);

/// The kernel's socket sends to the stack's.
pub(super) fn from_kernel(lab: &Lab, stack: &Stack) -> Result<Exchange> {
    let theirs = stack
        .udp((lab.stack, 0))
        .context("cannot bind a socket of the stack")?;
    let ours = std::net::UdpSocket::bind((lab.host, 0))?;
    exchange("kernel", &ours, theirs)
}

/// The stack's socket sends to the kernel's.
pub(super) fn from_stack(lab: &Lab, stack: &Stack) -> Result<Exchange> {
    let theirs = std::net::UdpSocket::bind((lab.host, 0))?;
    let ours = stack
        .udp((lab.stack, 0))
        .context("cannot bind a socket of the stack")?;
    exchange("stack", &ours, theirs)
}

fn exchange(from: &'static str, ours: &impl Datagrams, theirs: impl Datagrams) -> Result<Exchange> {
    let to = theirs.address()?;
    theirs.patience(LOOK)?;
    ours.patience(PATIENCE)?;
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let echo = thread::Builder::new()
        .name("udp-echo".to_owned())
        .spawn(move || echo(&theirs, &until))?;
    let mut bytes = Bytes::new(1);
    let mut times = Vec::new();
    let mut sent_again = 0;
    for size in SIZES.iter().cycle().take(SIZES.len() * ROUNDS) {
        let mut datagram = vec![0; *size];
        bytes.fill(&mut datagram);
        let begin = Instant::now();
        let tries = there_and_back(ours, &datagram, to)
            .with_context(|| format!("a datagram of {size} bytes to {to}"))?;
        sent_again += tries - 1;
        if tries == 1 {
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    over.store(true, Ordering::Relaxed);
    if echo.join().is_err() {
        bail!("the answering thread panicked");
    }
    #[allow(clippy::cast_precision_loss, reason = "a few dozen")]
    let avg_us = times.iter().sum::<f64>() / times.len().max(1) as f64;
    Ok(Exchange {
        from,
        to: to.to_string(),
        exchanged: SIZES.len() * ROUNDS,
        sent_again,
        largest: SIZES.into_iter().max().unwrap_or(0),
        avg_us,
    })
}

/// Sends until it comes back; answers how often it was sent.
fn there_and_back(ours: &impl Datagrams, datagram: &[u8], to: SocketAddr) -> Result<usize> {
    let mut buffer = vec![0; 65_536];
    for tries in 1..=TRIES {
        ours.send(datagram, to).context("sending")?;
        match ours.receive(&mut buffer) {
            Ok((len, from)) => {
                ensure!(from == to, "an answer came from {from}");
                ensure!(buffer.get(..len) == Some(datagram), "other bytes came back");
                return Ok(tries);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error).context("receiving"),
        }
    }
    bail!("sent {TRIES} times, it never came back")
}

/// Sends everything back until it is over.
fn echo(socket: &impl Datagrams, over: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !over.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.receive(&mut buffer) {
            // What is lost is sent again by who waits for it.
            let _ = socket.send(buffer.get(..len).unwrap_or_default(), from);
        }
    }
}
