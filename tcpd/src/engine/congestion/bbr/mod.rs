//! BBR version 3 (draft-ietf-ccwg-bbr, as of 2026-08): window and pace follow from a model of the
//! path, the largest delivery rate and the least round-trip time seen lately, and from how much
//! in flight the path bore without losing more than two percent.
//!
//! ```text
//!   Startup --> Drain --> Down --> Cruise --> Refill --> Up --+     rate  2.77, 0.5 | 0.9, 1, 1, 1.25
//!      ^                   ^ +-------------------^            |
//!      |                   +---- queue, losses, no more rate -+
//!      +--------- ProbeRtt (every 5 s without a new least round-trip time) ------> Cruise
//!
//!   long term   max_bw (two cycles), inflight_longterm (losses while probing)
//!   short term  bw_shortterm, inflight_shortterm (losses otherwise); forgotten by Refill
//! ```
//!
//! The names are the draft's, its sections are cited. Where it leaves something open, or this is
//! not quite it:
//!
//! - 3.7, ECN: it demands that marks count as congestion and not how. An echo counts as a loss in
//!   the round, and ends Startup and Up.
//! - 5.5.11: what a spurious recovery takes back is saved when the episode begins, and not with
//!   each round's first loss, which would save what the first had changed already.
//! - 5.6.2: the initial window leaves as a burst; the pace begins with the first measurement.
//! - 5.3.3: the wait between probes is drawn from the clock, which is as good as random.
//!
//! All of the model is in the record, so a restore goes on with the same state, rates and bounds.
//! `delivered` goes on too ([`crate::engine::rate`]); the first samples after a restore are
//! missing, and losses of what left before it are not attributed to a flight: the round they are
//! found in counts as one with losses, but does not lower `inflight_longterm`.

mod cycle;
mod loss;
mod model;
mod path;
mod probe_rtt;
mod startup;
#[cfg(test)]
mod tests;
mod window;

use super::{AckEvent, Congestion, CongestionControl, SSTHRESH_INFINITE, Sample};
use crate::engine::recovery::Phase;
use crate::engine::sent::Loss;
use abi::Nanos;
use model::{State, flag, model};

/// The algorithm.
#[derive(Debug, Clone, Copy)]
pub struct Bbr;

/// The state that `cc` is in, by the draft's name without "ProbeBW_"; for those who watch.
#[must_use]
pub fn state_name(cc: &Congestion) -> &'static str {
    let m: &model::Model = zerocopy::transmute_ref!(&cc.area);
    match m.state() {
        State::Startup => "Startup",
        State::Drain => "Drain",
        State::Down => "Down",
        State::Cruise => "Cruise",
        State::Refill => "Refill",
        State::Up => "Up",
        State::ProbeRtt => "ProbeRtt",
    }
}

impl CongestionControl for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn init(&self, cc: &mut Congestion) {
        cc.area = Default::default();
        // Losses set no threshold.
        cc.ssthresh = SSTHRESH_INFINITE;
        model(cc).init();
    }

    fn on_ack(&self, _cc: &mut Congestion, _event: &AckEvent) {}

    /// Draft 5.6.4.4, OnEnterFastRecovery.
    fn on_loss(&self, cc: &mut Congestion, _now: Nanos, _in_flight: u32, _mss: u32) -> u32 {
        model(cc).save_upon_loss();
        SSTHRESH_INFINITE
    }

    fn on_ecn(&self, cc: &mut Congestion, now: Nanos, in_flight: u32, mss: u32) {
        model(cc).on_mark(now, in_flight, mss);
    }

    fn on_recovered(&self, _cc: &mut Congestion, _now: Nanos) {}

    /// Draft 5.6.4.4, OnEnterRTO.
    fn on_timeout(&self, cc: &mut Congestion, _now: Nanos) {
        let m = model(cc);
        m.save_window();
        m.phase = Phase::Loss as u32;
        // The caller's window, until acknowledgements come.
        m.cwnd = 0;
    }

    fn on_undo(&self, cc: &mut Congestion, _now: Nanos) {
        model(cc).on_spurious_loss();
    }

    fn on_lost(&self, cc: &mut Congestion, now: Nanos, loss: &Loss) {
        model(cc).on_lost(now, loss);
    }

    /// Draft 5.4.1, HandleRestartFromIdle.
    fn on_idle(&self, cc: &mut Congestion, now: Nanos) {
        let m = model(cc);
        m.set(flag::IDLE_RESTART, true);
        m.extra_at = now;
        if m.state().is_probe_bw() {
            let rate = m.pace(window::UNIT);
            cc.raise_pace(rate, true);
        } else if m.state() == State::ProbeRtt && m.probe_rtt_is_over(now) {
            m.exit_probe_rtt(now);
            cc.cwnd = model(cc).cwnd.max(cc.cwnd);
        }
    }

    fn has_model(&self) -> bool {
        true
    }

    /// Draft 5.2.3, UpdateOnACK.
    fn on_sample(&self, cc: &mut Congestion, sample: &Sample) -> bool {
        let before = cc.cwnd;
        let m = model(cc);
        if m.cwnd == 0 {
            m.cwnd = before;
        }
        if m.initial_cwnd == 0 {
            m.initial_cwnd = before;
        }
        m.mss = sample.mss;
        m.delivered = sample.rate.delivered;
        if sample.phase == Phase::Open && m.phase != Phase::Open as u32 {
            // 5.6.4.4: recovery is over, whichever way.
            m.restore_window();
        }
        m.phase = sample.phase as u32;
        m.update_latest_signals(sample);
        m.update_max_bw(sample);
        m.adapt_to_losses();
        m.update_aggregation(sample);
        m.check_full_bw(sample);
        m.check_startup_done(sample);
        m.check_drain_done(sample);
        m.update_cycle(sample);
        m.update_min_rtt(sample);
        let quiet = m.check_probe_rtt(sample);
        m.advance_latest_signals(sample);
        m.bw = m.max_bw().min(m.bw_shortterm);
        let (rate, full) = (m.pace(m.pacing_gain()), m.has(flag::FULL_BW_REACHED));
        cc.raise_pace(rate, full);
        if cc.pacing_rate == 0 && sample.srtt > 0 {
            // 5.6.2, InitPacingRate.
            let initial = crate::engine::rate::rate_of(u64::from(before), sample.srtt);
            let rate = window::times(initial, window::STARTUP_PACING_GAIN);
            cc.raise_pace(rate, true);
        }
        let pace = cc.pacing_rate;
        let m = model(cc);
        m.set_window(sample, pace);
        cc.cwnd = m.cwnd;
        quiet
    }
}

impl Congestion {
    /// 5.6.2: before the pipe was full once the pace only grows. 0 is no rate.
    fn raise_pace(&mut self, rate: u64, either_way: bool) {
        if rate > 0 && (either_way || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }
}
