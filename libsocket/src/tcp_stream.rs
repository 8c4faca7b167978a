//! TCP connections in the shape of [`std::net::TcpStream`].

use crate::lend::Lender;
use crate::socket::Socket;
use crate::stack::Stack;
use abi::session::{SockOpt, SocketKind};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A TCP connection. Reading and writing take `&self` too, from any number of threads.
#[derive(Debug)]
pub struct TcpStream(Socket);

/// Tries the addresses in turn, and fails as the last one did.
pub(crate) fn each_address<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address to go to");
    for address in addresses.to_socket_addrs()? {
        match attempt(address) {
            Ok(it) => return Ok(it),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Stack {
    /// Connects with the first bytes to send, in the SYN where the peer allows it
    /// ([`Socket::connect_with_data`]). Answers how many of `data` were taken.
    ///
    /// # Errors
    /// As there.
    pub fn connect_with_data(
        &self,
        addresses: impl ToSocketAddrs,
        data: &[u8],
    ) -> io::Result<(TcpStream, usize)> {
        each_address(addresses, |address| {
            let socket = self.socket(address.is_ipv6(), SocketKind::Stream)?;
            let taken = socket.connect_with_data(address, data)?;
            Ok((TcpStream(socket), taken))
        })
    }

    /// Connects to the first of `addresses` that answers. Names are resolved by the system.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(&self, addresses: impl ToSocketAddrs) -> io::Result<TcpStream> {
        each_address(addresses, |address| {
            let socket = self.socket(address.is_ipv6(), SocketKind::Stream)?;
            socket.connect(address)?;
            Ok(TcpStream(socket))
        })
    }

    /// As [`Stack::connect`], waiting no longer than `time`.
    ///
    /// # Errors
    /// As `connect(2)`, and `TimedOut`.
    pub fn connect_timeout(&self, address: SocketAddr, time: Duration) -> io::Result<TcpStream> {
        let socket = self.socket(address.is_ipv6(), SocketKind::Stream)?;
        socket.connect_timeout(address, time)?;
        Ok(TcpStream(socket))
    }

    /// Connects from a local address of the caller's choice (port 0: any), on hosts with several.
    ///
    /// # Errors
    /// As `bind(2)` and `connect(2)`.
    pub fn connect_from(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(peer.is_ipv6(), SocketKind::Stream)?;
        socket.bind(local)?;
        socket.connect(peer)?;
        Ok(TcpStream(socket))
    }
}

impl TcpStream {
    /// Connects through the default constellation.
    ///
    /// # Errors
    /// As [`Stack::connect`].
    pub fn connect(addresses: impl ToSocketAddrs) -> io::Result<Self> {
        Stack::default_stack()?.connect(addresses)
    }

    /// Connects through the default constellation, waiting no longer than `time`.
    ///
    /// # Errors
    /// As [`Stack::connect_timeout`].
    pub fn connect_timeout(address: &SocketAddr, time: Duration) -> io::Result<Self> {
        Stack::default_stack()?.connect_timeout(*address, time)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.0
    }

    /// The other end's address.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// This end's address.
    ///
    /// # Errors
    /// When the transport does not know the socket any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// A second handle on the same connection.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Receives without taking.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0
            .recv_vectored(&mut [IoSliceMut::new(buf)], true, false)
    }

    /// Takes the reading half to read straight from the receive buffer, without the copy.
    #[must_use]
    pub fn lend(&self) -> Lender<'_> {
        Lender::new(&self.0)
    }

    /// Sets how long a read may wait.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(time)
    }

    /// Sets how long a write may wait.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(time)
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.read_timeout())
    }

    /// How long a write may wait.
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

    /// Takes the pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }

    /// Switches Nagle's algorithm off (`TCP_NODELAY`).
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.set_option(SockOpt::NoDelay(nodelay))
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.nodelay()
    }

    /// Probes an idle peer (`SO_KEEPALIVE`).
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.0.set_option(SockOpt::KeepAlive(keepalive))
    }

    /// Whether an idle peer is probed.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn keepalive(&self) -> io::Result<bool> {
        self.0.keepalive()
    }

    /// What closing does with data that is not yet sent (`SO_LINGER`): `None`, it is sent in the
    /// background; a time of zero, the connection is reset; else dropping the last descriptor
    /// waits until all is acknowledged, at most so long (in milliseconds, rounded up).
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_linger(time)
    }

    /// What closing does with data that is not yet sent.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.0.linger()
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

    /// Bounds the rate at which data leaves, in bytes a second (`SO_MAX_PACING_RATE`);
    /// `u64::MAX`: no bound.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_max_pacing_rate(&self, rate: u64) -> io::Result<()> {
        self.0.set_option(SockOpt::MaxPacingRate(rate))
    }

    /// The bound of the rate at which data leaves; `u64::MAX`: none.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn max_pacing_rate(&self) -> io::Result<u64> {
        self.0.max_pacing_rate()
    }

    /// Bounds how many bytes may be written ahead of what has left (`TCP_NOTSENT_LOWAT`): the
    /// descriptor is writable while less than half of it waits. 0 or `u32::MAX`: no bound.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_notsent_lowat(&self, mark: u32) -> io::Result<()> {
        self.0.set_option(SockOpt::NotSentLowat(mark))
    }

    /// The bound of what may be written ahead of what has left.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn notsent_lowat(&self) -> io::Result<u32> {
        self.0.notsent_lowat()
    }

    /// `TCP_INFO`, laid out as Linux does.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn tcp_info(&self) -> io::Result<Vec<u8>> {
        self.0.tcp_info()
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0
            .recv_vectored(&mut [IoSliceMut::new(buf)], false, false)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.recv_vectored(bufs, false, false)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.send_vectored(&[IoSlice::new(buf)], false)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored(bufs, false)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connected socket is a stream.
impl From<Socket> for TcpStream {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        stream.0
    }
}

impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> Self {
        stream.0.into()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl IntoRawFd for TcpStream {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}
