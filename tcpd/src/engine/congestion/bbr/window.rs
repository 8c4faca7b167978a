//! Pace and window (draft 5.6).

use super::super::Sample;
use super::model::{Model, NO_BOUND, State, flag};
use crate::engine::rate::bytes_in;
use crate::engine::seq::clamp;
use abi::Nanos;

/// Gains are in units of 1/256.
pub(super) const UNIT: u64 = 256;
/// Draft 2.5: 4 ln 2, the least that doubles the rate each round.
pub(super) const STARTUP_PACING_GAIN: u64 = 710;
/// Draft 2.5.
pub(super) const DRAIN_PACING_GAIN: u64 = UNIT / 2;
/// Draft 2.5, PacingMarginPercent: so that a queue empties.
const MARGIN: u64 = 1;
/// Draft 2.8, MinPipeCwnd, in segments.
const MIN_PIPE: u32 = 4;
/// Draft 5.5.8.1: quanta on their way through hosts that merge: sender, network, receiver.
const QUANTA: u64 = 3;
/// Draft 5.6.3: a quantum is what leaves in this time ...
const QUANTUM_TIME: Nanos = 1_000_000;
/// ... and no more than a unit can be.
const LARGEST_QUANTUM: u64 = 65_000;

/// `value` times a gain.
pub(super) fn times(value: u64, gain: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(gain) / u128::from(UNIT)).unwrap_or(u64::MAX)
}

impl Model {
    /// Draft 5.6.4.3, MinPipeCwnd in bytes.
    pub(super) fn min_pipe(&self) -> u32 {
        MIN_PIPE.saturating_mul(self.mss)
    }

    /// Draft 5.6.2: the estimated rate times `gain`, less the margin; 0 without an estimate.
    pub(super) fn pace(&self, gain: u64) -> u64 {
        times(self.bw, gain) / 100 * (100 - MARGIN)
    }

    fn product(&self, rate: u64, gain: u64) -> u64 {
        if self.min_rtt == 0 {
            return u64::from(self.initial_cwnd);
        }
        times(bytes_in(rate, self.min_rtt), gain)
    }

    /// Draft 5.6.4.2, BDPMultiple.
    pub(super) fn bdp(&self, gain: u64) -> u64 {
        self.product(self.bw, gain)
    }

    /// Draft 5.6.4.2, Inflight.
    pub(super) fn inflight(&self, gain: u64) -> u64 {
        self.inflight_at(self.bw, gain)
    }

    /// The same of another rate than the estimate.
    pub(super) fn inflight_at(&self, rate: u64, gain: u64) -> u64 {
        let pace = self.pace(self.pacing_gain());
        self.quantized(self.product(rate, gain), pace)
    }

    /// Draft 5.6.4.2, QuantizationBudget.
    fn quantized(&self, inflight: u64, pace: u64) -> u64 {
        let mss = u64::from(self.mss);
        // 5.6.3, SetSendQuantum.
        let quantum = bytes_in(pace, QUANTUM_TIME)
            .min(LARGEST_QUANTUM)
            .max(2 * mss);
        let inflight = inflight
            .max(QUANTA * quantum)
            .max(u64::from(self.min_pipe()));
        if self.state() == State::Up {
            inflight.saturating_add(2 * mss)
        } else {
            inflight
        }
    }

    /// Draft 5.6.4.5, ProbeRTTCwnd.
    pub(super) fn probe_rtt_window(&self) -> u64 {
        self.bdp(UNIT / 2).max(u64::from(self.min_pipe()))
    }

    /// Draft 5.6.4.6, SetCwnd; `pace` for the quantum.
    pub(super) fn set_window(&mut self, sample: &Sample, pace: u64) {
        let most = self
            .bdp(self.cwnd_gain())
            .saturating_add(u64::from(self.extra_acked()));
        let most = clamp(self.quantized(most, pace));
        let grown = self.cwnd.saturating_add(sample.acked);
        self.delivered_first = self.delivered_first.saturating_add(sample.acked);
        if self.has(flag::FULL_BW_REACHED) {
            self.cwnd = grown.min(most);
        } else if self.cwnd < most || self.delivered_first < self.initial_cwnd {
            self.cwnd = grown;
        }
        self.cwnd = self.cwnd.max(self.min_pipe());
        if self.state() == State::ProbeRtt {
            self.cwnd = self.cwnd.min(clamp(self.probe_rtt_window()));
        }
        self.bound_window();
    }

    /// Draft 5.6.4.7, BoundCwndForModel.
    fn bound_window(&mut self) {
        let state = self.state();
        let long = match state {
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
            _ if state.is_probe_bw() => self.inflight_longterm,
            _ => NO_BOUND,
        };
        let cap = long.min(self.inflight_shortterm).max(self.min_pipe());
        self.cwnd = self.cwnd.min(cap);
    }
}
