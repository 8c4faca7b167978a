//! Loss recovery: what is lost, what is in the network, what to send next, when.
//!
//! The conservative SACK algorithm (RFC 6675) with proportional rate reduction (RFC 6937); a
//! peer without SACK is served by the same code with duplicate acknowledgements counted as one
//! segment each (RFC 6582). After a timeout everything outstanding counts as lost and is sent
//! again in slow start, except what is selectively acknowledged.
//!
//! ```text
//!   snd_una      high_rxt        lost_end                     snd_nxt
//!      |  holes sent  |  holes lost  |  holes in the network     |
//!      |  again       |  to send     |                           |
//! ```

mod respond;
mod tail;
mod undo;

use super::options::flag as negotiated;
use super::sent::Delivery;
use super::seq::{Offset, clamp};
use super::tcb::Tcb;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Duplicate acknowledgements, or segments acknowledged above a hole, that mean loss, until
/// reordering is seen (RFC 5681 3.2).
pub const DUP_THRESHOLD: u32 = 3;
/// Most that reordering may raise it to (Linux's `tcp_max_reordering`).
pub const MAX_REORDERING: u32 = 300;

/// Values of [`Recovery::phase`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Nothing known to be lost.
    Open = 0,
    /// Fast recovery.
    Recovery = 1,
    /// After a retransmission timeout.
    Loss = 2,
}

/// Recovery state. 96 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Recovery {
    /// Recovery ends when this is acknowledged: `snd_nxt` when it began.
    pub point: Offset,
    /// Lost holes below this were sent again.
    pub high_rxt: Offset,
    /// Everything below it that is not selectively acknowledged is lost (after a timeout).
    pub loss_point: Offset,
    /// `snd_nxt` when the first hole was sent again: something sent after it arriving means
    /// that it was lost again.
    pub rexmit_mark: Offset,
    /// End of a tail loss probe that awaits its acknowledgement; 0 for none.
    pub probe_end: Offset,
    /// Below it, holes may have been probed: that one fills late says nothing about reordering.
    pub probed_end: Offset,
    /// Own timestamp of the first retransmission of an episode, while its acknowledgement may
    /// still show that it was not needed.
    pub rexmit_stamp: u32,
    /// 1 while `rexmit_stamp` means something.
    pub may_undo: u32,
    /// Congestion window before the episode.
    pub prior_cwnd: u32,
    /// Threshold before the episode.
    pub prior_ssthresh: u32,
    /// [`Phase`].
    pub phase: u32,
    /// Duplicate acknowledgements in a row.
    pub dupacks: u32,
    /// Bytes that duplicate acknowledgements stand for, when there is no SACK.
    pub reno_sacked: u32,
    /// Segments of reordering seen on the path; 0 before any: see [`DUP_THRESHOLD`].
    pub reordering: u32,
    /// PRR: bytes delivered since recovery began.
    pub prr_delivered: u32,
    /// PRR: bytes sent since recovery began.
    pub prr_out: u32,
    /// PRR: bytes in flight when recovery began.
    pub prr_flight: u32,
    /// Timeouts since the peer last acknowledged something new.
    pub retries: u32,
}

impl Recovery {
    /// The phase.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.phase {
            1 => Phase::Recovery,
            2 => Phase::Loss,
            _ => Phase::Open,
        }
    }

    /// Segments above a hole that make it lost.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.reordering.clamp(DUP_THRESHOLD, MAX_REORDERING)
    }
}

/// What an acknowledgement did, as [`super::segment_in`] found it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Acked {
    /// Bytes acknowledged cumulatively.
    pub(crate) cumulative: u64,
    /// Bytes newly delivered, cumulatively or selectively.
    pub(crate) delivered: u64,
    /// It counts as a duplicate acknowledgement (RFC 5681 2, or news in its SACK blocks).
    pub(crate) duplicate: bool,
    /// In flight before it.
    pub(crate) prior_pipe: u32,
    /// Round-trip time measured by it.
    pub(crate) rtt: Option<Nanos>,
    /// It reported a range that arrived twice (RFC 2883).
    pub(crate) dsack: bool,
    /// The timestamp that it echoes, if timestamps are in use.
    pub(crate) echo: Option<u32>,
    /// How far above the first hole something had arrived before.
    pub(crate) span: u64,
    /// Which units it newly delivered, by the send log.
    pub(crate) delivery: Delivery,
}

impl Tcb {
    /// Payload of a full segment in bytes.
    pub(crate) fn mss(&self) -> u32 {
        u32::from(self.negotiated.mss())
    }

    pub(super) fn has_sack(&self) -> bool {
        self.negotiated.has(negotiated::SACK)
    }

    /// Holes below the result are lost.
    pub(crate) fn lost_end(&self) -> Offset {
        let r = &self.recovery;
        let mut end = r.loss_point.max(self.snd_una);
        if self.has_sack() {
            if !self.sacked.is_empty() {
                end = end.max(
                    self.sacked
                        .lost_below(self.snd_una, r.threshold(), self.mss()),
                );
            }
            if r.phase() == Phase::Recovery {
                // Entered: at least the first hole is lost (three duplicates without blocks).
                end = end.max(self.snd_una + 1);
            }
        } else if r.phase() == Phase::Recovery {
            // RFC 6582: one segment is known to be lost at a time.
            end = end.max(self.snd_una + u64::from(self.mss()));
        }
        end.min(self.snd_nxt)
    }

    /// RFC 6675 4, SetPipe: bytes that are in the network.
    pub(crate) fn pipe(&self) -> u32 {
        let r = &self.recovery;
        let flight = self.flight();
        if r.phase() == Phase::Open && self.sacked.is_empty() && r.reno_sacked == 0 {
            return clamp(flight);
        }
        let sacked = if self.has_sack() {
            self.sacked.bytes(self.snd_una)
        } else {
            u64::from(r.reno_sacked)
        };
        let lost_end = self.lost_end();
        let lost = self.sacked.missing(self.snd_una, lost_end);
        let again = r.high_rxt.min(lost_end);
        let again = self.sacked.missing(self.snd_una, again);
        clamp((flight + again).saturating_sub(sacked + lost))
    }

    /// RFC 6675 4, NextSeg rule 1: the next lost hole that was not sent again.
    pub(crate) fn next_lost(&self) -> Option<(Offset, Offset)> {
        let r = &self.recovery;
        if r.phase() == Phase::Open {
            return None;
        }
        let from = r.high_rxt.max(self.snd_una);
        let mut end = self.lost_end();
        if end == self.snd_una + 1 {
            // Only the fact of a loss is known: one segment of the first hole.
            end = (self.snd_una + u64::from(self.mss())).min(self.snd_nxt);
        }
        self.sacked.first_hole(self.snd_una, from, end)
    }

    /// The first hole, for a retransmission that does not depend on what is lost.
    pub(crate) fn first_hole(&self) -> Option<(Offset, Offset)> {
        self.sacked
            .first_hole(self.snd_una, self.snd_una, self.snd_nxt)
    }

    /// `[start, end)` was sent again.
    pub(crate) fn note_retransmit(&mut self, start: Offset, end: Offset) {
        let len = clamp(end - start);
        self.rtt.spoil(start);
        let r = &mut self.recovery;
        r.high_rxt = r.high_rxt.max(end);
        r.prr_out = r.prr_out.saturating_add(len);
        if start == self.snd_una {
            r.rexmit_mark = self.snd_nxt;
        }
    }
}
