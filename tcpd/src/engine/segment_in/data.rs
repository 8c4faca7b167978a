//! Payload: to its place in the receive buffer, in order or not, and when to acknowledge it.

use super::{Segment, Sink};
use crate::engine::conn::{Conn, Ctx, QUICKACKS};
use crate::engine::error::Errno;
use crate::engine::seq::{DATA_OFFSET, clamp, stream_position};
use crate::engine::sockopt;
use crate::engine::timers::Timer;

impl Conn {
    /// RFC 9293 3.10.7.4, seventh. Returns whether the segment's FIN may be looked at.
    pub(super) fn take_data(
        &mut self,
        segment: &Segment<'_>,
        sink: &mut Sink<'_>,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        if segment.payload_len() == 0 {
            return true;
        }
        let tcb = &self.tcb;
        if !tcb.state().can_receive() {
            // The peer's FIN was here: "this should not occur".
            self.rt.ack_now = true;
            return true;
        }
        if tcb.is_orphan() && segment.data_end > tcb.rcv_nxt {
            // RFC 2525 2.17 and RFC 9293 3.6.1: nobody will ever read it.
            self.abort(Some(Errno::ECONNRESET), ctx);
            return false;
        }
        self.quicken(segment, ctx);
        let tcb = &self.tcb;
        let start = segment.data.max(tcb.rcv_nxt);
        let mut end = segment.data_end.min(tcb.rcv_adv);
        if tcb.fin_at != 0 {
            end = end.min(tcb.fin_at);
        }
        if start != segment.data || end != segment.data_end {
            // A part is a duplicate or outside of the window: the peer should know where we are.
            self.rt.ack_now = true;
        }
        if (DATA_OFFSET..start).contains(&segment.data) && start < segment.data_end {
            // RFC 2883 4.2: the part that was here already.
            self.note_duplicate(segment.data, start, ctx);
        }
        if start < end {
            self.place(segment, start, end, sink, ctx);
        }
        true
    }

    /// As Linux's quick acknowledgements: a peer that sends again what is here, or comes back after
    /// a timeout's time, has lost acknowledgements or its whole window. With a small one it waits
    /// for each of ours, which must not be held back. Not where this end sends as well: data of
    /// its own will carry them.
    pub(super) fn quicken(&mut self, segment: &Segment<'_>, ctx: &Ctx<'_>) {
        let tcb = &self.tcb;
        let before = tcb.chrono.data_at;
        let again = (DATA_OFFSET..tcb.rcv_nxt).contains(&segment.data);
        let listens = before != 0 && tcb.last_sent_at < before;
        let late = ctx.now.saturating_sub(before) > tcb.rtt.timeout(ctx.config);
        if again || (listens && late) {
            self.rt.quickack = QUICKACKS;
        }
    }

    pub(crate) fn place(
        &mut self,
        segment: &Segment<'_>,
        start: u64,
        end: u64,
        sink: &mut Sink<'_>,
        ctx: &mut Ctx<'_>,
    ) {
        let tcb = &mut self.tcb;
        let nxt = tcb.rcv_nxt;
        let in_order = start == nxt;
        if !in_order {
            tcb.counters.out_of_order = tcb.counters.out_of_order.saturating_add(1);
            // RFC 5681 4.2: a duplicate acknowledgement at once.
            self.rt.ack_now = true;
            if tcb.reassembly.covers(nxt, start, end) {
                tcb.counters.duplicates = tcb.counters.duplicates.saturating_add(1);
                ctx.stats.duplicate_bytes += end - start;
                self.note_duplicate(start, end, ctx);
                return;
            }
            if self.rt.memory.exhausted || !tcb.reassembly.has_room(nxt, start, end) {
                ctx.stats.no_room += 1;
                return;
            }
            self.note_range(start, end, ctx);
        }
        let tcb = &mut self.tcb;
        // Both lengths are at most a segment's payload.
        let offset = (start - segment.data) as usize;
        let len = (end - start) as usize;
        let placed = sink.buffers.place(
            tcb.owner,
            &tcb.memory.rings,
            stream_position(start),
            sink.payload,
            offset,
            len,
        );
        if !placed {
            ctx.stats.no_room += 1;
            return;
        }
        ctx.stats.bytes_in += end - start;
        let before = core::mem::replace(&mut tcb.chrono.data_at, ctx.now);
        if !in_order {
            tcb.reassembly.insert(nxt, start, end);
            self.open_window(segment, before);
            return;
        }
        let had_gaps = !tcb.reassembly.is_empty();
        tcb.rcv_nxt = tcb.reassembly.advance(nxt, end);
        self.notice_received(ctx);
        self.time_window(segment.repr.options.timestamps.map(|ts| ts.tsecr), ctx.now);
        if had_gaps {
            // RFC 5681 4.2: at once also when a gap is filled, in part or whole.
            self.rt.ack_now = true;
        }
        self.open_window(segment, before);
        self.schedule_ack(segment, clamp(end - start), ctx);
    }

    /// RFC 9293 3.8.6.3 and RFC 1122 4.2.3.2: at least every second full segment, and never
    /// later than the delay. Merged segments count as what they were on the wire.
    fn schedule_ack(&mut self, segment: &Segment<'_>, len: u32, ctx: &Ctx<'_>) {
        let tcb = &mut self.tcb;
        tcb.rcv_mss = tcb
            .rcv_mss
            .max(segment.size.min(u32::from(tcb.negotiated.advertised_mss)))
            .max(1);
        let full = len / tcb.rcv_mss.saturating_sub(OPTION_SLACK).max(1);
        tcb.unacked_segs = tcb.unacked_segs.saturating_add(full);
        if self.rt.quickack > 0
            || tcb.opts.has(sockopt::flag::QUICKACK)
            || tcb.unacked_segs >= 2
            || tcb.rcv_nxt - tcb.last_ack_sent >= 2 * u64::from(tcb.rcv_mss)
        {
            self.rt.ack_now = true;
        } else if !tcb.deadlines.is_armed(Timer::DelayedAck) {
            tcb.deadlines
                .arm(Timer::DelayedAck, ctx.now + ctx.config.delayed_ack);
        }
    }
}

/// A segment that is smaller than others by options is still a full one.
pub(crate) const OPTION_SLACK: u32 = 40;
