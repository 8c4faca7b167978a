//! Making an engine from committed records, after the last one died.
//!
//! Everything that is not in the records follows from them: table, ports, queues, timers. What
//! the dead engine had still meant to send without a record of it (an acknowledgement, a probe)
//! is a lost packet, with two kindnesses: an acknowledgement that is owed leaves at once, and a
//! connection with data in flight sends a probe soon instead of waiting for its timeout.

use super::conn::Conn;
use super::demux::Flow;
use super::recovery::Phase;
use super::sent::SendLog;
use super::seq::SYN_OFFSET;
use super::state::State;
use super::tcb::{Accept, Tcb, flag};
use super::timers::Timer;
use super::watch::{OnWork, Watch};
use super::{Config, ConnId, Engine};
use abi::{Endpoint, Nanos};
use std::collections::HashSet;
use zerocopy::IntoBytes;

/// How soon a connection with data in flight makes itself heard: what was let out and what was
/// not is unknown.
const PROBE_AFTER: Nanos = 2 * super::config::MILLISECOND;

/// Nanoseconds to units of 16 microseconds.
const GENERATION_SHIFT: u32 = 14;

impl Engine {
    /// An engine that goes on from `records`, the last committed ones. Records that make no
    /// sense or contradict each other are refused; their numbers are put in `refused`, to be
    /// cleared by the caller.
    pub fn restore(
        config: Config,
        now: Nanos,
        records: impl IntoIterator<Item = (ConnId, Tcb)>,
        refused: &mut Vec<ConnId>,
    ) -> Self {
        let mut engine = Self::revive(config, now, None);
        let (children, others): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|(_, tcb)| tcb.parent().is_some());
        for (id, tcb) in others.into_iter().chain(children) {
            if !engine.adopt(now, id, &tcb) {
                refused.push(id);
            }
        }
        engine.complete();
        engine
    }

    /// An engine that has nothing yet: give it every record with [`Engine::adopt`], listeners
    /// before their children, then [`Engine::complete`] it. Until then it may serve those that it
    /// has, if nothing new is begun: no call, no segment unless [`Engine::is_at_home`] says so.
    /// `watch` is told of every socket before it is worked on.
    pub fn revive(config: Config, now: Nanos, watch: Option<OnWork>) -> Self {
        let mut engine = Self::new(config);
        engine.watch = Watch(watch);
        engine.is_complete = false;
        // Generations of records that are free by now are forgotten, and must not be used for
        // others: they grow by one for each socket, the clock grows faster.
        engine.next_generation = ((now >> GENERATION_SHIFT) as u32).max(1);
        engine
    }

    /// Every record was adopted: what follows from all of them together.
    pub fn complete(&mut self) {
        self.is_complete = true;
        let freed: HashSet<u32> = self.freed.iter().copied().collect();
        self.free = (0u32..)
            .zip(&self.slots)
            .filter(|(index, slot)| slot.is_none() && !freed.contains(index))
            .map(|(index, _)| index)
            .collect();
        // They are listed in the order in which they end.
        let mut time_wait = std::mem::take(&mut self.time_wait);
        time_wait.make_contiguous().sort_by_key(|&(id, _)| {
            self.record(id)
                .and_then(|tcb| tcb.deadlines.get(Timer::Expiry))
        });
        self.time_wait = time_wait;
        self.announce_ready();
    }

    /// Whether a segment between these ends concerns a connection that is here, and that alone,
    /// whatever it says: it needs neither a new number nor another record.
    #[must_use]
    pub fn is_at_home(&self, local: Endpoint, remote: Endpoint) -> bool {
        self.demux
            .peek(&Flow { local, remote })
            .and_then(|id| self.record(id))
            .is_some_and(|tcb| tcb.state().is_synchronized() && tcb.state() != State::TimeWait)
    }

    /// Takes a committed record over, and goes on from it; false when it makes no sense or
    /// contradicts another one: then it is to be cleared.
    pub fn adopt(&mut self, now: Nanos, id: ConnId, tcb: &Tcb) -> bool {
        self.watch.on(id, tcb);
        let is_taken = self.try_adopt(id, tcb);
        self.stats.records_refused += u64::from(!is_taken);
        if is_taken {
            self.resume(now, id, tcb);
        }
        is_taken
    }

    /// One that is as it was committed is not committed again: of thousands that wait, few have
    /// anything to do.
    fn resume(&mut self, now: Nanos, id: ConnId, committed: &Tcb) {
        self.step(id, now, |conn, _| conn.resume(now));
        let is_same = |conn: &&mut Conn| conn.tcb.as_bytes() == committed.as_bytes();
        if let Some(conn) = self.conn_mut(id).filter(is_same) {
            conn.rt.dirty = false;
            self.actions.dirty.pop_if(|dirty| *dirty == id);
        }
        // A listener whose record could not be read takes its children with it, as one that is
        // closed.
        let is_lost = self.record(id).and_then(Tcb::parent).is_some_and(|parent| {
            self.record(parent)
                .is_none_or(|tcb| tcb.state() != State::Listen)
        });
        if is_lost {
            self.leave_listener(now, id);
        }
    }

    fn try_adopt(&mut self, id: ConnId, tcb: &Tcb) -> bool {
        if !tcb.is_valid() || id.0 >= self.config.capacity || self.record(id).is_some() {
            return false;
        }
        let index = id.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Box::write(Box::new_uninit(), Conn::new(id, *tcb)));
        }
        if tcb.state().has_peer() && !self.register(id) {
            if let Some(slot) = self.slots.get_mut(index) {
                *slot = None;
            }
            return false;
        }
        if tcb.has(flag::BOUND) {
            self.ports.grant(super::calls::claim(id, tcb));
        }
        self.next_generation = self.next_generation.max(tcb.generation.wrapping_add(1));
        self.next_accept = self.next_accept.max(tcb.accept_seq.wrapping_add(1));
        true
    }
}

