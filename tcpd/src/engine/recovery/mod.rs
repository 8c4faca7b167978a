//! Loss recovery: what is lost, what is in the network, what to send next, when.
//!
//! ```text
//!   an acknowledgement -> send log: what it delivers -> [rack] or, without SACK, [reno]: what is lost
//!                                                            |
//!        [tail] a probe when all is silent      [respond]  Open -> Recovery, [prr] -> Open
//!        [timeout] RFC 6298, RFC 8985 6.3               \-> Loss, [frto] -> Open
//!                                                       \-> [undo]: it was not lost after all
//! ```
//!
//! - With SACK, loss is found by time: RACK-TLP (RFC 8985), which contains RFC 6675's rule as the
//!   start before reordering was seen. Without, by duplicate acknowledgements (RFC 6582, RFC 3042).
//! - How much leaves meanwhile: proportional rate reduction (RFC 6937, RFC 9937).
//! - What turns out to have been late and not lost is taken back: Eifel (RFC 3522, RFC 4015),
//!   F-RTO (RFC 5682), D-SACK (RFC 3708).
//!
//! Which bytes are lost is a matter of the send log ([`super::sent`]), which is volatile. The
//! record keeps two bounds of it, so that a successor sends again what was already known to be
//! lost and nothing else: holes in `high_rxt .. loss_point` ([`Recovery`]).

mod frto;
mod prr;
mod rack;
mod reno;
mod respond;
mod tail;
mod timeout;
mod undo;

pub use rack::Rack;

use super::options::flag as negotiated;
use super::sent::{Delivery, SendLog};
use super::seq::{Offset, clamp};
use super::tcb::Tcb;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Duplicate acknowledgements, or segments acknowledged above a hole, that mean loss, until
/// reordering is seen (RFC 5681 3.2, RFC 8985 6.2).
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

/// Recovery state. 168 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Recovery {
    /// Recovery ends when this is acknowledged: `snd_nxt` when it began.
    pub point: Offset,
    /// Lost holes below this were sent again in this episode.
    pub high_rxt: Offset,
    /// No hole at or above it is lost. Between `high_rxt` and it, all holes are.
    pub loss_point: Offset,
    /// End of a tail loss probe that awaits its answer; 0 for none.
    pub probe_end: Offset,
    /// `snd_una` when the episode began: duplicates reported above it are its retransmissions'.
    pub undo_point: Offset,
    /// RACK's state.
    pub rack: Rack,
    /// Own timestamp of the first retransmission of an episode, while its acknowledgement may
    /// still show that it was not needed.
    pub rexmit_stamp: u32,
    /// 1 while `rexmit_stamp` means something.
    pub may_undo: u32,
    /// Bytes sent again in the episode that were not reported as duplicates (RFC 3708);
    /// [`NO_UNDO`] when that says nothing any more.
    pub undo_bytes: u32,
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
    /// Of the flight, bytes that the peer has: from the send log, for [`Tcb::pipe`].
    pub sacked: u32,
    /// Of the flight, bytes lost and not sent again: likewise.
    pub lost: u32,
    /// F-RTO: 0 off, 1 the timeout's segment is out, 2 new data was sent behind it.
    pub frto: u32,
    /// How often the tail loss probe's end was sent again (RFC 8985 7.1, TLP.is_retrans); 0 if it
    /// carried new data.
    pub probe_is_retrans: u32,
    /// 1 while the send log does not know yet that what lies below `loss_point` is lost.
    pub presumed: u32,
}

/// [`Recovery::undo_bytes`]: nothing can be taken back.
pub const NO_UNDO: u32 = u32::MAX;

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

    /// Duplicate acknowledgements that mean loss where there is no SACK; what `TCP_INFO` calls
    /// reordering.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.reordering.clamp(DUP_THRESHOLD, MAX_REORDERING)
    }

    /// Everything below `end` that the peer does not have counts as lost; the send log is told
    /// at the next output.
    pub(crate) fn presume_lost(&mut self, una: Offset, end: Offset) {
        self.loss_point = end;
        self.high_rxt = una;
        self.presumed = 1;
        self.lost = clamp(end - una).saturating_sub(self.sacked).max(1);
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
    /// The range that it reported to have arrived twice (RFC 2883).
    pub(crate) dsack: Option<(Offset, Offset)>,
    /// The timestamp that it echoes, if timestamps are in use.
    pub(crate) echo: Option<u32>,
    /// How far above the first hole something had arrived before.
    pub(crate) span: u64,
    /// Which units it newly delivered, by the send log.
    pub(crate) delivery: Delivery,
}

impl Acked {
    /// Age of the newest unit that arrived and was sent once; else what was measured otherwise.
    pub(crate) fn rtt_of_original(&self, now: Nanos) -> Option<Nanos> {
        self.delivery
            .newest_original
            .map(|unit| now.saturating_sub(unit.sent_at))
            .or(self.rtt)
    }
}

impl Tcb {
    /// Payload of a full segment in bytes.
    pub(crate) fn mss(&self) -> u32 {
        u32::from(self.negotiated.mss())
    }

    pub(super) fn has_sack(&self) -> bool {
        self.negotiated.has(negotiated::SACK)
    }

    /// Bytes that are in the network (RFC 6675 4, SetPipe): what is in flight, less what arrived
    /// and what is lost.
    pub(crate) fn pipe(&self) -> u32 {
        let r = &self.recovery;
        let arrived = if self.has_sack() {
            r.sacked
        } else {
            r.reno_sacked
        };
        clamp(self.flight())
            .saturating_sub(arrived)
            .saturating_sub(r.lost)
    }

    /// Whether something lost is to be sent again (RFC 6675 4, NextSeg rule 1).
    pub(crate) fn has_lost(&self) -> bool {
        let r = &self.recovery;
        r.phase() != Phase::Open && r.lost > 0 && r.frto != frto::PROBING
    }

    /// The first hole, for a retransmission that does not depend on what is lost.
    pub(crate) fn first_hole(&self) -> Option<(Offset, Offset)> {
        self.sacked
            .first_hole(self.snd_una, self.snd_una, self.snd_nxt)
    }

    /// Tells the send log what is presumed to be lost, and takes over what it says of the flight.
    pub(crate) fn sync(&mut self, log: &mut SendLog) {
        let r = &mut self.recovery;
        if core::mem::take(&mut r.presumed) != 0 {
            log.mark_lost(r.high_rxt.max(self.snd_una), r.loss_point);
        }
        r.sacked = clamp(log.sacked());
        r.lost = clamp(log.lost());
    }

    /// `[start, end)` was sent again; the send log knows.
    pub(crate) fn note_retransmit(&mut self, start: Offset, end: Offset) {
        let len = clamp(end - start);
        let r = &mut self.recovery;
        r.high_rxt = r.high_rxt.max(end);
        r.prr_out = r.prr_out.saturating_add(len);
        if r.undo_bytes < NO_UNDO {
            r.undo_bytes = r.undo_bytes.saturating_add(len).min(NO_UNDO - 1);
        }
    }
}
