//! Which bytes of a datagram have come: disjoint ranges in order (RFC 815 turned inside out).

use arrayvec::ArrayVec;

/// Gaps a datagram may have at the most: in order of arrival at random, 64 KiB over a 576-byte
/// link has at most 60. A sender of more is up to something.
const MAX_RANGES: usize = 128;

/// What adding a range came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// All of it is new.
    Fresh,
    /// All of it was there.
    Duplicate,
    /// Part of it was there, or there are too many gaps: give the datagram up.
    Refused,
}

/// The ranges: sorted, apart from each other by at least a byte.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges(ArrayVec<(u32, u32), MAX_RANGES>);

impl Ranges {
    /// Adds `start..end`.
    pub(crate) fn add(&mut self, start: u32, end: u32) -> Added {
        // The first range that does not lie wholly before, not even touching.
        let at = self.0.partition_point(|&(_, e)| e < start);
        let touching = self.0.get(at).copied();
        if touching.is_some_and(|(s, e)| s <= start && end <= e && start < end) {
            return Added::Duplicate;
        }
        let before = touching.filter(|&(_, e)| e == start);
        let next = if before.is_some() { at + 1 } else { at };
        let after = match self.0.get(next).copied() {
            // RFC 5722: a datagram with overlapping fragments is dropped whole.
            Some((s, _)) if s < end => return Added::Refused,
            Some((s, e)) if s == end => Some(e),
            _ => None,
        };
        match (before, after) {
            (Some((s, _)), Some(e)) => {
                self.0.remove(next);
                self.set(at, (s, e));
            }
            (Some((s, _)), None) => self.set(at, (s, end)),
            (None, Some(e)) => self.set(at, (start, e)),
            (None, None) => {
                if self.0.try_insert(at, (start, end)).is_err() {
                    return Added::Refused;
                }
            }
        }
        Added::Fresh
    }

    fn set(&mut self, at: usize, range: (u32, u32)) {
        if let Some(place) = self.0.get_mut(at) {
            *place = range;
        }
    }

    /// Whether exactly `0..end` has come.
    pub(crate) fn is_whole(&self, end: u32) -> bool {
        *self.0 == [(0, end)]
    }

    /// The end of the last range.
    pub(crate) fn end(&self) -> u32 {
        self.0.last().map_or(0, |&(_, e)| e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touching_ranges_become_one() {
        let mut r = Ranges::default();
        assert_eq!(r.add(16, 24), Added::Fresh);
        assert_eq!(r.add(0, 8), Added::Fresh);
        assert!(!r.is_whole(24));
        assert_eq!(r.add(8, 16), Added::Fresh);
        assert!(r.is_whole(24) && !r.is_whole(32));
        assert_eq!(r.add(8, 20), Added::Duplicate);
        assert_eq!(r.add(20, 28), Added::Refused);
    }

    #[test]
    fn gaps_are_limited() {
        let mut r = Ranges::default();
        let added: Vec<_> = (0..200).map(|i| r.add(i * 16, i * 16 + 8)).collect();
        assert!(added[..MAX_RANGES].iter().all(|a| *a == Added::Fresh));
        assert!(added[MAX_RANGES..].iter().all(|a| *a == Added::Refused));
    }

    proptest! {
        /// Against one bit a byte.
        #[test]
        fn agrees_with_a_bitmap(list in proptest::collection::vec((0u32..100, 1u32..30), 1..40)) {
            let (mut r, mut bits) = (Ranges::default(), [false; 200]);
            for (start, len) in list {
                let span = &mut bits[start as usize..(start + len) as usize];
                let had = span.iter().filter(|b| **b).count();
                let expected = match had {
                    0 => Added::Fresh,
                    n if n == span.len() => Added::Duplicate,
                    _ => Added::Refused,
                };
                prop_assert_eq!(r.add(start, start + len), expected);
                if expected == Added::Fresh {
                    span.fill(true);
                }
                let end = bits.iter().rposition(|b| *b).map_or(0, |i| i + 1);
                prop_assert_eq!(r.end() as usize, end);
                prop_assert_eq!(r.is_whole(r.end()), bits[..end].iter().all(|b| *b));
            }
        }
    }
}
