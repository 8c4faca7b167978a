//! ProbeRtt (draft 5.3.4): little in flight for a while, so that the queue is empty and the
//! round-trip time the path's own.

use super::super::Sample;
use super::model::{AckPhase, Model, State, flag};
use abi::Nanos;

/// Draft 2.16.2, ProbeRTTDuration.
const PROBE_RTT_TIME: Nanos = 200_000_000;

impl Model {
    /// Draft 5.3.4.3, CheckProbeRTT. Returns whether what is sent now is so little that it says
    /// nothing about the path's rate.
    pub(super) fn check_probe_rtt(&mut self, sample: &Sample) -> bool {
        if self.state() != State::ProbeRtt
            && self.has(flag::PROBE_RTT_EXPIRED)
            && !self.has(flag::IDLE_RESTART)
        {
            self.save_window();
            self.enter(State::ProbeRtt);
            self.probe_rtt_done_at = 0;
            self.ack_phase = AckPhase::ProbeStopping as u32;
            self.start_round();
        }
        if self.state() == State::ProbeRtt {
            self.hold(sample);
        }
        if sample.acked > 0 {
            self.set(flag::IDLE_RESTART, false);
        }
        self.state() == State::ProbeRtt
    }

    /// Draft 5.3.4.3, HandleProbeRTT: the time begins when little is in flight.
    fn hold(&mut self, sample: &Sample) {
        let (_, in_flight) = sample.in_flight;
        if self.probe_rtt_done_at == 0 {
            if u64::from(in_flight) <= self.probe_rtt_window() {
                self.probe_rtt_done_at = sample.now.saturating_add(PROBE_RTT_TIME).max(1);
                self.set(flag::PROBE_RTT_ROUND_DONE, false);
                self.start_round();
            }
            return;
        }
        if self.has(flag::ROUND_START) {
            self.set(flag::PROBE_RTT_ROUND_DONE, true);
        }
        if self.has(flag::PROBE_RTT_ROUND_DONE) && self.probe_rtt_is_over(sample.now) {
            self.exit_probe_rtt(sample.now);
        }
    }

    pub(super) fn probe_rtt_is_over(&self, now: Nanos) -> bool {
        self.probe_rtt_done_at != 0 && now > self.probe_rtt_done_at
    }

    /// Draft 5.3.4.3, CheckProbeRTTDone and ExitProbeRTT.
    pub(super) fn exit_probe_rtt(&mut self, now: Nanos) {
        self.probe_rtt_min_at = now;
        self.restore_window();
        self.reset_short_term();
        if self.has(flag::FULL_BW_REACHED) {
            self.start_down(now);
            self.enter(State::Cruise);
        } else {
            self.enter(State::Startup);
        }
    }
}
