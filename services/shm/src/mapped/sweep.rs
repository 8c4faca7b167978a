//! Taking back what a dead service owned and had not published, and what nobody will free.
//!
//! [`sweep`] is run by the successor at its start, when the predecessor is known to be dead and nothing else
//! acts in its name. [`look`] is run by everyone, while it lives. Neighbours go on meanwhile: they can only take published handles away, by
//! compare-and-swap. The algorithms are in [`crate::slots`] and [`crate::lost`].

use crate::lost::{Looked, Lost};
use crate::mapped::pool::Pool;
use crate::ring::RingWords;
use crate::slots::{self, Use};
use abi::skbuff::SkBuffDesc;
use abi::{Handle, Nanos, ServiceId};
use std::collections::HashSet;

/// Frees every slot of `pools` that `dead` owns, save those in its outgoing rings (with their
/// extra slots), and every slot whose ownership word is impossible or, in a pool that `dead`
/// allocates from, names nobody of `visitors`. Answers how many were freed.
pub fn sweep<'a>(
    dead: ServiceId,
    visitors: &[ServiceId],
    pools: impl Iterator<Item = &'static Pool> + Clone,
    outgoing: impl Iterator<Item = RingWords<'a>>,
) -> u32 {
    let spared = in_rings(dead, pools.clone(), outgoing);
    pools
        .map(|pool| {
            let is_spared =
                |of: Use| spared.contains(&Handle::new(pool.id(), of.slot, of.generation));
            let freed = pool.slots().sweep(dead, is_spared);
            if pool.producer() != dead {
                return freed;
            }
            freed + pool.slots().sweep_strangers(visitors)
        })
        .sum()
}

/// A look for lost slots of `pools`, by `me`; `visitors` are the services that packets from its
/// own pool visit, itself included. `(now, after)` as in [`Lost::look`]. To be called when every
/// handle that was pushed is published. Answers how many were freed.
pub fn look<'a>(
    lost: &mut Lost,
    me: ServiceId,
    visitors: &[ServiceId],
    when: (Nanos, Nanos),
    pools: impl Iterator<Item = &'static Pool> + Clone,
    outgoing: impl Iterator<Item = RingWords<'a>>,
) -> u32 {
    let spared = in_rings(me, pools.clone(), outgoing);
    pools
        .map(|pool| {
            let looked = Looked {
                pool: pool.id(),
                slots: pool.slots(),
                visitors: (pool.producer() == me).then_some(visitors),
            };
            let is_spared =
                |of: Use| spared.contains(&Handle::new(pool.id(), of.slot, of.generation));
            lost.look(me, looked, when, |slot| pool.is_held(slot), is_spared)
        })
        .sum()
}

/// The handles of `owner`'s that wait in its outgoing rings, with their extra slots.
fn in_rings<'a>(
    owner: ServiceId,
    pools: impl Iterator<Item = &'static Pool> + Clone,
    outgoing: impl Iterator<Item = RingWords<'a>>,
) -> HashSet<Handle> {
    let pool_of = |handle: Handle| pools.clone().find(|p| p.id() == handle.pool());
    slots::published(
        owner,
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
    )
}
