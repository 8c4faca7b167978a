//! Explicit congestion notification (RFC 3168): what a connection agreed on, and what it owes.
//!
//! ```text
//!   receiver   CE on data ----> ECE on every segment -----> CWR on data: no more
//!   sender     ECE on an acknowledgement -> smaller window, once for each window of data
//!                                        -> CWR on the first new data after it
//! ```
//!
//! Everything is in the record: a receiver that forgot that it owes ECE would hide congestion
//! from the peer. New data is marked ECT(0); acknowledgements, retransmissions, probes and SYNs
//! are not (RFC 3168 6.1.1, 6.1.4, 6.1.5, 6.1.6).
//!
//! Middleboxes: one that clears the marks makes the connection an ordinary one; one that drops
//! SYNs with the bits costs one retransmission (RFC 3168 6.1.1.1); one that marks all and always
//! makes it slow, no more than that.

use super::conn::{Conn, Ctx};
use super::recovery::Phase;
use super::segment_in::Segment;
use super::seq::Offset;
use super::tcb::Tcb;
use abi::config::EcnMode;
use wire::tcp::Flags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The code point of new data: ECN-capable transport (0) (RFC 3168 5).
pub const ECT_0: u8 = 2;

/// Bits of [`Ecn::flags`].
pub mod flag {
    /// The own SYN carries ECE and CWR.
    pub const OFFERED: u32 = 1;
    /// Both ends agreed: marks are understood, and answered.
    pub const AGREED: u32 = 2;
    /// The own data is not marked ECT although they agreed: a SYN without the offer was sent too
    /// (RFC 3168 6.1.1).
    pub const UNMARKED: u32 = 4;
    /// Congestion was seen: ECE on all that leaves.
    pub const ECHO: u32 = 8;
    /// The window was reduced: CWR on the next new data.
    pub const CWR_DUE: u32 = 16;
}

/// A connection's part. 32 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ecn {
    /// See [`flag`].
    pub flags: u32,
    /// Segments received with congestion experienced.
    pub received_ce: u32,
    /// Segments that the peer acknowledged together with ECE.
    pub delivered_ce: u32,
    /// Times that the window was reduced because of ECE.
    pub reductions: u32,
    /// `snd_nxt` when the window was last reduced, for whatever reason: an echo that does not
    /// acknowledge more than this is of the same window of data.
    pub reduced_at: Offset,
    /// Zero.
    pub reserved: u64,
}

impl Ecn {
    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether marks are understood.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.has(flag::AGREED)
    }

    /// Whether new data is marked.
    #[must_use]
    pub const fn marks(&self) -> bool {
        self.is_agreed() && !self.has(flag::UNMARKED)
    }

    /// An active open begins.
    pub(crate) fn open(mode: EcnMode) -> Self {
        Self {
            flags: if mode == EcnMode::On {
                flag::OFFERED
            } else {
                0
            },
            ..Self::default()
        }
    }

    /// The peer's SYN. RFC 3168 6.1.1: it offers with both bits. One that is itself marked is no
    /// offer: SYNs never are, so something on the way plays with the field.
    pub(crate) fn take_syn(&mut self, mode: EcnMode, flags: Flags, marked: bool) {
        let offers = flags.contains(Flags::ECE | Flags::CWR);
        if mode != EcnMode::Off && offers && !marked {
            self.flags |= flag::AGREED;
        }
    }

    /// The peer's SYN,ACK. RFC 3168 6.1.1: it agrees with ECE alone; both bits are what hosts
    /// answer that reflect whatever they are sent.
    pub(crate) fn take_syn_ack(&mut self, flags: Flags) {
        let agrees = flags.contains(Flags::ECE) && !flags.contains(Flags::CWR);
        if agrees && self.has(flag::OFFERED) {
            self.flags |= flag::AGREED;
        }
    }

    /// RFC 3168 6.1.1.1: no answer to a SYN that offers may mean that something drops those. The
    /// next goes without, and data will not be marked, whichever of them is answered.
    pub(crate) fn fall_back(&mut self) {
        if self.has(flag::OFFERED) {
            self.flags |= flag::UNMARKED;
        }
    }

    /// Control bits of the own SYN or (`reply`) SYN,ACK.
    pub(crate) fn syn_flags(&self, reply: bool) -> Flags {
        if reply && self.is_agreed() {
            Flags::ECE
        } else if !reply && self.has(flag::OFFERED) && !self.has(flag::UNMARKED) {
            Flags::ECE | Flags::CWR
        } else {
            Flags::empty()
        }
    }

    /// Control bits of a segment of an established connection.
    pub(crate) fn echo(&self) -> Flags {
        if self.has(flag::ECHO) {
            Flags::ECE
        } else {
            Flags::empty()
        }
    }

    /// The window was reduced with `snd_nxt` as it is: RFC 3168 6.1.2, the first new data after
    /// that says so, also if a loss was the reason.
    pub(crate) fn note_reduction(&mut self, snd_nxt: Offset) {
        if self.is_agreed() {
            self.flags |= flag::CWR_DUE;
            self.reduced_at = snd_nxt;
        }
    }

    /// New data leaves: whether it carries CWR.
    pub(crate) fn take_cwr(&mut self) -> Flags {
        if self.has(flag::CWR_DUE) {
            self.flags &= !flag::CWR_DUE;
            Flags::CWR
        } else {
            Flags::empty()
        }
    }
}

