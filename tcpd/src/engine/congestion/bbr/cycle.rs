//! ProbeBW (draft 5.3.3): Down, Cruise, Refill, Up, and what a probe shows of the long term.

use super::super::Sample;
use super::model::{AckPhase, Model, NO_BOUND, State, flag};
use super::window::UNIT;
use crate::engine::seq::clamp;
use abi::Nanos;

/// Draft 5.3.3.5.2: at least so long between probes by the clock, and up to a second more.
const PROBE_WAIT: Nanos = 2_000_000_000;
const PROBE_WAIT_SPREAD: Nanos = 1_000_000_000;
/// Draft 5.3.3.5.3: a probe at the latest after so many rounds, as Reno would grow to the same.
const RENO_ROUNDS: u64 = 63;
/// Draft 2.8: of `inflight_longterm`, in percent, what is left to others.
const HEADROOM: u64 = 15;
/// Rounds for which the steps double at the most.
const MOST_DOUBLINGS: u32 = 30;

impl Model {
    pub(super) fn start_down(&mut self, now: Nanos) {
        self.reset_congestion_signals();
        self.probe_up_acked_per_inc = u32::MAX;
        self.pick_probe_wait(now);
        self.cycle_at = now;
        self.ack_phase = AckPhase::ProbeStopping as u32;
        self.start_round();
        self.enter(State::Down);
    }

    pub(super) fn start_refill(&mut self) {
        self.reset_short_term();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_acked = 0;
        self.set(flag::PREV_PROBE_PRECAUTIONARY, false);
        self.ack_phase = AckPhase::Refilling as u32;
        self.start_round();
        self.enter(State::Refill);
    }

    fn start_up(&mut self, sample: &Sample) {
        self.ack_phase = AckPhase::ProbeStarting as u32;
        self.start_round();
        self.reset_full_bw(sample.rate.rate);
        self.enter(State::Up);
        self.raise_slope();
    }

    /// Draft 5.3.3.5.3, PickProbeWait: so that flows do not march in step.
    fn pick_probe_wait(&mut self, now: Nanos) {
        let random = mix(now ^ self.delivered.rotate_left(17));
        self.rounds_since_probe_up = u32::from(random & 1 != 0);
        self.bw_probe_wait = PROBE_WAIT + (random >> 1) % PROBE_WAIT_SPREAD;
    }

    /// Draft 5.3.3.6, UpdateProbeBWCyclePhase.
    pub(super) fn update_cycle(&mut self, sample: &Sample) {
        if !self.has(flag::FULL_BW_REACHED) || self.adapt_long_term(sample) {
            return;
        }
        match self.state() {
            State::Down if self.is_time_to_probe(sample) => self.start_refill(),
            State::Down if self.is_time_to_cruise(sample) => self.enter(State::Cruise),
            State::Cruise if self.is_time_to_probe(sample) => self.start_refill(),
            State::Refill if self.has(flag::ROUND_START) => {
                // One round of it is enough.
                self.set(flag::BW_PROBE_SAMPLE, true);
                self.start_up(sample);
            }
            State::Up if self.is_time_to_go_down(sample) => {
                self.set(flag::PREV_PROBE_TOO_HIGH, false);
                self.start_down(sample.now);
            }
            _ => {}
        }
    }

    /// Draft 5.3.3.5.3, IsTimeToProbeBW: by the clock, or after as many rounds as Reno would
    /// take, in segments.
    fn is_time_to_probe(&self, sample: &Sample) -> bool {
        let segments = self.target_inflight() / u64::from(sample.mss.max(1));
        sample.now > self.cycle_at.saturating_add(self.bw_probe_wait)
            || u64::from(self.rounds_since_probe_up) >= segments.min(RENO_ROUNDS)
    }

    /// Draft 5.3.3.5.3, TargetInflight.
    pub(super) fn target_inflight(&self) -> u64 {
        // After a timeout the window is the engine's for a moment.
        let cwnd = if self.cwnd == 0 {
            self.prior_cwnd
        } else {
            self.cwnd
        };
        self.bdp(UNIT).min(u64::from(cwnd))
    }

