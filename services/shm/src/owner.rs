//! The ownership word: one atomic word a slot, the only truth about who may touch it.
//!
//! ```text
//!  63               32 31        8 7        0
//! +-------------------+-----------+----------+
//! |    generation     |     0     |  owner   |      owner 0: free
//! +-------------------+-----------+----------+
//!
//!            allocate (g, 0 -> me)        transfer (g, a -> g+1, b)
//!   FREE g ------------------------> OWNED ---------------------> OWNED ...
//!      ^                               |  free (g, me -> next use, 0)
//!      +-------------------------------+
//! ```
//!
//! Each arrow is a single compare-and-swap, so a process that dies leaves each slot wholly on
//! one side of it. There is no free list to tear.
//!
//! The generation grows on every arrow but the first, so a handle names one ownership and can be
//! claimed once. Were it to stay the same from hop to hop, a packet that went A -> B -> A (an echo
//! answered in place) could be claimed a second time by B's successor, from the handle that B had
//! claimed and not yet taken off the ring when it died: the slot would have two owners. It comes
//! round again after 2^29 uses of one slot, minutes at the highest rates; a stale handle is met
//! within a ring's length.

use crate::sync::{AtomicU64, Ordering};
use abi::ServiceId;
use abi::handle::HOPS;

/// The generation of a slot that was never used. 0 means no handle and is never reached.
pub const FIRST_GENERATION: u32 = HOPS;

/// Generation and owner packed as the word holds them.
#[inline]
#[must_use]
pub const fn pack(generation: u32, owner: ServiceId) -> u64 {
    ((generation as u64) << 32) | owner.0 as u64
}

/// The generation in a word.
#[inline]
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "32 bits are left after the shift"
)]
pub const fn generation(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The owner in a word; values that no service has read as they are.
#[inline]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the owner is the low byte")]
pub const fn owner(word: u64) -> ServiceId {
    ServiceId(word as u8)
}

/// Whether the word is one that the operations here can have left. Others were scribbled; a
/// sweep takes such a slot back.
#[must_use]
pub const fn is_possible(word: u64) -> bool {
    word == pack(generation(word), owner(word))
        && generation(word) != 0
        && owner(word).0 <= ServiceId::MAX.0
}

/// The generation after one hop.
#[inline]
#[must_use]
pub const fn next_hop(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => FIRST_GENERATION,
        g => g,
    }
}

/// The generation of the next use of the slot, at its release.
#[inline]
#[must_use]
pub const fn next_use(generation: u32) -> u32 {
    match (generation | (HOPS - 1)).wrapping_add(1) {
        0 => FIRST_GENERATION,
        g => g,
    }
}

/// Takes the slot if it is free and answers its generation.
#[inline]
#[must_use]
pub fn allocate(word: &AtomicU64, me: ServiceId) -> Option<u32> {
    let seen = word.load(Ordering::Relaxed);
    let g = generation(seen);
    if owner(seen) != ServiceId::NOBODY || g == 0 {
        return None;
    }
    // Acquire: pairs with the Release of `free`, so that the freer's last reads come before our
    // first writes.
    word.compare_exchange(seen, pack(g, me), Ordering::Acquire, Ordering::Relaxed)
        .ok()
        .map(|_| g)
}

/// Moves the slot from `from` to `to` and answers its new generation; none when it is not
/// `from`'s in that generation.
#[inline]
#[must_use]
pub fn transfer(word: &AtomicU64, generation: u32, from: ServiceId, to: ServiceId) -> Option<u32> {
    let next = next_hop(generation);
    // AcqRel: pairs with itself along the chain of owners; the data itself was published by the
    // ring's tail (Release) which the consumer loaded before.
    word.compare_exchange(
        pack(generation, from),
        pack(next, to),
        Ordering::AcqRel,
        Ordering::Relaxed,
    )
    .ok()
    .map(|_| next)
}

/// Frees the slot; false when it was not `me`'s in that generation (then nothing happened).
#[inline]
pub fn free(word: &AtomicU64, generation: u32, me: ServiceId) -> bool {
    // Release: pairs with the Acquire of `allocate`.
    word.compare_exchange(
        pack(generation, me),
        pack(next_use(generation), ServiceId::NOBODY),
        Ordering::Release,
        Ordering::Relaxed,
    )
    .is_ok()
}

/// Frees a slot whose word is impossible (see [`is_possible`]); false when it is not, or changed.
pub fn repair(word: &AtomicU64) -> bool {
    let seen = word.load(Ordering::Relaxed);
    !is_possible(seen) && take_back(word, seen)
}

/// Frees a slot whatever its word says, if it still says what was `seen`: for slots that were
/// found to be nobody's. See [`crate::lost`].
pub fn take_back(word: &AtomicU64, seen: u64) -> bool {
    word.compare_exchange(
        seen,
        pack(next_use(generation(seen)), ServiceId::NOBODY),
        Ordering::Release,
        Ordering::Relaxed,
    )
    .is_ok()
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    const A: ServiceId = ServiceId(1);
    const B: ServiceId = ServiceId(2);

    #[test]
    fn a_handle_can_be_claimed_once_even_if_the_slot_comes_back() {
        let word = AtomicU64::new(pack(FIRST_GENERATION, ServiceId::NOBODY));
        let g = allocate(&word, A).unwrap();
        let at_b = transfer(&word, g, A, B).unwrap();
        let back = transfer(&word, at_b, B, A).unwrap();
        assert_eq!(transfer(&word, g, A, B), None);
        assert!(!free(&word, g, A));
        assert!(free(&word, back, A));
        assert!(!free(&word, back, A));
    }

    #[test]
    fn generations_never_become_zero() {
        assert_eq!(next_hop(u32::MAX), FIRST_GENERATION);
        for g in [u32::MAX, u32::MAX - 3] {
            assert_eq!(next_use(g), FIRST_GENERATION);
        }
        assert_eq!(next_use(FIRST_GENERATION), 2 * HOPS);
        assert_eq!(next_use(next_hop(FIRST_GENERATION)), 2 * HOPS);
    }

    #[test]
    fn scribbled_words_are_repaired_and_good_ones_are_not() {
        for bad in [0, 1, pack(8, ServiceId(64)), pack(8, A) | 1 << 9, 5 << 8] {
            let word = AtomicU64::new(bad);
            assert!(repair(&word), "{bad:#x}");
            assert!(allocate(&word, A).is_some());
        }
        for good in [pack(8, A), pack(1, ServiceId::NOBODY)] {
            assert!(!repair(&AtomicU64::new(good)));
        }
    }
}
