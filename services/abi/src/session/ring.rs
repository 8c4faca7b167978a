//! A stream buffer that grows while it is in use: where the byte of a position lies.
//!
//! A ring keeps byte `p` of a stream at `p` modulo its size. Ours changes its size at a position
//! that is agreed on beforehand, the *switch*, so that nothing is copied or moved:
//!
//! ```text
//!            0        M        2M       3M   switch = 3M, from M to 2M
//!   stream   |--------|--------|--------|--------|--------|--------|--------| ...
//!   place    0 .. M   0 .. M   0 .. M   M .. 2M  0 .. M   M .. 2M  0 .. M     (2M large from 3M)
//! ```
//!
//! **Growing** from `M` to `N` (both powers of two): from the switch `S` on, which is at place `r`
//! of the old rule, position `p` is at `(p - S + M) mod N`. Let `lo` be the first position in use.
//!
//! - Old positions are at distinct places while `S - lo <= M`, as in any ring.
//! - The first `N - M` new ones are at places `M .. N`, which the old rule never used.
//! - The next ones, `S + (N - M) + x`, are at place `x < M`. The old rule has `S - r + x` there if
//!   `x < r`, which is `N - M + r` bytes before, and else `S - r - M + x`, `N + r` bytes before.
//!
//! Hence [`Ring::limit`]: at most `M` bytes in use while `S` is further than `M` away. As soon as
//! it is not, `S + (N - M)` may be reached, which are `N` bytes in use at once; that stays until
//! `N - M + r` from `lo` on are more (`N` where `r` is 0: nothing is `N - M` bytes before then).
//! With `S` behind it is `N` bytes. The limit never falls when `lo` grows, and at least `M` bytes
//! may always be in use. **Shrinking**: from the switch on, positions are at `(p - S) mod N`, and
//! none is used before all old ones are done with.
//!
//! A switch at the next place 0 would do without `r`, but may lie nearly `M` further off: a buffer
//! that is to double within a round trip would do so when twice as much has passed.
//!
//! A switch lies beyond all that may have been written or offered so far, so whoever has not yet
//! heard of it is not wrong about any position that he may touch. At most one is pending: a rule
//! is replaced when no position before the other one's switch is in use. Thus two words say all,
//! each is written at once, and a reader takes the rule with the greatest switch not above the
//! position it looks for.
//!
//! The transport decides on switches, has them in its committed record, and only then publishes
//! the words ([`super::control::TX_RING`], [`super::control::RX_RING`]). It never reads them back.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Smallest ring, and what switches are multiples of.
pub const RING_GRAIN: u64 = RING_LEAST as u64;
const RING_LEAST: u32 = 4096;

/// Largest ring.
pub const RING_MOST: u32 = 1 << 26;

/// One rule, as it is in a word: the switch, `log2` of the size in bits 0 to 5, and `log2` of the
/// place of the switch in bits 6 to 11 (0: place 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    start: u64,
    size: u64,
    at: u64,
}

impl Rule {
    const fn of(word: u64) -> Option<Self> {
        let (size, at) = (word & 63, word >> 6 & 63);
        if size < RING_GRAIN.trailing_zeros() as u64
            || size > RING_MOST.trailing_zeros() as u64
            || at >= size
        {
            return None;
        }
        Some(Self {
            start: word & !(RING_GRAIN - 1),
            size: 1 << size,
            at: if at == 0 { 0 } else { 1 << at },
        })
    }

    const fn word(self) -> u64 {
        let at = if self.at == 0 {
            0
        } else {
            self.at.trailing_zeros() as u64
        };
        self.start | self.size.trailing_zeros() as u64 | at << 6
    }

    /// Place of a position not before the switch.
    const fn place(self, position: u64) -> u64 {
        (position - self.start + self.at) & (self.size - 1)
    }
}

/// A stretch of a stream that lies in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Place of its first byte in the ring.
    pub at: u64,
    /// Bytes, at least one.
    pub len: u64,
}

/// A ring. 16 bytes of a record, and two words of a control block.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ring {
    words: [u64; 2],
}

