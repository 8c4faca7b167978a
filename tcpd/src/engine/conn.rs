//! A socket in memory: its record and what is derived from it, and the steps that end it.
//!
//! Functions of the other modules work on one [`Conn`] with a [`Ctx`]; what concerns more than
//! one socket (queues, ports, the table of connections) the engine settles afterwards by looking
//! at the record.

use super::actions::{Actions, Notice};
use super::config::Config;
use super::error::Errno;
use super::seq::Offset;
use super::state::State;
use super::stats::Stats;
use super::tcb::{Tcb, flag};
use super::timers::Timer;
use super::{ConnId, SocketRef, output};
use abi::Nanos;

/// What every step gets beside the socket.
#[derive(Debug)]
pub(crate) struct Ctx<'a> {
    /// Now.
    pub(crate) now: Nanos,
    /// Parameters.
    pub(crate) config: &'a Config,
    /// Where output goes.
    pub(crate) actions: &'a mut Actions,
    /// Counters of the engine.
    pub(crate) stats: &'a mut Stats,
    /// Challenge ACKs left in this second.
    pub(crate) challenge: &'a mut Challenge,
}

/// The rate limit of challenge ACKs (RFC 5961 7), over all connections.
#[derive(Debug, Default)]
pub(crate) struct Challenge {
    since: Nanos,
    left: u32,
}

impl Challenge {
    /// Whether one more may leave. How many a second brings is between half and one and a half
    /// times the limit, and unknown to strangers: from a fixed number they could count how many
    /// went to others (as Linux, since CVE-2016-5696).
    pub(crate) fn take(&mut self, now: Nanos, config: &Config) -> bool {
        let limit = config.challenge_ack_limit;
        if self.since == 0 || now.saturating_sub(self.since) >= super::config::SECOND {
            self.since = now.max(1);
            let noise = super::isn::noise(&config.secret, now);
            self.left = limit.div_ceil(2) + noise % limit.max(1);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// A segment that is owed for another reason than data; lost in a crash like any other packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Probe {
    /// None.
    #[default]
    None,
    /// An empty segment outside of the peer's window, which it must answer: zero-window probe or
    /// keepalive.
    Window,
    /// Tail loss probe.
    Tail,
}

/// How a child counts at its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CountedAs {
    /// Not.
    #[default]
    Nothing,
    /// In the SYN queue.
    Embryonic,
    /// In the accept queue.
    Queued,
}

/// What is not in the record, because it can be derived or may be lost.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// In the list of dirty records.
    pub(crate) dirty: bool,
    /// In the queue for output.
    pub(crate) queued: bool,
    /// `Notice::Received` was given in this batch.
    pub(crate) noticed_rx: bool,
    /// `Notice::Acked` was given in this batch.
    pub(crate) noticed_tx: bool,
    /// In the table of connections.
    pub(crate) registered: bool,
    /// The heap entry that counts; 0 for none.
    pub(crate) heap_at: Nanos,
    /// In the list of those that can be ended early.
    pub(crate) time_wait_listed: bool,
    /// How it counts at its parent.
    pub(crate) counted: CountedAs,
    /// An acknowledgement is to leave with this batch.
    pub(crate) ack_now: bool,
    /// A SYN or SYN,ACK is to leave.
    pub(crate) syn_now: bool,
    /// What may not leave for Nagle's or the window's sake leaves once.
    pub(crate) push_now: bool,
    /// See [`Probe`].
    pub(crate) probe: Probe,
    /// Segments still acknowledged at once.
    pub(crate) quickack: u32,
    /// A range that arrived twice, to be reported (RFC 2883).
    pub(crate) dsack: Option<(Offset, Offset)>,
    /// Ranges received out of order that no acknowledgement has told of, as far as they are
    /// several (see `segment_in::report`).
    pub(crate) untold: usize,
    /// When a segment outside the window was last answered.
    pub(crate) oow_ack_at: Nanos,
    /// Measurements for the buffers' sizes.
    pub(crate) memory: super::memory::MemoryState,
    /// A listener's children in the SYN queue.
    pub(crate) embryonic: u32,
    /// A listener's children in the accept queue.
    pub(crate) accept_queue: u32,
    /// A listener's children that are open before their handshake is over (RFC 7413).
    pub(crate) early: u32,
    /// Counted as an orphan.
    pub(crate) counted_orphan: bool,
    /// Whether this is one that is counted so.
    pub(crate) counted_early: bool,
    /// When such children of a listener were reset, oldest first. Forgotten in a crash: the
    /// limit is then a little higher for a minute.
    pub(crate) early_resets: std::collections::VecDeque<Nanos>,
    /// When a listener last sent a SYN cookie; 0 for never. A restore assumes that it was just
    /// now.
    pub(crate) cookie_at: Nanos,
    /// The flight was taken over from a dead engine, and no probe was sent since.
    pub(crate) restored: bool,
    /// What is in flight; see there what a restore makes of it.
    pub(crate) sent: super::sent::SendLog,
    /// Delivery-rate sampling and pacing; volatile, see there.
    pub(crate) pacer: super::rate::Pacer,
}

