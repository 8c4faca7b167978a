//! Tail loss probes (RFC 8985 7): what their acknowledgement says.
//!
//! When and what is probed is a matter of output; the probe carries new data if there is any and
//! the last segment again if not.

use super::{Acked, Phase};
use crate::engine::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// `probe_end` is where the probe ends. RFC 8985 7.4.2: whether a tail loss probe repaired a loss, which must be answered once. It
    /// did not if it arrived beside the original (the peer says so by a D-SACK or by a second
    /// acknowledgement of the same, once for each time that it was sent); it did if later data is acknowledged without that. Returns
    /// whether the duplicate that is reported was the probe.
    pub(super) fn end_tail_probe(&mut self, now: Nanos, acked: &Acked) -> bool {
        let r = &mut self.recovery;
        if acked.cumulative > 0 || acked.delivered > 0 {
            r.rack.probes = 0;
        }
        let end = r.probe_end;
        if end == 0 || self.snd_una < end {
            return false;
        }
        if r.probe_is_retrans == 0 {
            // New data: its acknowledgement is all there is to say.
            r.probe_end = 0;
            return false;
        }
        let reported = acked.dsack.is_some_and(|(_, right)| right == end);
        let again = self.snd_una == end && acked.cumulative == 0 && acked.delivered == 0;
        if reported || again {
            r.probe_is_retrans -= 1;
            if r.probe_is_retrans == 0 {
                r.probe_end = 0;
            }
            return reported;
        }
        if self.snd_una == end {
            return false;
        }
        r.probe_end = 0;
        if r.phase() == Phase::Open {
            let mss = self.mss();
            let control = self.cc.control();
            let flight = self.cc.cwnd;
            self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
            self.cc.cwnd = self.cc.ssthresh;
            control.on_recovered(&mut self.cc, now);
        }
        false
    }
}
