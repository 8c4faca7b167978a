//! What of a neighbour outlives the process.

use super::entry::{Neighbour, REACHABLE_TIME};
use super::{Key, State, Table};
use abi::Nanos;
use wire::MacAddr;

/// The part of an entry that is committed: an address and when it was last confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) key: Key,
    pub(crate) mac: MacAddr,
    pub(crate) confirmed: Nanos,
}

impl Table {
    /// Whether there is anything to commit.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Hands out what changed since the last call: place and contents, none for a free one.
    pub(crate) fn take_dirty(&mut self, mut f: impl FnMut(u32, Option<Saved>)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for &place in &dirty {
            let saved = self.entry_mut(place).and_then(|n| {
                n.dirty = false;
                let (key, mac, confirmed) = (n.key, n.mac, n.confirmed);
                n.state.is_valid().then_some(Saved {
                    key,
                    mac,
                    confirmed,
                })
            });
            f(place, saved);
        }
        dirty.clear();
        self.dirty = dirty;
    }

    /// Puts back what a predecessor committed; false when the place or the neighbour is taken.
    ///
    /// A confirmation in the future is a predecessor's mistake and counts as none.
    pub(crate) fn restore(&mut self, place: u32, saved: Saved, now: Nanos) -> bool {
        let vacant = self
            .entries
            .get(place as usize)
            .is_some_and(Option::is_none);
        if !vacant || self.index.contains_key(&saved.key) || !saved.mac.is_unicast() {
            return false;
        }
        self.free.retain(|&p| p != place);
        self.occupy(place, saved.key, now);
        if let Some(n) = self.entry_mut(place) {
            *n = Neighbour {
                state: State::Reachable,
                mac: saved.mac,
                confirmed: if saved.confirmed <= now {
                    saved.confirmed
                } else {
                    0
                },
                reachable_for: REACHABLE_TIME,
                updated: if saved.confirmed <= now {
                    saved.confirmed
                } else {
                    0
                },
                ..Neighbour::new(saved.key, n.generation, now)
            };
        }
        true
    }
}
