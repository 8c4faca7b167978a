//! RACK (RFC 8985 6): something is lost when something that left later has arrived, and enough
//! time for mere reordering has passed.
//!
//! What RACK has learned of the path is in the record, so that a restart does not take a
//! reordering path for a lossy one.

use super::{Acked, DUP_THRESHOLD, MAX_REORDERING, Phase};
use crate::engine::sent::{SendLog, Unit};
use crate::engine::seq::{Offset, clamp};
use crate::engine::tcb::Tcb;
use crate::engine::timers::Timer;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Recoveries without duplicates after which the window for reordering is narrow again.
const PERSIST: u32 = 16;
/// Widest window: mult times a quarter of the shortest round-trip time. More is pointless, as the
/// smoothed round-trip time bounds it.
const MAX_MULT: u32 = 255;

/// RFC 8985 5.2. 56 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rack {
    /// RACK.xmit_ts: when what has arrived and left last had left; 0 before anything did.
    pub sent_at: Nanos,
    /// RACK.end_seq: where that ends.
    pub end: Offset,
    /// RACK.rtt: how long it took.
    pub rtt: Nanos,
    /// RACK.fack: highest offset that arrived.
    pub fack: Offset,
    /// RACK.dsack_round: duplicates reported before this is acknowledged are counted already; 0
    /// for none.
    pub dsack_round: Offset,
    /// RACK.reo_wnd_mult.
    pub mult: u32,
    /// RACK.reo_wnd_persist.
    pub persist: u32,
    /// RACK.reordering_seen: how often.
    pub reordering_seen: u32,
    /// Tail loss probes sent since the peer last told that something had arrived.
    pub probes: u32,
}

impl Tcb {
    /// RFC 8985 6.2 steps 1 to 3: what the acknowledgement says of times and order.
    pub(super) fn note_arrival(&mut self, now: Nanos, acked: &Acked) {
        let d = &acked.delivery;
        for part in [d.newest, d.newest_original].into_iter().flatten() {
            if !self.is_ambiguous(now, &part, acked.echo) {
                let rack = &mut self.recovery.rack;
                rack.rtt = now.saturating_sub(part.sent_at).max(1);
                if part.is_after(rack.sent_at, rack.end) {
                    rack.sent_at = part.sent_at;
                    rack.end = part.end;
                }
                break;
            }
        }
        // Step 3: something that never was sent again was overtaken.
        let fack = self.recovery.rack.fack;
        if let Some((start, end)) = d.lowest_original
            && end < fack
        {
            let rack = &mut self.recovery.rack;
            rack.reordering_seen = rack.reordering_seen.saturating_add(1);
            self.note_reordering(fack - start);
        }
        let newest = [d.newest, d.newest_original].into_iter().flatten();
        let high = newest.map(|part| part.end).max().unwrap_or(0);
        let rack = &mut self.recovery.rack;
        rack.fack = rack.fack.max(high).max(self.snd_una);
    }

    /// RFC 8985 6.2 step 2: whether it may be the original of what was sent again that arrived.
    fn is_ambiguous(&self, now: Nanos, part: &Unit, echo: Option<u32>) -> bool {
        part.rexmits > 0
            && (now.saturating_sub(part.sent_at) < self.rtt.min_rtt
                || echo.is_some_and(|echo| {
                    let stamp = self.negotiated.clock(part.sent_at);
                    echo.wrapping_sub(stamp).cast_signed() < 0
                }))
    }

    /// Something arrived `distance` bytes after what was sent before it.
    pub(super) fn note_reordering(&mut self, distance: u64) {
        let segments = clamp(distance.div_ceil(u64::from(self.mss().max(1)))).saturating_add(1);
        let r = &mut self.recovery;
        r.reordering = r.reordering.max(segments.min(MAX_REORDERING));
    }

    /// RFC 8985 6.2 step 4, the adaptation: duplicates mean that the window is too narrow.
    pub(super) fn adapt_reordering_window(&mut self, spurious: bool) {
        let (una, nxt) = (self.snd_una, self.snd_nxt);
        let rack = &mut self.recovery.rack;
        if rack.dsack_round != 0 && una >= rack.dsack_round {
            rack.dsack_round = 0;
        }
        if spurious && rack.dsack_round == 0 {
            rack.dsack_round = nxt;
            rack.mult = rack.mult.max(1).saturating_add(1).min(MAX_MULT);
            rack.persist = PERSIST;
        }
    }

    /// The same: a recovery ended.
    pub(super) fn relax_reordering_window(&mut self) {
        let rack = &mut self.recovery.rack;
        rack.persist = rack.persist.saturating_sub(1);
        if rack.persist == 0 {
            rack.mult = 1;
        }
    }

    /// RFC 8985 6.2 step 4: for how long something may be merely late.
    pub(super) fn reordering_window(&self) -> Nanos {
        let r = &self.recovery;
        if r.rack.reordering_seen == 0 {
            let segments = r.sacked.div_ceil(self.mss().max(1)).max(r.dupacks);
            if r.phase() != Phase::Open || segments >= DUP_THRESHOLD {
                return 0;
            }
        }
        let mult = Nanos::from(r.rack.mult.max(1));
        (mult * (self.rtt.min_rtt / 4)).min(self.rtt.srtt)
    }

    /// RFC 8985 6.2 step 5, RACK_detect_loss. Returns the bytes newly lost. The reordering timer
    /// is set for what may yet turn out to be.
    pub(super) fn detect_losses(&mut self, log: &mut SendLog, now: Nanos) -> u64 {
        let Rack {
            sent_at, end, rtt, ..
        } = self.recovery.rack;
        self.deadlines.stop(Timer::Reorder);
        if sent_at == 0 || log.is_empty() {
            return 0;
        }
        let patience = rtt.saturating_add(self.reordering_window());
        let mut wait = 0;
        let mut loss_end = self.recovery.loss_point;
        let found = log.find_lost(|unit| {
            if unit.is_after(sent_at, end) || (unit.sent_at, unit.end) == (sent_at, end) {
                // Whatever lies above what was never sent again left later still.
                return if unit.rexmits == 0 { None } else { Some(false) };
            }
            let due = unit.sent_at.saturating_add(patience);
            if due <= now {
                loss_end = loss_end.max(unit.end);
                return Some(true);
            }
            wait = wait.max(due - now);
            Some(false)
        });
        self.recovery.loss_point = loss_end;
        if wait > 0 {
            self.deadlines.arm(Timer::Reorder, now + wait);
        }
        found
    }
}
