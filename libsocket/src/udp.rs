//! UDP sockets in the shape of [`std::net::UdpSocket`].

use crate::datagram::Received;
use crate::socket::Socket;
use crate::stack::Stack;
use crate::tcp_stream::each_address;
use abi::session::{SockOpt, SocketKind};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket(Socket);

impl Stack {
    /// A UDP socket bound to the first of `addresses` that can be had.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn udp(&self, addresses: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        each_address(addresses, |address| {
            let socket = self.socket(address.is_ipv6(), SocketKind::Datagram)?;
            socket.bind(address)?;
            Ok(UdpSocket(socket))
        })
    }
}

impl UdpSocket {
    /// A UDP socket in the default constellation.
    ///
    /// # Errors
    /// As [`Stack::udp`].
    pub fn bind(addresses: impl ToSocketAddrs) -> io::Result<Self> {
        Stack::default_stack()?.udp(addresses)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.0
    }

    /// Sends one datagram to the first of `addresses`.
    ///
    /// # Errors
    /// As `sendto(2)`.
    pub fn send_to(&self, bytes: &[u8], addresses: impl ToSocketAddrs) -> io::Result<usize> {
        let to = first(addresses)?;
        self.0
            .send_datagram(&[IoSlice::new(bytes)], Some(to), false)
    }

    /// Sends one datagram to the connected peer.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_datagram(&[IoSlice::new(bytes)], None, false)
    }

    /// Receives one datagram; what does not fit into `buf` is lost.
    ///
    /// # Errors
    /// As `recvfrom(2)`.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(buf, false).map(|r| (r.len, r.from))
    }

    /// Receives one datagram with what is known of it.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn recv_message(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.receive(buf, false)
    }

    /// Receives one datagram.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, false).map(|r| r.len)
    }

    /// Looks at the next datagram without taking it.
    ///
    /// # Errors
    /// As `recvfrom(2)`.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(buf, true).map(|r| (r.len, r.from))
    }

    /// Looks at the next datagram without taking it.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, true).map(|r| r.len)
    }

    fn receive(&self, buf: &mut [u8], peek: bool) -> io::Result<Received> {
        // Without shutdown there is no end.
        let got = self
            .0
            .recv_datagram(&mut [IoSliceMut::new(buf)], peek, false)?;
        got.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sets the default peer, the only one that is then received from.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(&self, addresses: impl ToSocketAddrs) -> io::Result<()> {
        each_address(addresses, |address| self.0.connect(address))
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the transport does not know the socket any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The default peer.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// A second handle on the same socket.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Allows sending to broadcast addresses.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.0.set_option(SockOpt::Broadcast(broadcast))
    }

    /// Whether sending to broadcast addresses is allowed.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.0.broadcast()
    }

    /// Sets the hop limit of what is sent (1 to 255).
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.set_ttl(ttl)
    }

    /// The hop limit of what is sent.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.ttl()
    }

    /// Sets how long receiving may wait.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(time)
    }

    /// Sets how long sending may wait for room.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(time)
    }

    /// How long receiving may wait.
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.read_timeout())
    }

    /// How long sending may wait for room.
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.write_timeout())
    }

    /// Whether calls return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// Takes the pending error (`SO_ERROR`), such as a port that was unreachable.
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }
}

/// The first address that there is.
fn first(addresses: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "no address to send to");
    addresses.to_socket_addrs()?.next().ok_or_else(none)
}

/// A datagram socket is a UDP socket.
impl From<Socket> for UdpSocket {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

impl From<UdpSocket> for OwnedFd {
    fn from(socket: UdpSocket) -> Self {
        socket.0.into()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl IntoRawFd for UdpSocket {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}
