//! What an acknowledgement or a timeout changes: entering and leaving recovery, and how much may
//! be sent meanwhile.

use super::{Acked, DUP_THRESHOLD, MAX_REORDERING, Phase};
use crate::engine::congestion::AckEvent;
use crate::engine::seq::{Offset, clamp};
use crate::engine::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// Takes an acknowledgement into account; `snd_una` and the scoreboard are already moved.
    /// Returns true if the first hole has to be sent again now although it already was.
    pub(crate) fn recover(&mut self, now: Nanos, acked: &Acked) -> bool {
        let mut again = false;
        self.count_duplicates(acked);
        self.end_tail_probe(now, acked);
        if self.try_undo(acked) {
            return false;
        }
        match self.recovery.phase() {
            Phase::Open => {
                if self.is_loss_evident() {
                    self.enter_recovery(now, acked.prior_pipe);
                } else if self.is_shown_by_probe(acked) {
                    let high = self.sacked.high(self.snd_una);
                    self.enter_recovery(now, acked.prior_pipe);
                    self.recovery.loss_point = high;
                } else {
                    self.grow(now, acked);
                }
            }
            Phase::Recovery | Phase::Loss if self.snd_una >= self.recovery.point => {
                self.leave_recovery(now);
                if self.is_loss_evident() {
                    self.enter_recovery(now, acked.prior_pipe);
                }
            }
            Phase::Recovery => {
                again = self.is_lost_again(acked);
                self.reduce_rate(acked);
            }
            Phase::Loss => {
                again = self.is_lost_again(acked);
                self.grow(now, acked);
            }
        }
        again
    }

    fn count_duplicates(&mut self, acked: &Acked) {
        let mss = self.mss();
        let sack = self.has_sack();
        let flight = clamp(self.flight());
        let r = &mut self.recovery;
        if acked.cumulative > 0 {
            r.dupacks = 0;
            // A partial acknowledgement: the segment that was missing, and some that were not.
            r.reno_sacked = r
                .reno_sacked
                .saturating_sub(clamp(acked.cumulative).saturating_sub(mss));
            if self.snd_una < r.high_rxt {
                // Whether the next hole's retransmission is lost can only be judged from now on.
                r.rexmit_mark = self.snd_nxt;
            }
        }
        if acked.duplicate {
            r.dupacks = r.dupacks.saturating_add(1);
            if !sack {
                // RFC 3042: before recovery, no more than limited transmit is worth. Duplicates
                // that retransmissions of the last recovery cause would open the window else.
                let most = match r.phase() {
                    Phase::Open => DUP_THRESHOLD * mss,
                    _ => flight,
                };
                r.reno_sacked = r
                    .reno_sacked
                    .saturating_add(mss)
                    .min(most)
                    .min(flight.saturating_sub(mss));
            }
        }
        if self.snd_una == self.snd_nxt {
            r.reno_sacked = 0;
        }
    }

    /// RFC 6675 5 steps 1 and 2; without SACK RFC 6582 3.2 step 2.
    fn is_loss_evident(&self) -> bool {
        let r = &self.recovery;
        if self.flight() == 0 {
            return false;
        }
        // RFC 6582 4.1: duplicates that stem from the retransmissions of the last recovery do
        // not start another; the acknowledgement must cover more than its point.
        if !self.has_sack() {
            return r.dupacks >= r.threshold() && self.snd_una > r.point;
        }
        if self.sacked.is_empty() {
            return false;
        }
        r.dupacks >= r.threshold()
            || self
                .sacked
                .lost_below(self.snd_una, r.threshold(), self.mss())
                > self.snd_una
    }

    fn enter_recovery(&mut self, now: Nanos, prior_pipe: u32) {
        let mss = self.mss();
        self.remember_window(now);
        let control = self.cc.control();
        let flight = clamp(self.flight()).max(prior_pipe);
        self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
        self.counters.recoveries = self.counters.recoveries.saturating_add(1);
        let r = &mut self.recovery;
        r.phase = Phase::Recovery as u32;
        r.point = self.snd_nxt;
        r.high_rxt = self.snd_una;
        r.loss_point = self.snd_una;
        r.rexmit_mark = self.snd_nxt;
        r.prr_delivered = 0;
        r.prr_out = 0;
        r.prr_flight = clamp(self.snd_nxt - self.snd_una).max(1);
        r.probe_end = 0;
        // The first retransmission leaves at once (RFC 6675 5 step 4.3).
        self.cc.cwnd = self.pipe().saturating_add(mss);
    }

    /// RFC 6937 3: PRR with the slow-start reduction bound.
    fn reduce_rate(&mut self, acked: &Acked) {
        let pipe = self.pipe();
        let mss = self.mss();
        let ssthresh = self.cc.ssthresh;
        let has_sack = self.has_sack();
        let delivered = if has_sack {
            clamp(acked.delivered)
        } else if acked.duplicate {
            mss
        } else {
            clamp(acked.cumulative).min(mss)
        };
        let r = &mut self.recovery;
        r.prr_delivered = r.prr_delivered.saturating_add(delivered);
        let allowed = if pipe > ssthresh {
            let target = u64::from(r.prr_delivered) * u64::from(ssthresh);
            clamp(target.div_ceil(u64::from(r.prr_flight.max(1)))).saturating_sub(r.prr_out)
        } else {
            let limit = r
                .prr_delivered
                .saturating_sub(r.prr_out)
                .max(delivered)
                .saturating_add(mss);
            (ssthresh - pipe).min(limit)
        };
        // A retransmission that never left (killed before it did) must not hold recovery up; and
        // RFC 6582 3.2 step 5: without SACK a partial acknowledgement sends the next segment.
        let partial = acked.cumulative > 0 && !has_sack;
        let allowed = if r.prr_out == 0 || partial {
            allowed.max(mss)
        } else {
            allowed
        };
        // In whole segments, as less cannot be used, and would hold the last hole up for ever.
        let allowed = allowed.div_ceil(mss).saturating_mul(mss);
        self.cc.cwnd = pipe.saturating_add(allowed);
    }

    fn leave_recovery(&mut self, now: Nanos) {
        let control = self.cc.control();
        if self.recovery.phase() == Phase::Recovery {
            // RFC 6582 3.2 step 3, with RFC 6937's aim: the window is the threshold.
            self.cc.cwnd = self.cc.ssthresh.max(2 * self.mss());
            control.on_recovered(&mut self.cc, now);
        }
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
        if idle {
            r.reno_sacked = 0;
        }
    }

    fn grow(&mut self, now: Nanos, acked: &Acked) {
        if acked.cumulative == 0 || !self.cc.may_grow() {
            return;
        }
        let event = AckEvent {
            now,
            acked: clamp(acked.cumulative),
            rtt: acked.rtt,
            mss: self.mss(),
            in_flight: acked.prior_pipe,
        };
        let control = self.cc.control();
        control.on_ack(&mut self.cc, &event);
    }

    /// The first hole was sent again, and since then something arrived that was sent later
    /// (RFC 8985 6.2): on a path that does not reorder, one byte shows it.
    fn is_lost_again(&mut self, acked: &Acked) -> bool {
        let margin = match self.recovery.reordering {
            0 => 1,
            _ => u64::from(self.recovery.threshold()) * u64::from(self.mss()),
        };
        let r = &mut self.recovery;
        if acked.delivered == 0
            || r.high_rxt <= self.snd_una
            || self.sacked.high(self.snd_una) < r.rexmit_mark + margin
        {
            return false;
        }
        r.rexmit_mark = self.snd_nxt;
        true
    }

    /// From where on a hole that fills late shows reordering: below, it may have been sent again.
    pub(crate) fn sent_once_from(&self) -> Offset {
        let r = &self.recovery;
        self.snd_una.max(r.high_rxt).max(r.probed_end)
    }

    /// A hole that was never sent again is filled although something `distance` bytes above it
    /// arrived earlier: the path reorders by that much.
    pub(crate) fn note_reordering(&mut self, distance: u64) {
        let segments = clamp(distance.div_ceil(u64::from(self.mss().max(1)))).saturating_add(1);
        let r = &mut self.recovery;
        r.reordering = r.reordering.max(segments.min(MAX_REORDERING));
    }

    /// RFC 6298 5.4 to 5.7, RFC 5681 3.1: the retransmission timer went off.
    pub(crate) fn enter_loss(&mut self, now: Nanos) {
        let mss = self.mss();
        let control = self.cc.control();
        let flight = clamp(self.flight());
        let first = self.recovery.phase() != Phase::Loss || self.snd_una >= self.recovery.point;
        if first {
            self.remember_window(now);
            self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
        }
        control.on_timeout(&mut self.cc, now);
        self.cc.cwnd = mss;
        // RFC 2018 8: if the first byte is one the peer says it has, it reneged: believe nothing.
        if self
            .first_hole()
            .is_none_or(|(start, _)| start != self.snd_una)
        {
            self.sacked.clear();
        }
        self.counters.timeouts = self.counters.timeouts.saturating_add(1);
        let r = &mut self.recovery;
        r.phase = Phase::Loss as u32;
        r.point = self.snd_nxt;
        r.loss_point = self.snd_nxt;
        r.high_rxt = self.snd_una;
        r.rexmit_mark = self.snd_nxt;
        r.dupacks = 0;
        r.reno_sacked = 0;
        r.probe_end = 0;
        r.probed_end = self.snd_nxt;
    }
}
