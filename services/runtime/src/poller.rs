//! Epoll with tokens, and waiting to the nanosecond.

use abi::Nanos;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Tokens from here on are the runtime's own.
pub(crate) const RESERVED: u64 = u64::MAX - 15;
pub(crate) const BELL: u64 = RESERVED;
pub(crate) const CONTROL: u64 = RESERVED + 1;
pub(crate) const CHANNEL: u64 = RESERVED + 2;
pub(crate) const SIGNAL: u64 = RESERVED + 3;

/// Events taken in one look.
const BATCH: usize = 64;

/// Waits of less than this are timed by `ppoll`, longer ones by `epoll_wait` in milliseconds.
const FINE: Nanos = 100_000_000;

/// The set of descriptors a daemon waits for.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        })
    }

    /// Adds a descriptor; its events reach `Service::on_fd` with `token` (anything below the
    /// sixteen highest numbers).
    ///
    /// # Errors
    /// When it is in the set already or cannot be waited for.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token))?)
    }

    /// Changes what is waited for.
    ///
    /// # Errors
    /// When the descriptor is not in the set.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, token))?)
    }

    /// Takes a descriptor out. Closing its last copy does so too.
    ///
    /// # Errors
    /// When it is not in the set.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits for events until `timeout` nanoseconds have passed (none: for ever; 0: only looks)
    /// and hands them to `each`. A signal ends the wait early.
    pub(crate) fn wait(&self, timeout: Option<Nanos>, mut each: impl FnMut(u64, EpollFlags)) {
        let timeout = match timeout {
            Some(0) => EpollTimeout::ZERO,
            Some(t) if t < FINE => {
                // A deadline in milliseconds would be late by half a millisecond on average.
                let mut fds = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
                let nanos = i64::try_from(t).unwrap_or(i64::MAX);
                let _ = ppoll(&mut fds, Some(TimeSpec::new(0, nanos)), None);
                EpollTimeout::ZERO
            }
            Some(t) => {
                let ms = u16::try_from(t / 1_000_000).unwrap_or(u16::MAX);
                EpollTimeout::from(ms)
            }
            None => EpollTimeout::NONE,
        };
        let mut events = [EpollEvent::empty(); BATCH];
        match self.epoll.wait(&mut events, timeout) {
            Ok(n) => {
                for event in events.iter().take(n) {
                    each(event.data(), event.events());
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => tracing::error!(%error, "epoll_wait"),
        }
    }
}
