//! Who gets a place in the table, and at whose expense.

use super::{Key, Neighbour, Table};
use abi::Nanos;

/// An entry unused for so long may make room for one learned from a stranger's request.
const GC_STALE_TIME: Nanos = 60_000_000_000;
/// How often a full table is searched on behalf of strangers.
const GC_INTERVAL: Nanos = 100_000_000;

impl Table {
    /// Makes an entry on our own behalf: always succeeds, at another's expense if need be.
    pub(super) fn insert(&mut self, key: Key, now: Nanos) -> u32 {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let victim = self.victim(now).map_or(0, |(_, place)| place);
                self.remove(victim);
                self.evicted += 1;
                victim
            }
        };
        self.occupy(place, key, now);
        place
    }

    /// Makes an entry on a stranger's behalf: only where nobody is disturbed.
    pub(super) fn insert_unasked(&mut self, key: Key, now: Nanos) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if now < self.next_gc => return None,
            None => {
                self.next_gc = now + GC_INTERVAL;
                let ((rank, used), place) = self.victim(now)?;
                if rank > 1 || now.saturating_sub(used) < GC_STALE_TIME {
                    return None;
                }
                self.remove(place);
                self.evicted += 1;
                place
            }
        };
        self.occupy(place, key, now);
        Some(place)
    }

    fn victim(&self, now: Nanos) -> Option<((u8, Nanos), u32)> {
        let ranked = self.entries.iter().zip(0u32..);
        ranked
            .filter_map(|(n, place)| Some((n.as_ref()?.eviction_rank(now), place)))
            .min()
    }

    pub(super) fn occupy(&mut self, place: u32, key: Key, now: Nanos) {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1).max(1);
        if let Some(slot) = self.entries.get_mut(place as usize) {
            *slot = Some(Neighbour::new(key, generation, now));
            self.created += 1;
            self.index.insert(key, place);
        }
    }

    /// Empties a place; its queue is dropped, and the record must go too.
    fn remove(&mut self, place: u32) {
        self.set_timer(place, None);
        let dropped = self.take_queue(place).len();
        self.queue_drops += dropped as u64;
        if let Some(n) = self.entries.get_mut(place as usize).and_then(Option::take) {
            self.index.remove(&n.key);
            if !n.dirty {
                self.dirty.push(place);
            }
        }
    }

    /// Forgets the neighbours behind devices for which `keep` says no.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        for place in 0..u32::try_from(self.entries.len()).unwrap_or(0) {
            if self.entry(place).is_some_and(|n| !keep(&n.key)) {
                self.remove(place);
                self.free.push(place);
            }
        }
    }
}
