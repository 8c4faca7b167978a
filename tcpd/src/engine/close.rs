//! Ending: shutdown, close, abort.

use super::config::MILLISECOND;
use super::conn::{Conn, Ctx};
use super::error::Errno;
use super::events::How;
use super::state::State;
use super::tcb::{Accept, flag};
use super::timers::Timer;
use super::{ConnId, Engine};
use abi::Nanos;

impl Conn {
    /// RFC 9293 3.10.4: FIN follows the last byte written.
    pub(crate) fn queue_fin(&mut self) {
        if self.tcb.has(flag::FIN_QUEUED) {
            return;
        }
        match self.tcb.state() {
            State::Established => self.set_state(State::FinWait1),
            State::CloseWait => self.set_state(State::LastAck),
            // The FIN waits for the handshake (RFC 9293 3.10.4, SYN-RECEIVED).
            State::SynSent | State::SynReceived => {}
            _ => return,
        }
        self.tcb.flags |= flag::FIN_QUEUED;
    }

    /// RFC 9293 3.10.4 and RFC 2525 2.17: nobody holds the socket any more.
    fn close(&mut self, ctx: &mut Ctx<'_>) {
        if self.tcb.is_orphan() {
            return;
        }
        self.tcb.flags |= flag::ORPHAN;
        let lingers_not = self.tcb.lingers_not();
        let millis = self.tcb.linger_ms();
        if millis > 0 {
            self.tcb.linger_until = ctx.now + Nanos::from(millis) * MILLISECOND;
        }
        match self.tcb.state() {
            // As Linux: an attempt is given up. But what was written to a socket that Fast Open
            // made look connected is sent.
            State::SynSent if self.tcb.is_open() && self.tcb.written > 0 && !lingers_not => {
                self.queue_fin();
                self.release_syn(ctx);
            }
            State::Closed | State::Listen | State::SynSent => self.terminate(None, ctx),
            State::TimeWait => {}
            // Unread data is lost, and the peer must hear of it (RFC 2525 2.17); a linger time
            // of zero asks for the same.
            _ if lingers_not || self.tcb.unread() > 0 => {
                self.abort(None, ctx);
            }
            State::FinWait2 => self.arm_orphan_timer(ctx),
            _ => self.queue_fin(),
        }
    }

    /// FIN_WAIT_2 of an orphan does not wait for the peer for ever (as Linux).
    pub(crate) fn arm_orphan_timer(&mut self, ctx: &Ctx<'_>) {
        let at = ctx.now + ctx.config.fin_timeout;
        self.tcb.deadlines.arm(Timer::Expiry, at);
    }
}

impl Engine {
    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`, `EBADF`.
    pub fn shutdown(&mut self, now: Nanos, id: ConnId, how: How) -> Result<(), Errno> {
        let state = self.record(id).ok_or(Errno::EBADF)?.state();
        match state {
            State::Closed => return Err(Errno::ENOTCONN),
            // As Linux: a listener that is shut down for reading listens no more.
            State::Listen if how != How::Write => {
                self.stop_listening(now, id);
                return Ok(());
            }
            State::Listen => return Err(Errno::ENOTCONN),
            _ => {}
        }
        self.step(id, now, |conn, _| {
            if how != How::Write {
                conn.tcb.flags |= flag::RD_SHUT;
            }
            if how != How::Read {
                conn.queue_fin();
            }
        });
        Ok(())
    }

    /// The last descriptor of the socket is closed: an orderly end, or a reset if data is unread
    /// or the linger time is zero. Feed the last words with [`Engine::on_app`] before. The record
    /// stays until the protocol is done with it ([`super::Notice::Closed`]).
    pub fn close(&mut self, now: Nanos, id: ConnId) {
        if self
            .record(id)
            .is_some_and(|tcb| tcb.state() == State::Listen)
        {
            self.stop_listening(now, id);
        }
        self.step(id, now, Conn::close);
        // As Linux (tcp_max_orphans): they are nobody's, and the limit is there to be kept.
        let is_orphan = self.conn(id).is_some_and(|conn| conn.rt.counted_orphan);
        if is_orphan && self.orphans > self.config.open.max_orphans {
            self.stats.orphans_reset += 1;
            self.step(id, now, |conn, ctx| conn.abort(None, ctx));
        }
    }

    /// Counts a connection while it ends without an application. Not in TIME_WAIT, where old
    /// ones make room by themselves, nor in FIN_WAIT_2, which is as Linux counts.
    pub(super) fn count_orphan(&mut self, id: ConnId, now: Nanos) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let state = conn.tcb.state();
        let counts = conn.tcb.is_abandoned(now)
            && state.has_peer()
            && !matches!(state, State::TimeWait | State::FinWait2);
        let before = core::mem::replace(&mut conn.rt.counted_orphan, counts);
        self.orphans += u32::from(counts && !before);
        self.orphans -= u32::from(before && !counts);
    }

    /// Ends the connection with a reset; the application, if it holds it still, reads `error`.
    pub fn abort(&mut self, now: Nanos, id: ConnId, error: Errno) {
        self.step(id, now, |conn, ctx| {
            if conn.tcb.state() != State::Closed {
                conn.abort(Some(error), ctx);
            }
        });
    }

    /// What becomes of a child whose listener goes.
    pub(super) fn leave_listener(&mut self, now: Nanos, child: ConnId) {
        self.step(child, now, |conn, ctx| {
            conn.tcb.parent = ConnId::NONE.0;
            if matches!(conn.tcb.accept(), Accept::Embryonic | Accept::Ready) {
                conn.abort(None, ctx);
            } else {
                conn.tcb.accept = Accept::Taken as u8;
            }
        });
    }

    /// Children that no application knows of go with their listener; those on the way to one
    /// are closed by their own descriptors.
    fn stop_listening(&mut self, now: Nanos, id: ConnId) {
        let children: Vec<ConnId> = self
            .records()
            .filter(|(_, tcb)| tcb.parent() == Some(id))
            .map(|(child, _)| child)
            .collect();
        for child in children {
            self.leave_listener(now, child);
        }
        self.step(id, now, |conn, _| {
            conn.set_state(State::Closed);
            conn.rt.embryonic = 0;
            conn.rt.accept_queue = 0;
        });
        if let Some(tcb) = self.record(id) {
            let claim = super::calls::claim(id, tcb);
            self.ports.grant(claim);
        }
    }
}
