//! What one acknowledgement cannot say of a batch is said in two.
//!
//! A batch ends with one acknowledgement, which has room for three or four blocks. What else was
//! received out of order would be reported by none: later ones repeat what came latest (RFC 2018
//! 4), so the peer would send it again. Likewise a second range that arrived twice: a peer that
//! counts the duplicates to find out that its retransmissions were not needed (RFC 3708) would miss
//! one. So an acknowledgement leaves in between, as where each segment has its own.

use crate::engine::conn::{Conn, Ctx};
use crate::engine::options;
use crate::engine::output::build;
use crate::engine::seq::Offset;

impl Conn {
    /// `[start, end)` arrived twice (RFC 2883 4: each is reported, and once).
    pub(super) fn note_duplicate(&mut self, start: Offset, end: Offset, ctx: &mut Ctx<'_>) {
        if self.rt.dsack.is_some() && self.tells_ranges() {
            build::ack(self, ctx);
        }
        self.rt.dsack = Some((start, end));
        self.rt.ack_now = true;
    }

    /// `[start, end)` is about to be taken out of order.
    pub(super) fn note_range(&mut self, start: Offset, end: Offset, ctx: &mut Ctx<'_>) {
        let tcb = &self.tcb;
        let latest = tcb.reassembly.iter(tcb.rcv_nxt).next();
        if self.rt.untold > 0 && latest.is_some_and(|(s, e)| s <= end && start <= e) {
            // It only grows.
            return;
        }
        let room = build::max_blocks(tcb) - usize::from(self.rt.dsack.is_some());
        if self.rt.untold >= room && self.tells_ranges() {
            build::ack(self, ctx);
        }
        self.rt.untold += 1;
        self.rt.ack_now = true;
    }

    fn tells_ranges(&self) -> bool {
        self.tcb.negotiated.has(options::flag::SACK)
    }
}
