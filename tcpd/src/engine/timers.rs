//! Timers: deadlines are in the records, and a heap finds the next one.
//!
//! A record holds one absolute deadline for each [`Timer`], 0 when it is off; that is all that
//! has to survive. The heap is derived from them and lazy: each connection has at most one entry
//! that counts, at or before its earliest deadline. Moving a deadline later (what every
//! acknowledgement does) touches nothing; the entry then fires early, finds nothing due and is
//! put back. Moving one earlier adds an entry and makes the old one stale.

use super::ConnId;
use abi::Nanos;
use core::cmp::Reverse;
use std::collections::BinaryHeap;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Timer {
    /// Retransmission of SYN, data or FIN (RFC 6298).
    Retransmit = 0,
    /// Zero-window probe, or the override of the sender's silly-window avoidance.
    Persist = 1,
    /// An acknowledgement is held back.
    DelayedAck = 2,
    /// Keepalive.
    Keepalive = 3,
    /// TIME_WAIT, or FIN_WAIT_2 of an orphan: the connection is over then. Nothing to do with
    /// `SO_LINGER`.
    Expiry = 4,
    /// Tail loss probe (RFC 8985 7).
    TailProbe = 5,
    /// The next segment may leave (pacing).
    Pace = 6,
    /// Something is late and soon counts as lost (RFC 8985 6.3).
    Reorder = 7,
}

/// Number of timers in a record.
pub const TIMERS: usize = 8;

/// All of them, in the order in which they are served when several are due.
pub(crate) const ALL: [Timer; 8] = [
    Timer::Expiry,
    Timer::DelayedAck,
    Timer::Reorder,
    Timer::TailProbe,
    Timer::Retransmit,
    Timer::Persist,
    Timer::Keepalive,
    Timer::Pace,
];

/// A record's deadlines. 64 bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Deadlines {
    at: [Nanos; TIMERS],
}

impl Deadlines {
    /// When `timer` is due, if it is on.
    #[must_use]
    pub fn get(&self, timer: Timer) -> Option<Nanos> {
        self.at.get(timer as usize).copied().filter(|&at| at != 0)
    }

    /// Whether `timer` is on.
    #[must_use]
    pub fn is_armed(&self, timer: Timer) -> bool {
        self.get(timer).is_some()
    }

    /// Turns `timer` on.
    pub fn arm(&mut self, timer: Timer, at: Nanos) {
        if let Some(slot) = self.at.get_mut(timer as usize) {
            *slot = at.max(1);
        }
    }

    /// Turns `timer` off.
    pub fn stop(&mut self, timer: Timer) {
        if let Some(slot) = self.at.get_mut(timer as usize) {
            *slot = 0;
        }
    }

    /// Turns everything off.
    pub fn stop_all(&mut self) {
        self.at = [0; TIMERS];
    }

    /// Whether `timer` is on and due.
    #[must_use]
    pub fn is_due(&self, timer: Timer, now: Nanos) -> bool {
        self.get(timer).is_some_and(|at| at <= now)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn earliest(&self) -> Option<Nanos> {
        self.at.iter().copied().filter(|&at| at != 0).min()
    }
}

/// The heap over all connections.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    entries: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl Heap {
    /// Entries, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// An entry for `id` at `at`; the caller remembers `at` as the one that counts.
    pub(crate) fn push(&mut self, id: ConnId, at: Nanos) {
        self.entries.push(Reverse((at, id.0)));
    }

    /// The earliest entry, stale ones included.
    pub(crate) fn peek(&self) -> Option<(Nanos, ConnId)> {
        self.entries
            .peek()
            .map(|&Reverse((at, id))| (at, ConnId(id)))
    }

    /// Whether so much is stale that it is worth starting anew: `live` entries count. A deadline
    /// that moves to and fro (keepalive behind retransmission) leaves one behind each time.
    pub(crate) fn is_wasteful(&self, live: usize) -> bool {
        self.entries.len() > 4 * live + 48
    }

    /// Starts anew with those that count.
    pub(crate) fn rebuild(&mut self, live: impl Iterator<Item = (ConnId, Nanos)>) {
        self.entries.clear();
        self.entries
            .extend(live.map(|(id, at)| Reverse((at, id.0))));
    }

    /// Takes the earliest entry off.
    pub(crate) fn pop(&mut self) {
        self.entries.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_off() {
        let mut d = Deadlines::default();
        assert_eq!(d.earliest(), None);
        d.arm(Timer::Persist, 50);
        d.arm(Timer::Retransmit, 40);
        assert_eq!(d.earliest(), Some(40));
        assert!(d.is_due(Timer::Retransmit, 40) && !d.is_due(Timer::Persist, 49));
        d.stop(Timer::Retransmit);
        assert_eq!(d.earliest(), Some(50));
        d.arm(Timer::Expiry, 0);
        assert!(d.is_due(Timer::Expiry, 1));
    }
}
