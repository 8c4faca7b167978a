//! Tail loss probes (RFC 8985 7): what their acknowledgement says.

use super::{Acked, Phase};
use crate::engine::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// RFC 8985 7.4: whether a tail loss probe repaired a loss, which must be answered once. It
    /// did not if it arrived beside the original (the peer says so by a D-SACK or by a second
    /// acknowledgement of the same); it did if later data is acknowledged without that.
    pub(super) fn end_tail_probe(&mut self, now: Nanos, acked: &Acked) {
        let end = self.recovery.probe_end;
        if end == 0 || self.snd_una < end {
            return;
        }
        let arrived_twice = acked.dsack || (self.snd_una == end && acked.cumulative == 0);
        if !arrived_twice && self.snd_una == end {
            return;
        }
        self.recovery.probe_end = 0;
        if !arrived_twice && self.recovery.phase() == Phase::Open {
            let mss = self.mss();
            let control = self.cc.control();
            let flight = self.cc.cwnd;
            self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
            self.cc.cwnd = self.cc.ssthresh;
        }
    }

    /// RFC 8985 7.4.1 with 6.2: the answer to a tail loss probe reports something new. The probe
    /// left two round-trip times after everything else, so holes below what it reports are lost
    /// whatever their number.
    pub(super) fn is_shown_by_probe(&self, acked: &Acked) -> bool {
        self.recovery.probe_end != 0
            && acked.delivered > 0
            && !acked.dsack
            && self.flight() > 0
            && !self.sacked.is_empty()
    }
}
