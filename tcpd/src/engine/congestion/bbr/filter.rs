//! The largest of what was measured in the last rounds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Buckets of a filter.
const BUCKETS: usize = 5;
/// Rounds to a bucket: ten in all (draft 4.1.1.3: `BBRBwFilterLen`).
const ROUNDS: u64 = 2;

/// Maximum over the last nine or ten rounds. 48 bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RoundMax {
    buckets: [u64; BUCKETS],
    /// Number of the newest bucket since the beginning.
    newest: u64,
}

impl RoundMax {
    /// Something measured in `round`; rounds never go back.
    pub(super) fn update(&mut self, round: u64, value: u64) {
        let now = round / ROUNDS;
        let passed = now.saturating_sub(self.newest).min(BUCKETS as u64);
        for i in 0..passed {
            self.put(now - i, 0);
        }
        self.newest = self.newest.max(now);
        let best = self.get(now).max(value);
        self.put(now, best);
    }

    /// The maximum; 0 if there is none.
    pub(super) fn max(&self) -> u64 {
        self.buckets.iter().copied().max().unwrap_or(0)
    }

    fn get(&self, number: u64) -> u64 {
        self.buckets
            .get((number % BUCKETS as u64) as usize)
            .copied()
            .unwrap_or(0)
    }

    fn put(&mut self, number: u64, value: u64) {
        if let Some(bucket) = self.buckets.get_mut((number % BUCKETS as u64) as usize) {
            *bucket = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_after_ten_rounds() {
        let mut f = RoundMax::default();
        f.update(1, 100);
        for round in 2..10 {
            f.update(round, 50);
            assert_eq!(f.max(), 100, "{round}");
        }
        f.update(11, 40);
        assert_eq!(f.max(), 50);
        f.update(40, 10);
        assert_eq!(f.max(), 10);
    }
}
