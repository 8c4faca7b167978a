//! The path's estimates: rounds, the largest rate, the least round-trip time, aggregation.

use super::super::Sample;
use super::model::{Model, flag};
use crate::engine::rate::bytes_in;
use crate::engine::seq::clamp;
use abi::Nanos;

/// Draft 2.16.1, MinRTTFilterLen.
const MIN_RTT_FILTER: Nanos = 10_000_000_000;
/// Draft 2.16.2, ProbeRTTInterval.
const PROBE_RTT_INTERVAL: Nanos = 5_000_000_000;
/// Rounds of each half of the aggregation filter: ten in all (draft 2.12, ExtraAckedFilterLen).
const EXTRA_ROUNDS: u32 = 5;

impl Model {
    /// Draft 5.5.1, StartRound.
    pub(super) fn start_round(&mut self) {
        self.next_round_delivered = self.delivered;
    }

    /// Draft 5.5.2.
    pub(super) fn max_bw(&self) -> u64 {
        let [now, before] = self.max_bw_filter;
        now.max(before)
    }

    /// Draft 5.5.1 and 5.5.5: rounds, and the largest rate.
    pub(super) fn update_max_bw(&mut self, sample: &Sample) {
        let rate = &sample.rate;
        let starts = rate
            .prior_delivered
            .is_some_and(|prior| prior >= self.next_round_delivered);
        self.set(flag::ROUND_START, starts);
        if starts {
            self.start_round();
            self.round_count = self.round_count.wrapping_add(1);
            self.rounds_since_probe_up = self.rounds_since_probe_up.saturating_add(1);
        }
        // 5.5.4: an application that sends less than the path takes says nothing, unless it got
        // more.
        if rate.rate > 0 && (!rate.app_limited || rate.rate >= self.max_bw()) {
            let [now, _] = &mut self.max_bw_filter;
            *now = (*now).max(rate.rate);
        }
    }

    /// Draft 5.5.6, AdvanceMaxBwFilter. A cycle without any sample is none.
    pub(super) fn advance_max_bw_filter(&mut self) {
        let [now, _] = self.max_bw_filter;
        if now > 0 {
            self.max_bw_filter = [0, now];
        }
    }

    /// Draft 5.3.4.3, UpdateMinRTT.
    pub(super) fn update_min_rtt(&mut self, sample: &Sample) {
        let passed = |at: Nanos, time: Nanos| sample.now > at.saturating_add(time);
        let expired =
            self.probe_rtt_min_delay != 0 && passed(self.probe_rtt_min_at, PROBE_RTT_INTERVAL);
        self.set(flag::PROBE_RTT_EXPIRED, expired);
        if let Some(rtt) = sample.rtt
            && (self.probe_rtt_min_delay == 0 || rtt < self.probe_rtt_min_delay || expired)
        {
            self.probe_rtt_min_delay = rtt.max(1);
            self.probe_rtt_min_at = sample.now;
        }
        if self.probe_rtt_min_delay == 0 {
            return;
        }
        if self.min_rtt == 0
            || self.probe_rtt_min_delay < self.min_rtt
            || passed(self.min_rtt_at, MIN_RTT_FILTER)
        {
            self.min_rtt = self.probe_rtt_min_delay;
            self.min_rtt_at = self.probe_rtt_min_at;
        }
    }

    /// Draft 5.5.9, UpdateACKAggregation: what acknowledgements that come in bunches cover beyond
    /// the estimated rate must be in flight beside the bandwidth-delay product.
    pub(super) fn update_aggregation(&mut self, sample: &Sample) {
        if self.has(flag::ROUND_START) {
            self.extra_rounds += 1;
            // In Startup, of one round only.
            let full = self.has(flag::FULL_BW_REACHED);
            if self.extra_rounds >= EXTRA_ROUNDS || !full {
                let [new, _] = self.extra_filter;
                self.extra_filter = [0, if full { new } else { 0 }];
                self.extra_rounds = 0;
            }
        }
        let mut expected = bytes_in(self.bw, sample.now.saturating_sub(self.extra_at));
        if self.extra_delivered <= expected {
            self.extra_delivered = 0;
            self.extra_at = sample.now;
            expected = 0;
        }
        self.extra_delivered = self.extra_delivered.saturating_add(u64::from(sample.acked));
        let extra = clamp(self.extra_delivered.saturating_sub(expected)).min(self.cwnd);
        let [new, _] = &mut self.extra_filter;
        *new = (*new).max(extra);
    }

    /// Draft 5.5.9.
    pub(super) fn extra_acked(&self) -> u32 {
        let [new, old] = self.extra_filter;
        new.max(old)
    }
}
