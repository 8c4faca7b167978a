//! One epoll set for everything a session layer watches, itself watched by the daemon's.

use crate::error::SessionError;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsFd, BorrowedFd};

/// What a descriptor in the set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    Listener,
    Request {
        index: usize,
        generation: u32,
    },
    Shadow {
        index: usize,
        slot: u32,
        incarnation: u32,
    },
}

impl Watched {
    /// `kind << 60 | index << 48 | slot << 32 | generation or incarnation`.
    fn to_word(self) -> u64 {
        match self {
            Self::Listener => 1 << 60,
            Self::Request { index, generation } => {
                2 << 60 | (index as u64 & 0xfff) << 48 | u64::from(generation)
            }
            Self::Shadow {
                index,
                slot,
                incarnation,
            } => {
                3 << 60
                    | (index as u64 & 0xfff) << 48
                    | (u64::from(slot) & 0xffff) << 32
                    | u64::from(incarnation)
            }
        }
    }

    fn from_word(word: u64) -> Option<Self> {
        let index = usize::try_from(word >> 48 & 0xfff).ok()?;
        let low = u32::try_from(word & 0xffff_ffff).ok()?;
        Some(match word >> 60 {
            1 => Self::Listener,
            2 => Self::Request {
                index,
                generation: low,
            },
            3 => Self::Shadow {
                index,
                slot: u32::try_from(word >> 32 & 0xffff).ok()?,
                incarnation: low,
            },
            _ => return None,
        })
    }
}

/// Events taken at a time.
const BATCH: usize = 64;

/// The set.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: Epoll,
}

impl Watch {
    pub(crate) fn new() -> Result<Self, SessionError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(SessionError::system("epoll_create1"))?;
        Ok(Self { epoll })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    pub(crate) fn add(&self, fd: BorrowedFd<'_>, what: Watched) -> Result<(), SessionError> {
        let events = match what {
            Watched::Listener | Watched::Request { .. } => {
                EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP
            }
            // Edge-triggered and without EPOLLIN: stuffing and tokens do not wake us.
            Watched::Shadow { .. } => EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET,
        };
        self.epoll
            .add(fd, EpollEvent::new(events, what.to_word()))
            .map_err(SessionError::system("epoll_ctl"))
    }

    /// Also wants to know when a shadow's queue has room again (accept messages wait), or not.
    pub(crate) fn want_room(&self, fd: BorrowedFd<'_>, what: Watched, wanted: bool) {
        let mut events = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        if wanted {
            events |= EpollFlags::EPOLLOUT;
        }
        let _ = self
            .epoll
            .modify(fd, &mut EpollEvent::new(events, what.to_word()));
    }

    /// Must precede closing: the supervisor's copy keeps the file, and so the entry, alive.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = self.epoll.delete(fd);
    }

    /// Takes pending events without waiting; true when there may be more.
    pub(crate) fn take(&self, into: &mut Vec<(Watched, EpollFlags)>) -> bool {
        let mut events = [EpollEvent::empty(); BATCH];
        let n = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        into.extend(
            events
                .iter()
                .take(n)
                .filter_map(|e| Some((Watched::from_word(e.data())?, e.events()))),
        );
        n == BATCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_carry_what_is_watched() {
        for w in [
            Watched::Listener,
            Watched::Request {
                index: 1023,
                generation: 0x3fff,
            },
            Watched::Shadow {
                index: 1023,
                slot: 4095,
                incarnation: u32::MAX,
            },
        ] {
            assert_eq!(Watched::from_word(w.to_word()), Some(w));
        }
        assert_eq!(Watched::from_word(0), None);
    }
}
