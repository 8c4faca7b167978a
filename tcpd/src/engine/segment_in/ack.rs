//! The acknowledgement of a segment: window, scoreboard, measurement, recovery, and what the
//! acknowledgement of our FIN means.

use super::Segment;
use crate::engine::conn::{Conn, Ctx};
use crate::engine::ecn::Before;
use crate::engine::options;
use crate::engine::output;
use crate::engine::pmtu::Watch;
use crate::engine::recovery::Acked;
use crate::engine::seq::{Offset, clamp, extend};
use crate::engine::state::State;
use crate::engine::timers::Timer;
use wire::tcp::Flags;

/// How long a peer that seems to have reneged is given at the least.
const RENEGE_WAIT: abi::Nanos = 10 * crate::engine::config::MILLISECOND;

impl Conn {
    /// RFC 9293 3.10.7.4, fifth. The acknowledgement is at most `snd_nxt`; an old one still may
    /// carry news in its SACK blocks.
    pub(super) fn process_ack(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        let una = self.tcb.snd_una;
        let flight = self.tcb.flight();
        let free = self.tcb.acked_upto();
        let stamps = self.tcb.negotiated.has(options::flag::TIMESTAMPS);
        let mut acked = Acked {
            prior_pipe: self.tcb.pipe(),
            echo: segment
                .repr
                .options
                .timestamps
                .filter(|_| stamps)
                .map(|ts| ts.tsecr),
            span: self.tcb.sacked.high(una) - una,
            ..Acked::default()
        };
        let window_changed = self.update_window(segment);
        self.rt.sent.cover(una, self.tcb.snd_nxt, ctx.now);
        self.rt.sent.advance(segment.ack, &mut acked.delivery);
        if segment.ack > una {
            self.advance_una(segment, &mut acked, ctx);
        }
        let news = self.take_sack_blocks(segment, &mut acked);
        acked.delivered = acked.delivery.bytes;
        self.measure(&mut acked, ctx);
        // RFC 5681 2: what a duplicate acknowledgement is. With SACK, only news counts, so that
        // window updates and probes are not mistaken for it (RFC 6675 2).
        acked.duplicate = segment.ack == una
            && flight > 0
            && if self.tcb.negotiated.has(options::flag::SACK) {
                news > 0
            } else {
                segment.len() == 0 && !window_changed
            };
        let before = Before::of(&self.tcb);
        let watch = Watch::begin(&self.tcb);
        let sample = self.sample_rate(&acked.delivery, ctx.now);
        let lost = self.rt.sent.lost();
        // What arrived twice may be told when nothing is in flight any more: it takes a reduction
        // back (RFC 3708 3), or answers a tail loss probe (RFC 8985 7.4.2).
        if flight > 0 || acked.dsack.is_some() {
            self.tcb.recover(&mut self.rt.sent, ctx.now, &acked);
        }
        let lost = self.rt.sent.lost().saturating_sub(lost);
        watch.end(self, ctx);
        if flight > 0 {
            self.follow_model(&acked, sample, clamp(lost), ctx.now);
        }
        self.on_echo(segment, before, acked.delivered, acked.prior_pipe, ctx);
        if acked.cumulative > 0 {
            self.tcb.note_held(false, ctx.now);
            self.rearm_after_progress(ctx);
            if self.tcb.acked_upto() > free {
                self.notice_acked(ctx);
            }
            self.on_fin_acked(ctx);
        } else if acked.duplicate {
            output::arm_tail_probe(&mut self.tcb, ctx);
        }
    }

    /// RFC 9293 3.10.7.4: SND.WND from the newest segment. Of segments that are equally new only
    /// a larger window counts, so that a reordered one does not shrink it.
    fn update_window(&mut self, segment: &Segment<'_>) -> bool {
        let tcb = &mut self.tcb;
        if segment.ack < tcb.snd_una {
            return false;
        }
        // RFC 7323 2.2: the window of a SYN is never scaled (a SYN,ACK that ends a simultaneous
        // open comes this way).
        let scale = match segment.repr.flags.contains(Flags::SYN) {
            true => 0,
            false => tcb.negotiated.snd_scale,
        };
        let window = u32::from(segment.repr.window) << scale;
        // As Linux: what acknowledges more is newer, though its sequence number may be older. The
        // old window at the new place would reach beyond what the peer offered.
        let newer = tcb.snd_una < segment.ack
            || tcb.snd_wl1 < segment.start
            || (tcb.snd_wl1 == segment.start
                && (tcb.snd_wl2 < segment.ack
                    || (tcb.snd_wl2 == segment.ack && window > tcb.snd_wnd)));
        if !newer {
            return false;
        }
        let changed = window != tcb.snd_wnd;
        tcb.snd_wnd = window;
        tcb.max_wnd = tcb.max_wnd.max(window);
        tcb.snd_wl1 = segment.start;
        tcb.snd_wl2 = segment.ack;
        if window > 0 {
            tcb.deadlines.stop(Timer::Persist);
            tcb.counters.persist_probes = 0;
        }
        changed
    }

