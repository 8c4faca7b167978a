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

use super::congestion::AckEvent;
use super::options::flag as negotiated;
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
    /// Zero; room for RACK (RFC 8985).
    pub reserved: [u64; 2],
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
}

impl Tcb {
    /// Payload of a full segment in bytes.
    pub(crate) fn mss(&self) -> u32 {
        u32::from(self.negotiated.mss())
    }

    fn has_sack(&self) -> bool {
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

    /// Takes an acknowledgement into account; `snd_una` and the scoreboard are already moved.
    /// Returns true if the first hole has to be sent again now although it already was.
    pub(crate) fn recover(&mut self, now: Nanos, acked: &Acked) -> bool {
        let mut again = false;
        self.count_duplicates(acked);
        self.end_tail_probe(now, acked);
        match self.recovery.phase() {
            Phase::Open => {
                if self.is_loss_evident() {
                    self.enter_recovery(now, acked.prior_pipe);
                } else if self.is_shown_by_probe(acked) {
                    let high = self.sacked.high(self.snd_una);
                    self.enter_recovery(now, acked.prior_pipe);
                    self.recovery.loss_point = high;
                } else {
                    self.grow(now, acked);
                }
            }
            Phase::Recovery | Phase::Loss if self.snd_una >= self.recovery.point => {
                self.leave_recovery(now);
                if self.is_loss_evident() {
                    self.enter_recovery(now, acked.prior_pipe);
                }
            }
            Phase::Recovery => {
                again = self.is_lost_again(acked);
                self.reduce_rate(acked);
            }
            Phase::Loss => {
                again = self.is_lost_again(acked);
                self.grow(now, acked);
            }
        }
        again
    }

    fn count_duplicates(&mut self, acked: &Acked) {
        let mss = self.mss();
        let sack = self.has_sack();
        let flight = clamp(self.flight());
        let r = &mut self.recovery;
        if acked.cumulative > 0 {
            r.dupacks = 0;
            // A partial acknowledgement: the segment that was missing, and some that were not.
            r.reno_sacked = r
                .reno_sacked
                .saturating_sub(clamp(acked.cumulative).saturating_sub(mss));
            if self.snd_una < r.high_rxt {
                // Whether the next hole's retransmission is lost can only be judged from now on.
                r.rexmit_mark = self.snd_nxt;
            }
        }
        if acked.duplicate {
            r.dupacks = r.dupacks.saturating_add(1);
            if !sack {
                r.reno_sacked = r
                    .reno_sacked
                    .saturating_add(mss)
                    .min(flight.saturating_sub(mss));
            }
        }
        if self.snd_una == self.snd_nxt {
            r.reno_sacked = 0;
        }
    }

    /// RFC 6675 5 steps 1 and 2; without SACK RFC 6582 3.2 step 2.
    fn is_loss_evident(&self) -> bool {
        let r = &self.recovery;
        if self.flight() == 0 {
            return false;
        }
        // RFC 6582 4.1: duplicates that stem from the retransmissions of the last recovery do
        // not start another; the acknowledgement must cover more than its point.
        if !self.has_sack() {
            return r.dupacks >= r.threshold() && self.snd_una > r.point;
        }
        if self.sacked.is_empty() {
            return false;
        }
        r.dupacks >= r.threshold()
            || self
                .sacked
                .lost_below(self.snd_una, r.threshold(), self.mss())
                > self.snd_una
    }

    /// RFC 8985 7.4.1 with 6.2: the answer to a tail loss probe reports something new. The probe
    /// left two round-trip times after everything else, so holes below what it reports are lost
    /// whatever their number.
    fn is_shown_by_probe(&self, acked: &Acked) -> bool {
        self.recovery.probe_end != 0
            && acked.delivered > 0
            && !acked.dsack
            && self.flight() > 0
            && !self.sacked.is_empty()
    }

    fn enter_recovery(&mut self, now: Nanos, prior_pipe: u32) {
        let mss = self.mss();
        let control = self.cc.control();
        let flight = clamp(self.flight()).max(prior_pipe);
        self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
        self.counters.recoveries = self.counters.recoveries.saturating_add(1);
        let r = &mut self.recovery;
        r.phase = Phase::Recovery as u32;
        r.point = self.snd_nxt;
        r.high_rxt = self.snd_una;
        r.loss_point = self.snd_una;
        r.rexmit_mark = self.snd_nxt;
        r.prr_delivered = 0;
        r.prr_out = 0;
        r.prr_flight = clamp(self.snd_nxt - self.snd_una).max(1);
        r.probe_end = 0;
        // The first retransmission leaves at once (RFC 6675 5 step 4.3).
        self.cc.cwnd = self.pipe().saturating_add(mss);
    }

    /// RFC 6937 3: PRR with the slow-start reduction bound.
    fn reduce_rate(&mut self, acked: &Acked) {
        let pipe = self.pipe();
        let mss = self.mss();
        let ssthresh = self.cc.ssthresh;
        let has_sack = self.has_sack();
        let delivered = if has_sack {
            clamp(acked.delivered)
        } else if acked.duplicate {
            mss
        } else {
            clamp(acked.cumulative).min(mss)
        };
        let r = &mut self.recovery;
        r.prr_delivered = r.prr_delivered.saturating_add(delivered);
        let allowed = if pipe > ssthresh {
            let target = u64::from(r.prr_delivered) * u64::from(ssthresh);
            clamp(target.div_ceil(u64::from(r.prr_flight.max(1)))).saturating_sub(r.prr_out)
        } else {
            let limit = r
                .prr_delivered
                .saturating_sub(r.prr_out)
                .max(delivered)
                .saturating_add(mss);
            (ssthresh - pipe).min(limit)
        };
        // A retransmission that never left (killed before it did) must not hold recovery up; and
        // RFC 6582 3.2 step 5: without SACK a partial acknowledgement sends the next segment.
        let partial = acked.cumulative > 0 && !has_sack;
        let allowed = if r.prr_out == 0 || partial {
            allowed.max(mss)
        } else {
            allowed
        };
        // In whole segments, as less cannot be used, and would hold the last hole up for ever.
        let allowed = allowed.div_ceil(mss).saturating_mul(mss);
        self.cc.cwnd = pipe.saturating_add(allowed);
    }

    fn leave_recovery(&mut self, now: Nanos) {
        let control = self.cc.control();
        if self.recovery.phase() == Phase::Recovery {
            // RFC 6582 3.2 step 3, with RFC 6937's aim: the window is the threshold.
            self.cc.cwnd = self.cc.ssthresh.max(2 * self.mss());
            control.on_recovered(&mut self.cc, now);
        }
        let idle = self.flight() == 0;
        let r = &mut self.recovery;
        r.phase = Phase::Open as u32;
        r.dupacks = 0;
        r.loss_point = 0;
        r.high_rxt = 0;
        if idle {
            r.reno_sacked = 0;
        }
    }

    fn grow(&mut self, now: Nanos, acked: &Acked) {
        if acked.cumulative == 0 || !self.cc.may_grow() {
            return;
        }
        let event = AckEvent {
            now,
            acked: clamp(acked.cumulative),
            rtt: acked.rtt,
            mss: self.mss(),
            in_flight: acked.prior_pipe,
        };
        let control = self.cc.control();
        control.on_ack(&mut self.cc, &event);
    }

    /// The first hole was sent again, and since then something arrived that was sent later
    /// (RFC 8985 6.2): on a path that does not reorder, one byte shows it.
    fn is_lost_again(&mut self, acked: &Acked) -> bool {
        let margin = match self.recovery.reordering {
            0 => 1,
            _ => u64::from(self.recovery.threshold()) * u64::from(self.mss()),
        };
        let r = &mut self.recovery;
        if acked.delivered == 0
            || r.high_rxt <= self.snd_una
            || self.sacked.high(self.snd_una) < r.rexmit_mark + margin
        {
            return false;
        }
        r.rexmit_mark = self.snd_nxt;
        true
    }

    /// From where on a hole that fills late shows reordering: below, it may have been sent again.
    pub(crate) fn sent_once_from(&self) -> Offset {
        let r = &self.recovery;
        self.snd_una.max(r.high_rxt).max(r.probed_end)
    }

    /// A hole that was never sent again is filled although something `distance` bytes above it
    /// arrived earlier: the path reorders by that much.
    pub(crate) fn note_reordering(&mut self, distance: u64) {
        let segments = clamp(distance.div_ceil(u64::from(self.mss().max(1)))).saturating_add(1);
        let r = &mut self.recovery;
        r.reordering = r.reordering.max(segments.min(MAX_REORDERING));
    }

    /// RFC 6298 5.4 to 5.7, RFC 5681 3.1: the retransmission timer went off.
    pub(crate) fn enter_loss(&mut self, now: Nanos) {
        let mss = self.mss();
        let control = self.cc.control();
        let flight = clamp(self.flight());
        let first = self.recovery.phase() != Phase::Loss || self.snd_una >= self.recovery.point;
        if first {
            self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
        }
        control.on_timeout(&mut self.cc, now);
        self.cc.cwnd = mss;
        // RFC 2018 8: if the first byte is one the peer says it has, it reneged: believe nothing.
        if self
            .first_hole()
            .is_none_or(|(start, _)| start != self.snd_una)
        {
            self.sacked.clear();
        }
        self.counters.timeouts = self.counters.timeouts.saturating_add(1);
        let r = &mut self.recovery;
        r.phase = Phase::Loss as u32;
        r.point = self.snd_nxt;
        r.loss_point = self.snd_nxt;
        r.high_rxt = self.snd_una;
        r.rexmit_mark = self.snd_nxt;
        r.dupacks = 0;
        r.reno_sacked = 0;
        r.probe_end = 0;
        r.probed_end = self.snd_nxt;
    }

    /// RFC 8985 7.4: whether a tail loss probe repaired a loss, which must be answered once. It
    /// did not if it arrived beside the original (the peer says so by a D-SACK or by a second
    /// acknowledgement of the same); it did if later data is acknowledged without that.
    fn end_tail_probe(&mut self, now: Nanos, acked: &Acked) {
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
}
