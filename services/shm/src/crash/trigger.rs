//! A test's side.

use super::Point;
use super::armed::{
    ACTION, ARMED, Action, DEATHS, LEFT, POISON, POISONED, SERVICE, SITE, SIZE, TOGETHER, WHERE,
    bit, count, load, word,
};
use super::sites::{self, Site};
use crate::sync::Ordering;
use crate::{Mapping, ShmError, mapping};
use abi::ServiceId;
use std::os::fd::OwnedFd;

/// A test's side.
#[derive(Debug)]
pub struct Trigger {
    memory: Mapping,
    fd: OwnedFd,
}

impl Trigger {
    /// A trigger that is not armed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self, ShmError> {
        let fd = mapping::create("strata-crash-points", SIZE)?;
        Ok(Self {
            memory: Mapping::map(&fd, SIZE, true)?,
            fd,
        })
    }

    /// What [`VARIABLE`] is to be set to; good while this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Has `service` die when it reaches `point` for the `nth` time (from 1) from now on.
    pub fn arm(&self, service: ServiceId, point: Point, nth: u32) {
        self.arm_for(service, point, nth, Action::Kill);
    }

    /// As [`Trigger::arm`], for another end.
    pub fn arm_for(&self, service: ServiceId, point: Point, nth: u32, action: Action) {
        self.arm_any(service, (point, 0), nth, action);
    }

    /// As [`Trigger::arm`], at one site of the point only.
    pub fn arm_at(&self, service: ServiceId, site: &Site, nth: u32) {
        self.arm_any(service, (site.point, site.number + 1), nth, Action::Kill);
    }

    fn arm_any(&self, service: ServiceId, (point, site): (Point, u32), nth: u32, action: Action) {
        let words = [
            (ARMED, 0),
            (ACTION, action as u32),
            (SERVICE, u32::from(service.0)),
            (LEFT, nth.max(1)),
            (SITE, site),
            (ARMED, point as u32 + 1),
        ];
        for (index, value) in words {
            if let Some(word) = word(&self.memory, index) {
                word.store(value, Ordering::Release);
            }
        }
    }

    /// Has all of `services` (numbers below 32) end when each of them reaches `point` next.
    pub fn arm_together(&self, services: &[ServiceId], point: Point, action: Action) {
        let bits = services
            .iter()
            .fold(0, |bits, &service| bits | bit(service));
        for (index, value) in [
            (TOGETHER, 0),
            (ACTION, action as u32),
            (WHERE, point as u32 + 1),
            (TOGETHER, bits),
        ] {
            if let Some(word) = word(&self.memory, index) {
                word.store(value, Ordering::Release);
            }
        }
    }

    /// Has `service` end whenever it looks into bytes that have `poison` in them.
    pub fn poison(&self, service: ServiceId, poison: [u8; 16], action: Action) {
        let _ = self.memory.copy_in(POISON * 4, &poison);
        for (index, value) in [
            (ACTION, action as u32),
            (POISONED, u32::from(service.0) + 1),
        ] {
            if let Some(word) = word(&self.memory, index) {
                word.store(value, Ordering::Release);
            }
        }
    }

    /// Nobody is to die any more.
    pub fn disarm(&self) {
        if let Some(word) = word(&self.memory, ARMED) {
            word.store(0, Ordering::Release);
        }
    }

    /// Deaths so far.
    #[must_use]
    pub fn deaths(&self) -> u32 {
        load(&self.memory, DEATHS)
    }

    /// How often `service` has reached `point`.
    #[must_use]
    pub fn reached(&self, service: ServiceId, point: Point) -> u32 {
        load(&self.memory, count(service, point))
    }

    /// Where `service` has passed points so far, and how often.
    #[must_use]
    pub fn sites(&self, service: ServiceId) -> Vec<(Site, u32)> {
        sites::all(&self.memory, service)
    }
}
