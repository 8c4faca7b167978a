//! Without SACK: duplicate acknowledgements are counted (RFC 5681 3.2, RFC 6582, RFC 3042).

use super::{Acked, DUP_THRESHOLD, Phase};
use crate::engine::sent::SendLog;
use crate::engine::seq::clamp;
use crate::engine::tcb::Tcb;

impl Tcb {
    pub(super) fn count_duplicates(&mut self, acked: &Acked) {
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

    /// RFC 6582 3.2 steps 2, 3 and 5: one segment is known to be lost at a time. Returns the
    /// bytes newly lost.
    pub(super) fn detect_losses_by_duplicates(&mut self, log: &mut SendLog, acked: &Acked) -> u64 {
        let r = &self.recovery;
        let evident = match r.phase() {
            // RFC 6582 4.1: duplicates that stem from the retransmissions of the last recovery
            // do not start another; the acknowledgement must cover more than its point.
            Phase::Open => r.dupacks == r.threshold() && self.snd_una > r.point,
            Phase::Recovery => acked.cumulative > 0 && self.snd_una < r.point,
            Phase::Loss => false,
        };
        if !evident || self.flight() == 0 {
            return 0;
        }
        let end = (self.snd_una + u64::from(self.mss())).min(self.snd_nxt);
        self.recovery.loss_point = self.recovery.loss_point.max(end);
        log.mark_lost(self.snd_una, end)
    }
}