impl Conn {
    /// What the dead engine would have done next.
    fn resume(&mut self, now: Nanos) {
        let tcb = &mut self.tcb;
        let state = tcb.state();
        if state == State::Listen {
            // What the dead engine sent a cookie for may still be answered.
            self.rt.cookie_at = now.max(1);
            return;
        }
        if !state.is_synchronized() {
            // A child whose listener's record was refused.
            if tcb.accept() == Accept::Embryonic && tcb.parent().is_none() {
                self.set_state(State::Closed);
            }
            return;
        }
        self.resume_window();
        let tcb = &mut self.tcb;
        if tcb.rcv_nxt > tcb.last_ack_sent && tcb.last_ack_sent >= SYN_OFFSET {
            self.rt.ack_now = true;
        }
        if tcb.flight() > 0 {
            resume_flight(tcb, &mut self.rt.sent, now);
            self.rt.restored = true;
        }
    }
}

/// What is in flight, as far as it left: a probe shows what did not. What was known to be lost is
/// sent again; nothing else is presumed to be. A timeout that passed while nobody was there to
/// take acknowledgements says nothing, so the probe comes first.
fn resume_flight(tcb: &mut Tcb, log: &mut SendLog, now: Nanos) {
    let sacked = tcb.sacked.iter(tcb.snd_una);
    log.rebuild(tcb.snd_una, tcb.snd_nxt, sacked, now);
    let r = &mut tcb.recovery;
    if r.phase() != Phase::Open {
        log.mark_lost(r.high_rxt.max(tcb.snd_una), r.loss_point);
    }
    r.presumed = 0;
    r.probe_end = 0;
    tcb.sync(log);
    if tcb.state().can_transmit() {
        let d = &mut tcb.deadlines;
        let probe = now + tcb.rtt.srtt + PROBE_AFTER;
        d.arm(Timer::TailProbe, probe);
        if d.get(Timer::Retransmit)
            .is_none_or(|at| at <= now + PROBE_AFTER)
        {
            d.arm(Timer::Retransmit, probe + tcb.rtt.srtt + PROBE_AFTER);
        }
    }
}
