//! The model's estimates, and which phase follows which.

use super::{
    CYCLE, HIGH_GAIN, LEAST_WINDOW, MIN_RTT_WINDOW, Mode, Model, PROBE_RTT_TIME, Sample, UNIT, flag,
};
use crate::engine::rate::bytes_in;

/// Draft 4.3.2.2: without so much growth (5/4) in three rounds the pipe is full.
const FULL_GROWTH: (u64, u64) = (5, 4);
const FULL_ROUNDS: u32 = 3;
/// Rounds that each of the two halves of the aggregation filter is for (Linux).
const EXTRA_ROUNDS: u32 = 5;

impl Model {
    /// Draft 4.1.1: rounds, and the largest rate.
    pub(super) fn on_rate(&mut self, sample: &Sample) {
        self.set(flag::ROUND_START, false);
        if sample
            .rate
            .prior_delivered
            .is_some_and(|prior| prior >= self.next_round)
        {
            self.next_round = sample.rate.delivered;
            self.round += 1;
            self.set(flag::ROUND_START, true);
            self.set(flag::CONSERVE, false);
        }
        let rate = sample.rate.rate;
        // An application that sends less than the path takes says nothing, unless it got more.
        if rate > 0 && (!sample.rate.app_limited || rate >= self.bw.max()) {
            self.bw.update(self.round, rate);
        }
    }

    /// How much acknowledgements come in bunches: what they cover beyond the estimated rate must
    /// be in flight beside the bandwidth-delay product.
    pub(super) fn on_aggregation(&mut self, sample: &Sample) {
        if self.has(flag::ROUND_START) {
            self.extra_rounds += 1;
            if self.extra_rounds >= EXTRA_ROUNDS {
                self.extra_rounds = 0;
                let [new, old] = self.extra;
                let _ = old;
                self.extra = [0, new];
            }
        }
        let since = sample.now.saturating_sub(self.extra_at);
        let mut expected = bytes_in(self.bw.max(), since);
        if self.extra_acked <= expected {
            self.extra_acked = 0;
            self.extra_at = sample.now;
            expected = 0;
        }
        self.extra_acked = self.extra_acked.saturating_add(u64::from(sample.acked));
        let extra = self.extra_acked.saturating_sub(expected);
        let extra = extra.min(u64::from(self.cwnd));
        let [new, _] = &mut self.extra;
        *new = (*new).max(extra);
    }

    /// Draft 4.3.4.3: the cycle of PROBE_BW.
    pub(super) fn advance_cycle(&mut self, sample: &Sample) {
        if self.mode() != Mode::ProbeBw {
            return;
        }
        let over = sample.now.saturating_sub(self.cycle_at) > self.min_rtt;
        let (before, after) = sample.in_flight;
        let gain = self.pacing_gain();
        let next = if gain > UNIT {
            over && (sample.lost > 0 || u64::from(before) >= self.product(gain))
        } else if gain < UNIT {
            over || u64::from(after) <= self.product(UNIT)
        } else {
            over
        };
        if next {
            self.cycle = (self.cycle + 1) % CYCLE.len() as u32;
            self.cycle_at = sample.now;
        }
    }

    fn enter_probe_bw(&mut self, sample: &Sample) {
        self.mode = Mode::ProbeBw as u32;
        self.cycle_at = sample.now;
        // Draft 4.3.4.2: any but the one that drains, so that flows do not march in step. The
        // clock's low digits are as good as random.
        let pick = ((sample.now / 1_000) ^ sample.rate.delivered) % (CYCLE.len() as u64 - 1);
        self.cycle = if pick == 0 { 0 } else { pick as u32 + 1 };
    }

    /// Draft 4.3.2.2.
    pub(super) fn check_full_pipe(&mut self, sample: &Sample) {
        if self.has(flag::FULL) || !self.has(flag::ROUND_START) || sample.rate.app_limited {
            return;
        }
        let (n, d) = FULL_GROWTH;
        let rate = self.bw.max();
        if rate >= self.full_bw.saturating_mul(n) / d {
            self.full_bw = rate;
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        if self.full_rounds >= FULL_ROUNDS {
            self.set(flag::FULL, true);
        }
    }

    /// Draft 4.3.3.
    pub(super) fn check_drain(&mut self, sample: &Sample) {
        if self.mode() == Mode::Startup && self.has(flag::FULL) {
            self.mode = Mode::Drain as u32;
        }
        let (_, in_flight) = sample.in_flight;
        if self.mode() == Mode::Drain && u64::from(in_flight) <= self.product(UNIT) {
            self.enter_probe_bw(sample);
        }
    }

    /// Draft 4.1.2, 4.3.5: the least round-trip time, and the phase that looks for it. Returns
    /// whether what is sent now is so little that it says nothing about the path's rate.
    pub(super) fn check_probe_rtt(&mut self, sample: &Sample) -> bool {
        let expired =
            self.min_rtt != 0 && sample.now > self.min_rtt_at.saturating_add(MIN_RTT_WINDOW);
        if let Some(rtt) = sample.rtt
            && (self.min_rtt == 0 || rtt <= self.min_rtt || expired)
        {
            self.min_rtt = rtt.max(1);
            self.min_rtt_at = sample.now;
        }
        if expired && !self.has(flag::IDLE) && self.mode() != Mode::ProbeRtt {
            self.save_window();
            self.mode = Mode::ProbeRtt as u32;
            self.probe_rtt_end = 0;
        }
        if sample.acked > 0 {
            self.set(flag::IDLE, false);
        }
        if self.mode() != Mode::ProbeRtt {
            return false;
        }
        let (_, in_flight) = sample.in_flight;
        if self.probe_rtt_end == 0 {
            if in_flight <= LEAST_WINDOW * sample.mss {
                self.probe_rtt_end = sample.now.saturating_add(PROBE_RTT_TIME);
                self.set(flag::ROUND_DONE, false);
                self.next_round = sample.rate.delivered;
            }
            return true;
        }
        if self.has(flag::ROUND_START) {
            self.set(flag::ROUND_DONE, true);
        }
        if self.has(flag::ROUND_DONE) && sample.now >= self.probe_rtt_end {
            self.min_rtt_at = sample.now;
            self.cwnd = self.cwnd.max(self.prior_cwnd);
            if self.has(flag::FULL) {
                self.enter_probe_bw(sample);
            } else {
                self.mode = Mode::Startup as u32;
            }
            return false;
        }
        true
    }

    /// Bandwidth-delay product times `gain`, in bytes; without a model, more than any window.
    pub(super) fn product(&self, gain: u64) -> u64 {
        let rate = self.bw.max();
        if rate == 0 || self.min_rtt == 0 {
            return u64::from(u32::MAX);
        }
        let product = u128::from(bytes_in(rate, self.min_rtt)) * u128::from(gain.min(HIGH_GAIN));
        u64::try_from(product / u128::from(UNIT)).unwrap_or(u64::MAX)
    }
}