/// Segments acknowledged at once when a connection begins, so that the peer's slow start is not
/// held up (Linux's `TCP_MAX_QUICKACKS`).
pub(crate) const QUICKACKS: u32 = 16;

/// A socket.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Its number.
    pub(crate) id: ConnId,
    /// The record.
    pub(crate) tcb: Tcb,
    /// The rest.
    pub(crate) rt: Runtime,
}

impl Conn {
    pub(crate) fn new(id: ConnId, tcb: Tcb) -> Self {
        let rt = Runtime {
            quickack: QUICKACKS,
            ..Runtime::default()
        };
        Self { id, tcb, rt }
    }

    pub(crate) fn set_state(&mut self, state: State) {
        self.tcb.state = state as u8;
    }

    /// Data or the FIN waits, or something else is to leave.
    pub(crate) fn wants_output(&self) -> bool {
        let rt = &self.rt;
        rt.ack_now
            || rt.syn_now
            || rt.push_now
            || rt.probe != Probe::None
            || (self.tcb.may_send() && output::has_work(&self.tcb))
    }

    pub(crate) fn notice_received(&mut self, ctx: &mut Ctx<'_>) {
        if !self.rt.noticed_rx {
            self.rt.noticed_rx = true;
            ctx.actions.notices.push(Notice::Received(self.id));
        }
    }

    pub(crate) fn notice_acked(&mut self, ctx: &mut Ctx<'_>) {
        if !self.rt.noticed_tx {
            self.rt.noticed_tx = true;
            ctx.actions.notices.push(Notice::Acked(self.id));
        }
    }

    /// The connection is over: CLOSED, and `error` (if any) for the application.
    pub(crate) fn terminate(&mut self, error: Option<Errno>, ctx: &mut Ctx<'_>) {
        let state = self.tcb.state();
        self.tcb.deadlines.stop_all();
        self.rt.syn_now = false;
        self.rt.ack_now = false;
        self.rt.push_now = false;
        self.rt.probe = Probe::None;
        self.set_state(State::Closed);
        if let Some(errno) = error {
            self.tcb.error = errno.0;
            if state == State::SynSent
                || (state == State::SynReceived && !self.tcb.has(flag::PASSIVE))
            {
                ctx.actions.notices.push(Notice::ConnectFailed(self.id));
            } else if !self.tcb.is_orphan() {
                ctx.actions.notices.push(Notice::Reset(self.id));
            }
        } else {
            self.notice_finished(ctx);
        }
    }

    /// RFC 9293 3.10.5: RST, then CLOSED.
    pub(crate) fn abort(&mut self, error: Option<Errno>, ctx: &mut Ctx<'_>) {
        if self.tcb.state().is_synchronized() || self.tcb.state() == State::SynReceived {
            output::build::reset(self, ctx);
        }
        self.terminate(error, ctx);
    }

    /// Both directions are closed in order.
    pub(crate) fn notice_finished(&mut self, ctx: &mut Ctx<'_>) {
        if self.tcb.has(flag::WAS_CONNECTED)
            && self.tcb.flags & (flag::FINISHED | flag::ORPHAN) == 0
        {
            self.tcb.flags |= flag::FINISHED;
            ctx.actions.notices.push(Notice::Finished(self.id));
        }
    }

    /// TIME_WAIT begins (or begins again).
    pub(crate) fn enter_time_wait(&mut self, ctx: &mut Ctx<'_>) {
        self.set_state(State::TimeWait);
        let d = &mut self.tcb.deadlines;
        d.stop_all();
        d.arm(Timer::Expiry, ctx.now + ctx.config.time_wait);
        self.notice_finished(ctx);
    }

    /// Nothing will be read from or written to the buffers any more.
    pub(crate) fn release_buffers(&mut self, ctx: &mut Ctx<'_>) {
        let owner = self.tcb.owner;
        if owner != SocketRef::NONE {
            self.tcb.owner = SocketRef::NONE;
            self.tcb.memory.rings.window = 0;
            ctx.actions
                .notices
                .push(Notice::Released { id: self.id, owner });
        }
    }

    /// The peer was heard: keepalive starts over.
    pub(crate) fn heard(&mut self, now: Nanos) {
        self.tcb.last_recv_at = now;
        self.tcb.counters.keep_probes = 0;
    }
}
