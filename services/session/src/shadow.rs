//! The transport's end of a shadow fd: readiness as the kernel shows it.
//!
//! | the application's `epoll` shows | because the transport |
//! |---|---|
//! | `IN` | wrote a token byte |
//! | no `OUT` | has not drained what the application stuffed |
//! | `IN, RDHUP` | shut down its sending side (the peer's FIN) |
//! | `IN, OUT, RDHUP, HUP` | shut down both sides |
//! | `IN, OUT, RDHUP, HUP, ERR` | closed its end with the poison unread (reset) |
//! | `IN, PRI` | wrote an out-of-band byte |
//!
//! Exact sizes are in [`abi::session::shadow`]; the unit tests hold the running kernel to them.

use abi::session::shadow::{POISON, SNDBUF, TOKEN, URGENT};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, setsockopt, shutdown,
    socketpair, sockopt,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Largest read while draining; an honest application never has more than this outstanding.
const CHUNK: usize = 4096;
/// Reads while draining: bounds what a hostile application can cost us at a time.
const ROUNDS: usize = 64;

/// Makes a pair: the transport's end, primed with the poison, and the application's.
///
/// # Errors
/// When the kernel has no descriptors left.
pub fn pair() -> Result<(Shadow, OwnedFd), Errno> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    setsockopt(&theirs, sockopt::SndBuf, &(SNDBUF / 2))?;
    send(theirs.as_raw_fd(), &[POISON], MsgFlags::MSG_NOSIGNAL)?;
    Ok((Shadow { fd: ours }, theirs))
}

/// The transport's end.
#[derive(Debug)]
pub struct Shadow {
    fd: OwnedFd,
}

impl From<OwnedFd> for Shadow {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for Shadow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Shadow {
    fn write(&self, byte: u8, flags: MsgFlags) -> Result<(), Errno> {
        let flags = flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.fd.as_raw_fd(), &[byte], flags) {
            // Full means that plenty of tokens are unread.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Writes a readiness token. Not for listeners: their queue carries messages.
    ///
    /// # Errors
    /// `EPIPE` when the application is gone, or after [`Shadow::shut_wr`] (which makes it
    /// readable for good).
    pub fn token(&self) -> Result<(), Errno> {
        self.write(TOKEN, MsgFlags::empty())
    }

    /// Shows urgent data.
    ///
    /// # Errors
    /// As [`Shadow::token`].
    pub fn urgent(&self) -> Result<(), Errno> {
        self.write(URGENT, MsgFlags::MSG_OOB)
    }

    /// The peer's FIN: no token can follow, and none is needed.
    pub fn shut_wr(&self) {
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }

    /// Both directions are over: `HUP` shows at once, `ERR` when the last copy of this end is
    /// closed with the poison unread.
    pub fn shut_both(&self) {
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
    }

    /// Takes out what the application stuffed, leaving a last poison byte; answers whether
    /// there was something.
    pub fn drain(&self) -> bool {
        let fd = self.fd.as_raw_fd();
        let mut buffer = [0u8; CHUNK];
        let mut any = false;
        for _ in 0..ROUNDS {
            let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            let Ok(n) = recv(fd, &mut buffer, peek) else {
                return any;
            };
            let Some((last, rest)) = buffer.get(..n).and_then(|b| b.split_last()) else {
                return any;
            };
            let take = if *last == POISON { rest.len() } else { n };
            if take == 0 {
                return any;
            }
            let Some(place) = buffer.get_mut(..take) else {
                return any;
            };
            if recv(fd, place, MsgFlags::MSG_DONTWAIT).is_err() {
                return any;
            }
            any = true;
            if n < CHUNK {
                return any;
            }
        }
        any
    }

    /// Whether the last copy of the application's end is closed.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => fds
                .first()
                .and_then(PollFd::revents)
                .is_some_and(|e| e.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)),
            Err(_) => false,
        }
    }
}
