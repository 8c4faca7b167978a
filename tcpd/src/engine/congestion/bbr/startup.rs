//! Startup and Drain (draft 5.3.1, 5.3.2), and when a pipe is full.

use super::super::Sample;
use super::model::{Model, State, flag};
use super::window::UNIT;
use crate::engine::recovery::Phase;
use crate::engine::seq::clamp;

/// Draft 5.3.1.2: without so much growth (5/4) in three rounds the pipe is full.
const FULL_GROWTH: (u64, u64) = (5, 4);
const FULL_ROUNDS: u32 = 3;
/// Draft 5.3.1.3, BBRStartupFullLossCnt.
const FULL_LOSSES: u32 = 6;
/// Draft 5.3.2: rounds after which Drain ends, drained or not.
const DRAIN_ROUNDS: u32 = 3;

impl Model {
    /// Draft 5.3.1.2, ResetFullBW.
    pub(super) fn reset_full_bw(&mut self, baseline: u64) {
        self.full_bw = baseline;
        self.full_bw_count = 0;
        self.set(flag::FULL_BW_NOW, false);
    }

    /// Draft 5.3.1.2, CheckFullBWReached.
    pub(super) fn check_full_bw(&mut self, sample: &Sample) {
        let rate = sample.rate.rate;
        if self.has(flag::FULL_BW_NOW)
            || !self.has(flag::ROUND_START)
            || sample.rate.app_limited
            || rate == 0
        {
            return;
        }
        let (n, d) = FULL_GROWTH;
        if rate >= self.full_bw.saturating_mul(n) / d {
            self.reset_full_bw(rate);
            return;
        }
        self.full_bw_count += 1;
        if self.full_bw_count >= FULL_ROUNDS {
            self.set(flag::FULL_BW_NOW | flag::FULL_BW_REACHED, true);
        }
    }

    /// Draft 5.3.1, CheckStartupDone.
    pub(super) fn check_startup_done(&mut self, sample: &Sample) {
        self.check_startup_loss(sample);
        if self.state() == State::Startup && self.has(flag::FULL_BW_REACHED) {
            self.enter_drain();
        }
    }

    /// Draft 5.3.1.3, CheckStartupHighLoss: more than two percent of a round in recovery, in six
    /// places.
    fn check_startup_loss(&mut self, sample: &Sample) {
        if self.has(flag::FULL_BW_REACHED) {
            return;
        }
        let ends = if sample.sack {
            self.has(flag::LOSS_ROUND_START)
                && self.loss_ranges >= FULL_LOSSES
                && Self::is_inflight_too_high(sample.rate.lost, sample.rate.in_flight)
        } else {
            sample.lost > 0
        };
        if ends && sample.phase == Phase::Recovery {
            self.leave_startup();
        }
        if self.has(flag::LOSS_ROUND_START) {
            self.loss_ranges = 0;
        }
    }

    /// The path bears no more, by what it lost or marked.
    pub(super) fn leave_startup(&mut self) {
        self.undo_state = State::Startup as u32;
        self.set(flag::FULL_BW_REACHED, true);
        self.inflight_longterm = clamp(self.bdp(UNIT)).max(self.inflight_latest);
    }

    fn enter_drain(&mut self) {
        self.enter(State::Drain);
        self.drain_start_round = self.round_count;
    }

    /// Draft 5.3.2, CheckDrainDone.
    pub(super) fn check_drain_done(&mut self, sample: &Sample) {
        if self.state() != State::Drain {
            return;
        }
        let (_, in_flight) = sample.in_flight;
        let rounds = self.round_count.wrapping_sub(self.drain_start_round);
        if u64::from(in_flight) <= self.inflight(UNIT) || rounds > DRAIN_ROUNDS {
            self.start_down(sample.now);
        }
    }
}
