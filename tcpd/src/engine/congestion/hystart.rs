//! HyStart++ (RFC 9406): slow start that ends when the round-trip time shows a queue, before the
//! queue overflows.
//!
//! ```text
//!   slow start --- round's least RTT grew ---> conservative slow start (a quarter as fast)
//!       ^                                          |            |
//!       +-------- it was a blip: RTT below --------+            +--- five rounds ---> done
//! ```
//!
//! For the first slow start only (RFC 9406 4.3, last paragraph); the caller sees to that.
//!
//! RFC 9406 counts round-trip times by acknowledgements. A peer that merges segments acknowledges
//! a whole unit at once, so that a round has few: a sample counts for up to [`MOST_WEIGHT`]
//! acknowledgements of two segments each, which still leaves two samples to a verdict.
//!
//! L, the limit of what one acknowledgement adds (RFC 9406 4.2), is infinite as in Linux: the
//! other end of a path with super-segments acknowledges 64 KiB at once, and a limit of eight
//! segments would make slow start four times as long.

use crate::engine::seq::Offset;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MILLISECOND: Nanos = 1_000_000;
/// `MIN_RTT_THRESH`, `MAX_RTT_THRESH`.
const RTT_THRESHOLD: (Nanos, Nanos) = (4 * MILLISECOND, 16 * MILLISECOND);
/// `MIN_RTT_DIVISOR`.
const RTT_DIVISOR: Nanos = 8;
/// `N_RTT_SAMPLE`.
const SAMPLES: u32 = 8;
/// Most that one sample counts for.
const MOST_WEIGHT: u32 = 4;
/// `CSS_GROWTH_DIVISOR`.
const GROWTH_DIVISOR: u32 = 4;
/// `CSS_ROUNDS`.
const CSS_ROUNDS: u32 = 5;

/// The state. 40 bytes of an algorithm's area.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HyStart {
    /// The round ends when this is acknowledged.
    window_end: Offset,
    /// Least round-trip time of the last round; 0: none.
    last_min: Nanos,
    /// Least round-trip time of this round; 0: none.
    current_min: Nanos,
    /// What the conservative phase compares with; 0 outside of it.
    baseline: Nanos,
    /// Samples in this round.
    samples: u32,
    /// Rounds of the conservative phase that are over.
    css_rounds: u32,
}

/// An acknowledgement, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Oldest offset not acknowledged now.
    pub una: Offset,
    /// Next offset to send.
    pub nxt: Offset,
    /// Segments newly acknowledged.
    pub segments: u32,
    /// Round-trip time measured, if there is one.
    pub rtt: Option<Nanos>,
}

impl HyStart {
    /// Takes an acknowledgement. Returns what the window may grow by, for `acked` bytes, or
    /// `None` if slow start is over.
    pub fn on_ack(&mut self, sample: &Sample, acked: u32) -> Option<u32> {
        if sample.una >= self.window_end {
            // RFC 9406 4.2: a round begins.
            if self.window_end != 0 && self.baseline != 0 {
                self.css_rounds += 1;
                if self.css_rounds >= CSS_ROUNDS {
                    return None;
                }
            }
            self.window_end = sample.nxt.max(sample.una + 1);
            self.last_min = self.current_min;
            self.current_min = 0;
            self.samples = 0;
        }
        if let Some(rtt) = sample.rtt {
            let rtt = rtt.max(1);
            self.current_min = match self.current_min {
                0 => rtt,
                least => least.min(rtt),
            };
            let weight = (sample.segments / 2).clamp(1, MOST_WEIGHT);
            self.samples = self.samples.saturating_add(weight);
            self.judge();
        }
        if self.baseline == 0 {
            Some(acked)
        } else {
            Some(acked / GROWTH_DIVISOR)
        }
    }

    fn judge(&mut self) {
        if self.samples < SAMPLES || self.current_min == 0 {
            return;
        }
        if self.baseline != 0 {
            // RFC 9406 4.2: the growth was a blip.
            if self.current_min < self.baseline {
                self.baseline = 0;
                self.css_rounds = 0;
            }
        } else if self.last_min != 0 {
            let (least, most) = RTT_THRESHOLD;
            let threshold = (self.last_min / RTT_DIVISOR).clamp(least, most);
            if self.current_min >= self.last_min + threshold {
                self.baseline = self.current_min;
                self.css_rounds = 0;
            }
        }
    }

    /// Whether the conservative phase is on.
    #[must_use]
    pub const fn is_conservative(&self) -> bool {
        self.baseline != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of ten acknowledgements of two segments.
    fn round(h: &mut HyStart, una: &mut Offset, rtts: impl Fn(u64) -> Nanos) -> Option<u32> {
        let mut grow = Some(0);
        for i in 0..10 {
            *una += 2;
            let sample = Sample {
                una: *una,
                nxt: *una + 20,
                segments: 2,
                rtt: Some(rtts(i)),
            };
            grow = h.on_ack(&sample, 2_000);
        }
        grow
    }

    // RFC 9406 4.2: rising delay leads to the conservative phase, and out of it after five rounds.
    #[test]
    fn a_queue_that_builds_up_ends_slow_start() {
        let mut h = HyStart::default();
        let mut una = 1;
        assert_eq!(round(&mut h, &mut una, |_| 20 * MILLISECOND), Some(2_000));
        assert_eq!(round(&mut h, &mut una, |_| 23 * MILLISECOND), Some(2_000));
        // Least of the round: four milliseconds more than the last round's.
        assert_eq!(round(&mut h, &mut una, |_| 27 * MILLISECOND), Some(500));
        let mut rounds = 0;
        while round(&mut h, &mut una, |_| 30 * MILLISECOND).is_some() {
            rounds += 1;
            assert!(rounds < 10);
        }
        assert!((3..=5).contains(&rounds), "{rounds}");
    }

    // RFC 9406 4.2: the delay fell again, so slow start goes on.
    #[test]
    fn a_blip_does_not() {
        let mut h = HyStart::default();
        let mut una = 1;
        round(&mut h, &mut una, |_| 20 * MILLISECOND);
        round(&mut h, &mut una, |_| 20 * MILLISECOND);
        assert_eq!(round(&mut h, &mut una, |_| 30 * MILLISECOND), Some(500));
        assert_eq!(round(&mut h, &mut una, |_| 20 * MILLISECOND), Some(2_000));
        assert!(!h.is_conservative());
    }

    #[test]
    fn jitter_above_an_unchanged_minimum_is_nothing() {
        let mut h = HyStart::default();
        let mut una = 1;
        for _ in 0..20 {
            let grow = round(&mut h, &mut una, |i| (20 + 3 * (i % 7)) * MILLISECOND);
            assert_eq!(grow, Some(2_000));
        }
    }

    // A peer that merges: three acknowledgements a round.
    #[test]
    fn few_large_acknowledgements_are_enough() {
        let mut h = HyStart::default();
        let mut una = 1;
        for rtt in [10, 10, 18] {
            for _ in 0..3 {
                una += 45;
                let sample = Sample {
                    una,
                    nxt: una + 135,
                    segments: 45,
                    rtt: Some(rtt * MILLISECOND),
                };
                h.on_ack(&sample, 1);
            }
        }
        assert!(h.is_conservative());
    }
}
