//! The ownership word: one atomic word a slot, the only truth about who may touch it.
//!
//! ```text
//!  63               32 31        8 7        0
//! +-------------------+-----------+----------+
//! |    generation     |     0     |  owner   |      owner 0: free
//! +-------------------+-----------+----------+
//!
//!            allocate (g, 0 -> me)          transfer (g, a -> b)
//!   FREE g ------------------------> OWNED ---------------------> OWNED ...
//!      ^                               |  free (g, me -> g+1, 0)
//!      +-------------------------------+
//! ```
//!
//! Each arrow is a single compare-and-swap, so a process that dies leaves each slot wholly on
//! one side of it. There is no free list to tear.

use crate::sync::{AtomicU64, Ordering};
use abi::ServiceId;

/// Generation and owner packed as the word holds them.
#[must_use]
pub const fn pack(generation: u32, owner: ServiceId) -> u64 {
    ((generation as u64) << 32) | owner.0 as u64
}

/// The generation in a word.
#[must_use]
pub const fn generation(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The owner in a word; values that no service has read as they are.
#[must_use]
pub const fn owner(word: u64) -> ServiceId {
    ServiceId(word as u8)
}

/// The generation after `generation`; never 0, which means no handle.
#[must_use]
pub const fn next_generation(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        g => g,
    }
}

/// Takes the slot if it is free and answers its generation.
#[must_use]
pub fn allocate(word: &AtomicU64, me: ServiceId) -> Option<u32> {
    let seen = word.load(Ordering::Relaxed);
    let g = generation(seen);
    if owner(seen) != ServiceId::NOBODY || g == 0 {
        return None;
    }
    // Acquire: pairs with the Release of `free`, so that the freer's last reads come before our
    // first writes.
    word.compare_exchange(seen, pack(g, me), Ordering::Acquire, Ordering::Relaxed).ok().map(|_| g)
}

/// Moves the slot from `from` to `to`; false when it is not `from`'s in that generation.
#[must_use]
pub fn transfer(word: &AtomicU64, generation: u32, from: ServiceId, to: ServiceId) -> bool {
    // AcqRel: pairs with itself along the chain of owners; the data itself was published by the
    // ring's tail (Release) which the consumer loaded before.
    word.compare_exchange(
        pack(generation, from),
        pack(generation, to),
        Ordering::AcqRel,
        Ordering::Relaxed,
    )
    .is_ok()
}

/// Frees the slot; false when it was not `me`'s in that generation (then nothing happened).
pub fn free(word: &AtomicU64, generation: u32, me: ServiceId) -> bool {
    // Release: pairs with the Acquire of `allocate`.
    word.compare_exchange(
        pack(generation, me),
        pack(next_generation(generation), ServiceId::NOBODY),
        Ordering::Release,
        Ordering::Relaxed,
    )
    .is_ok()
}
