//! HyStart++ (RFC 9406): slow start that ends when the round-trip time shows a queue, before the
//! queue overflows.
//!
//! ```text
//!   slow start --- round's least RTT grew ---> conservative slow start (a quarter as fast)
//!       ^                                          |            |
//!       +-------- it was a blip: RTT below --------+            +--- five rounds ---> done
//! ```
//!
//! Beside the delay, the train of acknowledgements is looked at, as Linux does it (hystart of Ha and
//! Rhee, 2011), which RFC 9406 leaves out: acknowledgements that follow closely on each other for
//! half of the least round-trip time show that the flight takes that long through the bottleneck.
//! The round's least delay cannot show it in time where the sender is not paced. A round that is
//! smaller than the path leaves an empty queue to the next one's first segments, whose delay is
//! then the least; in that next round the window doubles past path and queue of one product of
//! rate and delay. The train leads to conservative slow start too. The five rounds make up for one
//! that was found early, and a delay above the path's least ends it at once: two witnesses.
//!
//! The conservative phase is a doubt: five rounds at a quarter of the pace triple the window. Where
//! the round's least delay is half as long again as the path's least there is none (and more than
//! `MAX_RTT_THRESH` above it, so that it is no jitter of a short path): the window is one and a half
//! products of rate and delay, and slow start ends, as Linux's does at the first sign. A slow link
//! with a queue of many products lost half a queue otherwise; so did a long path whose window was
//! just below the product in the round before.
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
/// Acknowledgements farther apart than this are no train: an eighth of the least round-trip time
/// within these bounds. Linux has two milliseconds; a process gets its acknowledgements in batches.
const TRAIN_GAP: (Nanos, Nanos) = (2 * MILLISECOND, 8 * MILLISECOND);
/// A batch's time, by which a train may seem longer than it is (Linux's `hystart_ack_delay`).
const TRAIN_SLACK: Nanos = MILLISECOND;
/// Smallest window in segments that a train says something about (Linux's `hystart_low_window`).
const TRAIN_WINDOW: u32 = 16;

/// The state. 72 bytes of an algorithm's area.
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
    /// Least round-trip time of all; 0: none.
    least: Nanos,
    /// When the round began; 0: unknown.
    round_start: Nanos,
    /// When the train's last acknowledgement came.
    train_end: Nanos,
    /// 1 while a train was what led to the conservative phase.
    by_train: u32,
    reserved: u32,
}

