//! The limited link: a transmitter of a fixed rate with a drop-tail queue of so many frames.

use abi::Nanos;
use std::collections::VecDeque;

/// A transmitter and its queue, on the caller's clock.
///
/// Frames are not kept here: a frame that is admitted is told when its last bit is out.
#[derive(Debug, Default)]
pub struct Line {
    /// When the last bit of each frame that waits, or is being sent, has left.
    leaving: VecDeque<Nanos>,
}

impl Line {
    /// When the last bit of a frame of `len` bytes is out that arrives at `now`; none if there
    /// are `limit` frames already, the one being sent included. A rate of 0 is no limit.
    ///
    /// A frame that is refused takes none of the link's time.
    pub fn admit(&mut self, now: Nanos, len: usize, kbps: u64, limit: usize) -> Option<Nanos> {
        while self.leaving.front().is_some_and(|at| *at <= now) {
            self.leaving.pop_front();
        }
        if kbps == 0 {
            return Some(now);
        }
        if self.leaving.len() >= limit {
            return None;
        }
        // bits / (kbit/s) = ms, so bits * 10^6 / kbps = ns.
        let takes = (len as u64).saturating_mul(8_000_000) / kbps;
        let free = self.leaving.back().copied().unwrap_or(now);
        let at = free.saturating_add(takes);
        self.leaving.push_back(at);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_at_the_rate() {
        // 125 bytes at 1 Mbit/s take a millisecond.
        let mut line = Line::default();
        assert_eq!(line.admit(0, 125, 1000, 9), Some(1_000_000));
        assert_eq!(line.admit(0, 125, 1000, 9), Some(2_000_000));
        // Idle since 2 ms.
        assert_eq!(line.admit(5_000_000, 125, 1000, 9), Some(6_000_000));
    }

    #[test]
    fn a_refused_frame_takes_no_time() {
        let mut line = Line::default();
        assert_eq!(line.admit(0, 125, 1000, 2), Some(1_000_000));
        assert_eq!(line.admit(0, 125, 1000, 2), Some(2_000_000));
        for _ in 0..100 {
            assert_eq!(line.admit(0, 125, 1000, 2), None);
        }
        // One has left: its place is free, and the link at 2 ms.
        assert_eq!(line.admit(1_000_000, 125, 1000, 2), Some(3_000_000));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut line = Line::default();
        for _ in 0..100 {
            assert_eq!(line.admit(7, 1500, 0, 1), Some(7));
        }
    }
}
