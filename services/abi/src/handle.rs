//! A handle names one use of one slot of one pool.
//!
//! ```text
//!  63      56 55            32 31                             0
//! +----------+----------------+--------------------------------+
//! |   pool   |      slot      |           generation           |
//! +----------+----------------+--------------------------------+
//! ```
//!
//! The generation changes each time the slot changes hands: by one when a consumer takes it over
//! (a hop), to the next multiple of [`HOPS`] when it is freed. So a handle is good for exactly one
//! claim: one that was kept too long, seen before or made up is refused by the ownership word
//! instead of being followed, even when the packet has since come back to who sent it.

use crate::ids::PoolId;

/// Slots a pool can have at the most (24 bits).
pub const MAX_SLOTS: u32 = 1 << 24;

/// Generations set aside for one use of a slot, a power of two: a packet that is handed on less
/// often than this keeps its [`Handle::packet`] number.
pub const HOPS: u32 = 8;

/// Pool, slot and generation packed into a word, as rings carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Handle(pub u64);

impl Handle {
    /// No handle; generation 0 is never in use.
    pub const NONE: Self = Self(0);

    /// Packs the three parts; `slot` is cut to 24 bits.
    #[must_use]
    pub const fn new(pool: PoolId, slot: u32, generation: u32) -> Self {
        Self(
            ((pool.0 as u64) << 56) | (((slot & (MAX_SLOTS - 1)) as u64) << 32) | generation as u64,
        )
    }

    /// The pool.
    #[must_use]
    pub const fn pool(self) -> PoolId {
        PoolId((self.0 >> 56) as u8)
    }

    /// The slot's index in its pool.
    #[must_use]
    pub const fn slot(self) -> u32 {
        ((self.0 >> 32) as u32) & (MAX_SLOTS - 1)
    }

    /// The use of the slot that is meant.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the low half is the generation"
    )]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }

    /// The same number for every handle that a packet has on its way from allocation to release:
    /// the handle without its hops. For traces.
    #[must_use]
    pub const fn packet(self) -> u64 {
        self.0 & !(HOPS as u64 - 1)
    }

    /// Whether this is [`Handle::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_packing() {
        let h = Handle::new(PoolId(63), MAX_SLOTS - 1, u32::MAX);
        assert_eq!(
            (h.pool(), h.slot(), h.generation()),
            (PoolId(63), MAX_SLOTS - 1, u32::MAX)
        );
        assert!(Handle::NONE.is_none());
    }

    #[test]
    fn a_slot_number_too_large_is_cut_and_spoils_nothing() {
        let h = Handle::new(PoolId(1), u32::MAX, 7);
        assert_eq!(
            (h.pool(), h.slot(), h.generation()),
            (PoolId(1), MAX_SLOTS - 1, 7)
        );
    }

    #[test]
    fn hops_do_not_change_the_packet_number() {
        let at = |g| Handle::new(PoolId(3), 9, g).packet();
        assert_eq!(at(HOPS), at(2 * HOPS - 1));
        assert_ne!(at(HOPS), at(2 * HOPS));
    }
}
