//! Urgent data, as Linux gives it (RFC 9293 3.8.5, RFC 6093).
//!
//! The urgent pointer shows behind the urgent data, and its last byte is "the" urgent byte. It
//! stays in the stream: where it lies is known here, and what becomes of it (taken out of band,
//! or left in place) is the socket library's business. The latest announcement counts; an
//! urgent byte that another overtakes becomes ordinary data.

use super::actions::Notice;
use super::conn::{Conn, Ctx};
use super::segment_in::Segment;
use super::seq::{Offset, stream_position};
use super::sockopt;
use super::tcb::Tcb;
use wire::tcp::Flags;

impl Tcb {
    /// Stream position behind the peer's urgent byte (RFC 6093), if urgent data was announced.
    #[must_use]
    pub fn urgent_upto(&self) -> Option<u64> {
        (self.rcv_up != 0).then(|| stream_position(self.rcv_up))
    }

    /// Whether the urgent byte that was announced last has arrived, in order or not.
    #[must_use]
    pub const fn urgent_is_here(&self) -> bool {
        self.rcv_up != 0 && self.rcv_up_here == self.rcv_up
    }

    /// Stream position behind an urgent byte that is to be left out of the stream, 0 for none.
    #[must_use]
    pub const fn urgent_lost(&self) -> u64 {
        if self.rcv_up_lost == 0 {
            0
        } else {
            stream_position(self.rcv_up_lost)
        }
    }

    /// Whether the next byte to read is the urgent one.
    #[must_use]
    pub fn is_at_mark(&self) -> bool {
        self.urgent_upto() == Some(self.consumed + 1)
    }

    /// The control bit and pointer of a segment that begins at `seq`. One that is too far away
    /// for 16 bits is announced when it is near, or (as Linux) as far as can be said while it
    /// lies beyond everything sent.
    pub(crate) fn urgent_pointer(&self, seq: Offset) -> Option<u16> {
        let distance = self.snd_up.checked_sub(seq).filter(|&d| d > 0)?;
        match u16::try_from(distance) {
            Ok(near) => Some(near),
            Err(_) if seq + 0xffff > self.snd_nxt => Some(0xffff),
            Err(_) => None,
        }
    }

    /// Urgent data is announced and not acknowledged: the pointer is relative to each segment's
    /// beginning, so there are no merged ones.
    pub(crate) const fn is_urgent(&self) -> bool {
        self.snd_up > self.snd_una
    }
}

impl Conn {
    /// RFC 9293 3.10.7.4, sixth: an announcement. One that is older than what was received, or
    /// not newer than the last, says nothing.
    pub(super) fn note_urgent(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        if !segment.has(Flags::URG) || segment.repr.urgent == 0 || !self.tcb.state().can_receive() {
            return;
        }
        let up = segment.start + u64::from(segment.repr.urgent);
        if up > self.tcb.rcv_up && up > self.tcb.rcv_nxt {
            // As Linux: an urgent byte that reading has come to is overtaken by the next, and
            // lost; one further on turns into ordinary data.
            let inline = self.tcb.opts.has(sockopt::flag::OOBINLINE);
            if self.tcb.urgent_is_here() && self.tcb.is_at_mark() && !inline {
                self.tcb.rcv_up_lost = self.tcb.rcv_up;
            }
            self.tcb.rcv_up = up;
            ctx.actions.notices.push(Notice::Urgent(self.id));
        }
    }

    /// After data was placed: whether the urgent byte was among it. As in Linux it may be taken
    /// even if data before it is missing.
    pub(super) fn look_for_urgent_byte(&mut self, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        if tcb.rcv_up == 0 || tcb.rcv_up_here == tcb.rcv_up {
            return;
        }
        let at = tcb.rcv_up - 1;
        if tcb.rcv_nxt > at || tcb.reassembly.covers(tcb.rcv_nxt, at, at + 1) {
            tcb.rcv_up_here = tcb.rcv_up;
            ctx.actions.notices.push(Notice::Urgent(self.id));
        }
    }

    /// The application's mark moved (RFC 6093 5: a later one replaces an earlier one). If the
    /// window lets no data out, an acknowledgement tells the peer (RFC 9293 3.8.5: "even if the
    /// window is zero").
    pub(super) fn mark_urgent(&mut self, up: Offset) {
        let tcb = &mut self.tcb;
        if up <= tcb.snd_up || up <= tcb.snd_una {
            return;
        }
        tcb.snd_up = up;
        if tcb.snd_limit() <= tcb.snd_nxt && tcb.state().is_synchronized() {
            self.rt.ack_now = true;
        }
    }
}