impl Ring {
    /// An empty stream's ring of `size` bytes: a power of two between a page and [`RING_MOST`];
    /// another number counts as the next one that is.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        let size = if size < RING_LEAST {
            RING_LEAST
        } else if size > RING_MOST {
            RING_MOST
        } else {
            size.next_power_of_two()
        };
        let rule = Rule {
            start: 0,
            size: size as u64,
            at: 0,
        };
        Self {
            words: [rule.word(), 0],
        }
    }

    /// The two words, to publish.
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        self.words
    }

    /// What two words say, whoever wrote them: every answer is then defined, if not right.
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// The rules, the one with the later switch first.
    const fn rules(&self) -> (Option<Rule>, Option<Rule>) {
        let [a, b] = self.words;
        match (Rule::of(a), Rule::of(b)) {
            (Some(a), Some(b)) if a.start > b.start => (Some(a), Some(b)),
            (Some(a), None) => (Some(a), None),
            (a, b) => (b, a),
        }
    }

    /// Whether it can be a record's: no larger than `capacity`.
    #[must_use]
    pub fn is_valid(&self, capacity: u32) -> bool {
        let fits = |rule: Rule| rule.size <= u64::from(capacity).max(RING_GRAIN);
        let distinct = |a: Rule, b: Rule| a.start != b.start;
        match self.rules() {
            (Some(new), Some(old)) => fits(new) && fits(old) && distinct(new, old),
            (Some(new), None) => fits(new) && self.words.contains(&0),
            _ => false,
        }
    }

    /// Size from the last switch on, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self.rules() {
            (Some(new), _) => new.size,
            _ => 0,
        }
    }

    /// Places in use or soon in use: the larger of both rules' sizes.
    #[must_use]
    pub fn span(&self) -> u64 {
        match self.rules() {
            (Some(new), old) => new.size.max(old.map_or(0, |o| o.size)),
            _ => 0,
        }
    }

    /// The pending switch, if `lo` is the first position in use.
    #[must_use]
    pub fn pending(&self, lo: u64) -> Option<u64> {
        match self.rules() {
            (Some(new), Some(_)) if new.start > lo => Some(new.start),
            _ => None,
        }
    }

    /// First position that must not be written while `lo` is the first in use.
    #[must_use]
    pub fn limit(&self, lo: u64) -> u64 {
        match self.rules() {
            (Some(new), Some(old)) if new.start > lo => {
                let bound = lo.saturating_add(old.size);
                if new.at == 0 {
                    return bound.min(new.start);
                }
                if bound < new.start {
                    return bound;
                }
                let rest = match old.place(new.start) {
                    0 => new.at,
                    rest => rest,
                };
                let fresh = new.size.saturating_sub(new.at);
                let used_again = lo.saturating_add(fresh).saturating_add(rest);
                new.start.saturating_add(fresh).max(used_again)
            }
            (Some(new), _) => lo.saturating_add(new.size),
            _ => lo,
        }
    }

    /// Where `position` lies, and how many bytes follow it in one piece; none when no rule is
    /// about it.
    #[must_use]
    pub fn stretch(&self, position: u64) -> Option<Stretch> {
        let (new, old) = self.rules();
        let new = new?;
        if position >= new.start {
            let at = new.place(position);
            return Some(Stretch {
                at,
                len: new.size - at,
            });
        }
        let old = old.filter(|old| position >= old.start)?;
        let at = old.place(position);
        Some(Stretch {
            at,
            len: (old.size - at).min(new.start - position),
        })
    }

    /// Changes the size: `lo` is the first position in use, `hi` lies beyond everything that
    /// anybody may have written or may write by what he was told (at most [`Ring::limit`]).
    /// False, and nothing changes, while another switch is pending or when the size is the same.
    pub fn switch(&mut self, lo: u64, hi: u64, size: u32) -> bool {
        let (Some(last), _) = self.rules() else {
            return false;
        };
        let size = u64::from(size);
        let possible = size.is_power_of_two()
            && (RING_GRAIN..=u64::from(RING_MOST)).contains(&size)
            && size != last.size
            && last.start <= lo
            && lo <= hi
            && hi < 1 << 61;
        if !possible {
            return false;
        }
        let hi = hi.max(last.start + 1);
        let rule = if size > last.size {
            Rule {
                start: hi.next_multiple_of(RING_GRAIN),
                size,
                at: last.size,
            }
        } else {
            Rule {
                start: hi.next_multiple_of(RING_GRAIN),
                size,
                at: 0,
            }
        };
        let [a, b] = &mut self.words;
        if *a == last.word() {
            *b = rule.word();
        } else {
            *a = rule.word();
        }
        true
    }
}

/// Both rings of a stream socket, and where they go on when they outgrow the part of the session
/// memory that every socket has. 40 bytes of a record.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Rings {
    /// Of the send buffer.
    pub tx: Ring,
    /// Of the receive buffer.
    pub rx: Ring,
    /// Number of the window plus 1; 0 for none.
    pub window: u32,
    /// Zero.
    pub reserved: u32,
}

#[cfg(test)]
mod tests;
