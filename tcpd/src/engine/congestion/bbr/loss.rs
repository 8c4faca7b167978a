//! What losses and marks change (draft 5.5.10, 5.5.11): the long-term bound while probing, the
//! short-term bounds otherwise, and both back if the losses were none.

use super::super::Sample;
use super::model::{Model, NO_BOUND, State, flag};
use crate::engine::sent::Loss;
use crate::engine::seq::clamp;
use abi::Nanos;

/// Draft 2.8, LossThresh, in percent.
const LOSS_THRESH: u64 = 2;
/// Draft 2.8, Beta, in percent.
const BETA: u64 = 70;

impl Model {
    /// Draft 5.5.10.2, IsInflightTooHigh. A flight of 0 bytes is one that is not known.
    pub(super) fn is_inflight_too_high(lost: u64, in_flight: u32) -> bool {
        in_flight > 0 && lost * 100 > u64::from(in_flight) * LOSS_THRESH
    }

    /// The same of an acknowledgement; without SACK any loss is too much.
    pub(super) fn is_sample_too_high(&self, sample: &Sample) -> bool {
        Self::is_inflight_too_high(sample.rate.lost, sample.rate.in_flight)
            || (sample.rate.lost > 0 && !sample.sack)
    }

    /// Draft 5.5.10.2, NoteLoss.
    fn note_loss(&mut self) {
        if !self.has(flag::LOSS_IN_ROUND) {
            self.loss_round_delivered = self.delivered;
        }
        self.set(flag::LOSS_IN_ROUND, true);
    }

    /// Draft 5.5.10.2, HandleLostPacket.
    pub(super) fn on_lost(&mut self, now: Nanos, loss: &Loss) {
        self.note_loss();
        if loss.apart {
            self.loss_ranges = self.loss_ranges.saturating_add(1);
        }
        if self.has(flag::BW_PROBE_SAMPLE)
            && Self::is_inflight_too_high(u64::from(loss.lost), loss.in_flight)
        {
            let safe = inflight_at_loss(loss);
            self.on_inflight_too_high(now, safe, loss.app_limited);
        }
    }

    /// Draft 5.5.10.2, HandleInflightTooHigh.
    fn on_inflight_too_high(&mut self, now: Nanos, safe: u32, app_limited: bool) {
        self.set(flag::PREV_PROBE_TOO_HIGH, true);
        self.set(flag::BW_PROBE_SAMPLE, false);
        if !app_limited {
            let least = clamp(self.target_inflight() * BETA / 100);
            self.inflight_longterm = safe.max(least);
        }
        if self.state() == State::Up {
            self.undo_state = State::Up as u32;
            self.start_down(now);
        }
    }

    /// An echo of a mark, at most one for each window of data: `in_flight` bytes are too many.
    pub(super) fn on_mark(&mut self, now: Nanos, in_flight: u32, mss: u32) {
        if self.cwnd == 0 {
            // Nothing was measured yet.
            return;
        }
        self.note_loss();
        if self.state() == State::Startup {
            self.save_upon_loss();
            self.mss = mss;
            self.leave_startup();
        } else if self.has(flag::BW_PROBE_SAMPLE) {
            let safe = clamp(u64::from(in_flight) * BETA / 100);
            self.on_inflight_too_high(now, safe, false);
        }
    }

    /// Draft 5.5.10.3, UpdateLatestDeliverySignals.
    pub(super) fn update_latest_signals(&mut self, sample: &Sample) {
        self.set(flag::LOSS_ROUND_START, false);
        let rate = &sample.rate;
        self.bw_latest = self.bw_latest.max(rate.rate);
        self.inflight_latest = self.inflight_latest.max(delivered(sample));
        if rate
            .prior_delivered
            .is_some_and(|prior| prior >= self.loss_round_delivered)
        {
            self.loss_round_delivered = self.delivered;
            self.set(flag::LOSS_ROUND_START, true);
        }
    }

