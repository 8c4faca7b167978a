//! The record of a connection that a peer opens: what it is made of, whether from a SYN or from
//! the acknowledgement that brings a cookie back.

use super::demux::Flow;
use super::memory::MemoryRecord;
use super::seq::{DATA_OFFSET, SYN_OFFSET};
use super::state::State;
use super::tcb::{Accept, Tcb, flag};
use super::timers::Timer;
use super::{ConnId, Engine, SocketRef, isn};
use abi::Nanos;
use wire::tcp::{Flags, Options};

/// What a peer's SYN said.
#[derive(Debug)]
pub(super) struct Syn<'a> {
    /// Its initial sequence number.
    pub(super) isn: u32,
    pub(super) flags: Flags,
    /// Congestion experienced.
    pub(super) ce: bool,
    /// Never scaled (RFC 7323 2.2).
    pub(super) window: u16,
    pub(super) options: &'a Options,
    /// IP packet size of the device it came by, 0 if not known.
    pub(super) mtu: u16,
}

impl Engine {
    /// A child of `listener` in SYN_RECEIVED that sends from `iss`. Nothing is entered anywhere.
    pub(super) fn embryo(
        &self,
        now: Nanos,
        syn: &Syn<'_>,
        flow: &Flow,
        listener: ConnId,
        iss: u32,
    ) -> Option<Tcb> {
        let parent = &self.conn(listener)?.tcb;
        let mut tcb = Tcb::new(SocketRef::NONE, parent.opts, now);
        tcb.memory = MemoryRecord::new(&tcb.opts, self.config.memory.base);
        tcb.memory.locks = parent.memory.locks;
        tcb.flags = flag::PASSIVE | (parent.flags & flag::V6);
        tcb.parent = listener.0;
        tcb.accept = Accept::Embryonic as u8;
        tcb.state = State::SynReceived as u8;
        tcb.cc.algorithm = parent.cc.algorithm;
        tcb.local = flow.local;
        tcb.remote = flow.remote;
        tcb.iss = iss;
        tcb.snd_nxt = DATA_OFFSET;
        tcb.irs = syn.isn;
        tcb.rcv_nxt = DATA_OFFSET;
        tcb.last_ack_sent = DATA_OFFSET;
        tcb.rcv_adv = DATA_OFFSET + u64::from(tcb.opts.rcv_buf.min(0xffff));
        tcb.last_recv_at = now;
        tcb.progress_at = now;
        tcb.snd_wnd = u32::from(syn.window);
        tcb.max_wnd = tcb.snd_wnd;
        tcb.snd_wl1 = SYN_OFFSET;
        let o = tcb.opts;
        let n = &mut tcb.negotiated;
        n.offer(
            &self.config,
            flow.local.family,
            syn.mtu,
            o.max_segment,
            o.rcv_capacity,
        );
        n.ts_offset = isn::timestamp_offset(&self.config.secret, flow);
        n.agree(syn.options, now);
        tcb.start_path_mtu(self.config.mtu_probing, now);
        tcb.ecn.take_syn(self.config.ecn, syn.flags, syn.ce);
        tcb.rtt.start(now, DATA_OFFSET);
        let timeout = tcb.rtt.timeout(&self.config);
        tcb.deadlines.arm(Timer::Retransmit, now + timeout);
        tcb.counters.segs_in = 1;
        Some(tcb)
    }

    /// Gives an embryo a number and enters it. `None` when there is no room.
    pub(super) fn enter_embryo(&mut self, now: Nanos, tcb: Tcb) -> Option<ConnId> {
        let Some(id) = self.allocate(tcb) else {
            self.stats.listen_drops += 1;
            return None;
        };
        if !self.register(id) {
            // Cannot be: the flow was just looked up. Give the number back.
            self.step(id, now, |conn, ctx| conn.terminate(None, ctx));
            return None;
        }
        self.stats.passive_opens += 1;
        Some(id)
    }

    /// Whether half-open connections should not take more records: a flood of them must leave
    /// room for what is open and for sockets that are made here.
    pub(super) fn is_crowded_with_embryos(&self) -> bool {
        let capacity = self.config.capacity;
        let used = self.slots.len() - self.free.len();
        let free = capacity.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
        self.embryonic >= capacity.div_ceil(4) || free <= capacity / 128
    }
}
