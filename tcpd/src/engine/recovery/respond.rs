//! What an acknowledgement changes: entering and leaving recovery.

use super::{Acked, NO_UNDO, Phase};
use crate::engine::congestion::AckEvent;
use crate::engine::sent::SendLog;
use crate::engine::seq::clamp;
use crate::engine::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// Takes an acknowledgement into account; `snd_una`, the scoreboard and the send log are
    /// already moved.
    pub(crate) fn recover(&mut self, log: &mut SendLog, now: Nanos, acked: &Acked) {
        self.sync(log);
        self.count_duplicates(acked);
        self.note_arrival(now, acked);
        let probe = self.end_tail_probe(now, acked);
        if self.has_sack() {
            // RFC 8985 6.2 step 4: also when the duplicate takes the whole recovery back.
            self.adapt_reordering_window(acked.dsack.is_some() && !probe);
        }
        if self.try_undo(log, now, acked, probe) {
            self.sync(log);
            return;
        }
        let lost = if self.has_sack() {
            self.detect_losses(log, now)
        } else {
            self.detect_losses_by_duplicates(log, acked)
        };
        self.sync(log);
        match self.recovery.phase() {
            Phase::Open => {
                if self.recovery.lost > 0 {
                    self.enter_recovery(now, acked, lost);
                } else {
                    self.grow(now, acked);
                }
            }
            Phase::Recovery | Phase::Loss if self.snd_una >= self.recovery.point => {
                self.leave_recovery(now);
                if self.recovery.lost > 0 {
                    self.enter_recovery(now, acked, lost);
                }
            }
            Phase::Recovery => self.reduce_rate(acked, lost),
            Phase::Loss => {
                if self.go_on_with_frto(acked) {
                    self.grow(now, acked);
                }
            }
        }
    }

    /// RFC 8985 6.2, the reordering timer: what was late is lost by now.
    pub(crate) fn on_reordering_timeout(&mut self, log: &mut SendLog, now: Nanos) {
        let lost = self.detect_losses(log, now);
        self.sync(log);
        if lost > 0 && self.recovery.phase() == Phase::Open {
            let acked = Acked {
                prior_pipe: self.pipe().saturating_add(clamp(lost)),
                ..Acked::default()
            };
            self.enter_recovery(now, &acked, lost);
        }
    }

    fn enter_recovery(&mut self, now: Nanos, acked: &Acked, lost: u64) {
        let mss = self.mss();
        self.remember_window(now);
        let control = self.cc.control();
        let flight = clamp(self.flight()).max(acked.prior_pipe);
        self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
        self.counters.recoveries = self.counters.recoveries.saturating_add(1);
        let una = self.snd_una;
        let r = &mut self.recovery;
        r.phase = Phase::Recovery as u32;
        r.point = self.snd_nxt;
        r.high_rxt = una;
        r.frto = 0;
        r.probe_end = 0;
        self.begin_rate_reduction(acked);
        self.reduce_rate(acked, lost);
    }

    fn leave_recovery(&mut self, now: Nanos) {
        let control = self.cc.control();
        if self.recovery.phase() == Phase::Recovery {
            // RFC 6582 3.2 step 3, with RFC 6937's aim: the window is the threshold.
            self.cc.cwnd = self.cc.ssthresh.max(2 * self.mss());
            control.on_recovered(&mut self.cc, now);
        }
        self.relax_reordering_window();
        self.end_episode();
    }

    /// Nothing is known to be lost any more.
    pub(super) fn end_episode(&mut self) {
        let idle = self.flight() == 0;
        let r = &mut self.recovery;
        r.phase = Phase::Open as u32;
        r.dupacks = 0;
        r.loss_point = 0;
        r.high_rxt = 0;
        r.may_undo = 0;
        r.frto = 0;
        if r.undo_bytes == 0 {
            // Nothing was sent again: duplicates have another reason.
            r.undo_bytes = NO_UNDO;
        }
        if idle {
            r.reno_sacked = 0;
        }
    }

    fn grow(&mut self, now: Nanos, acked: &Acked) {
        if acked.cumulative == 0 {
            return;
        }
        // What was delivered now: an acknowledgement that closes a hole does not count again what
        // was selectively acknowledged before. Without SACK that is not known, and after a
        // timeout it counts as a segment (RFC 3465 2.3, L = 1).
        let mut delivered = clamp(acked.delivered);
        if self.recovery.phase() == Phase::Loss && !self.has_sack() {
            delivered = delivered.min(self.mss());
        }
        let event = AckEvent {
            now,
            acked: delivered,
            rtt: acked.rtt_of_original(now),
            srtt: self.rtt.srtt,
            mss: self.mss(),
            in_flight: acked.prior_pipe,
            una: self.snd_una,
            nxt: self.snd_nxt,
            may_grow: self.cc.may_grow(),
        };
        let control = self.cc.control();
        control.on_ack(&mut self.cc, &event);
    }
}
