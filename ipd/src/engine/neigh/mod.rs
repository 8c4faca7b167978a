//! The neighbour table: bounded, with unreachability detection and a queue for packets that wait.
//!
//! Pure bookkeeping: it says what is to be asked and what may go, and the ARP part of the engine
//! builds the packets. Entries keep their place in the table, which is also their record's place
//! in the state memory, so that a successor finds who is where and need not ask again.
//!
//! Invariants: a place is in `index` exactly if it is occupied; `timers` has at most one deadline
//! a place; only INCOMPLETE entries have packets queued.

mod entry;
mod learn;
mod places;
mod saved;

pub(crate) use entry::{Key, Neighbour, State};
pub(crate) use learn::{How, Learned};
pub(crate) use saved::Saved;

use super::hash::{Jitter, Keyed};
use abi::Nanos;
use entry::{
    DELAY_TIME, MAX_PROBES, NEGATIVE_TIME, QUEUE_BYTES, QUEUE_PACKETS, REACHABLE_TIME, RETRANS_TIME,
};
use shm::SkBuff;
use std::collections::{BTreeSet, HashMap, VecDeque};
use wire::MacAddr;

/// Neighbours in the table at the most.
pub(crate) const CAPACITY: u32 = 1024;
/// Packets that wait for all neighbours together: they hold slots of the transports' pools.
const QUEUED_TOTAL: usize = 512;

/// Remembers an entry across lookups; refused when the place has another user by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref {
    place: u32,
    generation: u32,
}

/// What to do with a packet for a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it there.
    Send(MacAddr),
    /// Queue it; when `solicit`, resolution starts now: broadcast a request.
    Wait { solicit: bool },
    /// It did not answer a moment ago.
    Unreachable,
}

/// What a timer wants done.
#[derive(Debug)]
pub(crate) enum Expired {
    /// Ask `key` again, by broadcast or at the address that is to be confirmed.
    Solicit { key: Key, to: Option<MacAddr> },
    /// It did not answer: these packets cannot be delivered.
    Failed { queue: VecDeque<SkBuff> },
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<Option<Neighbour>>,
    index: HashMap<Key, u32, Keyed>,
    free: Vec<u32>,
    timers: BTreeSet<(Nanos, u32)>,
    dirty: Vec<u32>,
    queued: usize,
    next_generation: u32,
    next_gc: Nanos,
    jitter: Jitter,
    /// Entries made, for the engine to count.
    pub(crate) created: u64,
    /// Entries that made room, likewise.
    pub(crate) evicted: u64,
    /// Packets dropped from queues, likewise.
    pub(crate) queue_drops: u64,
}

