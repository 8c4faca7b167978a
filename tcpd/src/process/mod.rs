//! The process around the engine.
//!
//! ```text
//!   poll     requests, words, hang-ups (session)  segments, ICMP (ipd's ring)  timers
//!              -> engine -> output -> drain -> connections queued for hand-over
//!   commit   the records that changed
//!   release  replies, descriptors, hand-overs; segments; positions, tokens, wake-ups
//! ```
//!
//! Killed before the commit, the batch has not happened: requests are still on their sockets,
//! words still in shared memory, segments are lost like packets. Killed after it, what was not
//! released is derived from the records again ([`Tcpd::restore`]).

mod buffers;
mod counters;
mod input;
mod loading;
mod publish;
mod quarantine;
mod receive;
mod records;
mod requests;
mod restore;
mod sending;
mod socket;
mod transmit;

use crate::engine::memory::MemoryUse;
use crate::engine::{Actions, ConnId, Engine, Notice, Route};
use abi::config::{DaemonConfig, StackConfig};
use abi::control::Query;
use abi::{DevIndex, Nanos, RegionId};
use loading::Loading;
use publish::Asked;
use records::Records;
use runtime::{Boot, Context, EpollFlags, Fib, Plumbing, Service};
use session::{Event, NewSocket, Params, Sessions, SocketRef};
use shm::SkBuff;
use socket::Sockets;
use std::collections::VecDeque;

/// `tcpi_snd_ssthresh` from which on there is none, as Linux has it.
const INFINITE: u32 = 0x7fff_ffff;
/// epoll token of the session layer.
const SESSIONS: u64 = 1;
/// Segments made in one turn at the most; each may be 64 KiB.
const OUTPUT_BUDGET: usize = 256;

/// The service.
#[derive(Debug)]
pub struct Tcpd {
    engine: Engine,
    records: Records,
    sessions: Sessions,
    params: Params,
    sockets: Sockets,
    fib: Fib,
    /// Packet size of each device, for the MSS of connections that come by it.
    mtus: Vec<(DevIndex, u16)>,
    actions: Actions,
    /// Receives what handing over adds to a batch.
    more: Actions,
    events: Vec<Event>,
    /// Connections given buffers in the segment in hand.
    attached: Vec<(ConnId, NewSocket)>,
    /// Sockets whose application has marked them, to look at after the commit.
    touched: Vec<ConnId>,
    /// What requests changed, to show after the commit and before their replies.
    asked: Vec<(ConnId, Asked)>,
    /// Sockets whose sizes were set.
    resized: Vec<ConnId>,
    /// Sockets that ask for more memory.
    wanting: Vec<ConnId>,
    /// Connections whose descriptor was hung up: nobody will close them.
    broken: Vec<ConnId>,
    /// Records whose part outside the engine changed.
    dirty: Vec<ConnId>,
    /// Connections handed over and not known to be taken.
    handed: Vec<ConnId>,
    /// `handed` was looked through in this turn.
    handed_seen: bool,
    /// Restored connections to hand over again.
    again: Vec<ConnId>,
    /// Restored connections that broke before the application was told.
    errors: Vec<ConnId>,
    /// Segments that found no place below; sent before anything newer.
    deferred: VecDeque<crate::engine::SegmentOut>,
    /// When to try them again.
    retry_at: Option<Nanos>,
    /// The engine's counts as last told.
    told: crate::engine::Stats,
    /// The engine's memory as last told.
    told_memory: MemoryUse,
    /// The engine stopped for its budget's sake.
    unfinished: bool,
    /// Restored sockets that nobody waits for and that are not settled: record and incarnation.
    unsettled: VecDeque<(ConnId, u32)>,
    /// The predecessor's records, as long as some are left.
    loading: Option<Loading>,
    /// Packets that waited for them.
    waited: VecDeque<SkBuff>,
    /// Restored sockets that were at work just now: as good as dirty.
    fresh: Vec<SocketRef>,
}

/// Runs tcpd until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn main(boot: Boot) -> anyhow::Result<()> {
    runtime::run::<Tcpd>(boot)
}

