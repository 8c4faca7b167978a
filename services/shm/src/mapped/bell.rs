//! Doorbells: masked interrupts between processes.
//!
//! Each consumer has one: an eventfd, and an `armed` word in a small memfd that its producers
//! map. Awake, the consumer is masked (0) and polls. Before it sleeps it arms (a number that was
//! not used before), fences, looks at its inputs once more, and only then waits.
//!
//! ```text
//!   consumer                         producer
//!   armed = n                        publish (ring tail)
//!   fence SeqCst   <-------------->  fence SeqCst
//!   look at the rings again          n = armed; if n != 0 { write eventfd; armed: n -> 0 }
//!   wait
//! ```
//!
//! One of the two fences comes first: either the consumer's look sees the publication, or the
//! producer sees it armed. The producer writes the eventfd before it masks, so that dying between
//! the two costs a wake-up too many and never one too few; and it masks by compare-and-swap on
//! the number, so that a slow producer cannot mask a later arming.

use crate::error::ShmError;
use crate::mapped::mapping::{self, Mapping};
use crate::sync::{Ordering, fence};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIZE: usize = 4096;

/// Makes the memory and the eventfd of a bell.
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str) -> Result<(OwnedFd, OwnedFd), ShmError> {
    let memory = mapping::create(name, SIZE)?;
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
        .map_err(|e| ShmError::System { what: "eventfd", source: e.into() })?;
    Ok((memory, event.into()))
}

/// A bell, seen from either side.
#[derive(Debug)]
pub struct Bell {
    map: Mapping,
    event: OwnedFd,
    last: u32,
}

impl Bell {
    /// Attaches to a bell.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn attach(memory: &impl AsFd, event: OwnedFd) -> Result<Self, ShmError> {
        let map = Mapping::map(memory, SIZE, true)?;
        Ok(Self { map, event, last: 0 })
    }

    /// The eventfd, for epoll and for handing to applications.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Producer: wakes the consumer if it is armed; answers whether it was. Call once a batch,
    /// after publishing.
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let Some(word) = self.map.u32_at(0) else { return false };
        let armed = word.load(Ordering::Relaxed);
        if armed == 0 {
            return false;
        }
        self.force();
        let _ = word.compare_exchange(armed, 0, Ordering::Relaxed, Ordering::Relaxed);
        true
    }

    /// Wakes the consumer whether it is armed or not (after a restart, and for heartbeats).
    pub fn force(&self) {
        // Full (EAGAIN) means that a wake-up is pending already.
        let _ = nix::unistd::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Consumer: arms. Look at all inputs after it, and wait only if they are empty.
    pub fn arm(&mut self) {
        self.last = match self.last.wrapping_add(1) {
            0 => 1,
            n => n,
        };
        if let Some(word) = self.map.u32_at(0) {
            word.store(self.last, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// Consumer: masks again, when it found work after arming or woke up.
    pub fn mask(&self) {
        if let Some(word) = self.map.u32_at(0) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Consumer: takes the pending wake-ups off the eventfd.
    pub fn drain(&self) {
        let mut count = [0; 8];
        let _ = nix::unistd::read(&self.event, &mut count);
    }
}
