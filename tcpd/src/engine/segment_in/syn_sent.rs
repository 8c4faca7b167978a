//! SYN_SENT: an answer to our SYN, or a SYN that crossed it (RFC 9293 3.10.7.3).

use super::Segment;
use crate::engine::actions::Notice;
use crate::engine::conn::{Conn, Ctx};
use crate::engine::error::Errno;
use crate::engine::output::build;
use crate::engine::seq::{DATA_OFFSET, Offset, SYN_OFFSET};
use crate::engine::state::State;
use crate::engine::timers::Timer;
use crate::engine::{opening, options};
use wire::tcp::Flags;

impl Conn {
    pub(super) fn on_segment_syn_sent(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        let acks = segment.has(Flags::ACK);
        let acceptable = segment.ack > SYN_OFFSET && segment.ack <= self.syn_limit();
        // First, the ACK bit.
        if acks && !acceptable {
            if !segment.has(Flags::RST) {
                build::reset_for_ack(self, segment.ack, ctx);
            }
            return;
        }
        // Second, RST: only an answer to our SYN may refuse (RFC 5961 does not apply here).
        if segment.has(Flags::RST) {
            if acks {
                ctx.stats.resets_in += 1;
                self.terminate(Some(Errno::ECONNREFUSED), ctx);
            }
            return;
        }
        // Fourth, SYN.
        if !segment.has(Flags::SYN) {
            return;
        }
        let tcb = &mut self.tcb;
        tcb.irs = segment.repr.seq.0;
        tcb.rcv_nxt = DATA_OFFSET;
        tcb.last_ack_sent = SYN_OFFSET;
        tcb.rcv_adv = DATA_OFFSET + u64::from(tcb.opts.rcv_buf.min(0xffff));
        // RFC 7323 2.2: the window of a SYN is never scaled.
        tcb.snd_wnd = u32::from(segment.repr.window);
        tcb.max_wnd = tcb.max_wnd.max(tcb.snd_wnd);
        tcb.snd_wl1 = SYN_OFFSET;
        tcb.snd_wl2 = segment.ack;
        tcb.negotiated.agree(&segment.repr.options, ctx.now);
        self.heard(ctx.now);
        self.note_user_timeout(segment, ctx);
        if acks {
            self.tcb.snd_una = segment.ack;
            if segment.ack > self.tcb.snd_nxt {
                // RFC 7413 4.1.4: data of the SYN was taken; what was not is sent as new.
                self.tcb.snd_nxt = segment.ack;
                self.tcb.opening.flags |= opening::flag::SYN_DATA;
                self.notice_acked(ctx);
            }
            self.tcb.ecn.take_syn_ack(segment.flags);
            if let Some(rtt) = self.tcb.rtt.finish(ctx.now, segment.ack) {
                self.tcb.rtt.sample(rtt, ctx.config);
            }
            self.establish(segment, ctx);
            self.rt.ack_now = true;
            ctx.actions.notices.push(Notice::Connected(self.id));
        } else {
            // Simultaneous open (RFC 9293 3.5, figure 7).
            let marked = segment.ce;
            self.tcb.ecn.take_syn(ctx.config.ecn, segment.flags, marked);
            self.set_state(State::SynReceived);
            self.rt.syn_now = true;
            let timeout = self.tcb.rtt.timeout(ctx.config);
            self.tcb.deadlines.arm(Timer::Retransmit, ctx.now + timeout);
        }
    }

    /// The end of what the SYN carried.
    fn syn_limit(&self) -> Offset {
        let tcb = &self.tcb;
        tcb.snd_nxt + u64::from(tcb.opening.syn_data).min(tcb.written)
    }

    /// From now on data may leave.
    pub(crate) fn start_sending(&mut self, ctx: &Ctx<'_>) {
        let tcb = &mut self.tcb;
        let mss = tcb.mss();
        tcb.cc.start(mss, ctx.config.initial_window);
        let algorithm = crate::engine::congestion::Algorithm::from_word(tcb.cc.algorithm);
        tcb.cc.choose(algorithm);
        tcb.rcv_mss = mss.min(u32::from(tcb.negotiated.advertised_mss));
    }

    /// What answers the own SYN or SYN,ACK tells of it. RFC 5681 3.1: when it was lost, the window
    /// begins with one segment. As Linux, only after it was sent three times: the second may have
    /// been a mistake of the first timeout, a second of which RFC 6298 has made one; and not if
    /// the timestamp says that the first was answered (RFC 3522).
    fn note_lost_syns(&mut self, segment: &Segment<'_>) {
        let tcb = &mut self.tcb;
        let times = tcb.rtt.backoff;
        if times == 0 {
            return;
        }
        tcb.opening.flags |= opening::flag::SYN_AGAIN;
        let first = tcb.negotiated.clock(tcb.progress_at);
        let echo = segment.repr.options.timestamps.map(|ts| ts.tsecr);
        let spurious = tcb.negotiated.has(options::flag::TIMESTAMPS) && echo == Some(first);
        if times > 1 && !spurious {
            tcb.cc.cwnd = tcb.mss();
        }
    }

    /// The handshake is over: this segment acknowledges the own SYN.
    pub(super) fn establish(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        use crate::engine::config::SECOND;
        use crate::engine::tcb::flag;
        let was_early = self.tcb.opening.has(opening::flag::EARLY);
        if !was_early {
            self.start_sending(ctx);
            self.note_lost_syns(segment);
        }
        let tcb = &mut self.tcb;
        tcb.flags |= flag::WAS_CONNECTED;
        // RFC 6298 5.7: if the SYN was sent again and nothing could be measured, three seconds.
        if tcb.rtt.backoff > 0 && tcb.rtt.srtt == 0 {
            tcb.rtt.rto = 3 * SECOND;
        }
        tcb.rtt.backoff = 0;
        tcb.recovery.retries = 0;
        tcb.deadlines.stop(Timer::Retransmit);
        tcb.progress_at = ctx.now;
        let fin_queued = tcb.has(flag::FIN_QUEUED);
        self.set_state(if fin_queued {
            State::FinWait1
        } else {
            State::Established
        });
        self.arm_keepalive(ctx.now);
    }
}
