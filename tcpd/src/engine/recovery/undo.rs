//! Recovery that was not needed, and taking it back (RFC 3522 Eifel detection, RFC 4015 response).
//!
//! If the acknowledgement that ends the first hole echoes a timestamp from before the first
//! retransmission, the original arrived: it was late, not lost. The window from before comes
//! back, and so much reordering is expected from then on.

use super::{Acked, Phase};
use crate::engine::options::flag;
use crate::engine::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// An episode begins: the next segment that leaves is its first retransmission.
    pub(super) fn remember_window(&mut self, now: Nanos) {
        let stamps = self.negotiated.has(flag::TIMESTAMPS);
        let r = &mut self.recovery;
        r.may_undo = u32::from(stamps);
        r.rexmit_stamp = self.negotiated.clock(now);
        r.prior_cwnd = self.cc.cwnd;
        r.prior_ssthresh = self.cc.ssthresh;
    }

    /// RFC 3522 3.2 (5): only the first acknowledgement that covers new data can tell. Returns
    /// true if the episode is over, for it was a mistake.
    pub(super) fn try_undo(&mut self, acked: &Acked) -> bool {
        if self.recovery.phase() == Phase::Open
            || self.recovery.may_undo == 0
            || acked.cumulative == 0
        {
            return false;
        }
        self.recovery.may_undo = 0;
        let stamp = self.recovery.rexmit_stamp;
        let is_original = acked
            .echo
            .is_some_and(|echo| echo.wrapping_sub(stamp).cast_signed() < 0);
        if !is_original || acked.dsack {
            return false;
        }
        self.note_reordering(acked.span);
        self.cc.cwnd = self.cc.cwnd.max(self.recovery.prior_cwnd);
        self.cc.ssthresh = self.recovery.prior_ssthresh;
        self.end_episode();
        true
    }
}
