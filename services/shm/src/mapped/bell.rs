//! Doorbells: masked interrupts between processes.
//!
//! Each consumer has one: an eventfd, and a word in a small memfd that its producers map. Awake,
//! the consumer is masked and polls. Before it sleeps it arms, looks at its inputs once more, and
//! only then waits. The algorithm, and why no wake-up is lost, is in [`crate::doorbell`].
//!
//! A consumer's turn is: wait; [`Bell::mask`]; [`Bell::drain`]; look at all inputs until they are
//! empty; [`Bell::arm`]; look once more, and wait only if they are still empty. Draining between
//! arming and waiting would throw a wake-up away. (Waiting edge-triggered does without draining:
//! each ring is an edge.)

use crate::doorbell::{self, Armings};
use crate::error::ShmError;
use crate::mapped::mapping::{self, Mapping};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIZE: usize = 4096;

/// Makes the memory and the eventfd of a bell.
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str) -> Result<(OwnedFd, OwnedFd), ShmError> {
    let memory = mapping::create(name, SIZE)?;
    let event =
        EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(|e| {
            ShmError::System {
                what: "eventfd",
                source: e.into(),
            }
        })?;
    Ok((memory, event.into()))
}

/// A bell, seen from either side.
#[derive(Debug)]
pub struct Bell {
    map: Mapping,
    event: OwnedFd,
    armings: Armings,
}

impl Bell {
    /// Attaches to a bell.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn attach(memory: &impl AsFd, event: OwnedFd) -> Result<Self, ShmError> {
        let map = Mapping::map(memory, SIZE, true)?;
        let word = map.u32_at(0).ok_or(ShmError::BadLayout("word of a bell"))?;
        let armings = Armings::attach(word);
        Ok(Self {
            map,
            event,
            armings,
        })
    }

    /// The eventfd, for epoll and for handing to applications.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Producer: wakes the consumer if it is armed; answers whether it was. Call once a batch,
    /// after publishing.
    pub fn ring(&self) -> bool {
        self.map
            .u32_at(0)
            .is_some_and(|word| doorbell::ring(word, || self.force()))
    }

    /// Wakes the consumer whether it is armed or not (after a restart, and for heartbeats).
    pub fn force(&self) {
        // Full (EAGAIN) means that a wake-up is pending already.
        let _ = nix::unistd::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Consumer: arms. Look at all inputs after it, and wait only if they are empty.
    pub fn arm(&mut self) {
        if let Some(word) = self.map.u32_at(0) {
            self.armings.arm(word);
        }
    }

    /// Consumer: masks again, when it found work after arming or woke up.
    pub fn mask(&self) {
        if let Some(word) = self.map.u32_at(0) {
            self.armings.mask(word);
        }
    }

    /// Consumer: takes the pending wake-ups off the eventfd; while masked only.
    pub fn drain(&self) {
        let mut count = [0; 8];
        let _ = nix::unistd::read(&self.event, &mut count);
    }
}
