//! Growing: the rings follow the buffers' sizes, as far as the account allows.

use super::{Account, MemoryConfig, lock, spare};
use crate::engine::actions::Notice;
use crate::engine::conn::Conn;
use crate::engine::seq::stream_position;
use crate::engine::{ConnId, Engine, SocketRef};
use abi::Nanos;
use abi::session::Ring;

/// A buffer of the next size from `have` on that `want` asks for.
fn ring_size(want: u32, capacity: u32) -> u64 {
    u64::from(want.min(capacity)).next_power_of_two().max(4096)
}

impl Conn {
    /// After each step: sizes that changed. Answers whether the application should be shown.
    fn resize(&mut self, account: &mut Account, config: &MemoryConfig) -> bool {
        let tcb = &self.tcb;
        if tcb.owner == SocketRef::NONE || !tcb.state().has_peer() {
            return false;
        }
        let mut shown = self.clamp(account, config);
        let o = self.tcb.opts;
        let locks = self.tcb.memory.locks;
        let rcv = if locks & lock::RCV != 0 {
            o.rcv_buf
        } else {
            let want = self.rt.memory.want_rcv;
            o.rcv_buf.max(want.min(config.rmem[2]).min(o.rcv_capacity))
        };
        if rcv > o.rcv_buf || u64::from(rcv) > self.tcb.memory.rings.rx.size() {
            shown |= self.resize_rcv(rcv, account, config);
        }
        let snd = if locks & lock::SND != 0 {
            o.snd_buf
        } else {
            o.snd_buf
                .max(self.wanted_snd().min(config.wmem[2]).min(o.snd_capacity))
        };
        if snd > o.snd_buf || u64::from(snd) > self.tcb.memory.rings.tx.size() {
            shown |= self.resize_snd(snd, account, config);
        }
        shown
    }

    fn resize_rcv(&mut self, want: u32, account: &mut Account, config: &MemoryConfig) -> bool {
        let tcb = &self.tcb;
        let size = ring_size(want, tcb.opts.rcv_capacity);
        let mut ring = tcb.memory.rings.rx;
        let lo = tcb.consumed;
        // Nothing lies beyond what was offered.
        let hi = stream_position(tcb.rcv_adv.max(tcb.rcv_nxt)).max(lo);
        let grown = self.switch(&mut ring, lo, hi, size, account, config);
        let tcb = &mut self.tcb;
        tcb.memory.rings.rx = ring;
        if account.pressure() {
            return grown;
        }
        let buffer = u32::try_from(ring.size()).unwrap_or(u32::MAX).min(want);
        if !tcb.memory.is_locked(lock::RCV) && buffer > tcb.opts.rcv_buf {
            tcb.opts.rcv_buf = buffer;
            if self.window_update_due() {
                self.rt.ack_now = true;
            }
            return true;
        }
        grown
    }

    fn resize_snd(&mut self, want: u32, account: &mut Account, config: &MemoryConfig) -> bool {
        let tcb = &self.tcb;
        let size = ring_size(want, tcb.opts.snd_capacity);
        let mut ring = tcb.memory.rings.tx;
        let lo = tcb.acked_upto();
        // The application may write up to here before it hears of anything.
        let hi = ring.limit(lo);
        let grown = self.switch(&mut ring, lo, hi, size, account, config);
        let tcb = &mut self.tcb;
        tcb.memory.rings.tx = ring;
        if account.pressure() {
            return grown;
        }
        let buffer = u32::try_from(ring.size()).unwrap_or(u32::MAX).min(want);
        if !tcb.memory.is_locked(lock::SND) && buffer > tcb.opts.snd_buf {
            tcb.opts.snd_buf = buffer;
            return true;
        }
        grown
    }

    /// Makes a ring `size` bytes large, or as large as can be now.
    fn switch(
        &mut self,
        ring: &mut Ring,
        lo: u64,
        hi: u64,
        mut size: u64,
        account: &mut Account,
        config: &MemoryConfig,
    ) -> bool {
        if size > config.base.into() && self.tcb.memory.rings.window == 0 {
            if !self.rt.memory.wanting {
                self.rt.memory.wanting = true;
                account.wanting.push(self.id);
            }
            size = config.base.into();
        }
        let before = ring.size();
        if size <= before || ring.pending(lo).is_some() {
            return false;
        }
        let region = self.tcb.owner.region;
        if !account.allows(region, size - before, &config.limits, config.session) {
            account.shown.refused += 1;
            return false;
        }
        u32::try_from(size).is_ok_and(|size| ring.switch(lo, hi, size))
    }

    /// Under pressure the peer is offered little more than it needs to go on (as Linux: four
    /// segments), and the application may write no more than the base of its ring; afterwards what
    /// the buffers have, of which the peer's part opens anew. Sockets that are not in use find out
    /// when they are.
    fn clamp(&mut self, account: &Account, config: &MemoryConfig) -> bool {
        let clamp = if account.pressure() {
            (4 * self.tcb.rcv_mss).max(config.rmem[0])
        } else {
            0
        };
        if clamp != 0 {
            // As Linux's `rcv_ssthresh`: when memory is there again, no window jumps.
            self.rt.memory.offer.limit(clamp);
        }
        let before = core::mem::replace(&mut self.tcb.memory.rcv_clamp, clamp);
        if clamp == 0 && before != 0 && self.window_update_due() {
            self.rt.ack_now = true;
        }
        (clamp == 0) != (before == 0)
    }
}

impl Engine {
    /// What follows from a step for the memory of a socket.
    pub(in crate::engine) fn settle_memory(&mut self, id: ConnId, now: Nanos) {
        let Some(conn) = self
            .slots
            .get_mut(id.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let memory = &self.config.memory;
        if conn.resize(&mut self.account, memory) {
            self.actions.notices.push(Notice::Resized(id));
        }
        conn.settle_charge(&mut self.account, &memory.limits);
        conn.ask_for_spare(
            spare::most(memory.base),
            &self.account,
            &mut self.actions.notices,
        );
        conn.list(&mut self.account, now);
    }

    /// Sockets that outgrow [`super::RING_BASE`] and have no window yet, each once. The shell answers
    /// with [`Engine::give_window`], or not: then they stay as they are until they ask again.
    pub fn take_wanting(&mut self, into: &mut Vec<ConnId>) {
        into.clear();
        core::mem::swap(&mut self.account.wanting, into);
        for &id in &*into {
            if let Some(conn) = self.conn_mut(id) {
                conn.rt.memory.wanting = false;
            }
        }
    }

    /// A socket has a window of its session's memory from now on, until its buffers are released.
    pub fn give_window(&mut self, now: Nanos, id: ConnId, window: u32) {
        self.step(id, now, |conn, _| {
            if conn.tcb.memory.rings.window == 0 {
                conn.tcb.memory.rings.window = window;
            }
        });
    }
}
