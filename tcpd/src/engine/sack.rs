//! What the peer has of what was sent: the scoreboard of selective acknowledgements (RFC 2018,
//! RFC 6675 3), as sorted, disjoint, non-adjacent ranges above `snd_una`.
//!
//! Ranges are stored as the low halves of their offsets, relative to a base that the caller
//! names with each call (`snd_una`): everything in the set is at most 2^31 above it.
//!
//! A range that does not fit any more is forgotten, which is safe: at worst something is sent
//! that the peer has.

use super::seq::Offset;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ranges a scoreboard holds: a queue that overflows in slow start drops about every second
/// segment of a whole window. What does not fit is forgotten in a crash only: while the engine
/// lives, loss is found by the send log ([`super::sent`]), which keeps two thousand pieces.
/// (`TCP_INFO`'s `sacked` is then too small, and an MTU probe counts as arrived only when all below
/// it has.)
pub const MAX_SACKED: usize = 64;

/// The scoreboard. 520 bytes of a record.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scoreboard {
    len: u32,
    reserved: u32,
    ranges: [[u32; 2]; MAX_SACKED],
}

/// The offset of low half `low`, at or above `base`.
const fn above(base: Offset, low: u32) -> Offset {
    base + low.wrapping_sub(base as u32) as u64
}

impl Default for Scoreboard {
    fn default() -> Self {
        Self {
            len: 0,
            reserved: 0,
            ranges: [[0; 2]; MAX_SACKED],
        }
    }
}

