//! The allocating side of a pool: hints of free slots, refilled by a look at the ownership words.
//!
//! The words are the truth; a hint that is wrong costs one failed compare-and-swap. So there is
//! nothing here that must survive, and slots may be freed by anyone without telling.

use crate::crash::{self, Point};
use crate::mapped::pool::{Pool, SizeClass};
use crate::mapped::skbuff::SkBuff;
use crate::slots::Use;
use abi::ServiceId;

/// Slots looked up at once when the hints run out. Few of the large ones: buffers are walked in
/// this order, and what is walked should stay in the cache.
const REFILL_SMALL: usize = 64;
const REFILL_LARGE: usize = 8;

/// Allocates from one pool, for the service that owns it.
#[derive(Debug)]
pub struct Allocator {
    pool: &'static Pool,
    me: ServiceId,
    small: Hints,
    large: Hints,
}

#[derive(Debug)]
struct Hints {
    free: Vec<u32>,
    refill: usize,
    first: u32,
    count: u32,
}

impl Hints {
    fn new(first: u32, count: u32, refill: usize) -> Self {
        Self {
            free: Vec::with_capacity(refill),
            refill,
            first,
            count,
        }
    }

    fn look(&mut self, pool: &Pool) {
        // Lowest slots first: what was used last is likely still in the cache.
        let slots = pool.slots();
        let free = (self.first..self.first + self.count)
            .filter(|&s| matches!(slots.owner_of(s), Some((_, ServiceId::NOBODY))))
            .take(self.refill);
        self.free.clear();
        self.free.extend(free);
        self.free.reverse();
    }

    #[inline]
    fn take(&mut self, pool: &Pool, me: ServiceId) -> Option<Use> {
        for round in 0..2 {
            while let Some(slot) = self.free.pop() {
                if let Some(of) = pool.slots().allocate(slot, me) {
                    crash::reach(Point::SlotAllocated);
                    return Some(of);
                }
            }
            if round == 0 {
                self.look(pool);
            }
        }
        None
    }
}

impl Allocator {
    /// The allocator of `pool` for the service that owns it.
    #[must_use]
    pub fn new(pool: &'static Pool, me: ServiceId) -> Self {
        let l = pool.layout();
        Self {
            pool,
            me,
            small: Hints::new(0, l.small_slots, REFILL_SMALL),
            large: Hints::new(l.small_slots, l.large_slots, REFILL_LARGE),
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// A fresh sk_buff with [`abi::skbuff::HEADROOM`] reserved; none when the class is used up.
    #[must_use]
    pub fn alloc(&mut self, class: SizeClass) -> Option<SkBuff> {
        let hints = match class {
            SizeClass::Small => &mut self.small,
            SizeClass::Large => &mut self.large,
        };
        let of = hints.take(self.pool, self.me)?;
        Some(SkBuff::fresh(self.pool, of, self.me))
    }
}
