//! Keyed hashing and the engine's pseudo-random numbers, both from the constellation's secret.
//!
//! What strangers can choose (addresses, fragment idents) is hashed with SipHash under a key, so
//! that nobody can aim at one bucket.

use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, Hash};

/// Makes SipHash-1-3 hashers under the constellation's key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyed {
    k0: u64,
    k1: u64,
}

impl Keyed {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(secret);
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        Self {
            k0: half(whole),
            k1: half(whole >> 64),
        }
    }

    /// The hash of `value`, reduced to below `n` (a power of two).
    pub(crate) fn bucket(&self, value: &impl Hash, n: usize) -> usize {
        let hash = self.hash_one(value);
        usize::try_from(hash & (n as u64).wrapping_sub(1)).unwrap_or(0)
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.k0, self.k1)
    }
}

/// SplitMix64: for jitter, where nobody gains from guessing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).checked_rem(n).unwrap_or(0)
    }
}
