//! Moving packets of one or two slots between owners, and sweeping: the part of a pool that is
//! all ownership words, so that models can run it.
//!
//! A packet is a head slot and possibly an extra one that its descriptor names. The extra moves
//! first. Should the claimer die between the two, the extra is its own and swept as such; the
//! successor that meets the head's handle again finds the packet incomplete and frees the rest.
//! Nothing is lost but the packet.

use crate::crash::{self, Point};
use crate::owner;
use crate::ring::{Producer, RingWords};
use crate::sync::{AtomicU64, Ordering};
use abi::{Handle, ServiceId};
use std::collections::HashSet;

/// One use of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Which slot.
    pub slot: u32,
    /// Which use of it.
    pub generation: u32,
}

/// What a claim took over; generations are the new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The head slot.
    pub head: Use,
    /// The extra slot, if the packet has one.
    pub extra: Option<Use>,
    /// Whether the packet had an extra that could not be taken: free the head, drop the packet.
    pub incomplete: bool,
}

/// The ownership words of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Slots<'a> {
    /// The slots with these words.
    #[must_use]
    pub const fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Number of slots.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The word of a slot.
    #[inline]
    #[must_use]
    pub fn word(&self, slot: u32) -> Option<&'a AtomicU64> {
        self.words.get(slot as usize)
    }

    /// Generation and owner of a slot now.
    #[inline]
    #[must_use]
    pub fn owner_of(&self, slot: u32) -> Option<(u32, ServiceId)> {
        let w = self.word(slot)?.load(Ordering::Acquire);
        Some((owner::generation(w), owner::owner(w)))
    }

    /// Takes a free slot.
    #[inline]
    #[must_use]
    pub fn allocate(&self, slot: u32, me: ServiceId) -> Option<Use> {
        let generation = owner::allocate(self.word(slot)?, me)?;
        Some(Use { slot, generation })
    }

    /// Moves one slot.
    #[inline]
    #[must_use]
    pub fn transfer(&self, of: Use, from: ServiceId, to: ServiceId) -> Option<Use> {
        let generation = owner::transfer(self.word(of.slot)?, of.generation, from, to)?;
        Some(Use {
            slot: of.slot,
            generation,
        })
    }

    /// Frees one slot that is `me`'s; false if it was not.
    #[inline]
    pub fn free(&self, of: Use, me: ServiceId) -> bool {
        let freed = self
            .word(of.slot)
            .is_some_and(|w| owner::free(w, of.generation, me));
        crash::reach(Point::SlotFreed);
        freed
    }

    /// Takes over the packet whose head is `head`. `read` copies the descriptor; it is called
    /// when the head is `from`'s to give, and answers the extra slot: none, or one that may be
    /// impossible (`Err`).
    #[inline]
    #[must_use]
    pub fn claim(
        &self,
        head: Use,
        from: ServiceId,
        me: ServiceId,
        read: impl FnOnce() -> Result<Option<Use>, ()>,
    ) -> Option<Taken> {
        let word = self.word(head.slot)?;
        // Looked at before the descriptor is, so that a stale handle costs nothing and moves no
        // extra slot. The compare-and-swap below is what decides.
        if word.load(Ordering::Acquire) != owner::pack(head.generation, from) {
            return None;
        }
        let wanted = read();
        let extra = match wanted {
            Ok(Some(extra)) if extra.slot != head.slot => self.transfer(extra, from, me),
            _ => None,
        };
        if extra.is_some() {
            crash::reach(Point::ExtraClaimed);
        }
        let Some(generation) = owner::transfer(word, head.generation, from, me) else {
            if let Some(extra) = extra {
                self.free(extra, me);
            }
            return None;
        };
        crash::reach(Point::SlotClaimed);
        Some(Taken {
            head: Use {
                slot: head.slot,
                generation,
            },
            extra,
            incomplete: wanted != Ok(None) && extra.is_none(),
        })
    }

    /// Frees every slot that is `dead`'s and not spared, and every slot whose word is impossible.
    /// Answers how many were freed. Runs beside live owners of other slots.
    pub fn sweep(&self, dead: ServiceId, spared: impl Fn(Use) -> bool) -> u32 {
        let mut freed = 0;
        for (slot, word) in (0u32..).zip(self.words) {
            let w = word.load(Ordering::Acquire);
            let of = Use {
                slot,
                generation: owner::generation(w),
            };
            let done = if !owner::is_possible(w) {
                owner::repair(word)
            } else {
                owner::owner(w) == dead && !spared(of) && owner::free(word, of.generation, dead)
            };
            freed += u32::from(done);
        }
        freed
    }

    /// Frees every slot whose word names somebody who is none of `visitors`, who never have
    /// slots of this pool. Answers how many were freed.
    pub fn sweep_strangers(&self, visitors: &[ServiceId]) -> u32 {
        let mut freed = 0;
        for word in self.words {
            let w = word.load(Ordering::Acquire);
            let owner = owner::owner(w);
            let known = owner == ServiceId::NOBODY || visitors.contains(&owner);
            freed += u32::from(!known && owner::take_back(word, w));
        }
        freed
    }
}

/// What a sweep must spare: the handles that `dead` has published in `outgoing` and that are not
/// claimed yet, with the extra slots that `extra_of` reads from their descriptors. `slots_of`
/// finds the ownership words of a handle's pool.
///
/// Neighbours go on meanwhile. A handle that one takes after this look is spared for nothing; one
/// taken before is no longer the dead service's. That is looked at before the descriptor is read:
/// a handle that was claimed and is still on the ring may name a slot that `dead` has used again
/// since, whose new extra slot nobody published.
pub fn published<'r, 's>(
    dead: ServiceId,
    outgoing: impl Iterator<Item = RingWords<'r>>,
    slots_of: impl Fn(Handle) -> Option<Slots<'s>>,
    extra_of: impl Fn(Handle) -> Handle,
) -> HashSet<Handle> {
    let mut spared = HashSet::new();
    for words in outgoing {
        for raw in Producer::published(words) {
            let handle = Handle(raw);
            let owner = slots_of(handle).and_then(|slots| slots.owner_of(handle.slot()));
            if owner != Some((handle.generation(), dead)) {
                continue;
            }
            spared.insert(handle);
            let extra = extra_of(handle);
            if !extra.is_none() {
                spared.insert(extra);
            }
        }
    }
    spared
}
