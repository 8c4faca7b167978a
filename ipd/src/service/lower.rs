//! Sending to a device whose driver may be behind.
//!
//! On one core the driver gets its turn only when we stop, so a full ring is no sign of a slow
//! device: frames wait here for a moment, and transports are not listened to meanwhile, instead
//! of losing super-frames that TCP would take for congestion. A driver that makes no room for
//! [`PATIENCE`] is down or stuck; from then on its frames are dropped when the backlog is full,
//! and nobody else waits for it.

use abi::{DevIndex, Nanos};
use runtime::LinkEnd;
use shm::SkBuff;
use shm::link::DeviceWords;
use std::collections::VecDeque;

/// Frames held back at the most.
const BACKLOG: usize = 512;
/// How long transports wait for a device.
const PATIENCE: Nanos = 10_000_000;
/// How soon the driver's ring is looked at again.
const RETRY: Nanos = 100_000;

/// A device's link, seen from the sender.
#[derive(Debug)]
pub(super) struct Lower {
    pub(super) device: DevIndex,
    /// What the driver last said.
    pub(super) words: DeviceWords,
    backlog: VecDeque<SkBuff>,
    blocked_since: Nanos,
}

impl Lower {
    pub(super) fn new(device: DevIndex) -> Self {
        Self {
            device,
            words: DeviceWords::default(),
            backlog: VecDeque::new(),
            blocked_since: 0,
        }
    }

    /// Sends, or keeps, a frame; false when it was dropped.
    pub(super) fn transmit(&mut self, link: &mut LinkEnd, skb: SkBuff, now: Nanos) -> bool {
        let skb = if self.backlog.is_empty() {
            match link.send(skb) {
                Ok(()) => return true,
                Err(skb) => skb,
            }
        } else {
            skb
        };
        if self.backlog.len() >= BACKLOG {
            return false;
        }
        if self.backlog.is_empty() {
            self.blocked_since = now;
        }
        self.backlog.push_back(skb);
        true
    }

    /// Sends what was held back, as far as there is room.
    pub(super) fn retry(&mut self, link: &mut LinkEnd, now: Nanos) {
        while let Some(skb) = self.backlog.pop_front() {
            match link.send(skb) {
                // Room was made: the driver lives.
                Ok(()) => self.blocked_since = now,
                Err(skb) => return self.backlog.push_front(skb),
            }
        }
    }

    /// Whether transports are to wait.
    pub(super) fn pauses(&self, now: Nanos) -> bool {
        !self.backlog.is_empty() && now.saturating_sub(self.blocked_since) < PATIENCE
    }

    /// When to try again.
    pub(super) fn retry_at(&self, now: Nanos) -> Option<Nanos> {
        (!self.backlog.is_empty()).then_some(now + RETRY)
    }
}