impl Table {
    pub(crate) fn new(capacity: u32, keyed: Keyed, seed: u64) -> Self {
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            index: HashMap::with_hasher(keyed),
            free: (0..capacity).rev().collect(),
            timers: BTreeSet::new(),
            dirty: Vec::new(),
            queued: 0,
            next_generation: 1,
            next_gc: 0,
            jitter: Jitter::new(seed),
            created: 0,
            evicted: 0,
            queue_drops: 0,
        }
    }

    fn entry(&self, place: u32) -> Option<&Neighbour> {
        self.entries.get(place as usize)?.as_ref()
    }

    fn entry_mut(&mut self, place: u32) -> Option<&mut Neighbour> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// All entries, for people to see.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.entries.iter().flatten()
    }

    /// Packets that wait at the moment.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// The next deadline.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// What to do with a packet for `key`. `hint` is what an earlier call answered.
    pub(crate) fn outgoing(&mut self, key: Key, hint: Option<Ref>, now: Nanos) -> (Ref, Verdict) {
        let known = hint
            .filter(|r| {
                self.entry(r.place)
                    .is_some_and(|n| n.generation == r.generation && n.key == key)
            })
            .map(|r| r.place)
            .or_else(|| self.index.get(&key).copied());
        let place = known.unwrap_or_else(|| self.insert(key, now));
        let Some(n) = self.entry_mut(place) else {
            return (
                Ref {
                    place,
                    generation: 0,
                },
                Verdict::Unreachable,
            );
        };
        n.used = now;
        let this = Ref {
            place,
            generation: n.generation,
        };
        match n.state_at(now) {
            State::Reachable | State::Delay | State::Probe => (this, Verdict::Send(n.mac)),
            State::Stale => {
                // RFC 4861 7.3.3: the first packet to a stale neighbour starts the delay.
                let mac = n.mac;
                n.state = State::Delay;
                self.set_timer(place, Some(now + DELAY_TIME));
                (this, Verdict::Send(mac))
            }
            State::Incomplete => (this, Verdict::Wait { solicit: false }),
            State::Failed if now < n.retry_at => (this, Verdict::Unreachable),
            State::Failed => {
                n.state = State::Incomplete;
                n.probes = 1;
                self.set_timer(place, Some(now + RETRANS_TIME));
                (this, Verdict::Wait { solicit: true })
            }
        }
    }

    /// Queues a packet after [`Verdict::Wait`]. The oldest gives way when there are too many.
    pub(crate) fn enqueue(&mut self, r: Ref, skb: SkBuff) {
        let full = self.queued >= QUEUED_TOTAL;
        let Some(n) = self
            .entries
            .get_mut(r.place as usize)
            .and_then(Option::as_mut)
        else {
            return;
        };
        if n.generation != r.generation
            || n.state != State::Incomplete
            || (full && n.queue.is_empty())
        {
            self.queue_drops += 1;
            return;
        }
        let len = skb.len();
        n.queue.push_back(skb);
        n.queued_bytes += len;
        self.queued += 1;
        let mut over = full;
        while over || n.queue.len() > QUEUE_PACKETS || n.queued_bytes > QUEUE_BYTES {
            over = false;
            let Some(old) = n.queue.pop_front() else {
                break;
            };
            n.queued_bytes = n.queued_bytes.saturating_sub(old.len());
            self.queued -= 1;
            self.queue_drops += 1;
        }
    }

    /// The next timer that is due; call until there is none.
    pub(crate) fn expire(&mut self, now: Nanos) -> Option<Expired> {
        loop {
            let &(at, place) = self.timers.first()?;
            if at > now {
                return None;
            }
            self.set_timer(place, None);
            let Some(n) = self.entry_mut(place) else {
                continue;
            };
            let key = n.key;
            match n.state {
                State::Delay => {
                    n.state = State::Probe;
                    n.probes = 1;
                    let to = Some(n.mac);
                    self.set_timer(place, Some(now + RETRANS_TIME));
                    return Some(Expired::Solicit { key, to });
                }
                State::Probe | State::Incomplete if n.probes < MAX_PROBES => {
                    n.probes += 1;
                    let to = (n.state == State::Probe).then_some(n.mac);
                    self.set_timer(place, Some(now + RETRANS_TIME));
                    return Some(Expired::Solicit { key, to });
                }
                State::Probe | State::Incomplete => {
                    // One that was known may have moved: the next packet asks everybody. One that
                    // never answered is left in peace for a while.
                    n.retry_at = if n.state == State::Probe {
                        now
                    } else {
                        now + NEGATIVE_TIME
                    };
                    n.state = State::Failed;
                    let queue = self.take_queue(place);
                    self.mark_dirty(place);
                    return Some(Expired::Failed { queue });
                }
                State::Reachable | State::Stale | State::Failed => {}
            }
        }
    }

    fn take_queue(&mut self, place: u32) -> VecDeque<SkBuff> {
        let Some(n) = self.entry_mut(place) else {
            return VecDeque::new();
        };
        n.queued_bytes = 0;
        let queue = std::mem::take(&mut n.queue);
        self.queued = self.queued.saturating_sub(queue.len());
        queue
    }

    fn set_timer(&mut self, place: u32, at: Option<Nanos>) {
        let Some(n) = self
            .entries
            .get_mut(place as usize)
            .and_then(Option::as_mut)
        else {
            return;
        };
        if let Some(old) = n.timer.take() {
            self.timers.remove(&(old, place));
        }
        if let Some(at) = at {
            n.timer = Some(at);
            self.timers.insert((at, place));
        }
    }

    fn mark_dirty(&mut self, place: u32) {
        if let Some(n) = self
            .entries
            .get_mut(place as usize)
            .and_then(Option::as_mut)
            && !n.dirty
        {
            n.dirty = true;
            self.dirty.push(place);
        }
    }

    fn confirm(&mut self, place: u32, now: Nanos) {
        let reachable_for = REACHABLE_TIME / 2 + self.jitter.below(REACHABLE_TIME);
        if let Some(n) = self.entry_mut(place) {
            n.state = State::Reachable;
            n.confirmed = now;
            n.reachable_for = reachable_for;
            n.probes = 0;
        }
        self.set_timer(place, None);
        self.mark_dirty(place);
    }
}
