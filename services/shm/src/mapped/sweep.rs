//! Taking back what a dead service owned and had not published.
//!
//! Run by the successor at its start, when the predecessor is known to be dead and nothing else
//! acts in its name. Neighbours go on meanwhile: they can only take published handles away, by
//! compare-and-swap. The algorithm is in [`crate::slots`].

use crate::mapped::pool::Pool;
use crate::ring::RingWords;
use crate::slots;
use abi::{Handle, ServiceId};

/// Frees every slot of `pools` that `dead` owns, save those in its outgoing rings (with their
/// extra slots), and every slot whose ownership word is impossible. Answers how many were freed.
pub fn sweep<'a>(
    dead: ServiceId,
    pools: impl Iterator<Item = &'static Pool> + Clone,
    outgoing: impl Iterator<Item = RingWords<'a>>,
) -> u32 {
    let spared = slots::published(outgoing, |handle| {
        let pool = pools.clone().find(|p| p.id() == handle.pool());
        let desc = pool.and_then(|p| p.read_desc(handle.slot()));
        desc.map_or(Handle::NONE, |d| Handle(d.extra))
    });
    pools
        .map(|pool| {
            pool.slots().sweep(dead, |of| {
                spared.contains(&Handle::new(pool.id(), of.slot, of.generation))
            })
        })
        .sum()
}
