//! Segments of no connection: SYNs for listeners, and resets for everything else.

use super::conn::Ctx;
use super::demux::Flow;
use super::embryo::Syn;
use super::events::SegmentMeta;
use super::fast_open::{self, Asked};
use super::isn;
use super::output::build;
use super::segment_in::Sink;
use super::seq::clamp;
use super::state::State;
use super::tcb::Accept;
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
        sink: &mut Sink<'_>,
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
        // RFC 9293 3.10.7.2: an acknowledgement cannot be right, unless it brings a cookie back;
        // without SYN there is nothing to do. RFC 9293 leaves SYN with FIN open; it is dropped,
        // as Linux does.
        let mut listener = self.listener_for(flow);
        if flags.contains(Flags::ACK) {
            if let Some(id) = listener
                && !flags.contains(Flags::SYN)
                && self.take_cookie(now, meta, flow, id, sink)
            {
                return;
            }
            listener = None;
        }
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
            self.on_syn(now, meta, flow, listener, floor, sink);
        }
    }

    fn on_syn(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        flow: &Flow,
        listener: ConnId,
        floor: Option<u32>,
        sink: &mut Sink<'_>,
    ) {
        let Some(parent) = self.conn(listener) else {
            return;
        };
        // As Linux: both queues take one more than the backlog, and a listener whose application
        // does not keep up answers nobody, not even with a cookie.
        let backlog = parent.tcb.backlog;
        if parent.rt.accept_queue > backlog || self.account.is_exhausted(&self.config.memory.limits)
        {
            self.stats.listen_drops += 1;
            return;
        }
        let waiting = parent.rt.embryonic;
        let is_full = waiting > backlog || self.is_crowded_with_embryos();
        // What takes the place of a connection in TIME_WAIT is no flood.
        if is_full && floor.is_none() && self.config.open.syn_cookies {
            self.answer_with_cookie(now, meta, flow, listener);
            return;
        }
        let limit = self.config.max_syn_backlog;
        if is_full || (!self.config.open.syn_cookies && waiting >= limit - limit / 4) {
            self.stats.listen_drops += 1;
            return;
        }
        let syn = Syn {
            isn: meta.repr.seq.0,
            flags: meta.repr.flags,
            ce: meta.ce,
            window: meta.repr.window,
            options: &meta.repr.options,
            mtu: meta.mtu,
        };
        let iss = floor.unwrap_or_else(|| isn::initial_sequence(&self.config.secret, flow, now));
        let Some(mut tcb) = self.embryo(now, &syn, flow, listener, iss) else {
            return;
        };
        let asked = self.asked(now, meta, flow, listener);
        if asked.gets_cookie() {
            fast_open::give_cookie(&mut tcb, &self.config, flow, now);
        }
        let is_early = matches!(asked, Asked::Entry { .. }) && self.has_early_room(listener, now);
        let Some(id) = self.enter_embryo(now, tcb) else {
            return;
        };
        if !(is_early && self.enter_early(now, id, listener, meta, sink)) {
            self.step(id, now, |conn, _| conn.rt.syn_now = true);
        }
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
            is_full: parent.rt.accept_queue > parent.tcb.backlog
                || self.account.is_exhausted(&self.config.memory.limits),
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
