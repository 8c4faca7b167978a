//! A TCP socket of either kind, as far as the comparison needs one.
#![allow(unsafe_code, reason = "nix knows TCP_INFO only in part")]

use super::info::Info;
use libsocket::{SockOpt, SockOptName};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpCongestion};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// A connected stream.
pub(super) trait Stream: Read + Write + Send {
    /// The congestion control in use.
    fn congestion(&self) -> io::Result<String>;
    /// `TCP_INFO`.
    fn info(&self) -> io::Result<Info>;
    /// Nothing more will be sent.
    fn finish(&self) -> io::Result<()>;
    /// Ends reading and writing, also of other threads.
    fn abandon(&self) -> io::Result<()>;
    /// Another handle of the same socket.
    fn again(&self) -> io::Result<Box<dyn Stream>>;
}

/// A socket whose congestion control can be chosen: a listener's is that of its connections.
pub(super) trait Choose {
    /// Chooses it.
    fn choose(&self, name: &str) -> io::Result<()>;
}

impl Choose for TcpStream {
    fn choose(&self, name: &str) -> io::Result<()> {
        choose(self, name)
    }
}

impl Choose for TcpListener {
    fn choose(&self, name: &str) -> io::Result<()> {
        choose(self, name)
    }
}

impl Choose for libsocket::TcpStream {
    fn choose(&self, name: &str) -> io::Result<()> {
        self.socket()
            .set_option(SockOpt::Congestion(name.to_owned()))
    }
}

impl Choose for libsocket::TcpListener {
    fn choose(&self, name: &str) -> io::Result<()> {
        self.socket()
            .set_option(SockOpt::Congestion(name.to_owned()))
    }
}

fn choose(socket: &impl AsFd, name: &str) -> io::Result<()> {
    Ok(setsockopt(socket, TcpCongestion, &OsString::from(name))?)
}

/// A listener.
pub(super) trait Accept {
    /// The next connection, if one comes in time.
    fn take(&self, patience: Duration) -> io::Result<Box<dyn Stream>>;
}

impl Stream for TcpStream {
    fn congestion(&self) -> io::Result<String> {
        let name = getsockopt(self, TcpCongestion)?;
        Ok(name.to_string_lossy().trim_end_matches('\0').to_owned())
    }

    fn info(&self) -> io::Result<Info> {
        let mut bytes = [0u8; 256];
        let mut len = libc::socklen_t::try_from(bytes.len()).unwrap_or(0);
        // SAFETY: the kernel writes at most `len` bytes, which `bytes` has, and says how many.
        let result = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                bytes.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let len = usize::try_from(len).unwrap_or(0);
        Ok(Info::parse(bytes.get(..len).unwrap_or_default()))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn abandon(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }

    fn again(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Stream for libsocket::TcpStream {
    fn congestion(&self) -> io::Result<String> {
        match self.socket().option(SockOptName::Congestion)? {
            SockOpt::Congestion(name) => Ok(name),
            other => Err(io::Error::other(format!("{other:?} for an answer"))),
        }
    }

    fn info(&self) -> io::Result<Info> {
        Ok(Info::parse(&self.tcp_info()?))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn abandon(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }

    fn again(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

/// Waits until there is something to accept.
fn wait(listener: &impl AsFd, patience: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

impl Accept for TcpListener {
    fn take(&self, patience: Duration) -> io::Result<Box<dyn Stream>> {
        wait(self, patience)?;
        Ok(Box::new(self.accept()?.0))
    }
}

impl Accept for libsocket::TcpListener {
    fn take(&self, patience: Duration) -> io::Result<Box<dyn Stream>> {
        wait(self, patience)?;
        Ok(Box::new(self.accept()?.0))
    }
}
