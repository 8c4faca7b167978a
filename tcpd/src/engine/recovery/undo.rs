//! Recovery that was not needed, and taking it back (RFC 4015).
//!
//! - Eifel (RFC 3522): the acknowledgement that ends the first hole echoes a timestamp from
//!   before the first retransmission: the original arrived, it was late and not lost.
//! - F-RTO ([`super::frto`]): the same after a timeout, without timestamps.
//! - D-SACK (RFC 3708): everything that was sent again arrived twice.
//!
//! The window from before comes back, and what counted as lost does not any more.

use super::{Acked, NO_UNDO, Phase};
use crate::engine::options::flag;
use crate::engine::sent::SendLog;
use crate::engine::seq::clamp;
use crate::engine::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// An episode begins: the next segment that leaves is its first retransmission.
    pub(super) fn remember_window(&mut self, now: Nanos) {
        let stamps = self.negotiated.has(flag::TIMESTAMPS);
        let una = self.snd_una;
        let r = &mut self.recovery;
        r.may_undo = u32::from(stamps);
        r.rexmit_stamp = self.negotiated.clock(now);
        r.prior_cwnd = self.cc.cwnd;
        r.prior_ssthresh = self.cc.ssthresh;
        r.undo_point = una;
        r.undo_bytes = 0;
    }

    /// Returns true if the episode is over, for it was a mistake. `probe`: the duplicate that
    /// is reported was a tail loss probe.
    pub(super) fn try_undo(
        &mut self,
        log: &mut SendLog,
        now: Nanos,
        acked: &Acked,
        probe: bool,
    ) -> bool {
        let late = self.is_original(acked);
        let twice = !probe && self.all_arrived_twice(acked);
        let open = self.recovery.phase() == Phase::Open;
        if open && twice {
            // RFC 4015 3.3: the window comes back; there is nothing else to end.
            self.restore_window(now);
            return false;
        }
        if open || !(late || twice || self.is_spurious_timeout(acked)) {
            return false;
        }
        if late {
            self.recovery.rack.reordering_seen =
                self.recovery.rack.reordering_seen.saturating_add(1);
            self.note_reordering(acked.span);
        }
        self.restore_window(now);
        log.forget_losses();
        self.end_episode();
        true
    }

    fn restore_window(&mut self, now: Nanos) {
        let r = &mut self.recovery;
        self.cc.cwnd = self.cc.cwnd.max(r.prior_cwnd);
        self.cc.ssthresh = self.cc.ssthresh.max(r.prior_ssthresh);
        r.undo_bytes = NO_UNDO;
        let control = self.cc.control();
        control.on_undo(&mut self.cc, now);
    }

    /// RFC 3522 3.2 (5): only the first acknowledgement that covers new data can tell.
    fn is_original(&mut self, acked: &Acked) -> bool {
        let r = &mut self.recovery;
        if r.phase() == Phase::Open || r.may_undo == 0 || acked.cumulative == 0 {
            return false;
        }
        r.may_undo = 0;
        let stamp = r.rexmit_stamp;
        acked.dsack.is_none()
            && acked
                .echo
                .is_some_and(|echo| echo.wrapping_sub(stamp).cast_signed() < 0)
    }

    /// RFC 3708 3: the duplicates reported add up to what was sent again.
    fn all_arrived_twice(&mut self, acked: &Acked) -> bool {
        let r = &mut self.recovery;
        let Some((start, end)) = acked.dsack else {
            return false;
        };
        if r.undo_bytes == NO_UNDO || r.undo_bytes == 0 || start < r.undo_point {
            return false;
        }
        r.undo_bytes = r.undo_bytes.saturating_sub(clamp(end - start));
        r.undo_bytes == 0
    }
}