fn mtus(stack: &StackConfig) -> Vec<(DevIndex, u16)> {
    stack.devices.iter().map(|d| (d.index, d.mtu)).collect()
}

impl Tcpd {
    /// Makes a session's memory known to the arena: what one socket of the stack sends to another
    /// arrives with fragments that still point into the sender's buffer.
    fn attach_region(&self, region: RegionId, plumbing: &mut Plumbing) {
        if !plumbing.arena.has_region(region)
            && let Some(memory) = self.sessions.memory(region)
        {
            plumbing.arena.add_region(region, memory.mapping().clone());
        }
    }

    /// Connections that became ready go to their listeners' queues: recorded as handed over
    /// first, sent after the commit.
    fn hand_over(&mut self, cx: &mut Context<'_>) {
        let ready: Vec<(ConnId, ConnId)> = self
            .actions
            .notices
            .iter()
            .filter_map(|n| match *n {
                Notice::Accepted { listener, child } => Some((listener, child)),
                _ => None,
            })
            .collect();
        for (listener, child) in ready {
            self.hand_over_one(listener, child, cx);
        }
    }

    fn hand_over_one(&mut self, listener: ConnId, child: ConnId, cx: &mut Context<'_>) {
        let (Some(tcb), Some(place)) = (
            self.engine.record(child),
            self.sockets.get(listener).map(|s| s.place),
        ) else {
            return;
        };
        let (peer, local) = (tcb.remote, tcb.local);
        let Some(socket) = self.sockets.get_mut(child) else {
            return;
        };
        socket::show(&mut self.sessions, socket, tcb);
        let new = socket.as_new();
        let queued = self
            .sessions
            .hand_over(place, new, peer, local, &mut cx.plumbing.store);
        match queued {
            Ok(()) => {
                self.engine.handed_over(cx.now, child);
                self.handed.push(child);
                self.touched.push(child);
            }
            Err(error) => {
                // No descriptors left, or the listener is going: as if the application had
                // accepted and closed it.
                tracing::debug!(%error, "a connection could not be handed over");
                self.engine.close(cx.now, child);
            }
        }
    }

    /// Ends the batch of inputs: output, and what must be in the same commit.
    fn conclude(&mut self, cx: &mut Context<'_>) {
        for id in std::mem::take(&mut self.broken) {
            self.engine.close(cx.now, id);
        }
        for child in std::mem::take(&mut self.again) {
            match self.engine.record(child).and_then(|tcb| tcb.parent()) {
                Some(listener) => self.hand_over_one(listener, child, cx),
                None => self.engine.close(cx.now, child),
            }
        }
        self.give_windows(cx.now);
        self.engine.trim_idle(cx.now);
        self.unfinished = self.engine.output(cx.now, OUTPUT_BUDGET);
        self.engine.drain(&mut self.actions);
        if self
            .actions
            .notices
            .iter()
            .any(|n| matches!(n, Notice::Accepted { .. }))
        {
            self.hand_over(cx);
            self.engine.drain(&mut self.more);
            self.actions.dirty.append(&mut self.more.dirty);
            self.actions.segments.append(&mut self.more.segments);
            // A hand-over makes no further connection ready.
            self.actions.notices.append(&mut self.more.notices);
        }
    }
}