/// How things were before an acknowledgement was taken into account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    phase: Phase,
    cwnd: u32,
}

impl Before {
    pub(super) fn of(tcb: &Tcb) -> Self {
        Self {
            phase: tcb.recovery.phase(),
            cwnd: tcb.cc.cwnd,
        }
    }
}

impl Conn {
    /// RFC 3168 6.1.3: CWR ends the echo, and CE begins it (again, if one segment has both).
    /// Only data counts (6.1.4), and only inside the window, as the caller has checked (6.1.5).
    pub(super) fn note_marks(&mut self, segment: &Segment<'_>) {
        let ecn = &mut self.tcb.ecn;
        if !ecn.is_agreed() || segment.payload_len() == 0 {
            return;
        }
        if segment.has(Flags::CWR) {
            ecn.flags &= !flag::ECHO;
        }
        if segment.ce {
            ecn.received_ce = ecn.received_ce.wrapping_add(segment.count);
            if !ecn.has(flag::ECHO) {
                ecn.flags |= flag::ECHO;
                // As Linux: the news should not wait for a second segment.
                self.rt.ack_now = true;
            }
        }
    }

    /// RFC 3168 6.1.2: the peer says that the network is congested. Once for each window of data
    /// the window is reduced as for a loss; nothing has to be sent again. `delivered` bytes came
    /// with this acknowledgement, `in_flight` were out before it.
    pub(super) fn on_echo(
        &mut self,
        segment: &Segment<'_>,
        before: Before,
        delivered: u64,
        in_flight: u32,
        ctx: &Ctx<'_>,
    ) {
        let tcb = &mut self.tcb;
        if !tcb.ecn.is_agreed() {
            return;
        }
        if before.phase == Phase::Open && tcb.recovery.phase() != Phase::Open {
            tcb.ecn.note_reduction(tcb.snd_nxt);
        }
        if !segment.has(Flags::ECE) {
            return;
        }
        let mss = tcb.mss();
        let segments = delivered.div_ceil(u64::from(mss.max(1)));
        tcb.ecn.delivered_ce = tcb.ecn.delivered_ce.wrapping_add(segments as u32);
        if tcb.recovery.phase() != Phase::Open || before.phase != Phase::Open {
            return;
        }
        // "must not increase the congestion window in response to" an echo.
        tcb.cc.cwnd = tcb.cc.cwnd.min(before.cwnd);
        if in_flight == 0 || segment.ack <= tcb.ecn.reduced_at {
            return;
        }
        let control = tcb.cc.control();
        control.on_ecn(&mut tcb.cc, ctx.now, in_flight, mss);
        tcb.ecn.reductions = tcb.ecn.reductions.wrapping_add(1);
        tcb.ecn.note_reduction(tcb.snd_nxt);
    }
}
