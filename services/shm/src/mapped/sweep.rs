//! Taking back what a dead service owned and had not published.
//!
//! Run by the successor at its start, when the predecessor is known to be dead and nothing else
//! acts in its name. Neighbours go on meanwhile: they can only take published handles away, by
//! compare-and-swap. The algorithm is in [`crate::slots`].

use crate::mapped::pool::Pool;
use crate::ring::RingWords;
use crate::slots;
use abi::skbuff::SkBuffDesc;
use abi::{Handle, ServiceId};

/// Frees every slot of `pools` that `dead` owns, save those in its outgoing rings (with their
/// extra slots), and every slot whose ownership word is impossible. Answers how many were freed.
pub fn sweep<'a>(
    dead: ServiceId,
    pools: impl Iterator<Item = &'static Pool> + Clone,
    outgoing: impl Iterator<Item = RingWords<'a>>,
) -> u32 {
    let pool_of = |handle: Handle| pools.clone().find(|p| p.id() == handle.pool());
    let spared = slots::published(
        dead,
        outgoing,
        |handle| pool_of(handle).map(|p| p.slots()),
        |handle| {
            let mut desc = SkBuffDesc::default();
            let read = pool_of(handle).is_some_and(|p| p.read_desc(handle.slot(), &mut desc));
            if read {
                Handle(desc.extra)
            } else {
                Handle::NONE
            }
        },
    );
    pools
        .map(|pool| {
            pool.slots().sweep(dead, |of| {
                spared.contains(&Handle::new(pool.id(), of.slot, of.generation))
            })
        })
        .sum()
}
