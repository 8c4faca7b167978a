//! Ping both ways: the kernel's raw socket asks ipd, the stack's ping socket asks the kernel.

use crate::lab::Lab;
use anyhow::{Context, Result, bail, ensure};
use libsocket::Stack;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;
use serde::Serialize;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wire::{icmpv4, ipv4};

/// Requests each way.
const COUNT: u16 = 10;
/// Bytes of payload, as ping has them.
const PAYLOAD: usize = 56;
const INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(1);

/// Echo requests of one side and what came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ping {
    from: &'static str,
    to: String,
    sent: u16,
    received: u16,
    min_us: f64,
    avg_us: f64,
    max_us: f64,
}

impl Ping {
    fn new(from: &'static str, to: impl ToString, times: &[Duration]) -> Result<Self> {
        let us: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e6).collect();
        let received = u16::try_from(us.len()).unwrap_or(u16::MAX);
        let to = to.to_string();
        ensure!(received > 0, "no reply from {to} to {COUNT} echo requests");
        Ok(Self {
            from,
            to,
            sent: COUNT,
            received,
            min_us: us.iter().copied().fold(f64::INFINITY, f64::min),
            avg_us: us.iter().sum::<f64>() / f64::from(received),
            max_us: us.iter().copied().fold(0.0, f64::max),
        })
    }

    pub(super) fn render(&self) -> String {
        format!(
            "{:<22} {} of {} answered; rtt min/avg/max = {:.0}/{:.0}/{:.0} us",
            self.title(),
            self.received,
            self.sent,
            self.min_us,
            self.avg_us,
            self.max_us
        )
    }

    pub(super) fn title(&self) -> String {
        format!("{} -> {}", self.from, self.to)
    }

    pub(super) fn result(&self) -> String {
        format!("{} of {}, {:.0} us", self.received, self.sent, self.avg_us)
    }
}

/// The kernel pings the stack.
pub(super) fn from_kernel(lab: &Lab) -> Result<Ping> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )
    .context("cannot open a raw ICMP socket of the kernel")?;
    let [a, b, c, d] = lab.stack.octets();
    let to = SockaddrIn::new(a, b, c, d, 0);
    let ident = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let mut times = Vec::new();
    for seq in 1..=COUNT {
        let mut message = vec![0x5a; icmpv4::HEADER_LEN + PAYLOAD];
        icmpv4::Repr::EchoRequest { ident, seq }.emit(&mut message)?;
        icmpv4::fill_checksum(&mut message)?;
        let begin = Instant::now();
        sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty())
            .context("the kernel cannot send to the stack")?;
        let wanted = icmpv4::Repr::EchoReply { ident, seq };
        if wait_for(&socket, wanted, begin + PATIENCE)? {
            times.push(begin.elapsed());
        }
        sleep(INTERVAL);
    }
    Ping::new("kernel", format!("stack {}", lab.stack), &times)
}

/// Whether the message came in time. A raw socket gets all ICMP of the namespace, from the IP
/// header on.
fn wait_for(socket: &OwnedFd, wanted: icmpv4::Repr, until: Instant) -> Result<bool> {
    let mut buffer = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1);
        setsockopt(
            socket,
            ReceiveTimeout,
            &TimeVal::new(micros / 1_000_000, micros % 1_000_000),
        )?;
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("receiving ICMP from the kernel"),
        };
        let packet = ipv4::Packet::new(buffer.get(..len).unwrap_or_default())?;
        if icmpv4::Repr::parse(packet.payload) == Ok(wanted) {
            return Ok(true);
        }
    }
}

/// The stack pings the kernel.
pub(super) fn from_stack(lab: &Lab, stack: &Stack) -> Result<Ping> {
    let socket = stack.ping(false).context("cannot open a ping socket")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let payload = [0xa5; PAYLOAD];
    let mut times = Vec::new();
    for seq in 1..=COUNT {
        let begin = Instant::now();
        socket
            .send_to(seq, &payload, lab.host.into())
            .context("the stack cannot send to the kernel")?;
        let mut buffer = [0; PAYLOAD];
        match socket.recv_from(&mut buffer) {
            Ok(echo) if echo.seq == seq && buffer == payload => times.push(begin.elapsed()),
            Ok(echo) => bail!("a reply to request {} came to request {seq}", echo.seq),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receiving from the stack's ping socket"),
        }
        sleep(INTERVAL);
    }
    Ping::new("stack", format!("kernel {}", lab.host), &times)
}