impl Scoreboard {
    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.len as usize).min(MAX_SACKED)
    }

    /// Whether nothing is selectively acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    fn used(&self) -> &[[u32; 2]] {
        self.ranges.get(..self.len()).unwrap_or_default()
    }

    /// The ranges, `[start, end)`, ascending.
    pub fn iter(&self, base: Offset) -> impl DoubleEndedIterator<Item = (Offset, Offset)> + '_ {
        self.used()
            .iter()
            .map(move |&[start, end]| (above(base, start), above(base, end)))
    }

    /// Bytes selectively acknowledged.
    #[must_use]
    pub fn bytes(&self, base: Offset) -> u64 {
        self.iter(base).map(|(start, end)| end - start).sum()
    }

    /// The highest byte selectively acknowledged, plus one; `base` if there is none.
    #[must_use]
    pub fn high(&self, base: Offset) -> Offset {
        self.iter(base).next_back().map_or(base, |(_, end)| end)
    }

    /// Adds `[start, end)`, which lies above `base`, merging what it touches. Returns the bytes
    /// that are new.
    pub fn insert(&mut self, base: Offset, start: Offset, end: Offset) -> u64 {
        if start >= end || start < base {
            return 0;
        }
        let mut merged = (start, end);
        let mut covered = 0;
        let mut out = [[0; 2]; MAX_SACKED];
        let mut n = 0;
        let mut placed = false;
        let mut fits = true;
        let mut push = |range: (Offset, Offset)| {
            if let Some(slot) = out.get_mut(n) {
                *slot = [range.0 as u32, range.1 as u32];
                n += 1;
            } else {
                fits = false;
            }
        };
        for (s, e) in self.iter(base) {
            if e < merged.0 {
                push((s, e));
            } else if s > merged.1 {
                if !placed {
                    push(merged);
                    placed = true;
                }
                push((s, e));
            } else {
                covered += e - s;
                merged = (merged.0.min(s), merged.1.max(e));
            }
        }
        if !placed {
            push(merged);
        }
        if !fits {
            return 0;
        }
        self.ranges = out;
        self.len = n as u32;
        merged.1 - merged.0 - covered
    }

    /// Forgets what lies below `to`, the new base; `base` is the old one. Returns the bytes
    /// forgotten.
    pub fn advance(&mut self, base: Offset, to: Offset) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let before = self.bytes(base);
        let mut out = [[0; 2]; MAX_SACKED];
        let mut n = 0;
        for ((s, e), slot) in self.iter(base).filter(|&(_, e)| e > to).zip(&mut out) {
            *slot = [s.max(to) as u32, e as u32];
            n += 1;
        }
        self.ranges = out;
        self.len = n;
        before - self.bytes(to)
    }

    /// The part of `[from, to)` that is not selectively acknowledged and comes first.
    #[must_use]
    pub fn first_hole(&self, base: Offset, from: Offset, to: Offset) -> Option<(Offset, Offset)> {
        let mut at = from;
        for (s, e) in self.iter(base) {
            if e <= at {
                continue;
            }
            if s > at {
                let end = s.min(to);
                return (at < end).then_some((at, end));
            }
            at = e;
        }
        (at < to).then_some((at, to))
    }

    /// Bytes of `[base, to)` that are not selectively acknowledged.
    #[must_use]
    pub fn missing(&self, base: Offset, to: Offset) -> u64 {
        let sacked: u64 = self
            .iter(base)
            .map(|(s, e)| e.min(to).saturating_sub(s))
            .sum();
        to.saturating_sub(base).saturating_sub(sacked)
    }

    /// RFC 6675 4, IsLost: holes below the result are lost, because at least `threshold` ranges,
    /// or more than `threshold - 1` segments of `mss`, were acknowledged above them. `base` if
    /// nothing is.
    #[must_use]
    pub fn lost_below(&self, base: Offset, threshold: u32, mss: u32) -> Offset {
        let enough = u64::from(threshold.saturating_sub(1)) * u64::from(mss);
        let mut bytes = 0;
        for (count, (start, end)) in (1..).zip(self.iter(base).rev()) {
            bytes += end - start;
            if count >= threshold || bytes > enough {
                return start;
            }
        }
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: Offset = (3 << 32) - 40;

    fn list(board: &Scoreboard, base: Offset) -> Vec<(u64, u64)> {
        board.iter(base).map(|(s, e)| (s - B, e - B)).collect()
    }

    #[test]
    fn ranges_merge_across_the_wrap_of_their_low_halves() {
        let mut board = Scoreboard::default();
        assert_eq!(board.insert(B, B + 10, B + 20), 10);
        assert_eq!(board.insert(B, B + 30, B + 60), 30);
        assert_eq!(board.insert(B, B + 15, B + 25), 5);
        assert_eq!(board.insert(B, B + 25, B + 30), 5);
        assert_eq!(list(&board, B), [(10, 60)]);
        assert_eq!(board.high(B), B + 60);
        assert_eq!(board.advance(B, B + 50), 40);
        assert_eq!(list(&board, B + 50), [(50, 60)]);
    }

    #[test]
    fn a_full_board_forgets_instead_of_lying() {
        let mut board = Scoreboard::default();
        for i in 0..MAX_SACKED as u64 {
            assert_eq!(board.insert(B, B + 10 * i + 5, B + 10 * i + 8), 3);
        }
        assert_eq!(board.insert(B, B + 1000, B + 1001), 0);
        assert_eq!(board.len(), MAX_SACKED);
        // Growing an existing one still works.
        assert_eq!(board.insert(B, B + 8, B + 15), 7);
        assert_eq!(board.len(), MAX_SACKED - 1);
    }

    #[test]
    fn holes_are_found_in_order() {
        let mut board = Scoreboard::default();
        board.insert(B, B + 10, B + 20);
        board.insert(B, B + 30, B + 40);
        assert_eq!(board.first_hole(B, B, B + 50), Some((B, B + 10)));
        assert_eq!(board.first_hole(B, B + 10, B + 50), Some((B + 20, B + 30)));
        assert_eq!(board.first_hole(B, B + 25, B + 28), Some((B + 25, B + 28)));
        assert_eq!(board.first_hole(B, B + 35, B + 40), None);
        assert_eq!(board.first_hole(B, B + 35, B + 50), Some((B + 40, B + 50)));
        assert_eq!(board.missing(B, B + 35), 20);
    }

    // RFC 6675 4: three discontiguous ranges, or more than two segments, above a hole.
    #[test]
    fn loss_is_declared_by_ranges_or_by_bytes() {
        let mut board = Scoreboard::default();
        board.insert(B, B + 1000, B + 1100);
        board.insert(B, B + 1200, B + 1300);
        assert_eq!(board.lost_below(B, 3, 1000), B);
        board.insert(B, B + 1400, B + 1500);
        assert_eq!(board.lost_below(B, 3, 1000), B + 1000);
        let mut board = Scoreboard::default();
        board.insert(B, B + 1000, B + 3000);
        assert_eq!(board.lost_below(B, 3, 1000), B);
        board.insert(B, B + 3000, B + 3001);
        assert_eq!(board.lost_below(B, 3, 1000), B + 1000);
    }

    // Against a naive set, with seeds.
    #[test]
    fn it_agrees_with_a_bitmap() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut board = Scoreboard::default();
            let mut map = [false; 200];
            let mut base = 0usize;
            for _ in 0..40 {
                let s = rng.usize(base..200);
                let e = rng.usize(s..=200);
                let before = map.iter().filter(|&&b| b).count();
                let mut next = map;
                next[s..e].fill(true);
                let runs =
                    (1..200).filter(|&i| next[i] && !next[i - 1]).count() + usize::from(next[0]);
                let new = board.insert(B + base as u64, B + s as u64, B + e as u64);
                if runs <= MAX_SACKED && s < e {
                    map = next;
                    assert_eq!(
                        new as usize,
                        map.iter().filter(|&&b| b).count() - before,
                        "seed {seed}"
                    );
                }
                if rng.u8(..) < 30 {
                    let to = rng.usize(base..200);
                    board.advance(B + base as u64, B + to as u64);
                    map[..to].fill(false);
                    base = to;
                }
                let bytes = board.bytes(B + base as u64) as usize;
                assert_eq!(bytes, map.iter().filter(|&&b| b).count(), "seed {seed}");
                let hole = (base..200).find(|&i| !map[i]);
                assert_eq!(
                    board
                        .first_hole(B + base as u64, B + base as u64, B + 200)
                        .map(|h| (h.0 - B) as usize),
                    hole,
                    "seed {seed}"
                );
            }
        }
    }
}
