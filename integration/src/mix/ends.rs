//! The other end of every connection: the Linux kernel's, or another constellation's.

use super::PATIENCE;
use crate::peer::Stream;
use anyhow::{Context, Result, ensure};
use libsocket::{SocketKind, Stack};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, listen};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
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

    /// With room for one connection that nobody has accepted.
    pub(super) fn listen_for_one(&self) -> Result<Door> {
        Ok(match self {
            Self::Kernel(address) => {
                let one = TcpListener::bind((*address, 0))?;
                listen(&one, Backlog::new(0)?)?;
                Door::Kernel(one)
            }
            Self::Constellation(stack, address) => {
                let one = stack.socket(false, SocketKind::Stream)?;
                one.bind((*address, 0).into())?;
                one.listen(0)?;
                Door::Stack(one.into())
            }
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

    /// Accepts within `patience`.
    pub(super) fn accept_within(&self, patience: Duration) -> Result<End> {
        ensure!(shows(self, PollFlags::POLLIN, patience)?, "nobody comes");
        self.accept()
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, Self, one => one.as_fd())
    }
}

/// Waits until `fd` shows one of `events`; false after `patience`.
pub(super) fn shows(fd: &impl AsFd, events: PollFlags, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    Ok(poll(&mut fds, PollTimeout::try_from(patience)?)? > 0)
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
