//! Fast Open, the server's side (RFC 7413 4.2): a SYN that brings back a cookie which was given
//! to its address is from there, so its data is taken and the connection is handed over before
//! the handshake is over.
//!
//! ```text
//!   SYN, request           ->  SYN,ACK with a cookie
//!   SYN, cookie, data      ->  data is placed, child is READY  ->  SYN,ACK of the data, answers
//!   SYN, old cookie, data  ->  likewise, and the SYN,ACK brings a new one
//!   SYN, wrong cookie      ->  as a request; the data comes again
//! ```
//!
//! Cookies are a keyed hash of both addresses. The key changes ([`OpenConfig::fast_open_key`]), so
//! that one which was stolen or collected is good for a while only (RFC 7413 5.1): cookies of the
//! last key are taken, older ones are wrong. Keys have numbers, the hash is under the stack's
//! secret and the number, and the number is the time divided: secret and clock are a successor's
//! as they were its predecessor's, so a restart changes nothing and there is nothing to keep.
//!
//! What the SYN,ACK acknowledges is placed and committed before it leaves, as anywhere.

use super::actions::Notice;
use super::config::{Config, SECOND};
use super::conn::{Conn, Ctx};
use super::demux::Flow;
use super::events::SegmentMeta;
use super::isn;
use super::opening::{COOKIE_LEN, OpenConfig, flag};
use super::segment_in::{Segment, Sink};
use super::seq::DATA_OFFSET;
use super::state::State;
use super::tcb::{Accept, Tcb};
use super::{ConnId, Engine, SocketRef};
use abi::Nanos;

/// RFC 7413 5.1: a connection that was reset before its handshake was over counts against the
/// limit for so long, so that resets from spoofed addresses do not make room for more.
const RESET_COUNTS: Nanos = 60 * SECOND;

/// What a SYN asks of Fast Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing, or it cannot be had.
    Nothing,
    /// A cookie.
    Cookie,
    /// To be let in early; `renew`: by a cookie of the last key, so with a new one.
    Entry { renew: bool },
}

impl Asked {
    /// Whether the SYN,ACK carries a cookie.
    pub(super) const fn gets_cookie(self) -> bool {
        matches!(self, Self::Cookie | Self::Entry { renew: true })
    }
}

impl OpenConfig {
    /// The number of the key at a time.
    fn key_at(&self, now: Nanos) -> u64 {
        now / self.fast_open_key.max(1)
    }
}

impl Engine {
    pub(super) fn asked(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        flow: &Flow,
        listener: ConnId,
    ) -> Asked {
        let Some(option) = &meta.repr.options.fast_open else {
            return Asked::Nothing;
        };
        let limit = self
            .record(listener)
            .map_or(0, |tcb| tcb.opening.fast_open_queue);
        if limit == 0 || !self.config.open.fast_open_server {
            return Asked::Nothing;
        }
        if option.is_empty() {
            self.stats.fast_open_requests += 1;
            return Asked::Cookie;
        }
        let key = self.config.open.key_at(now);
        let secret = &self.config.secret;
        let is_of = |key| option.as_slice() == isn::fast_open_cookie(secret, flow, key);
        if is_of(key) {
            return Asked::Entry { renew: false };
        }
        // RFC 7413 5.1, as Linux with its backup key.
        if key.checked_sub(1).is_some_and(is_of) {
            self.stats.fast_open_renewed += 1;
            return Asked::Entry { renew: true };
        }
        self.stats.fast_open_refused += 1;
        Asked::Cookie
    }

    /// Whether one more may be open early (RFC 7413 5.1).
    pub(super) fn has_early_room(&mut self, listener: ConnId, now: Nanos) -> bool {
        let Some(conn) = self.conn_mut(listener) else {
            return false;
        };
        let limit = conn.tcb.opening.fast_open_queue;
        let resets = &mut conn.rt.early_resets;
        while resets
            .front()
            .is_some_and(|&at| now.saturating_sub(at) >= RESET_COUNTS)
        {
            resets.pop_front();
        }
        let used = (conn.rt.early as usize).saturating_add(resets.len());
        let room = used < limit as usize;
        if !room {
            self.stats.fast_open_overflows += 1;
        }
        room
    }

    /// Counts a child at its listener while it is early.
    pub(super) fn count_early(&mut self, id: ConnId, now: Nanos) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let is_early = conn.tcb.is_early();
        if conn.rt.counted_early == is_early {
            return;
        }
        conn.rt.counted_early = is_early;
        let was_reset = conn.tcb.state() == State::Closed;
        let Some(listener) = conn.tcb.parent().and_then(|id| self.conn_mut(id)) else {
            return;
        };
        let rt = &mut listener.rt;
        if is_early {
            rt.early += 1;
            return;
        }
        rt.early = rt.early.saturating_sub(1);
        if was_reset {
            rt.early_resets.push_back(now);
        }
    }

    /// The child of a SYN with a right cookie. `false`: there are no buffers; it is an ordinary
    /// half-open connection then.
    pub(super) fn enter_early(
        &mut self,
        now: Nanos,
        id: ConnId,
        listener: ConnId,
        meta: &SegmentMeta<'_>,
        sink: &mut Sink<'_>,
    ) -> bool {
        let owner = self.record(listener).map(|tcb| tcb.owner);
        let Some(owner) = owner.and_then(|owner| sink.buffers.attach(listener, owner, id)) else {
            return false;
        };
        let order = self.next_accept;
        self.next_accept += 1;
        self.stats.fast_open_passive += 1;
        self.step(id, now, |conn, ctx| {
            conn.enter_early(owner, order, listener, meta, sink, ctx);
        });
        true
    }
}

impl Conn {
    fn enter_early(
        &mut self,
        owner: SocketRef,
        order: u64,
        listener: ConnId,
        meta: &SegmentMeta<'_>,
        sink: &mut Sink<'_>,
        ctx: &mut Ctx<'_>,
    ) {
        let tcb = &mut self.tcb;
        tcb.owner = owner;
        tcb.accept = Accept::Ready as u8;
        tcb.accept_seq = order;
        tcb.opening.flags |= flag::EARLY;
        self.start_sending(ctx);
        let segment = Segment::new(&self.tcb, meta);
        let end = segment.data_end.min(self.tcb.rcv_adv);
        if segment.data < end {
            self.place(&segment, segment.data, end, sink, ctx);
        }
        if self.tcb.rcv_nxt > DATA_OFFSET {
            self.tcb.opening.flags |= flag::SYN_DATA;
        }
        // The SYN,ACK acknowledges what was placed.
        self.rt.ack_now = false;
        self.rt.syn_now = true;
        let child = self.id;
        ctx.actions
            .notices
            .push(Notice::Accepted { listener, child });
    }
}

/// Puts the cookie for `flow` into the SYN,ACK of `tcb`.
pub(super) fn give_cookie(tcb: &mut Tcb, config: &Config, flow: &Flow, now: Nanos) {
    let key = config.open.key_at(now);
    let cookie: [u8; COOKIE_LEN] = isn::fast_open_cookie(&config.secret, flow, key);
    tcb.opening.set_cookie(&cookie);
    tcb.opening.flags |= flag::GIVES_COOKIE;
}
