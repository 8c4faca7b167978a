//! SYN_RECEIVED and everything after it: the checks, in RFC 9293 3.10.7.4's order, with PAWS
//! (RFC 7323 5) in front and RFC 5961's challenge ACKs.

use super::{Gate, Segment, Sink};
use crate::engine::actions::Notice;
use crate::engine::config::MILLISECOND;
use crate::engine::conn::{Conn, Ctx};
use crate::engine::error::Errno;
use crate::engine::options;
use crate::engine::output::build;
use crate::engine::seq::SYN_OFFSET;
use crate::engine::state::State;
use crate::engine::tcb::{Accept, flag};
use crate::engine::timers::Timer;
use abi::Nanos;
use wire::tcp::Flags;

impl Conn {
    pub(super) fn on_segment_synchronized(
        &mut self,
        mut segment: Segment<'_>,
        sink: &mut Sink<'_>,
        gate: Gate<'_>,
        ctx: &mut Ctx<'_>,
    ) {
        if self.tcb.state() == State::SynReceived && self.is_peers_syn(&segment) {
            if !segment.has(Flags::ACK) {
                // Our SYN,ACK was lost.
                self.rt.syn_now = !segment.has(Flags::RST) || self.rt.syn_now;
                return;
            }
            // RFC 9293 3.5: in a simultaneous open the peer's SYN,ACK acknowledges ours.
            segment.flags.remove(Flags::SYN);
            segment.start = segment.data;
            self.rt.ack_now = true;
        }
        if !self.passes_paws(&segment, ctx) || !self.is_in_window(&segment, ctx) {
            return;
        }
        if segment.has(Flags::RST) {
            self.on_reset(&segment, ctx);
            return;
        }
        // RFC 5961 4.2: any SYN in a synchronized state is challenged.
        if segment.has(Flags::SYN) {
            self.challenge(ctx);
            return;
        }
        if !segment.has(Flags::ACK) {
            return;
        }
        self.heard(ctx.now);
        self.note_timestamp(&segment, ctx);
        if self.tcb.state() == State::SynReceived {
            if !self.finish_handshake(&segment, sink, gate, ctx) {
                return;
            }
        } else if !self.is_ack_acceptable(&segment, ctx) {
            return;
        }
        self.process_ack(&segment, ctx);
        if self.tcb.state() == State::Closed {
            return;
        }
        self.note_user_timeout(&segment, ctx);
        self.note_marks(&segment);
        self.note_urgent(&segment, ctx);
        if self.take_data(&segment, sink, ctx) {
            self.look_for_urgent_byte(ctx);
            self.take_fin(&segment, ctx);
        }
    }

    /// RFC 7323 5.3 R1: old duplicates are dropped and answered; resets are exempt (5.2).
    fn passes_paws(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) -> bool {
        let n = &self.tcb.negotiated;
        let Some(ts) = segment
            .repr
            .options
            .timestamps
            .filter(|_| n.has(options::flag::TIMESTAMPS))
        else {
            return true;
        };
        if segment.has(Flags::RST) || !n.is_paws_old(ts.tsval, ctx.now) {
            return true;
        }
        ctx.stats.paws_drops += 1;
        self.answer_outsider(segment, ctx);
        false
    }

    /// RFC 9293 3.10.7.4, first: sequence number. A segment that only touches the right edge is
    /// let through: nothing of its data is taken, but its acknowledgement counts, as it must
    /// when the window is zero.
    fn is_in_window(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) -> bool {
        let tcb = &self.tcb;
        let acceptable = segment.start <= tcb.rcv_adv
            && if segment.len() == 0 {
                segment.start >= tcb.rcv_nxt
            } else {
                segment.end > tcb.rcv_nxt
            };
        if acceptable {
            return true;
        }
        ctx.stats.out_of_window += 1;
        if segment.has(Flags::RST) {
            return false;
        }
        let tcb = &mut self.tcb;
        tcb.counters.duplicates = tcb.counters.duplicates.saturating_add(1);
        if segment.payload_len() > 0 && segment.end <= tcb.rcv_nxt {
            // RFC 2883 4: report what arrived twice.
            ctx.stats.duplicate_bytes += segment.payload_len();
            self.note_duplicate(segment.data, segment.data_end, ctx);
            self.quicken(segment, ctx);
        }
        if self.tcb.state() == State::TimeWait && segment.has(Flags::FIN) {
            // RFC 9293 3.10.7.4: a retransmitted FIN starts the wait over.
            self.enter_time_wait(ctx);
        }
        self.answer_outsider(segment, ctx);
        false
    }

    /// An acknowledgement that tells the peer where we are.
    fn answer_outsider(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        if segment.len() == 0 && !self.may_answer_outsider(ctx) {
            return;
        }
        self.rt.ack_now = true;
    }