/// An acknowledgement, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Now.
    pub now: Nanos,
    /// The congestion window in segments.
    pub cwnd: u32,
    /// The window is used, and nothing but acknowledgements sets the pace.
    pub clocked: bool,
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
        if sample.una > self.window_end {
            // RFC 9406 4.2: a round begins, with the first acknowledgement of the next flight. The
            // last one of this flight has the pause between both behind it (as Linux).
            if self.window_end != 0 && self.is_conservative() {
                self.css_rounds += 1;
                if self.css_rounds >= CSS_ROUNDS {
                    return None;
                }
            }
            self.window_end = sample.nxt.max(sample.una + 1);
            self.last_min = self.current_min;
            self.current_min = 0;
            self.samples = 0;
            self.round_start = sample.now;
            self.train_end = sample.now;
        }
        if let Some(rtt) = sample.rtt {
            let rtt = rtt.max(1);
            self.current_min = match self.current_min {
                0 => rtt,
                least => least.min(rtt),
            };
            let weight = (sample.segments / 2).clamp(1, MOST_WEIGHT);
            self.samples = self.samples.saturating_add(weight);
            self.least = match self.least {
                0 => rtt,
                least => least.min(rtt),
            };
            if self.by_train != 0 && self.is_slower_than(self.least) || self.is_long() {
                return None;
            }
            self.judge();
        }
        self.watch_train(sample);
        if self.is_conservative() {
            Some(acked / GROWTH_DIVISOR)
        } else {
            Some(acked)
        }
    }

    /// Whether this round's least delay shows a queue beside `before`.
    fn is_slower_than(&self, before: Nanos) -> bool {
        let (least, most) = RTT_THRESHOLD;
        let threshold = (before / RTT_DIVISOR).clamp(least, most);
        self.samples >= SAMPLES && self.current_min >= before + threshold
    }

    /// Whether what waits in the queue is half of what the path holds, and more than any jitter.
    fn is_long(&self) -> bool {
        let (_, jitter) = RTT_THRESHOLD;
        self.samples >= SAMPLES && self.current_min >= self.least + (self.least / 2).max(jitter)
    }

    fn watch_train(&mut self, sample: &Sample) {
        let (least, most) = TRAIN_GAP;
        let gap = (self.least / 8).clamp(least, most);
        if self.least == 0
            || self.round_start == 0
            || !sample.clocked
            || sample.now.saturating_sub(self.train_end) > gap
        {
            return;
        }
        self.train_end = sample.now;
        let length = sample.now.saturating_sub(self.round_start);
        if !self.is_conservative()
            && sample.cwnd >= TRAIN_WINDOW
            && length > self.least.saturating_add(TRAIN_SLACK) / 2
        {
            self.by_train = 1;
            self.css_rounds = 0;
        }
    }

    fn judge(&mut self) {
        if self.samples < SAMPLES || self.current_min == 0 || self.by_train != 0 {
            return;
        }
        if self.baseline != 0 {
            // RFC 9406 4.2: the growth was a blip.
            if self.current_min < self.baseline {
                self.baseline = 0;
                self.css_rounds = 0;
            }
        } else if self.last_min != 0 && self.is_slower_than(self.last_min) {
            self.baseline = self.current_min;
            self.css_rounds = 0;
        }
    }

    /// Whether the conservative phase is on.
    #[must_use]
    pub const fn is_conservative(&self) -> bool {
        self.baseline != 0 || self.by_train != 0
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
                now: 0,
                cwnd: 20,
                clocked: false,
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

    // Not in RFC 9406: a queue half as large as the path is no blip.
    #[test]
    fn a_long_queue_ends_slow_start_at_once() {
        let mut h = HyStart::default();
        let mut una = 1;
        assert_eq!(round(&mut h, &mut una, |_| 50 * MILLISECOND), Some(2_000));
        assert_eq!(round(&mut h, &mut una, |_| 74 * MILLISECOND), Some(500));
        assert_eq!(round(&mut h, &mut una, |_| 75 * MILLISECOND), None);
        // Of a short path that is jitter still.
        let mut h = HyStart::default();
        for rtt in [1, 1, 4, 16, 16] {
            assert!(round(&mut h, &mut una, |_| rtt * MILLISECOND).is_some());
        }
        assert!(h.is_conservative());
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
                    now: 0,
                    cwnd: 135,
                    clocked: false,
                    una,
                    // What it sets free has not left yet.
                    nxt: una + 90,
                    segments: 45,
                    rtt: Some(rtt * MILLISECOND),
                };
                h.on_ack(&sample, 1);
            }
        }
        assert!(h.is_conservative());
    }

    /// Acknowledgements of two segments each, `apart`, for one round of `cwnd` segments.
    fn train(h: &mut HyStart, now: &mut Nanos, una: &mut Offset, cwnd: u32, apart: Nanos) -> u32 {
        let mut grown = 0;
        for _ in 0..cwnd / 2 {
            *una += 2;
            *now += apart;
            let sample = Sample {
                now: *now,
                cwnd,
                clocked: true,
                una: *una,
                nxt: *una + u64::from(cwnd),
                segments: 2,
                rtt: Some(40 * MILLISECOND),
            };
            grown += h.on_ack(&sample, 2).unwrap();
        }
        grown
    }

    // A train of half the path's time is a flight that nearly fills it; two flights with a pause
    // between them are not.
    #[test]
    fn a_long_train_of_acknowledgements_leads_to_the_conservative_phase() {
        let (mut h, mut now, mut una) = (HyStart::default(), 1, 1);
        assert_eq!(train(&mut h, &mut now, &mut una, 40, MILLISECOND), 40);
        assert!(!h.is_conservative());
        now += 20 * MILLISECOND;
        train(&mut h, &mut now, &mut una, 80, MILLISECOND);
        assert!(h.is_conservative());
    }

    #[test]
    fn what_is_far_apart_is_no_train() {
        let (mut h, mut now, mut una) = (HyStart::default(), 1, 1);
        for _ in 0..3 {
            assert_eq!(train(&mut h, &mut now, &mut una, 20, 6 * MILLISECOND), 20);
        }
    }
}
