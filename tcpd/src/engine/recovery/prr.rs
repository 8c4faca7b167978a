//! Proportional rate reduction (RFC 6937, RFC 9937): during fast recovery, what leaves is in
//! proportion to what arrives, so that the window is the threshold in the end without a pause or
//! a burst.

use super::Acked;
use crate::engine::seq::clamp;
use crate::engine::tcb::Tcb;

impl Tcb {
    /// Recovery begins. RFC 9937 5, RecoverFS: what may yet be delivered in it, so without what had
    /// been selectively acknowledged before, and with what this acknowledgement delivers.
    pub(super) fn begin_rate_reduction(&mut self, acked: &Acked) {
        let flight = if self.has_sack() {
            (self.flight() + acked.delivered).saturating_sub(u64::from(self.recovery.sacked))
        } else {
            self.flight()
        };
        let flight = clamp(flight).max(1);
        let r = &mut self.recovery;
        r.prr_delivered = 0;
        r.prr_out = 0;
        r.prr_flight = flight;
    }

    /// RFC 9937 5 for one acknowledgement; `lost` bytes were newly found lost by it.
    pub(super) fn reduce_rate(&mut self, acked: &Acked, lost: u64) {
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
            let mut limit = r.prr_delivered.saturating_sub(r.prr_out).max(delivered);
            // Slow start only while recovery makes good progress (RFC 9937 5: SafeACK).
            if acked.cumulative > 0 && lost == 0 {
                limit = limit.saturating_add(mss);
            }
            (ssthresh - pipe).min(limit)
        };
        // The first retransmission leaves at once (RFC 6675 5 step 4.3), also if an earlier
        // one never left because its sender was killed; so does one where nothing is in the network;
        // and RFC 6582 3.2 step 5: without SACK a
        // partial acknowledgement sends the next segment.
        let partial = acked.cumulative > 0 && !has_sack;
        let allowed = if r.prr_out == 0 || pipe == 0 || partial {
            allowed.max(mss)
        } else {
            allowed
        };
        // In whole segments, as less cannot be used, and would hold the last hole up for ever.
        let allowed = allowed.div_ceil(mss).saturating_mul(mss);
        self.cc.cwnd = pipe.saturating_add(allowed);
    }
}
