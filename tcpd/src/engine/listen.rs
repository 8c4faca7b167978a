//! Segments of no connection: SYNs for listeners, and resets for everything else.

use super::conn::Ctx;
use super::demux::Flow;
use super::events::SegmentMeta;
use super::isn;
use super::output::build;
use super::seq::{DATA_OFFSET, SYN_OFFSET, clamp};
use super::state::State;
use super::tcb::{Accept, Tcb, flag};
use super::timers::Timer;
use super::{ConnId, Engine, SocketRef};
use abi::Nanos;
use wire::tcp::Flags;

impl Engine {
    /// The listener that a SYN on `flow` goes to.
    pub(super) fn listener_for(&self, flow: &Flow) -> Option<ConnId> {
        let mut listeners = self.ports.listeners(&flow.local);
        let count = listeners.clone().count();
        // SO_REUSEPORT: the flow decides, the same way each time.
        listeners.nth(match count {
            0 | 1 => 0,
            n => isn::pick(&self.config.secret, flow, n),
        })
    }

    /// RFC 9293 3.10.7.1 and 3.10.7.2. `floor` is the least initial sequence number to use when
    /// the SYN takes the place of a connection in TIME_WAIT.
    pub(super) fn on_stray_segment(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        flow: &Flow,
        floor: Option<u32>,
    ) {
        let flags = meta.repr.flags;
        if flags.contains(Flags::RST) {
            return;
        }
        let unfit = flow.local.ip().is_none_or(super::calls::is_unfit_peer)
            || flow.remote.ip().is_none_or(super::calls::is_unfit_peer);
        if unfit {
            return;
        }
        // RFC 9293 3.10.7.2: an acknowledgement cannot be right; without SYN there is nothing to
        // do. RFC 9293 leaves SYN with FIN open; it is dropped, as Linux does.
        let listener = if flags.contains(Flags::ACK) {
            None
        } else {
            self.listener_for(flow)
        };
        let Some(listener) = listener else {
            self.stats.no_socket += 1;
            let mut ctx = Ctx {
                now,
                config: &self.config,
                actions: &mut self.actions,
                stats: &mut self.stats,
                challenge: &mut self.challenge,
            };
            build::reset_stray(meta, flow, &mut ctx);
            return;
        };
        if flags.contains(Flags::SYN) && !flags.contains(Flags::FIN) {
            self.on_syn(now, meta, flow, listener, floor);
        }
    }

    fn on_syn(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        flow: &Flow,
        listener: ConnId,
        floor: Option<u32>,
    ) {
        let flags = meta.repr.flags;
        let Some(parent) = self.conn(listener) else {
            return;
        };
        // As Linux: the accept queue takes one more than the backlog.
        if parent.rt.accept_queue > parent.tcb.backlog
            || parent.rt.embryonic >= self.config.max_syn_backlog.max(parent.tcb.backlog)
        {
            self.stats.listen_drops += 1;
            return;
        }
        let mut tcb = Tcb::new(SocketRef::NONE, parent.tcb.opts, now);
        tcb.flags = flag::PASSIVE | (parent.tcb.flags & flag::V6);
        tcb.parent = listener.0;
        tcb.accept = Accept::Embryonic as u8;
        tcb.state = State::SynReceived as u8;
        tcb.cc.algorithm = parent.tcb.cc.algorithm;
        tcb.local = flow.local;
        tcb.remote = flow.remote;
        tcb.iss = floor.unwrap_or_else(|| isn::initial_sequence(&self.config.secret, flow, now));
        tcb.snd_nxt = DATA_OFFSET;
        tcb.irs = meta.repr.seq.0;
        tcb.rcv_nxt = DATA_OFFSET;
        tcb.last_ack_sent = DATA_OFFSET;
        tcb.rcv_adv = DATA_OFFSET + u64::from(tcb.opts.rcv_buf.min(0xffff));
        tcb.last_recv_at = now;
        tcb.progress_at = now;
        // RFC 7323 2.2: the window of a SYN is never scaled.
        tcb.snd_wnd = u32::from(meta.repr.window);
        tcb.max_wnd = tcb.snd_wnd;
        tcb.snd_wl1 = SYN_OFFSET;
        let o = tcb.opts;
        let n = &mut tcb.negotiated;
        n.offer(
            &self.config,
            flow.local.family,
            meta.mtu,
            o.max_segment,
            o.rcv_capacity,
        );
        n.ts_offset = isn::timestamp_offset(&self.config.secret, flow);
        n.agree(&meta.repr.options, now);
        tcb.start_path_mtu(self.config.mtu_probing, now);
        tcb.ecn.take_syn(self.config.ecn, flags, meta.ce);
        tcb.rtt.start(now, DATA_OFFSET);
        let timeout = tcb.rtt.timeout(&self.config);
        tcb.deadlines.arm(Timer::Retransmit, now + timeout);
        tcb.counters.segs_in = 1;
        let Some(id) = self.allocate(tcb) else {
            self.stats.listen_drops += 1;
            return;
        };
        if !self.register(id) {
            // Cannot be: the flow was just looked up. Give the number back.
            self.step(id, now, |conn, ctx| conn.terminate(None, ctx));
            return;
        }
        self.stats.passive_opens += 1;
        self.step(id, now, |conn, _| conn.rt.syn_now = true);
    }

    /// What a child needs to know of its listener before its handshake may end.
    pub(super) fn admission(&self, child: ConnId) -> Option<Admission> {
        let tcb = self.record(child)?;
        if tcb.state() != State::SynReceived || tcb.accept() != Accept::Embryonic {
            return None;
        }
        let listener = tcb.parent()?;
        let parent = self.conn(listener)?;
        Some(Admission {
            listener,
            owner: parent.tcb.owner,
            is_full: parent.rt.accept_queue > parent.tcb.backlog,
            order: self.next_accept,
        })
    }
}

/// See [`Engine::admission`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    pub(crate) listener: ConnId,
    pub(crate) owner: SocketRef,
    pub(crate) is_full: bool,
    pub(crate) order: u64,
}

/// Sequence numbers that a stray segment takes.
pub(crate) fn stray_len(meta: &SegmentMeta<'_>) -> u32 {
    clamp(u64::from(meta.repr.seq_len(meta.payload_len)))
}
