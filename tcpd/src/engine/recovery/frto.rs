//! F-RTO (RFC 5682): whether a timeout was spurious, told by what is acknowledged after it.
//!
//! With SACK (section 3): data that was never sent again is reported to have arrived after the
//! timeout, and not everything is acknowledged: the network is not empty, it was only slow.
//!
//! Without (section 2): after the first acknowledgement that advances, new data is sent instead
//! of what counts as lost. If the next one advances too, the originals are arriving.

use super::{Acked, Phase};
use crate::engine::tcb::Tcb;

/// Values of [`super::Recovery::frto`].
pub(super) const OFF: u32 = 0;
/// The timeout's segment was sent.
pub(super) const STARTED: u32 = 1;
/// An acknowledgement advanced, and new data was sent.
pub(super) const PROBING: u32 = 2;

impl Tcb {
    /// Whether this acknowledgement shows that the timeout was spurious.
    pub(super) fn is_spurious_timeout(&self, acked: &Acked) -> bool {
        let r = &self.recovery;
        if r.phase() != Phase::Loss || r.frto == OFF || self.snd_una >= r.point {
            return false;
        }
        if self.has_sack() {
            // RFC 5682 3.1 step 3b, for what left before the timeout.
            return acked
                .delivery
                .lowest_original
                .is_some_and(|(_, end)| end <= r.point);
        }
        // RFC 5682 2.1 step 3b.
        r.frto == PROBING && acked.cumulative > 0
    }

    /// RFC 5682 2.1 steps 2 and 3a: an acknowledgement that does not decide it. Returns whether
    /// it opens the window as any other does.
    pub(super) fn go_on_with_frto(&mut self, acked: &Acked) -> bool {
        let mss = self.mss();
        let may_probe = self.data_end() > self.snd_nxt && self.snd_limit() > self.snd_nxt;
        let pipe = self.pipe();
        let sack = self.has_sack();
        let r = &mut self.recovery;
        match r.frto {
            STARTED if sack => {}
            STARTED if acked.cumulative > 0 && may_probe => {
                // Step 2b: two segments, and no more.
                r.frto = PROBING;
                self.cc.cwnd = pipe.saturating_add(2 * mss);
                return false;
            }
            STARTED if acked.cumulative == 0 && !acked.duplicate => {}
            PROBING if acked.cumulative == 0 && !acked.duplicate => {}
            _ => {
                if r.frto == PROBING {
                    self.cc.cwnd = self.cc.cwnd.min(pipe.saturating_add(3 * mss));
                }
                r.frto = OFF;
            }
        }
        true
    }
}
