//! Slots that nobody will ever free: in no ring and in nobody's hands, because something wrote
//! over an ownership word, a ring or a descriptor. A sweep at a restart finds what names the dead
//! one; this finds the rest, while everybody lives.
//!
//! Each service looks now and then (a second in minutes, see `runtime`) and takes back
//! - slots that are named as its own, that it does not hold, and that are in none of its outgoing
//!   rings;
//! - of the pool that it allocates from, slots whose word is impossible, or names a service that
//!   packets of this pool never visit: no other would look for these.
//!
//! Only what two looks, so far apart as no honest packet stays with anyone, found with the very
//! same word is taken back, by a compare-and-swap against that word. So a slot under way between
//! two looks is never touched (its generation grows with every hop), and a scribbled slot that
//! somebody still reads or writes is not given to another meanwhile.

use crate::crash::{self, Point};
use crate::owner;
use crate::slots::{Slots, Use};
use crate::sync::Ordering;
use abi::{Nanos, PoolId, ServiceId};
use std::collections::HashMap;

/// What looks before have found.
#[derive(Debug, Default)]
pub struct Lost {
    /// Word and first sight of each slot that may be lost.
    seen: HashMap<(PoolId, u32), (u64, Nanos)>,
}

/// A pool, as the looking service knows it.
#[derive(Debug, Clone, Copy)]
pub struct Looked<'a> {
    /// Its number.
    pub pool: PoolId,
    /// Its words.
    pub slots: Slots<'a>,
    /// Who may own slots of it; none if another service allocates from it.
    pub visitors: Option<&'a [ServiceId]>,
}

impl Lost {
    /// Looks at all slots of a pool for `me`. `held` says whether a slot is in this process's
    /// hands, `spared` whether a use of it is in one of its rings. What was found first `after`
    /// ago and is the same still is freed; answers how many that were.
    pub fn look(
        &mut self,
        me: ServiceId,
        of: Looked<'_>,
        (now, after): (Nanos, Nanos),
        held: impl Fn(u32) -> bool,
        spared: impl Fn(Use) -> bool,
    ) -> u32 {
        let mut freed = 0;
        for slot in (0..).take(of.slots.len()) {
            let Some(word) = of.slots.word(slot) else {
                break;
            };
            let seen = word.load(Ordering::Acquire);
            let key = (of.pool, slot);
            let named = Use {
                slot,
                generation: owner::generation(seen),
            };
            let suspected = is_suspect(me, seen, of.visitors) && !held(slot) && !spared(named);
            if !suspected {
                // Nearly always there is none.
                if !self.seen.is_empty() {
                    self.seen.remove(&key);
                }
                continue;
            }
            match self.seen.get(&key) {
                Some(&(word_then, since)) if word_then == seen => {
                    if now.saturating_sub(since) >= after {
                        self.seen.remove(&key);
                        freed += u32::from(owner::take_back(word, seen));
                        crash::reach(Point::SlotFreed);
                    }
                }
                _ => {
                    self.seen.insert(key, (seen, now));
                }
            }
        }
        freed
    }
}

/// Whether `me` must see to a slot with that word, if it is not in use after all.
fn is_suspect(me: ServiceId, word: u64, visitors: Option<&[ServiceId]>) -> bool {
    let owner = owner::owner(word);
    if owner::is_possible(word) && (owner == me || owner == ServiceId::NOBODY) {
        return owner == me;
    }
    visitors.is_some_and(|known| !owner::is_possible(word) || !known.contains(&owner))
}
