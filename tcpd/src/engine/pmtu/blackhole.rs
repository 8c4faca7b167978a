//! Black holes: paths that drop what is too big and whose ICMP does not come through (RFC 2923
//! 2.1). Full-size segments time out again and again, and nothing says why (RFC 4821 7.7).

use super::{base, flag, floor};
use crate::engine::conn::{Conn, Ctx};
use crate::engine::seq::clamp;
use crate::engine::tcb::Tcb;
use abi::config::MtuProbing;

/// Timeouts in a row after which the size is suspected: RFC 1122 4.2.3.5's R1, as Linux.
const SUSPECT_AFTER: u32 = 3;

impl Conn {
    /// A retransmission timeout, the `retries`th in a row: goes to a smaller size if that may
    /// help. The window is about to be one segment anyway.
    pub(crate) fn suspect_black_hole(&mut self, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        // RFC 4821 7.6.3: a timeout says nothing about a probe.
        tcb.pmtu.probe_mtu = 0;
        if ctx.config.mtu_probing == MtuProbing::Off || tcb.recovery.retries < SUSPECT_AFTER {
            return;
        }
        let Some(next) = smaller(tcb) else {
            return;
        };
        let present = tcb.path_mtu();
        let p = &mut tcb.pmtu;
        if !p.has(flag::SEARCHING) {
            p.flags |= flag::SEARCHING | flag::TOP_FIRST;
            p.search_high = present;
        }
        p.search_low = next;
        p.probes_lost = 0;
        p.searched_at = ctx.now;
        p.black_holes = p.black_holes.saturating_add(1);
        ctx.stats.black_holes += 1;
        tcb.set_path_mtu(next);
    }
}

/// The next smaller size to try: the first that what times out is larger than.
fn smaller(tcb: &Tcb) -> Option<u16> {
    let family = tcb.local.family;
    let present = tcb.path_mtu();
    let (start, end) = tcb.first_hole()?;
    if tcb.snd_limit() <= start {
        // Beyond a window that shrank, nothing is acknowledged, whatever its size.
        return None;
    }
    let headers = u32::from(present) - tcb.mss();
    [base(family), floor(family)].into_iter().find(|&mtu| {
        let payload = u32::from(mtu).saturating_sub(headers);
        mtu < present && clamp(end - start) > payload
    })
}
