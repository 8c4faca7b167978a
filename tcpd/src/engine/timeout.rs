//! Deadlines pass.

use super::config::{MILLISECOND, SECOND};
use super::conn::{Conn, Ctx, Probe};
use super::error::Errno;
use super::output;
use super::pmtu::Watch;
use super::sockopt;
use super::state::State;
use super::tcb::flag;
use super::timers::{self, Timer};
use super::{ConnId, Engine};
use abi::Nanos;

/// A peer whose window is closed and that answers no probe for this long is gone (Linux's
/// fifteen retries take about as long).
const PROBE_GIVE_UP: Nanos = 924 * SECOND;

impl Engine {
    /// Serves what is due. Call it when [`Engine::next_deadline`] has passed; more often does no
    /// harm.
    pub fn on_timer(&mut self, now: Nanos) {
        while let Some((at, id)) = self.heap.peek() {
            if at > now {
                return;
            }
            self.heap.pop();
            self.on_entry(now, at, id);
        }
    }

    fn on_entry(&mut self, now: Nanos, at: Nanos, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        if conn.rt.heap_at != at {
            // Stale: an earlier one was entered since.
            return;
        }
        conn.rt.heap_at = 0;
        match conn.tcb.deadlines.earliest() {
            None => {}
            Some(next) if next > now => {
                // The deadline had moved on: nothing changes in the record.
                conn.rt.heap_at = next;
                self.heap.push(id, next);
            }
            Some(_) => {
                self.step(id, now, Conn::on_deadline);
            }
        }
    }
}

impl Conn {
    fn on_deadline(&mut self, ctx: &mut Ctx<'_>) {
        for timer in timers::ALL {
            if !self.tcb.deadlines.is_due(timer, ctx.now) {
                continue;
            }
            self.tcb.deadlines.stop(timer);
            match timer {
                Timer::Expiry => self.terminate(None, ctx),
                Timer::DelayedAck => self.rt.ack_now = self.tcb.state().is_synchronized(),
                Timer::TailProbe => {
                    self.rt.probe = Probe::Tail;
                }
                Timer::Retransmit => {
                    // The timeout is the stronger of the two.
                    if self.rt.probe == Probe::Tail {
                        self.rt.probe = Probe::None;
                    }
                    self.on_retransmit_timeout(ctx);
                }
                Timer::Persist => self.on_persist(ctx),
                Timer::Keepalive => self.on_keepalive(ctx),
                Timer::Reorder => {
                    let watch = Watch::begin(&self.tcb);
                    self.tcb.on_reordering_timeout(&mut self.rt.sent, ctx.now);
                    self.tell_losses(ctx.now);
                    watch.end(self, ctx);
                }
                Timer::Pace => {}
            }
        }
    }

    /// `TCP_USER_TIMEOUT` (RFC 5482 3) has passed without progress.
    fn is_user_timeout(&self, now: Nanos) -> bool {
        let waited = now.saturating_sub(self.tcb.progress_at);
        self.tcb.user_timeout().is_some_and(|limit| waited >= limit)
    }

    /// No answer for too long (RFC 9293 3.8.3, R2).
    fn give_up(&mut self, ctx: &mut Ctx<'_>) {
        ctx.stats.aborted_timeout += 1;
        // RFC 1122 4.2.3.9: what ICMP said meanwhile is the better reason.
        let errno = match self.tcb.soft_error {
            0 => Errno::ETIMEDOUT,
            soft => Errno(soft),
        };
        self.terminate(Some(errno), ctx);
    }