impl Service for Tcpd {
    const COUNTERS: &'static [&'static str] = counters::NAMES;
    const STATE_KIND: u64 = records::KIND;

    fn state_size(stack: &StackConfig) -> usize {
        records::state_size(stack)
    }

    fn restore(config: &DaemonConfig, plumbing: &mut Plumbing, now: Nanos) -> anyhow::Result<Self> {
        Self::take_up(config, plumbing, now)
    }

    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        self.handed_seen = false;
        // First of all: what was ended since is out of the table by now.
        let mut handled = self.load_more(cx.plumbing, cx.now);
        handled += self.take_events(cx);
        handled += self.take_packets(cx, budget);
        if self.engine.next_deadline().is_some_and(|at| at <= cx.now) {
            self.engine.on_timer(cx.now);
            handled += 1;
        }
        handled += usize::from(self.unfinished);
        handled += self.settle_some(cx);
        self.conclude(cx);
        cx.plumbing.vitals.note_no_socket();
        handled + self.actions.segments.len()
    }

    fn commit(&mut self, cx: &mut Context<'_>) {
        let committed = self.actions.dirty.len() + self.dirty.len();
        for id in self.actions.dirty.iter().chain(&self.dirty) {
            let incarnation = self.sockets.get(*id).map_or(0, |s| s.incarnation);
            self.records
                .commit(*id, self.engine.record(*id), incarnation);
        }
        self.actions.dirty.clear();
        self.dirty.clear();
        if committed > 0 {
            cx.count(counters::COMMITS, committed as u64);
        }
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        self.show_asked();
        self.sessions.release(&mut cx.plumbing.store);
        self.send(cx);
        self.publish(cx);
        self.actions.clear();
        self.tally(cx);
    }

    fn has_input(&self, _cx: &Context<'_>) -> bool {
        self.sessions.has_input()
            || self.loading.is_some()
            || !self.waited.is_empty()
            || !self.unsettled.is_empty()
            || !self.broken.is_empty()
            || self.engine.wants_output()
    }

    fn look_again(&mut self) {
        self.sessions.look_again();
    }

    fn arm(&mut self, armed: bool) {
        self.sessions.arm(armed);
    }

    fn deadline(&self) -> Option<Nanos> {
        [
            self.engine.next_deadline(),
            self.engine.next_trim(),
            self.retry_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_fd(&mut self, _cx: &mut Context<'_>, _token: u64, _events: EpollFlags) {
        self.sessions.on_fd();
    }

    fn reconfigure(&mut self, config: &DaemonConfig, cx: &mut Context<'_>) {
        self.load_rest(cx.plumbing, cx.now);
        self.reset_quarantined(config, cx.now);
        self.fib = Fib::new(&config.stack);
        self.mtus = mtus(&config.stack);
        let fib = &self.fib;
        self.engine.routes_changed(cx.now, |_, remote| {
            let hop = fib.lookup(remote.ip()?)?;
            Some(Route {
                source: hop.source,
                mtu: hop.mtu,
            })
        });
    }

    fn query(&mut self, what: Query, cx: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        self.load_rest(cx.plumbing, cx.now);
        match what {
            Query::Sockets => self.socket_table(),
            _ => Default::default(),
        }
    }
}

impl Tcpd {
    fn socket_table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let columns = [
            "proto",
            "state",
            "recv-q",
            "send-q",
            "local",
            "peer",
            "cwnd",
            "ssthresh",
            "srtt_us",
            "unacked",
            "retrans",
            "timeouts",
            "recoveries",
            "duplicates",
            "memory",
        ];
        let address = |e: abi::Endpoint| e.socket_addr().map_or("*".to_owned(), |a| a.to_string());
        let ssthresh = |n: u32| match n {
            INFINITE.. => "-".to_owned(),
            n => n.to_string(),
        };
        let rows = self
            .engine
            .records()
            .map(|(id, tcb)| {
                let info = self
                    .engine
                    .info(runtime::clock::now(), id)
                    .unwrap_or_default();
                vec![
                    "tcp".to_owned(),
                    tcb.state().name().to_owned(),
                    tcb.unread().to_string(),
                    (tcb.written - tcb.acked_upto()).to_string(),
                    address(tcb.local),
                    address(tcb.remote),
                    info.snd_cwnd.to_string(),
                    ssthresh(info.snd_ssthresh),
                    info.rtt.to_string(),
                    info.unacked.to_string(),
                    info.total_retrans.to_string(),
                    tcb.counters.timeouts.to_string(),
                    tcb.counters.recoveries.to_string(),
                    tcb.counters.duplicates.to_string(),
                    self.engine.charge(id).to_string(),
                ]
            })
            .collect();
        (columns.map(str::to_owned).to_vec(), rows)
    }
}
