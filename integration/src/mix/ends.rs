//! The other end of every connection: the Linux kernel's, or another constellation's.

use super::PATIENCE;
use crate::peer::Stream;
use anyhow::{Context, Result};
use libsocket::Stack;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Whose sockets the other ends are.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// The kernel's, at this address.
    Kernel(Ipv4Addr),
    /// Another constellation's, at this address.
    Constellation(Stack, Ipv4Addr),
}

/// The other end of a connection.
#[derive(Debug)]
pub(super) enum End {
    Kernel(TcpStream),
    Stack(libsocket::TcpStream),
}

/// Where the other side accepts.
#[derive(Debug)]
pub(super) enum Door {
    Kernel(TcpListener),
    Stack(libsocket::TcpListener),
}

/// The other side's datagram socket.
#[derive(Debug)]
pub(super) enum Datagrams {
    Kernel(UdpSocket),
    Stack(libsocket::UdpSocket),
}

/// The same call on either kind.
macro_rules! either {
    ($self:expr, $kind:ident, $one:ident => $call:expr) => {
        match $self {
            $kind::Kernel($one) => $call,
            $kind::Stack($one) => $call,
        }
    };
}

impl Peer {
    pub(super) fn address(&self) -> Ipv4Addr {
        match self {
            Self::Kernel(address) | Self::Constellation(_, address) => *address,
        }
    }

    pub(super) fn listen(&self) -> Result<Door> {
        Ok(match self {
            Self::Kernel(address) => Door::Kernel(TcpListener::bind((*address, 0))?),
            Self::Constellation(stack, address) => Door::Stack(stack.listen((*address, 0))?),
        })
    }

    pub(super) fn connect(&self, to: SocketAddr) -> Result<End> {
        Ok(match self {
            Self::Kernel(_) => End::Kernel(TcpStream::connect_timeout(&to, PATIENCE)?),
            Self::Constellation(stack, _) => End::Stack(stack.connect(to)?),
        })
    }

    pub(super) fn datagrams(&self) -> Result<Datagrams> {
        Ok(match self {
            Self::Kernel(address) => Datagrams::Kernel(UdpSocket::bind((*address, 0))?),
            Self::Constellation(stack, address) => Datagrams::Stack(stack.udp((*address, 0))?),
        })
    }
}

impl Door {
    pub(super) fn address(&self) -> Result<SocketAddr> {
        Ok(either!(self, Door, one => one.local_addr()?))
    }

    pub(super) fn accept(&self) -> Result<End> {
        Ok(match self {
            Self::Kernel(one) => End::Kernel(one.accept().context("accept")?.0),
            Self::Stack(one) => End::Stack(one.accept().context("accept")?.0),
        })
    }
}

impl Datagrams {
    pub(super) fn address(&self) -> Result<SocketAddr> {
        Ok(either!(self, Datagrams, one => one.local_addr()?))
    }

    pub(super) fn patience(&self, time: Duration) -> io::Result<()> {
        either!(self, Datagrams, one => one.set_read_timeout(Some(time)))
    }

    pub(super) fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        either!(self, Datagrams, one => one.recv_from(into))
    }

    pub(super) fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        either!(self, Datagrams, one => one.send_to(bytes, to))
    }
}

impl Read for End {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        either!(self, Self, one => one.read(into))
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, Self, one => one.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, Self, one => one.flush())
    }
}

impl Stream for End {
    fn again(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Kernel(one) => Self::Kernel(one.try_clone()?),
            Self::Stack(one) => Self::Stack(one.try_clone()?),
        })
    }

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        either!(self, Self, one => one.shutdown(how))
    }

    fn patience(&self, time: Duration) -> io::Result<()> {
        either!(self, Self, one => one.patience(time))
    }

    fn linger_for(&self, seconds: u16) -> io::Result<()> {
        either!(self, Self, one => one.linger_for(seconds))
    }
}