    fn on_retransmit_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let state = self.tcb.state();
        if matches!(state, State::SynSent | State::SynReceived) {
            self.on_handshake_timeout(ctx);
            return;
        }
        if self.tcb.flight() == 0 {
            return;
        }
        let is_abandoned = self.tcb.is_abandoned(ctx.now);
        let limit = if is_abandoned {
            ctx.config.orphan_retries
        } else {
            ctx.config.retries
        };
        // A peer that closed its window after the fact, but answers, is not gone.
        let alive = self.tcb.snd_wnd == 0
            && ctx.now.saturating_sub(self.tcb.last_recv_at) < ctx.config.rto_max;
        // As Linux: a user timeout takes the place of the count, be it shorter or longer.
        let by_time = self.tcb.user_timeout().is_some() && !is_abandoned;
        let too_often = !by_time && self.tcb.recovery.retries >= limit && !alive;
        if self.is_user_timeout(ctx.now) || too_often {
            self.give_up(ctx);
            return;
        }
        ctx.stats.timeouts += 1;
        self.tcb.recovery.retries = self.tcb.recovery.retries.saturating_add(1);
        self.suspect_black_hole(ctx);
        self.tcb.enter_loss(&mut self.rt.sent, ctx.now);
        self.tell_losses(ctx.now);
        let tcb = &mut self.tcb;
        tcb.ecn.note_reduction(tcb.snd_nxt);
        tcb.chrono.timeout(ctx.now);
        tcb.rtt.back_off();
        let at = self.clamp_to_user_timeout(ctx.now + self.tcb.rtt.timeout(ctx.config));
        self.tcb.deadlines.stop(Timer::TailProbe);
        self.tcb.deadlines.arm(Timer::Retransmit, at);
    }

    /// A deadline that does not pass the user timeout.
    fn clamp_to_user_timeout(&self, at: Nanos) -> Nanos {
        match self.tcb.user_timeout() {
            None => at,
            Some(limit) => at.min(self.tcb.progress_at + limit),
        }
    }

    fn on_handshake_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let passive = self.tcb.has(flag::PASSIVE);
        let limit = if passive {
            ctx.config.synack_retries
        } else {
            ctx.config.syn_retries
        };
        if self.tcb.rtt.backoff >= limit || self.is_user_timeout(ctx.now) {
            if passive && !self.tcb.is_early() {
                self.terminate(None, ctx);
            } else {
                self.give_up(ctx);
            }
            return;
        }
        ctx.stats.timeouts += 1;
        self.tcb.counters.timeouts = self.tcb.counters.timeouts.saturating_add(1);
        self.tcb.counters.retrans = self.tcb.counters.retrans.saturating_add(1);
        self.tcb.rtt.back_off();
        self.tcb.ecn.fall_back();
        self.rt.syn_now = true;
        let at = self.clamp_to_user_timeout(ctx.now + self.tcb.rtt.timeout(ctx.config));
        self.tcb.deadlines.arm(Timer::Retransmit, at);
    }

    /// RFC 9293 3.8.6.1: probe a closed window, at growing intervals, for as long as the peer
    /// answers; or let go what was held back for being small.
    fn on_persist(&mut self, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        if !tcb.state().can_transmit() || tcb.flight() > 0 || !output::has_work(tcb) {
            return;
        }
        let unanswered = ctx.now.saturating_sub(tcb.last_recv_at);
        if unanswered > PROBE_GIVE_UP || self.is_user_timeout(ctx.now) {
            self.give_up(ctx);
            return;
        }
        // As Linux: nobody waits for what an orphan has left to send, so a peer that answers
        // probes with a closed window for ever must not hold its memory for ever.
        let is_abandoned = self.tcb.is_abandoned(ctx.now);
        if is_abandoned && self.tcb.counters.persist_probes >= ctx.config.orphan_retries {
            ctx.stats.aborted_timeout += 1;
            self.abort(Some(Errno::ETIMEDOUT), ctx);
            return;
        }
        if self.tcb.snd_wnd > 0 {
            self.rt.push_now = true;
        } else {
            self.rt.probe = Probe::Window;
        }
        let tcb = &mut self.tcb;
        let wait = tcb
            .rtt
            .timeout(ctx.config)
            .max(ctx.config.rto_min)
            .saturating_mul(1 << tcb.counters.persist_probes.min(10))
            .min(ctx.config.rto_max);
        tcb.counters.persist_probes = tcb.counters.persist_probes.saturating_add(1);
        // As Linux: not beyond the user timeout.
        let at = self.clamp_to_user_timeout(ctx.now + wait);
        self.tcb.deadlines.arm(Timer::Persist, at);
    }

    /// Starts or stops keepalive (RFC 9293 3.8.4).
    pub(crate) fn arm_keepalive(&mut self, now: Nanos) {
        let tcb = &mut self.tcb;
        let wanted = tcb.opts.has(sockopt::flag::KEEPALIVE)
            && tcb.state().is_synchronized()
            && tcb.state() != State::TimeWait;
        if wanted {
            let idle = Nanos::from(tcb.opts.keep_idle_ms) * MILLISECOND;
            let from = tcb.last_recv_at.max(tcb.progress_at);
            let at = (from + idle).max(now + 1);
            tcb.deadlines.arm(Timer::Keepalive, at);
        } else {
            tcb.deadlines.stop(Timer::Keepalive);
        }
    }

    fn on_keepalive(&mut self, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        if !tcb.opts.has(sockopt::flag::KEEPALIVE) || !tcb.state().is_synchronized() {
            return;
        }
        let idle = Nanos::from(tcb.opts.keep_idle_ms) * MILLISECOND;
        let interval = Nanos::from(tcb.opts.keep_interval_ms) * MILLISECOND;
        if tcb.flight() > 0 || output::has_work(tcb) {
            // Retransmission and probes find out by themselves.
            tcb.deadlines.arm(Timer::Keepalive, ctx.now + idle);
            return;
        }
        let silent = ctx.now.saturating_sub(tcb.last_recv_at);
        if silent < idle {
            let at = tcb.last_recv_at + idle;
            tcb.deadlines.arm(Timer::Keepalive, at);
            return;
        }
        if tcb.counters.keep_probes >= tcb.opts.keep_count || self.keepalive_user_timeout(silent) {
            ctx.stats.aborted_timeout += 1;
            self.abort(Some(Errno::ETIMEDOUT), ctx);
            return;
        }
        let tcb = &mut self.tcb;
        tcb.counters.keep_probes += 1;
        tcb.deadlines.arm(Timer::Keepalive, ctx.now + interval);
        self.rt.probe = Probe::Window;
    }

    /// As Linux: a user timeout also bounds how long keepalive asks.
    fn keepalive_user_timeout(&self, silent: Nanos) -> bool {
        let limit = self.tcb.user_timeout().unwrap_or(0);
        limit != 0 && silent >= limit && self.tcb.counters.keep_probes > 0
    }
}