    /// `snd_una` moves: the scoreboard, reordering, and the round-trip time.
    fn advance_una(&mut self, segment: &Segment<'_>, acked: &mut Acked, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        let una = tcb.snd_una;
        acked.cumulative = segment.ack - una;
        tcb.sacked.advance(una, segment.ack);
        tcb.snd_una = segment.ack;
        tcb.progress_at = ctx.now;
        tcb.chrono.progress(ctx.now);
        tcb.recovery.retries = 0;
        // The handshake's measurement.
        acked.rtt = tcb.rtt.finish(ctx.now, segment.ack);
    }

    /// RFC 6298 3 (Karn): the age of what was sent only once and arrived last. If there is no
    /// such thing, an echoed timestamp says which transmission was answered (RFC 7323 4).
    fn measure(&mut self, acked: &mut Acked, ctx: &Ctx<'_>) {
        let tcb = &mut self.tcb;
        if let Some(unit) = acked.delivery.newest_original {
            acked.rtt = Some(ctx.now.saturating_sub(unit.sent_at).max(1));
        } else if acked.rtt.is_none()
            && acked.cumulative > 0
            && let Some(echo) = acked.echo
        {
            acked.rtt = tcb.negotiated.echoed_rtt(echo, ctx.now);
        }
        if let Some(rtt) = acked.rtt {
            tcb.rtt.sample(rtt, ctx.config);
            tcb.rtt.backoff = 0;
        }
    }

    /// RFC 6675 5 and RFC 2883 4. Returns the bytes newly reported.
    fn take_sack_blocks(&mut self, segment: &Segment<'_>, acked: &mut Acked) -> u64 {
        let tcb = &mut self.tcb;
        let blocks = &segment.repr.options.sack;
        if blocks.is_empty() || !tcb.negotiated.has(options::flag::SACK) {
            return 0;
        }
        let una = tcb.snd_una;
        let offset = |seq| -> Offset { extend(tcb.iss, una, seq) };
        let ranges: arrayvec::ArrayVec<(Offset, Offset), 4> = blocks
            .iter()
            .map(|&(left, right)| (offset(left), offset(right)))
            .collect();
        let mut news = 0;
        for (i, &(left, right)) in ranges.iter().enumerate() {
            if left >= right || right > tcb.snd_nxt {
                continue;
            }
            let within_next =
                i == 0 && ranges.get(1).is_some_and(|&(l, r)| l <= left && right <= r);
            if i == 0 && (right <= segment.ack || within_next) {
                // RFC 2883 4: the first block repeats what is acknowledged already.
                acked.dsack = Some((left, right));
                tcb.counters.dsacks = tcb.counters.dsacks.saturating_add(1);
            }
            if right <= segment.ack {
                continue;
            }
            let left = left.max(una);
            news += self.rt.sent.sack(left, right, &mut acked.delivery);
            // One that does not fit any more is only remembered until the next restart.
            tcb.sacked.insert(una, left, right);
        }
        news
    }

    /// RFC 6298 5.2, 5.3.
    fn rearm_after_progress(&mut self, ctx: &mut Ctx<'_>) {
        if self.tcb.flight() == 0 {
            let d = &mut self.tcb.deadlines;
            d.stop(Timer::Retransmit);
            d.stop(Timer::TailProbe);
            d.stop(Timer::Reorder);
        } else {
            output::arm_retransmit(&mut self.tcb, ctx);
            if self.tcb.is_reneging(&self.rt.sent) {
                // As Linux: the acknowledgement stops short of what the peer said it has. If
                // that was no accident of order, the timeout comes soon and clears it up.
                let soon = (self.tcb.rtt.srtt / 2).max(RENEGE_WAIT);
                self.tcb.deadlines.arm(Timer::Retransmit, ctx.now + soon);
            }
        }
    }

    /// RFC 9293 3.10.7.4, fifth: our FIN is acknowledged.
    fn on_fin_acked(&mut self, ctx: &mut Ctx<'_>) {
        if !self.tcb.fin_acked() {
            return;
        }
        match self.tcb.state() {
            State::FinWait1 => {
                self.set_state(State::FinWait2);
                if self.tcb.is_orphan() {
                    self.arm_orphan_timer(ctx);
                }
            }
            State::Closing => self.enter_time_wait(ctx),
            State::LastAck => self.terminate(None, ctx),
            _ => {}
        }
    }
}
