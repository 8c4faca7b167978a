//! One neighbour: who it is, how sure we are of its address, and what waits for it.

use abi::{DevIndex, Nanos};
use core::net::IpAddr;
use shm::SkBuff;
use std::collections::VecDeque;
use wire::MacAddr;

const SECOND: Nanos = 1_000_000_000;

/// Mean time that a confirmation is good for (RFC 4861 10, REACHABLE_TIME).
pub(crate) const REACHABLE_TIME: Nanos = 30 * SECOND;
/// After first use of a stale neighbour, before it is asked (DELAY_FIRST_PROBE_TIME).
pub(crate) const DELAY_TIME: Nanos = 5 * SECOND;
/// Between requests (RETRANS_TIMER; RFC 1122 2.3.2.1 wants at most one a second).
pub(crate) const RETRANS_TIME: Nanos = SECOND;
/// Requests that may stay unanswered.
pub(crate) const MAX_PROBES: u8 = 3;
/// How long a neighbour that did not answer is not asked again.
pub(crate) const NEGATIVE_TIME: Nanos = 3 * SECOND;
/// An address that was just learned is not replaced by another one for so long (Linux: locktime).
pub(crate) const LOCK_TIME: Nanos = SECOND;
/// Packets that wait for one neighbour.
pub(crate) const QUEUE_PACKETS: usize = 64;
/// Bytes that wait for one neighbour: sixteen super-frames.
pub(crate) const QUEUE_BYTES: usize = 16 * 65_536;

/// Whose address it is: the same IP address can live behind two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) device: DevIndex,
    pub(crate) ip: IpAddr,
}

/// Neighbour Unreachability Detection's states (RFC 4861 7.3.2), used for ARP as Linux does.
///
/// ```text
///              reply             30 s, then used        5 s          3 requests
/// INCOMPLETE --------> REACHABLE ---> STALE ---> DELAY ----> PROBE -------------> FAILED
///     |                    ^                                   |                     |
///     | 3 requests         +----------------- reply -----------+                     |
///     +------------------------------------------------------------------------------+
///                                        used again: INCOMPLETE
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Asked, not answered yet: packets wait.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Known, but not confirmed lately: used all the same.
    Stale,
    /// Stale and in use: will be asked soon.
    Delay,
    /// Being asked by unicast; used meanwhile.
    Probe,
    /// Did not answer.
    Failed,
}

impl State {
    /// Whether the link-layer address may be used.
    pub(crate) const fn is_valid(self) -> bool {
        matches!(
            self,
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe
        )
    }

    /// The name that `ip neighbour` would show.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "INCOMPLETE",
            Self::Reachable => "REACHABLE",
            Self::Stale => "STALE",
            Self::Delay => "DELAY",
            Self::Probe => "PROBE",
            Self::Failed => "FAILED",
        }
    }
}

/// An entry of the table.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) key: Key,
    /// Tells successive users of one place apart, for [`super::Ref`].
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) mac: MacAddr,
    /// When it last proved reachable.
    pub(crate) confirmed: Nanos,
    /// How long that is good for.
    pub(crate) reachable_for: Nanos,
    /// When the link-layer address was last set.
    pub(crate) updated: Nanos,
    /// When a packet last went to it.
    pub(crate) used: Nanos,
    /// When FAILED: not to be asked before.
    pub(crate) retry_at: Nanos,
    /// Requests sent since the last answer.
    pub(crate) probes: u8,
    pub(crate) timer: Option<Nanos>,
    pub(crate) queue: VecDeque<SkBuff>,
    pub(crate) queued_bytes: usize,
    pub(crate) dirty: bool,
}

impl Neighbour {
    pub(crate) fn new(key: Key, generation: u32, now: Nanos) -> Self {
        Self {
            key,
            generation,
            state: State::Failed,
            mac: MacAddr::UNSPECIFIED,
            confirmed: 0,
            reachable_for: 0,
            updated: 0,
            used: now,
            retry_at: 0,
            probes: 0,
            timer: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            dirty: false,
        }
    }

    /// The state at `now`: a confirmation wears off without a timer.
    pub(crate) fn state_at(&self, now: Nanos) -> State {
        match self.state {
            State::Reachable if now.saturating_sub(self.confirmed) > self.reachable_for => {
                State::Stale
            }
            state => state,
        }
    }

    /// How readily its place is given to another: lowest first, then longest unused.
    pub(crate) fn eviction_rank(&self, now: Nanos) -> (u8, Nanos) {
        let rank = match self.state_at(now) {
            State::Failed => 0,
            State::Stale => 1,
            State::Reachable => 2,
            State::Delay | State::Probe => 3,
            State::Incomplete => 4,
        };
        (rank, self.used)
    }
}
