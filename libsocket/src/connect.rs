//! Connecting.
//!
//! While a stream is connecting its descriptor is not writable: the library stuffs it before it
//! asks, and the transport drains it when the attempt ended either way, after setting the state
//! word and, on failure, the error. So `poll` for writing tells the end, as with the kernel.

use crate::error::os;
use crate::socket::Socket;
use crate::stack::want_family;
use crate::wait::{Deadline, wait};
use abi::session::{Op, SocketKind, SocketState};
use nix::poll::PollFlags;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

impl Socket {
    /// Connects a stream, and waits for it unless the socket is nonblocking; or sets the default
    /// peer of a datagram socket.
    ///
    /// # Errors
    /// As `connect(2)`; `EINPROGRESS` when nonblocking: then the descriptor turns writable, and
    /// [`Socket::take_error`] tells how it went. Signals do not interrupt it.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        if self.shared.kind != SocketKind::Stream {
            want_family(self.shared.v6, address.ip())?;
            return self
                .shared
                .order(Op::Connect(self.shared.id, Some(address)));
        }
        self.begin_connect(address)?;
        if self.shared.state() == SocketState::Connecting && self.shadow.is_nonblocking()? {
            return Err(os(libc::EINPROGRESS));
        }
        self.finish_connect(self.shared.write_deadline())
            .map_err(|e| {
                if is_timeout(&e) {
                    os(libc::EINPROGRESS)
                } else {
                    e
                }
            })
    }

    /// As [`Socket::connect`], but waits no longer than `time`, and as long as that even if the
    /// socket is nonblocking.
    ///
    /// # Errors
    /// As `connect(2)`; `TimedOut` when it took longer; `InvalidInput` for a time of zero.
    pub fn connect_timeout(&self, address: SocketAddr, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Err(os(libc::EINVAL));
        }
        self.begin_connect(address)?;
        self.finish_connect(Deadline::After(time)).map_err(|e| {
            if is_timeout(&e) {
                os(libc::ETIMEDOUT)
            } else {
                e
            }
        })
    }

    /// Connects a stream with the first bytes of what it will send (`sendto(2)` with
    /// `MSG_FASTOPEN`), and answers how many of `data` were taken. They travel in the SYN if the
    /// peer gave a Fast Open cookie before (RFC 7413), and behind the handshake else; either way
    /// they are sent. What arrives twice in the network may be delivered twice: use it for
    /// requests that can be repeated. Waits for the handshake unless the socket is nonblocking.
    ///
    /// # Errors
    /// As `connect(2)`; `EOPNOTSUPP` when Fast Open is switched off or it is not a stream.
    pub fn connect_with_data(&self, address: SocketAddr, data: &[u8]) -> io::Result<usize> {
        if self.shared.kind != SocketKind::Stream {
            return Err(os(libc::EOPNOTSUPP));
        }
        let shared = &*self.shared;
        want_family(shared.v6, address.ip())?;
        if shared.state() != SocketState::Idle {
            return Err(os(libc::EISCONN));
        }
        let written = {
            let _tx = shared.lock_tx();
            shared.stuff(self);
            shared.preload(data)?
        };
        let begun = shared.order(Op::ConnectWithData(shared.id, address));
        if let Err(error) = begun {
            shared.unload();
            shared.session.ring(shared.id.slot);
            return Err(error);
        }
        if !self.shadow.is_nonblocking()? {
            self.finish_connect(shared.write_deadline())?;
        }
        Ok(written)
    }

    /// Takes a datagram socket's default peer away.
    ///
    /// # Errors
    /// When the transport refuses.
    pub fn disconnect(&self) -> io::Result<()> {
        self.shared.order(Op::Connect(self.shared.id, None))
    }

    fn begin_connect(&self, address: SocketAddr) -> io::Result<()> {
        let shared = &*self.shared;
        want_family(shared.v6, address.ip())?;
        {
            let _tx = shared.lock_tx();
            shared.stuff(self);
        }
        let begun = shared.order(Op::Connect(shared.id, Some(address)));
        if begun.is_err() {
            // Nothing will happen that would make the transport drain it.
            shared.session.ring(shared.id.slot);
        }
        begun
    }

    fn finish_connect(&self, mut deadline: Deadline) -> io::Result<()> {
        let shared = &*self.shared;
        loop {
            if shared.is_stale() {
                return Err(os(libc::ECONNRESET));
            }
            match shared.state() {
                SocketState::Connected => return Ok(()),
                SocketState::Connecting => {}
                _ => return Err(os(shared.take_error().unwrap_or(libc::ECONNABORTED))),
            }
            match wait(self.as_fd(), PollFlags::POLLOUT, &mut deadline) {
                // A blocking connect goes on whatever signals come, as std's does.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
                Ok(shown) if shown.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) => {
                    if shared.state() == SocketState::Connecting {
                        return Err(os(shared.take_error().unwrap_or(libc::ECONNRESET)));
                    }
                }
                Ok(_) => {}
            }
            if shared.state() == SocketState::Connecting {
                // Writable too early: once more, and as in any stuffing look again afterwards.
                let _tx = shared.lock_tx();
                shared.stuff(self);
                if shared.state() != SocketState::Connecting {
                    shared.session.ring(shared.id.slot);
                }
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAGAIN)
}
