//! Taking back what a dead service owned and had not published.
//!
//! Run by the successor at its start, when the predecessor is known to be dead and nothing else
//! acts in its name. Neighbours go on meanwhile: they can only take published handles away, by
//! compare-and-swap.

use crate::mapped::pool::Pool;
use crate::owner;
use crate::ring::{Producer, RingWords};
use abi::{Handle, ServiceId};
use std::collections::HashSet;

/// Frees every slot of `pools` that `dead` owns, save those in its outgoing rings (with their
/// extra slots). Answers how many were freed.
pub fn sweep<'a>(
    dead: ServiceId,
    pools: impl Iterator<Item = &'static Pool> + Clone,
    outgoing: impl Iterator<Item = RingWords<'a>>,
) -> u32 {
    // The rings first: a handle that a neighbour takes after this look is spared for nothing,
    // and is the neighbour's by then; one taken before it is no longer owned by `dead`.
    let mut spared: HashSet<Handle> = HashSet::new();
    for words in outgoing {
        for raw in Producer::published(words) {
            let handle = Handle(raw);
            spared.insert(handle);
            let pool = pools.clone().find(|p| p.id() == handle.pool());
            if let Some(desc) = pool.and_then(|p| p.read_desc(handle.slot()))
                && desc.extra != 0
            {
                spared.insert(Handle(desc.extra));
            }
        }
    }
    let mut freed = 0;
    for pool in pools {
        for slot in 0..pool.layout().slots() {
            let Some((generation, who)) = pool.owner_of(slot) else { continue };
            let handle = Handle::new(pool.id(), slot, generation);
            if who == dead
                && !spared.contains(&handle)
                && pool.word(slot).is_some_and(|w| owner::free(w, generation, dead))
            {
                freed += 1;
            }
        }
    }
    freed
}
