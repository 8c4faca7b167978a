//! TCP listeners in the shape of [`std::net::TcpListener`].

use crate::socket::Socket;
use crate::stack::Stack;
use crate::tcp_stream::{TcpStream, each_address};
use abi::session::{SockOpt, SocketKind};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// Connections that may wait to be accepted, unless the caller says otherwise.
const BACKLOG: u32 = 1024;

/// A TCP socket that listens.
#[derive(Debug)]
pub struct TcpListener(Socket);

impl Stack {
    /// Listens on the first of `addresses` that can be had, with `SO_REUSEADDR` as std sets it.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub fn listen(&self, addresses: impl ToSocketAddrs) -> io::Result<TcpListener> {
        each_address(addresses, |address| {
            let socket = self.socket(address.is_ipv6(), SocketKind::Stream)?;
            socket.set_option(SockOpt::ReuseAddr(true))?;
            socket.bind(address)?;
            socket.listen(BACKLOG)?;
            Ok(TcpListener(socket))
        })
    }
}

impl TcpListener {
    /// Listens in the default constellation.
    ///
    /// # Errors
    /// As [`Stack::listen`].
    pub fn bind(addresses: impl ToSocketAddrs) -> io::Result<Self> {
        Stack::default_stack()?.listen(addresses)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.0
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = self.0.accept()?;
        Ok((TcpStream::from(socket), peer))
    }

    /// Takes data with SYNs (`TCP_FASTOPEN`, RFC 7413): at most `queue` connections may wait for
    /// the end of their handshake so; 0 switches it off. The same data may then come twice, on
    /// two connections.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_fast_open(&self, queue: u32) -> io::Result<()> {
        self.0.set_option(SockOpt::FastOpen(queue))
    }

    /// Connections, one after the other, without end.
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// When the transport does not know the socket any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// A second handle on the same listener.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether accepting returns `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// Takes the pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
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
}

/// The iterator of [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

impl std::iter::FusedIterator for Incoming<'_> {}

/// A listening socket is a listener.
impl From<Socket> for TcpListener {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

impl From<TcpListener> for OwnedFd {
    fn from(listener: TcpListener) -> Self {
        listener.0.into()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl IntoRawFd for TcpListener {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}