    /// Draft 5.3.3.6, IsTimeToCruise.
    fn is_time_to_cruise(&self, sample: &Sample) -> bool {
        let (_, in_flight) = sample.in_flight;
        in_flight <= self.inflight_with_headroom()
            && u64::from(in_flight) <= self.inflight_at(self.max_bw(), UNIT)
    }

    /// Draft 5.3.3.6, IsTimeToGoDown.
    fn is_time_to_go_down(&mut self, sample: &Sample) -> bool {
        let (_, in_flight) = sample.in_flight;
        if self.has(flag::PREV_PROBE_TOO_HIGH) && in_flight >= self.inflight_longterm {
            self.set(flag::PREV_PROBE_PRECAUTIONARY, true);
            return true;
        }
        if sample.cwnd_limited && self.cwnd >= self.inflight_longterm {
            // The rate is limited by the bound, so that it grows no more means nothing.
            self.reset_full_bw(sample.rate.rate);
            return false;
        }
        self.has(flag::FULL_BW_NOW)
    }

    /// Draft 5.3.3.6, InflightWithHeadroom.
    pub(super) fn inflight_with_headroom(&self) -> u32 {
        let bound = self.inflight_longterm;
        if bound == NO_BOUND {
            return NO_BOUND;
        }
        let headroom = clamp(u64::from(bound) * HEADROOM / 100).max(self.mss);
        bound.saturating_sub(headroom).max(self.min_pipe())
    }

    /// Draft 5.3.3.6, RaiseInflightLongtermSlope.
    fn raise_slope(&mut self) {
        let steps = 1u32 << self.bw_probe_up_rounds.min(MOST_DOUBLINGS);
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(MOST_DOUBLINGS);
        self.probe_up_acked_per_inc = (self.cwnd / steps).max(self.mss).max(1);
    }

    /// Draft 5.3.3.6, ProbeInflightLongtermUpward.
    fn probe_upward(&mut self, sample: &Sample) {
        if !sample.cwnd_limited || self.cwnd < self.inflight_longterm {
            return;
        }
        self.bw_probe_up_acked = self.bw_probe_up_acked.saturating_add(sample.acked);
        let per = self.probe_up_acked_per_inc.max(1);
        let steps = self.bw_probe_up_acked / per;
        self.bw_probe_up_acked -= steps * per;
        self.inflight_longterm = self
            .inflight_longterm
            .saturating_add(steps.saturating_mul(sample.mss))
            .min(NO_BOUND - 1);
        if self.has(flag::ROUND_START) {
            self.raise_slope();
        }
    }

    /// Draft 5.3.3.6, AdaptLongTermModel. Returns whether it has decided on the next state.
    fn adapt_long_term(&mut self, sample: &Sample) -> bool {
        let starts = self.has(flag::ROUND_START);
        if self.is_phase(AckPhase::ProbeStarting) && starts {
            self.ack_phase = AckPhase::ProbeFeedback as u32;
        }
        if self.is_phase(AckPhase::ProbeStopping) && starts {
            self.set(flag::BW_PROBE_SAMPLE, false);
            self.ack_phase = AckPhase::Init as u32;
            if self.state().is_probe_bw() {
                if !sample.rate.app_limited {
                    self.advance_max_bw_filter();
                }
                if self.has(flag::PREV_PROBE_PRECAUTIONARY) && !self.has(flag::PREV_PROBE_TOO_HIGH)
                {
                    // 5.3.3.4.2: it was safe, so it is done again without caution.
                    self.start_refill();
                    return true;
                }
            }
        }
        let rate = &sample.rate;
        if self.inflight_longterm == NO_BOUND
            || rate.prior_delivered.is_none()
            || self.is_sample_too_high(sample)
        {
            return false;
        }
        self.inflight_longterm = self.inflight_longterm.max(rate.in_flight);
        if self.state() == State::Up {
            self.probe_upward(sample);
        }
        false
    }
}

/// Spreads a number over all its bits (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
