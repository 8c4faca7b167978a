//! Sequence numbers: positions in a 32-bit space that wraps (RFC 9293 3.4).
//!
//! There is deliberately no `Ord`: "before" is not transitive around a circle, so a sort or a
//! `BTreeMap` keyed by it would be wrong. Compare two numbers of one connection only.

use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};

/// A TCP sequence number; arithmetic and comparison are modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// Whether `self` comes before `other`, that is, `other` is less than 2^31 ahead.
    ///
    /// At a distance of exactly 2^31 each is before the other; no window is that large.
    #[inline]
    #[must_use]
    pub const fn lt(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }

    /// Whether `self` comes before `other` or is the same.
    #[inline]
    #[must_use]
    pub const fn le(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() <= 0
    }

    /// Whether `self` comes after `other`.
    #[inline]
    #[must_use]
    pub const fn gt(self, other: Self) -> bool {
        other.lt(self)
    }

    /// Whether `self` comes after `other` or is the same.
    #[inline]
    #[must_use]
    pub const fn ge(self, other: Self) -> bool {
        other.le(self)
    }

    /// The later of two.
    #[inline]
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.lt(other) { other } else { self }
    }

    /// The earlier of two.
    #[inline]
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if self.gt(other) { other } else { self }
    }

    /// Whether `start <= self < start + len`: the window test of RFC 9293 3.10.7.4, exact for
    /// every `len`.
    #[inline]
    #[must_use]
    pub const fn in_window(self, start: Self, len: u32) -> bool {
        self.0.wrapping_sub(start.0) < len
    }

    /// How many octets `self` is ahead of `earlier`, as an unsigned distance around the circle.
    #[inline]
    #[must_use]
    pub const fn distance_from(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;
    #[inline]
    fn add(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

impl AddAssign<u32> for SeqNumber {
    #[inline]
    fn add_assign(&mut self, octets: u32) {
        *self = *self + octets;
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;
    #[inline]
    fn sub(self, octets: u32) -> Self {
        Self(self.0.wrapping_sub(octets))
    }
}

impl SubAssign<u32> for SeqNumber {
    #[inline]
    fn sub_assign(&mut self, octets: u32) {
        *self = *self - octets;
    }
}

impl Sub for SeqNumber {
    type Output = i32;
    /// Signed distance: positive when `self` is after `earlier`.
    #[inline]
    fn sub(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }
}

impl fmt::Display for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u32> for SeqNumber {
    #[inline]
    fn from(value: u32) -> Self {
        Self(value)
    }
}

impl From<SeqNumber> for u32 {
    #[inline]
    fn from(seq: SeqNumber) -> Self {
        seq.0
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNumber;

    // RFC 9293 3.4: "comparisons … must include the possibility of wraparound".
    #[test]
    fn order_holds_across_the_wrap() {
        let before = SeqNumber(u32::MAX - 1);
        let after = before + 4;
        assert_eq!(after, SeqNumber(2));
        assert!(before.lt(after) && before.le(after) && after.gt(before) && after.ge(before));
        assert!(!after.lt(before) && before.le(before) && !before.lt(before));
        assert_eq!(after - before, 4);
        assert_eq!(before - after, -4);
        assert_eq!(after.max(before), after);
        assert_eq!(after.min(before), before);
        assert_eq!(after - 4, before);
        assert_eq!(after.distance_from(before), 4);
    }

    #[test]
    fn a_window_of_any_size_is_exact() {
        let start = SeqNumber(u32::MAX);
        assert!(start.in_window(start, 1));
        assert!(!start.in_window(start, 0));
        assert!((start + 9).in_window(start, 10));
        assert!(!(start + 10).in_window(start, 10));
        assert!((start + 0xffff_fffe).in_window(start, u32::MAX));
        assert!(!(start - 1).in_window(start, u32::MAX));
    }

    #[test]
    fn assignment_wraps_too() {
        let mut seq = SeqNumber(u32::MAX);
        seq += 1;
        assert_eq!(seq, SeqNumber(0));
        seq -= 1;
        assert_eq!(seq, SeqNumber(u32::MAX));
        assert_eq!(seq.to_string(), "4294967295");
    }
}
