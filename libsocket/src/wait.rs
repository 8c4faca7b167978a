//! Sleeping on a shadow fd, with a deadline.

use crate::error::{os, system};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// When waiting ends; the clock is read only by who really waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deadline {
    /// Never.
    Never,
    /// So long after the first wait.
    After(Duration),
    /// Then.
    At(Instant),
}

impl Deadline {
    /// From a timeout in nanoseconds, 0 for none.
    pub(crate) fn from_nanos(nanos: u64) -> Self {
        if nanos == 0 {
            Self::Never
        } else {
            Self::After(Duration::from_nanos(nanos))
        }
    }

    /// Time left, starting the clock at the first call; `None` is for ever.
    fn left(&mut self) -> Option<Duration> {
        match *self {
            Self::Never => None,
            Self::After(time) => {
                // A time past the clock's end is for ever.
                *self = Instant::now()
                    .checked_add(time)
                    .map_or(Self::Never, Self::At);
                Some(time)
            }
            Self::At(when) => Some(when.saturating_duration_since(Instant::now())),
        }
    }
}

/// Waits until `fd` shows one of `events` (errors and hang-ups always count).
///
/// # Errors
/// `EAGAIN` when the deadline passed, `EINTR` when a signal came.
pub(crate) fn wait(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: &mut Deadline,
) -> io::Result<PollFlags> {
    loop {
        let (timeout, last) = match deadline.left() {
            None => (PollTimeout::NONE, false),
            Some(left) => {
                // Rounded up, so that a timeout never ends early; the longest sleep of one call
                // is cut, and the loop goes on.
                let millis = left.as_nanos().div_ceil(1_000_000).min(1_000_000_000);
                let millis = u32::try_from(millis).unwrap_or(0);
                (
                    PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO),
                    left.is_zero(),
                )
            }
        };
        let mut fds = [PollFd::new(fd, events)];
        if poll(&mut fds, timeout).map_err(system)? > 0 {
            let [shown] = fds;
            return Ok(shown.revents().unwrap_or(PollFlags::POLLERR));
        }
        if last {
            return Err(os(libc::EAGAIN));
        }
    }
}
