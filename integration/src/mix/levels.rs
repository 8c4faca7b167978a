//! What `poll` says of descriptors whose state does not change while the mix runs: after a fault
//! it must be what it was (ARCHITECTURE.md, invariant 9).

use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Descriptors and what is to be true of them.
#[derive(Debug, Default)]
pub(super) struct Levels {
    all: Mutex<Vec<Level>>,
}

#[derive(Debug)]
struct Level {
    /// Whose it is, as the part that carries it is named; and what it is.
    connection: String,
    what: &'static str,
    fd: OwnedFd,
    readable: bool,
    writable: bool,
}

impl Levels {
    /// `fd`, which is `what` and that connection's, is to be readable and writable as said, until
    /// [`Levels::clear`].
    pub(super) fn expect(
        &self,
        connection: impl Into<String>,
        what: &'static str,
        fd: &impl AsFd,
        (readable, writable): (bool, bool),
    ) -> Result<()> {
        let level = Level {
            connection: connection.into(),
            what,
            fd: fd.as_fd().try_clone_to_owned()?,
            readable,
            writable,
        };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(level);
        Ok(())
    }

    /// Lets go of the connection's descriptors, whose state is about to change; waits for a
    /// [`Levels::check`] that is under way.
    pub(super) fn forget(&self, connection: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|level| level.connection != connection);
    }

    /// Lets go of the descriptors: their states are about to change.
    pub(super) fn clear(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }

    /// Waits until all are as they are to be. (Right after a fault one may be ready for a moment
    /// without need.)
    ///
    /// # Errors
    /// The first that is not, after `patience`.
    pub(super) fn check(&self, patience: Duration) -> Result<()> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Instant::now();
        for level in all.iter() {
            while let Some(wrong) = level.wrong()? {
                if begin.elapsed() > patience {
                    bail!("{} ({}) is {wrong}", level.what, level.connection);
                }
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Whose descriptors are not as they are to be just now.
    pub(super) fn wrong(&self) -> Vec<String> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = all
            .iter()
            .filter(|level| !matches!(level.wrong(), Ok(None)));
        wrong.map(|level| level.connection.clone()).collect()
    }
}

impl Level {
    fn wrong(&self) -> Result<Option<&'static str>> {
        let asked = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut fds = [PollFd::new(self.fd.as_fd(), asked)];
        poll(&mut fds, PollTimeout::ZERO)?;
        let [fd] = &fds;
        let now = fd.revents().unwrap_or(PollFlags::empty());
        if now.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
            return Ok(Some("in error or hung up"));
        }
        let (readable, writable) = (
            now.contains(PollFlags::POLLIN),
            now.contains(PollFlags::POLLOUT),
        );
        Ok(match (self.readable, readable, self.writable, writable) {
            (false, true, _, _) => Some("readable wrongly"),
            (true, false, _, _) => Some("not readable, wrongly"),
            (_, _, false, true) => Some("writable wrongly"),
            (_, _, true, false) => Some("not writable, wrongly"),
            _ => None,
        })
    }
}
