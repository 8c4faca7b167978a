//! ICMP echo sockets, as Linux's `socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)`: no privilege is
//! needed, and the transport sees to it that a socket gets the replies to its own requests only.
//!
//! A datagram is a whole ICMP message. The transport fills in identifier and checksum.

use crate::socket::Socket;
use crate::stack::Stack;
use abi::session::SocketKind;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// RFC 792 and RFC 4443 4.1: type of an echo request, type of its reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

/// Bytes in front of the payload.
const HEADER: usize = 8;

/// A socket that sends echo requests and receives their replies.
#[derive(Debug)]
pub struct PingSocket(Socket);

/// A reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Who answered.
    pub from: IpAddr,
    /// Sequence number of the request.
    pub seq: u16,
    /// Payload bytes that were copied.
    pub len: usize,
    /// Payload bytes that the reply has.
    pub full_len: usize,
    /// Hop limit that the reply had left; 0 if not known.
    pub ttl: u8,
    /// When it came, in nanoseconds of `CLOCK_MONOTONIC`; 0 if not known.
    pub stamp: abi::Nanos,
}

impl Stack {
    /// A ping socket for the family of `v6`.
    ///
    /// # Errors
    /// As [`Stack::socket`].
    pub fn ping(&self, v6: bool) -> io::Result<PingSocket> {
        self.socket(v6, SocketKind::Ping).map(PingSocket)
    }
}

impl PingSocket {
    /// A ping socket in the default constellation.
    ///
    /// # Errors
    /// As [`Stack::socket`].
    pub fn new(v6: bool) -> io::Result<Self> {
        Stack::default_stack()?.ping(v6)
    }

    /// The socket below; its datagrams are whole ICMP messages.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.0
    }

    fn types(&self) -> (u8, u8) {
        if self.0.is_v6() { ECHO_V6 } else { ECHO_V4 }
    }

    /// Sends an echo request with `payload`.
    ///
    /// # Errors
    /// As `sendto(2)`.
    pub fn send_to(&self, seq: u16, payload: &[u8], to: IpAddr) -> io::Result<()> {
        let [high, low] = seq.to_be_bytes();
        let header = [self.types().0, 0, 0, 0, 0, 0, high, low];
        let parts = [IoSlice::new(&header), IoSlice::new(payload)];
        self.0
            .send_datagram(&parts, Some(SocketAddr::new(to, 0)), false)
            .map(drop)
    }

    /// Receives the next reply; its payload goes to `payload`. Other messages are passed over.
    ///
    /// # Errors
    /// As `recvfrom(2)`; an unreachable destination among them.
    pub fn recv_from(&self, payload: &mut [u8]) -> io::Result<Echo> {
        loop {
            let mut header = [0; HEADER];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(payload)];
            let got = self.0.recv_datagram(&mut parts, false, false)?;
            let got = got.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            let [kind, code, _, _, _, _, high, low] = header;
            if got.len < HEADER || kind != self.types().1 || code != 0 {
                continue;
            }
            return Ok(Echo {
                from: got.from.ip(),
                seq: u16::from_be_bytes([high, low]),
                len: got.len - HEADER,
                full_len: got.full_len - HEADER,
                ttl: got.header.ttl,
                stamp: abi::Nanos::from_ne_bytes(got.header.stamp),
            });
        }
    }

    /// Sets how long receiving may wait.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(time)
    }

    /// Sets the hop limit of the requests (1 to 255).
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.set_ttl(ttl)
    }

    /// Whether calls return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}

impl From<PingSocket> for Socket {
    fn from(ping: PingSocket) -> Self {
        ping.0
    }
}

impl AsFd for PingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PingSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
