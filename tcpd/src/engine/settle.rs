//! After each step on a socket: bring everything that is derived from its record up to date.
//!
//! Nothing here decides about the protocol. Because all of it follows from the record, a step
//! can change the state as it likes, and a restore uses the same code.

use super::actions::Notice;
use super::conn::{Conn, CountedAs, Ctx};
use super::demux::Flow;
use super::state::State;
use super::tcb::{Accept, Tcb, flag};
use super::{ConnId, Engine};
use abi::Nanos;

/// One in so many numbers is kept free by ending old TIME_WAITs.
const SPARE_FRACTION: u32 = 64;

fn counts_as(tcb: &Tcb) -> CountedAs {
    match (tcb.state(), tcb.accept()) {
        (State::Closed, _) => CountedAs::Nothing,
        (_, Accept::Embryonic) => CountedAs::Embryonic,
        (_, Accept::Ready | Accept::HandedOver) => CountedAs::Queued,
        _ => CountedAs::Nothing,
    }
}

impl Conn {
    pub(crate) fn flow(&self) -> Flow {
        Flow {
            local: self.tcb.local,
            remote: self.tcb.remote,
        }
    }

    /// Nobody will look at the socket again.
    fn is_done(&self) -> bool {
        self.tcb.state() == State::Closed
            && (self.tcb.is_orphan()
                || matches!(self.tcb.accept(), Accept::Embryonic | Accept::Ready))
    }
}

impl Engine {
    pub(super) fn settle(&mut self, id: ConnId, now: Nanos) {
        self.settle_memory(id, now);
        let Some(conn) = self
            .slots
            .get_mut(id.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        if !conn.rt.dirty {
            conn.rt.dirty = true;
            self.actions.dirty.push(id);
        }
        if !conn.rt.queued && conn.wants_output() {
            conn.rt.queued = true;
            self.queue.push_back(id);
        }
        if let Some(at) = conn.tcb.deadlines.earliest()
            && (conn.rt.heap_at == 0 || at < conn.rt.heap_at)
        {
            conn.rt.heap_at = at;
            self.heap.push(id, at);
        }
        let state = conn.tcb.state();
        if state == State::Closed && conn.rt.registered {
            conn.rt.registered = false;
            self.demux.remove(&conn.flow());
            if !conn.tcb.has(flag::BOUND) {
                self.ports.leave(conn.tcb.local.port);
            }
        }
        let counted = counts_as(&conn.tcb);
        if counted != conn.rt.counted {
            let before = core::mem::replace(&mut conn.rt.counted, counted);
            self.embryonic -= u32::from(before == CountedAs::Embryonic);
            self.embryonic += u32::from(counted == CountedAs::Embryonic);
            if let Some(parent) = conn.tcb.parent() {
                self.recount(parent, before, counted);
            }
        }
        self.count_early(id, now);
        self.count_orphan(id, now);
        self.give_back(id, now);
    }

    fn recount(&mut self, parent: ConnId, before: CountedAs, after: CountedAs) {
        let Some(listener) = self.conn_mut(parent) else {
            return;
        };
        match before {
            CountedAs::Nothing => {}
            CountedAs::Embryonic => {
                listener.rt.embryonic = listener.rt.embryonic.saturating_sub(1);
            }
            CountedAs::Queued => {
                listener.rt.accept_queue = listener.rt.accept_queue.saturating_sub(1);
            }
        }
        match after {
            CountedAs::Nothing => {}
            CountedAs::Embryonic => listener.rt.embryonic += 1,
            CountedAs::Queued => listener.rt.accept_queue += 1,
        }
    }

    /// Buffers that an orphan does not need, and the record of a socket that is done.
    fn give_back(&mut self, id: ConnId, now: Nanos) {
        let Some(conn) = self
            .slots
            .get_mut(id.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let done = conn.is_done();
        let state = conn.tcb.state();
        let is_sent = state.is_synchronized() && conn.tcb.data_acked();
        if done || (conn.tcb.is_orphan() && is_sent && !conn.tcb.is_lingering()) {
            let mut ctx = Ctx {
                now,
                config: &self.config,
                actions: &mut self.actions,
                stats: &mut self.stats,
                challenge: &mut self.challenge,
            };
            conn.release_buffers(&mut ctx);
        }
        if state == State::TimeWait && conn.tcb.is_orphan() && !conn.rt.time_wait_listed {
            conn.rt.time_wait_listed = true;
            self.time_wait.push_back((id, conn.tcb.generation));
        }
        if done {
            conn.settle_charge(&mut self.account, &self.config.memory.limits);
            let port = conn.tcb.local.port;
            if conn.tcb.has(flag::BOUND) {
                self.ports.revoke(port, id);
            }
            if let Some(slot) = self.slots.get_mut(id.0 as usize) {
                *slot = None;
            }
            self.freed.push(id.0);
            self.actions.notices.push(Notice::Closed(id));
        }
    }

    /// Puts a new socket into a free number.
    pub(super) fn allocate(&mut self, mut tcb: Tcb) -> Option<ConnId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if (self.slots.len() as u64) < u64::from(self.config.capacity) => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        tcb.generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1).max(1);
        let id = ConnId(index);
        let slot = self.slots.get_mut(index as usize)?;
        *slot = Some(Box::new(Conn::new(id, tcb)));
        Some(id)
    }

    /// Enters a connection into the table; false if the ends are taken.
    pub(super) fn register(&mut self, id: ConnId) -> bool {
        let Some(conn) = self
            .slots
            .get_mut(id.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return false;
        };
        if !self.demux.insert(conn.flow(), id) {
            return false;
        }
        conn.rt.registered = true;
        if !conn.tcb.has(flag::BOUND) {
            self.ports.enter(conn.tcb.local.port);
        }
        true
    }

    /// Ends the oldest TIME_WAITs when numbers run short: better than to refuse connections,
    /// and RFC 6191's timestamps protect the successors.
    pub(super) fn recycle(&mut self) {
        if !self.is_complete {
            return;
        }
        let capacity = self.config.capacity;
        let spare = (capacity / SPARE_FRACTION).max(1);
        loop {
            let used = self.slots.len() - self.free.len() - self.freed.len();
            if u64::from(capacity) - (used as u64).min(u64::from(capacity)) >= u64::from(spare) {
                return;
            }
            let Some((id, generation)) = self.time_wait.pop_front() else {
                return;
            };
            let is_waiting = self
                .record(id)
                .is_some_and(|tcb| tcb.generation == generation && tcb.state() == State::TimeWait);
            if is_waiting {
                self.stats.time_wait_recycled += 1;
                self.step(id, 0, |conn, ctx| conn.terminate(None, ctx));
            }
        }
    }
}