    /// Draft 5.5.10.3, AdvanceLatestDeliverySignals.
    pub(super) fn advance_latest_signals(&mut self, sample: &Sample) {
        if self.has(flag::LOSS_ROUND_START) {
            self.bw_latest = sample.rate.rate;
            self.inflight_latest = delivered(sample);
        }
    }

    /// Draft 5.5.10.3, ResetCongestionSignals.
    pub(super) fn reset_congestion_signals(&mut self) {
        self.set(flag::LOSS_IN_ROUND, false);
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    /// Draft 5.5.10.3, UpdateCongestionSignals and AdaptLowerBoundsFromCongestion: once a round.
    pub(super) fn adapt_to_losses(&mut self) {
        if !self.has(flag::LOSS_ROUND_START) {
            return;
        }
        if self.has(flag::LOSS_IN_ROUND) && !self.state().is_probing() {
            let bw = self.bw_shortterm.min(self.max_bw());
            let inflight = if self.inflight_shortterm == NO_BOUND {
                self.cwnd
            } else {
                self.inflight_shortterm
            };
            let bw = u64::try_from(u128::from(bw) * u128::from(BETA) / 100).unwrap_or(u64::MAX);
            self.bw_shortterm = self.bw_latest.max(bw);
            self.inflight_shortterm = self
                .inflight_latest
                .max(clamp(u64::from(inflight) * BETA / 100));
        }
        self.set(flag::LOSS_IN_ROUND, false);
    }

    /// Draft 5.5.10.3, ResetShortTermModel.
    pub(super) fn reset_short_term(&mut self) {
        self.bw_shortterm = u64::MAX;
        self.inflight_shortterm = NO_BOUND;
    }

    /// Draft 5.5.11.1, SaveStateUponLoss.
    pub(super) fn save_upon_loss(&mut self) {
        self.save_window();
        self.undo_state = u32::MAX;
        self.undo_bw_shortterm = self.bw_shortterm;
        self.undo_inflight_shortterm = self.inflight_shortterm;
        self.undo_inflight_longterm = self.inflight_longterm;
    }

    /// Draft 5.5.11.2, HandleSpuriousLossDetection.
    pub(super) fn on_spurious_loss(&mut self) {
        self.restore_window();
        self.set(flag::LOSS_IN_ROUND, false);
        self.reset_full_bw(0);
        self.bw_shortterm = self.bw_shortterm.max(self.undo_bw_shortterm);
        self.inflight_shortterm = self.inflight_shortterm.max(self.undo_inflight_shortterm);
        self.inflight_longterm = self.inflight_longterm.max(self.undo_inflight_longterm);
        let was = core::mem::replace(&mut self.undo_state, u32::MAX);
        let state = self.state();
        if was == State::Startup as u32 && state != State::Startup {
            self.set(flag::FULL_BW_REACHED, false);
            if state != State::ProbeRtt {
                self.enter(State::Startup);
            }
        } else if was == State::Up as u32 && state != State::Up && state != State::ProbeRtt {
            self.start_refill();
        }
    }
}

/// RS.delivered: delivered since the newest unit of the acknowledgement left.
fn delivered(sample: &Sample) -> u32 {
    let rate = &sample.rate;
    rate.prior_delivered
        .map_or(0, |prior| clamp(rate.delivered.saturating_sub(prior)))
}

/// Draft 5.5.10.2, InflightAtLoss: a unit is many segments; how much of it was in flight when
/// losses crossed the threshold.
fn inflight_at_loss(loss: &Loss) -> u32 {
    let before = loss.in_flight.saturating_sub(loss.len);
    let lost_before = loss.lost.saturating_sub(loss.len);
    let allowed = u64::from(before) * LOSS_THRESH / 100;
    let prefix = allowed.saturating_sub(u64::from(lost_before)) * 100 / (100 - LOSS_THRESH);
    before.saturating_add(clamp(prefix))
}
