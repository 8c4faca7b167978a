//! Listeners whose SYN queue is full: SYNs answered with cookies, and connections made from the
//! acknowledgements that bring them back (see [`syncookie`]).
//!
//! Nothing is kept of such a SYN, so a SYN,ACK that is lost is not sent again (the peer's SYN
//! comes again and is answered again), and if the last acknowledgement of the handshake is lost,
//! only the peer's data brings the cookie again.

use super::conn::Ctx;
use super::demux::Flow;
use super::embryo::Syn;
use super::events::SegmentMeta;
use super::options;
use super::output::build;
use super::segment_in::Sink;
use super::seq::DATA_OFFSET;
use super::syncookie::{self, Carried};
use super::tcb::Accept;
use super::{ConnId, Engine};
use abi::Nanos;
use wire::tcp::{Flags, Options};

impl Engine {
    /// Answers a SYN and forgets it.
    pub(super) fn answer_with_cookie(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        flow: &Flow,
        listener: ConnId,
    ) {
        let mut said = Options {
            fast_open: None,
            ..meta.repr.options.clone()
        };
        let mut flags = meta.repr.flags;
        if said.timestamps.is_none() || !self.config.timestamps {
            // There is nothing to carry them.
            said.window_scale = None;
            said.sack_permitted = false;
            flags.remove(Flags::ECE | Flags::CWR);
        }
        let mut syn = Syn {
            isn: meta.repr.seq.0,
            flags,
            ce: meta.ce,
            window: meta.repr.window,
            options: &said,
            mtu: meta.mtu,
        };
        syn.flags.remove(Flags::FIN);
        let Some(mut tcb) = self.embryo(now, &syn, flow, listener, 0) else {
            return;
        };
        let n = &mut tcb.negotiated;
        let (cookie, mss) = syncookie::make(&self.config.secret, flow, syn.isn, n.peer_mss, now);
        tcb.iss = cookie;
        n.peer_mss = mss;
        let carried = Carried {
            scale: n.has(options::flag::SCALING).then_some(n.snd_scale),
            sack: n.has(options::flag::SACK),
            ecn: tcb.ecn.is_agreed(),
        };
        let stamp = syncookie::stamp(carried, now).wrapping_add(n.ts_offset);
        if let Some(parent) = self.conn_mut(listener) {
            parent.rt.cookie_at = now.max(1);
        }
        self.stats.cookies_sent += 1;
        let mut ctx = Ctx {
            now,
            config: &self.config,
            actions: &mut self.actions,
            stats: &mut self.stats,
            challenge: &mut self.challenge,
        };
        build::cookie_syn_ack(&tcb, stamp, &mut ctx);
    }

    /// An acknowledgement for `listener` of no connection: if it brings a cookie it makes one.
    /// Returns whether the segment is dealt with.
    pub(super) fn take_cookie(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        flow: &Flow,
        listener: ConnId,
        sink: &mut Sink<'_>,
    ) -> bool {
        let Some(parent) = self.conn(listener) else {
            return false;
        };
        let sent = parent.rt.cookie_at;
        // As Linux: without a recent flood it cannot be one, and guesses cost the guesser only.
        if !self.config.open.syn_cookies
            || sent == 0
            || now.saturating_sub(sent) > syncookie::VALIDITY
        {
            return false;
        }
        let is_full = parent.rt.accept_queue > parent.tcb.backlog;
        let isn = meta.repr.seq - 1;
        let cookie = meta.repr.ack - 1;
        let Some(mss) = syncookie::check(&self.config.secret, flow, isn.0, cookie.0, now) else {
            self.stats.cookies_failed += 1;
            return false;
        };
        self.stats.cookies_received += 1;
        if is_full {
            self.stats.accept_drops += 1;
            return true;
        }
        let offset = super::isn::timestamp_offset(&self.config.secret, flow);
        let (said, ecn) = syncookie::options_of_syn(mss, &meta.repr.options, offset);
        let syn = Syn {
            isn: isn.0,
            flags: if ecn {
                Flags::SYN | Flags::ECE | Flags::CWR
            } else {
                Flags::SYN
            },
            ce: false,
            window: meta.repr.window,
            options: &said,
            mtu: meta.mtu,
        };
        let Some(mut tcb) = self.embryo(now, &syn, flow, listener, cookie.0) else {
            return true;
        };
        // As Linux: it was deferred long enough.
        tcb.opts.defer_accept_ms = 0;
        debug_assert_eq!(tcb.snd_nxt, DATA_OFFSET);
        let Some(id) = self.enter_embryo(now, tcb) else {
            return true;
        };
        self.deliver(now, id, meta, sink);
        self.step(id, now, |conn, ctx| {
            // When the SYN,ACK left is not known, and its timestamp was not the time.
            conn.tcb.rtt = Default::default();
            if conn.tcb.accept() == Accept::Embryonic {
                // No buffers: as if the segment had been lost.
                conn.terminate(None, ctx);
            }
        });
        true
    }
}