    /// Whether enough time has passed since the last answer to something out of order.
    fn may_answer_outsider(&mut self, ctx: &Ctx<'_>) -> bool {
        let last = self.rt.oow_ack_at;
        let interval = ctx.config.open.invalid_ratelimit;
        if last != 0 && ctx.now.saturating_sub(last) < interval {
            return false;
        }
        self.rt.oow_ack_at = ctx.now.max(1);
        true
    }

    /// RFC 5961 3.2: only a reset at exactly the expected number is believed.
    fn on_reset(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        if segment.start != self.tcb.rcv_nxt {
            self.challenge(ctx);
            return;
        }
        ctx.stats.resets_in += 1;
        match self.tcb.state() {
            // RFC 9293 3.10.7.4: back to LISTEN; nobody knows of the child.
            State::SynReceived if self.tcb.is_early() => {
                self.terminate(Some(Errno::ECONNRESET), ctx);
            }
            State::SynReceived if self.tcb.has(flag::PASSIVE) => self.terminate(None, ctx),
            State::SynReceived => self.terminate(Some(Errno::ECONNREFUSED), ctx),
            // RFC 1337: an answer to an old duplicate would end the wait that protects against
            // old duplicates.
            State::TimeWait if ctx.config.open.rfc1337 => {}
            State::TimeWait => self.terminate(None, ctx),
            // As Linux: after the peer's FIN only writing can notice.
            State::CloseWait => self.terminate(Some(Errno::EPIPE), ctx),
            _ => self.terminate(Some(Errno::ECONNRESET), ctx),
        }
    }

    /// RFC 5961: an acknowledgement that a real peer answers with the reset we would believe.
    fn challenge(&mut self, ctx: &mut Ctx<'_>) {
        // As Linux: each connection now and then, and all together.
        if self.may_answer_outsider(ctx) && ctx.challenge.take(ctx.now, ctx.config) {
            ctx.stats.challenges += 1;
            self.rt.ack_now = true;
        }
    }

    /// RFC 7323 4.3: which timestamp is echoed.
    fn note_timestamp(&mut self, segment: &Segment<'_>, ctx: &Ctx<'_>) {
        let last_ack_sent = self.tcb.last_ack_sent;
        let n = &mut self.tcb.negotiated;
        if let Some(ts) = segment.repr.options.timestamps
            && n.has(options::flag::TIMESTAMPS)
            && segment.start <= last_ack_sent
            && ts.tsval.wrapping_sub(n.ts_recent).cast_signed() >= 0
        {
            n.ts_recent = ts.tsval;
            n.ts_recent_at = ctx.now;
        }
    }

    /// SYN_RECEIVED: our SYN is acknowledged. Returns whether the segment is to be processed on.
    fn finish_handshake(
        &mut self,
        segment: &Segment<'_>,
        sink: &mut Sink<'_>,
        gate: Gate<'_>,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        if segment.ack <= SYN_OFFSET || segment.ack > self.tcb.snd_nxt {
            // RFC 9293 3.10.7.4, fifth: SYN-RECEIVED.
            build::reset_for_ack(self, segment.ack, ctx);
            return false;
        }
        let is_child = self.tcb.accept() == Accept::Embryonic;
        if is_child {
            // TCP_DEFER_ACCEPT: wait for data, but not longer than the handshake is retried.
            let deferred = self.tcb.opts.defer_accept_ms > 0
                && segment.len() == 0
                && ctx.now.saturating_sub(self.tcb.created_at)
                    < Nanos::from(self.tcb.opts.defer_accept_ms) * MILLISECOND;
            if deferred {
                // As Linux: the SYN,ACK is sent again when the time is up, to be acknowledged.
                let time = Nanos::from(self.tcb.opts.defer_accept_ms) * MILLISECOND;
                let at = self.tcb.created_at + time;
                self.tcb.deadlines.arm(Timer::Retransmit, at);
                return false;
            }
            let Some(gate) = gate else {
                return false;
            };
            let owner = (!gate.is_full)
                .then(|| sink.buffers.attach(gate.listener, gate.owner, self.id))
                .flatten();
            let Some(owner) = owner else {
                // As Linux: the peer believes it is connected; our SYN,ACK comes again.
                ctx.stats.accept_drops += 1;
                return false;
            };
            self.tcb.owner = owner;
            self.tcb.accept = Accept::Ready as u8;
            self.tcb.accept_seq = gate.order;
            ctx.actions.notices.push(Notice::Accepted {
                listener: gate.listener,
                child: self.id,
            });
        }
        self.establish(segment, ctx);
        if !self.tcb.has(flag::PASSIVE) {
            ctx.actions.notices.push(Notice::Connected(self.id));
        }
        true
    }

    /// RFC 9293 3.10.7.4, fifth, and RFC 5961 5.2.
    fn is_ack_acceptable(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) -> bool {
        let tcb = &self.tcb;
        if segment.ack > tcb.snd_nxt
            || segment.ack + u64::from(tcb.max_wnd.max(0xffff)) < tcb.snd_una
        {
            self.challenge(ctx);
            return false;
        }
        true
    }
}
