//! Round-trip time and retransmission timeout (RFC 6298), in nanoseconds.
//!
//! One flight is timed at a time: the end of a fresh segment and when it left. A retransmission
//! below that end spoils the measurement (Karn's rule); an echoed timestamp can stand in then,
//! as it says which transmission was answered (RFC 7323 4).

use super::config::Config;
use super::seq::Offset;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Smoothed round-trip time and what follows from it. 64 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RttEstimator {
    /// Smoothed round-trip time; 0 before the first measurement.
    pub srtt: Nanos,
    /// Its mean deviation.
    pub rttvar: Nanos,
    /// Smallest round-trip time seen.
    pub min_rtt: Nanos,
    /// Latest measurement.
    pub latest: Nanos,
    /// Timeout without back-off; 0 before the first measurement.
    pub rto: Nanos,
    /// The acknowledgement of this offset ends the measurement under way; 0 for none.
    pub timed_end: Offset,
    /// When the timed segment left.
    pub timed_at: Nanos,
    /// Retransmission timeouts in a row.
    pub backoff: u32,
    /// Measurements taken, saturating.
    pub samples: u32,
}

impl RttEstimator {
    /// Starts timing the segment that ends at `end`, unless one is being timed.
    pub fn start(&mut self, now: Nanos, end: Offset) {
        if self.timed_end == 0 {
            self.timed_end = end;
            self.timed_at = now;
        }
    }

    /// RFC 6298 3: a segment that starts at `start` is sent again, so a measurement that
    /// includes it means nothing.
    pub fn spoil(&mut self, start: Offset) {
        if start < self.timed_end {
            self.timed_end = 0;
        }
    }

    /// Ends the measurement if `ack` covers it.
    pub fn finish(&mut self, now: Nanos, ack: Offset) -> Option<Nanos> {
        if self.timed_end == 0 || ack < self.timed_end {
            return None;
        }
        self.timed_end = 0;
        Some(now.saturating_sub(self.timed_at).max(1))
    }

    /// Takes a measurement (RFC 6298 2.2, 2.3). It also ends the back-off.
    pub fn sample(&mut self, rtt: Nanos, config: &Config) {
        let rtt = rtt.clamp(1, config.rto_max);
        if self.srtt == 0 {
            self.srtt = rtt;
            self.rttvar = rtt / 2;
            self.min_rtt = rtt;
        } else {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
            self.min_rtt = self.min_rtt.min(rtt);
        }
        self.latest = rtt;
        self.samples = self.samples.saturating_add(1);
        // The floor is on the variance part, as in Linux: a path of 300 ms needs the margin too.
        self.rto = (self.srtt + (4 * self.rttvar).max(config.rto_min)).min(config.rto_max);
    }

    /// The timeout with back-off (RFC 6298 5.5).
    #[must_use]
    pub fn timeout(&self, config: &Config) -> Nanos {
        let base = if self.rto == 0 {
            config.rto_initial
        } else {
            self.rto.min(config.rto_max)
        };
        base.saturating_mul(1 << self.backoff.min(20))
            .min(config.rto_max)
    }

    /// A timeout happened.
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
        self.timed_end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::{MILLISECOND, SECOND};

    // RFC 6298 2.1, 2.2, 2.3.
    #[test]
    fn the_estimator_follows_the_formulas() {
        let config = Config {
            rto_min: MILLISECOND,
            ..Config::default()
        };
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(&config), SECOND);
        rtt.sample(100 * MILLISECOND, &config);
        assert_eq!(rtt.srtt, 100 * MILLISECOND);
        assert_eq!(rtt.rto, 300 * MILLISECOND);
        rtt.sample(180 * MILLISECOND, &config);
        assert_eq!(rtt.rttvar, (3 * 50 + 80) * MILLISECOND / 4);
        assert_eq!(rtt.srtt, 110 * MILLISECOND);
    }

    // RFC 6298 5.5 and 2.5.
    #[test]
    fn back_off_doubles_up_to_the_maximum() {
        let config = Config::default();
        let mut rtt = RttEstimator::default();
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.timeout(&config), 4 * SECOND);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(&config), config.rto_max);
    }

    // RFC 6298 3 (Karn).
    #[test]
    fn a_retransmission_spoils_the_measurement() {
        let mut rtt = RttEstimator::default();
        rtt.start(10, 1000);
        rtt.start(20, 2000);
        assert_eq!(rtt.finish(25, 999), None);
        rtt.spoil(1000);
        assert_eq!(rtt.finish(30, 1000), Some(20));
        rtt.start(40, 3000);
        rtt.spoil(2999);
        assert_eq!(rtt.finish(50, 3000), None);
    }
}
