//! One machine: an engine, its committed records, the memory of its sockets, its applications;
//! and a shell that does what tcpd's process does, crashes included.

use crate::app::{App, pieces};
use crate::invariants::History;
use crate::memory::{Memories, spoil};
use crate::packet::{Packet, merge_received};
use crate::plan::HostPlan;
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use std::collections::BTreeMap;
use tcpd::engine::{
    Actions, Config, ConnId, Engine, Errno, IcmpError, Notice, OpenParams, Route, SegmentMeta,
    SegmentOut, SocketRef, State, Tcb,
};
use wire::tcp::{Flags, Repr};

/// How applications on a host behave; told by the world.
pub(crate) type MakeApp = Box<dyn FnMut(ConnId, &Tcb) -> App>;

/// A host gives up dying after so many deaths, so that runs end.
const MOST_KILLS: u64 = 3_000;

pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) plan: HostPlan,
    pub(crate) v6: bool,
    pub(crate) committed: BTreeMap<ConnId, Tcb>,
    pub(crate) memories: Memories,
    /// By slot of their memory.
    pub(crate) apps: BTreeMap<u32, App>,
    pub(crate) inbox: Vec<Packet>,
    pub(crate) wake: Option<Nanos>,
    pub(crate) kills: u64,
    make_app: MakeApp,
    history: History,
    actions: Actions,
    rng: Rng,
}

impl Host {
    pub(crate) fn new(
        name: &'static str,
        config: Config,
        plan: HostPlan,
        v6: bool,
        seed: u64,
        make_app: MakeApp,
        history: History,
    ) -> Self {
        Self {
            name,
            engine: Engine::new(config.clone()),
            config,
            plan,
            v6,
            committed: BTreeMap::new(),
            memories: Memories {
                capacity: plan.buffers,
                ..Memories::default()
            },
            apps: BTreeMap::new(),
            inbox: Vec::new(),
            wake: None,
            kills: 0,
            make_app,
            history,
            actions: Actions::default(),
            rng: Rng::with_seed(seed),
        }
    }

    fn open(&mut self, now: Nanos) -> (ConnId, SocketRef) {
        let owner = self.memories.make();
        let params = OpenParams {
            owner,
            v6: self.v6,
            rcv_capacity: self.memories.capacity.1 as u32,
            snd_capacity: self.memories.capacity.0 as u32,
        };
        (self.engine.open(now, &params).unwrap(), owner)
    }

    pub(crate) fn listen(&mut self, now: Nanos, local: Endpoint) {
        let (id, _) = self.open(now);
        self.engine.bind(now, id, local).unwrap();
        if self.plan.fast_open {
            let option = abi::session::SockOpt::FastOpen(16);
            self.engine.set_option(now, id, &option).unwrap();
        }
        self.engine.listen(now, id, 128).unwrap();
        self.commit_all();
    }

    /// Connects from `local`; fails while TIME_WAIT holds these ends.
    pub(crate) fn connect(
        &mut self,
        now: Nanos,
        local: Endpoint,
        remote: Endpoint,
        app: impl FnOnce(ConnId, u32) -> App,
    ) -> Result<(), Errno> {
        let (id, owner) = self.open(now);
        let reuse = abi::session::SockOpt::ReuseAddr(true);
        self.engine.set_option(now, id, &reuse).unwrap();
        let route = Route {
            source: local.ip().unwrap(),
            mtu: 1500,
        };
        let generation = self.engine.record(id).unwrap().generation;
        let mut app = app(id, generation);
        for option in &app.options {
            let _ = self.engine.set_option(now, id, option);
        }
        let outcome = self.engine.bind(now, id, local).and_then(|_| {
            if !self.plan.fast_open {
                return self.engine.connect(now, id, remote, &route);
            }
            if let Some(record) = self.engine.record(id)
                && let Some(memory) = self.memories.sockets.get_mut(&owner.slot)
            {
                app.write_ahead(record, memory);
            }
            let written = app.words.written;
            self.engine
                .connect_with_data(now, id, remote, &route, written)
        });
        if let Err(errno) = outcome {
            self.engine.close(now, id);
            self.commit_all();
            return Err(errno);
        }
        self.apps.insert(owner.slot, app);
        self.commit_all();
        Ok(())
    }

    /// The calls above are answered only when they are committed.
    fn commit_all(&mut self) {
        self.committed = self.engine.records().map(|(id, tcb)| (id, *tcb)).collect();
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        [self.engine.next_deadline(), self.wake]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn on_icmp(&mut self, now: Nanos, error: &IcmpError) {
        self.engine.on_icmp_error(now, error);
    }

    /// One turn of the service loop.
    pub(crate) fn batch(&mut self, now: Nanos) -> Vec<Packet> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.retain(|packet| !packet.damaged || refuse(packet));
        if self.plan.gro {
            inbox = merge_received(inbox);
        }
        for packet in inbox {
            self.receive(now, &packet);
        }
        self.engine.on_timer(now);
        let options = self.show_words(now);
        self.give_windows(now);
        self.engine.trim_idle(now);
        self.engine.output(now, self.plan.budget);
        let dies = self.kills < MOST_KILLS && self.rng.f64() < self.plan.kill;
        let crash = dies.then(|| self.rng.u8(..7));
        let mut actions = std::mem::take(&mut self.actions);
        if crash != Some(0) {
            self.engine.drain(&mut actions);
        }
        let mut out = Vec::new();
        match crash {
            // Nothing of the batch has happened: it died before the drain, or after it.
            Some(0 | 1) => {}
            // Some of the records were committed.
            Some(2) => {
                let n = self.rng.usize(..=actions.dirty.len());
                self.commit(&actions.dirty[..n], &actions.segments);
            }
            // Everything was committed, nothing was let out.
            Some(3) => self.commit(&actions.dirty, &actions.segments),
            // Some of the segments were let out, and nobody was told.
            Some(4) => {
                self.commit(&actions.dirty, &actions.segments);
                let n = self.rng.usize(..=actions.segments.len());
                out = self.release(&actions.segments[..n]);
            }
            // Some were told.
            Some(5) => {
                self.commit(&actions.dirty, &actions.segments);
                out = self.release(&actions.segments);
                let n = self.rng.usize(..=actions.notices.len());
                self.notice(now, &actions.notices[..n]);
            }
            _ => {
                self.commit(&actions.dirty, &actions.segments);
                out = self.release(&actions.segments);
                self.notice(now, &actions.notices);
            }
        }
        if crash.is_none() {
            for (slot, n) in options {
                if let Some(app) = self.apps.get_mut(&slot) {
                    app.options.drain(..n);
                }
            }
        }
        actions.clear();
        self.actions = actions;
        if crash.is_some() {
            self.restart(now);
        }
        self.assert_bounded();
        self.run_apps(now);
        if crash.is_some() {
            // A restarted transport looks at all words.
            self.wake = Some(now);
        }
        out
    }

    fn receive(&mut self, now: Nanos, packet: &Packet) {
        let (repr, header) = packet.repr();
        let payload = &packet.bytes[header..];
        let meta = SegmentMeta {
            src: packet.src,
            dst: packet.dst,
            repr: &repr,
            payload_len: payload.len() as u32,
            gso_size: packet.gso_size,
            ce: packet.tos & 3 == 3,
            mtu: 1500,
        };
        self.engine
            .on_segment(now, &meta, &Bytes(payload), &mut self.memories);
    }

    /// Words are levels: the engine may look at them at any time. Returns how many options of
    /// each application were set.
    fn show_words(&mut self, now: Nanos) -> Vec<(u32, usize)> {
        let mut set = Vec::new();
        for (&slot, app) in &self.apps {
            let Some(record) = self.engine.record(app.conn) else {
                continue;
            };
            if record.generation != app.generation {
                continue;
            }
            for option in &app.options {
                // Some come too late, which the engine says.
                let _ = self.engine.set_option(now, app.conn, option);
            }
            if !app.options.is_empty() {
                set.push((slot, app.options.len()));
            }
            self.engine.on_app(now, app.conn, &app.words).unwrap();
            if app.closed {
                self.engine.close(now, app.conn);
            }
        }
        set
    }

    /// Everybody who outgrows the base gets the rest of its memory.
    fn give_windows(&mut self, now: Nanos) {
        let mut wanting = Vec::new();
        self.engine.take_wanting(&mut wanting);
        for id in wanting {
            self.engine.give_window(now, id, 1);
        }
    }

    /// `sent`: what is to be let out after it.
    fn commit(&mut self, dirty: &[ConnId], sent: &[SegmentOut]) {
        let queued = self.engine.wants_output();
        for &id in dirty {
            match self.engine.record(id) {
                Some(tcb) => {
                    let left = sent.iter().filter(|segment| segment.id == Some(id));
                    let left = left.filter_map(|segment| segment.payload);
                    let sent = left.map(|payload| u64::from(payload.len)).sum();
                    self.history.check(id, tcb, queued, sent);
                    self.committed.insert(id, *tcb);
                }
                None => {
                    self.history.forget(id);
                    self.committed.remove(&id);
                }
            }
        }
    }

    fn release(&mut self, segments: &[SegmentOut]) -> Vec<Packet> {
        let mut out = Vec::new();
        for segment in segments {
            let mut payload = Vec::new();
            if let Some(p) = segment.payload {
                // The record may have let go of the buffers meanwhile, but only if the peer has
                // everything.
                let Some(memory) = self.memories.sockets.get(&p.owner.slot) else {
                    continue;
                };
                let Some(record) = segment.id.and_then(|id| self.engine.record(id)) else {
                    continue;
                };
                for (_, at, len) in pieces(&record.memory.rings.tx, p.position, p.len.into()) {
                    payload.extend_from_slice(&memory.tx[at..at + len]);
                }
            }
            cut(segment, &payload, &mut self.rng, &mut out);
        }
        out
    }

    fn notice(&mut self, now: Nanos, notices: &[Notice]) {
        for notice in notices {
            match *notice {
                Notice::Accepted { child, .. } => self.accept(now, child),
                Notice::Released { owner, .. } => {
                    self.memories.sockets.remove(&owner.slot);
                }
                Notice::Spare(id) => self.give_back(id),
                _ => {}
            }
        }
    }

    /// Pages that hold nothing are given back: whoever looks there again finds something else.
    fn give_back(&mut self, id: ConnId) {
        if let Some(record) = self.committed.get(&id)
            && let Some(memory) = self.memories.sockets.get_mut(&record.owner.slot)
        {
            let rings = &record.memory.rings;
            let app = self.apps.get(&record.owner.slot);
            let written = app.map_or(record.written, |app| app.words.written);
            let unacked = record.acked_upto()..written.max(record.written);
            spoil(&mut memory.tx, &rings.tx, unacked);
            spoil(
                &mut memory.rx,
                &rings.rx,
                record.consumed..record.placed_upto(),
            );
        }
        self.engine.gave_back(id, true, true);
    }

    fn accept(&mut self, now: Nanos, child: ConnId) {
        let Some(record) = self.committed.get(&child) else {
            return;
        };
        let record = *record;
        if !self.apps.contains_key(&record.owner.slot) && record.owner != SocketRef::NONE {
            let app = (self.make_app)(child, &record);
            self.apps.insert(record.owner.slot, app);
        }
        self.engine.handed_over(now, child);
    }

    /// The engine is killed; its successor has the committed records.
    fn restart(&mut self, now: Nanos) {
        self.kills += 1;
        let mut refused = Vec::new();
        let records = self.committed.iter().map(|(&id, &tcb)| (id, tcb));
        self.engine = Engine::restore(self.config.clone(), now, records, &mut refused);
        assert!(refused.is_empty(), "refused {refused:?}");
        // What the dead one had let go of without being heard.
        let held: Vec<u32> = self.committed.values().map(|tcb| tcb.owner.slot).collect();
        self.memories.sockets.retain(|slot, _| held.contains(slot));
    }

    fn run_apps(&mut self, now: Nanos) {
        let mut wake: Option<Nanos> = None;
        for (slot, app) in &mut self.apps {
            if app.closed {
                continue;
            }
            let record = self
                .committed
                .get(&app.conn)
                .filter(|tcb| tcb.generation == app.generation);
            let memory = self
                .memories
                .sockets
                .get_mut(slot)
                .expect("memory of an open socket was released");
            let before = (app.words, app.options.len());
            let mut next = app.act(now, record, memory);
            if before != (app.words, app.options.len()) || app.closed {
                // The doorbell.
                next = Some(now + 1_000);
            }
            wake = [wake, next].into_iter().flatten().min();
        }
        self.wake = wake;
        // Nobody asks for those that are over any more.
        let (committed, memories) = (&self.committed, &self.memories);
        self.apps.retain(|slot, app| {
            !app.closed
                || memories.sockets.contains_key(slot)
                || committed
                    .get(&app.conn)
                    .is_some_and(|tcb| tcb.generation == app.generation)
        });
    }

    /// No application has anything left to do, and no connection is on its way to one.
    pub(crate) fn is_quiet(&self) -> bool {
        use tcpd::engine::Accept::{Embryonic, HandedOver, Ready};
        self.apps.values().all(|app| app.closed)
            && !self
                .committed
                .values()
                .any(|tcb| matches!(tcb.accept(), Embryonic | Ready | HandedOver))
    }

    /// No connection is left, only the listener.
    pub(crate) fn is_idle(&self) -> bool {
        self.committed
            .values()
            .all(|tcb| tcb.state() == State::Listen)
            && self.apps.values().all(|app| app.closed)
            && !self.engine.wants_output()
    }

    /// At the end nothing is held any more but listeners.
    pub(crate) fn assert_baseline(&self) {
        let listeners = self.committed.len();
        assert_eq!(self.engine.records().count(), listeners, "records leaked");
        assert_eq!(self.memories.sockets.len(), listeners, "memory leaked");
        let held = self.engine.footprint();
        assert_eq!(held.flows, 0, "{held:?}");
        assert_eq!(held.ports, listeners, "{held:?}");
    }

    /// What a host holds is bounded by its sockets, whatever the peer does.
    fn assert_bounded(&self) {
        let held = self.engine.footprint();
        assert!(
            held.heap <= 100 + 8 * held.records,
            "the timer heap grows: {held:?}"
        );
        // Those that went in this batch are still named.
        assert!(held.queued <= held.records + 64, "{held:?}");
        assert!(held.flows <= held.records, "{held:?}");
    }
}

/// A damaged packet, as tcpd's process meets it: the parser takes whatever comes, and the checksum
/// says what it is. It goes no further.
fn refuse(packet: &Packet) -> bool {
    let _ = Repr::parse(&packet.bytes);
    let (src, dst) = (packet.src.ip().unwrap(), packet.dst.ip().unwrap());
    let right = wire::tcp::verify_checksum(&packet.bytes, src, dst);
    assert!(!right, "damage that does not show");
    false
}

/// Payload in hand.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl tcpd::engine::Payload for Bytes<'_> {
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        match self.0.get(offset..offset + to.len()) {
            Some(from) => {
                to.copy_from_slice(from);
                true
            }
            None => false,
        }
    }
}

/// Cuts a unit into wire segments, as a device would; now and then the path keeps some merged.
fn cut(segment: &SegmentOut, payload: &[u8], rng: &mut Rng, out: &mut Vec<Packet>) {
    let mss = usize::from(segment.gso_size);
    let piece = match mss {
        0 => payload.len().max(1),
        _ => mss * rng.usize(1..6),
    };
    let mut at = 0;
    loop {
        let end = (at + piece).min(payload.len());
        let mut repr: Repr = segment.repr.clone();
        repr.seq += at as u32;
        if end < payload.len() {
            repr.flags.remove(Flags::FIN | Flags::PSH);
        }
        let mut bytes = vec![0; repr.header_len()];
        repr.emit(&mut bytes).unwrap();
        bytes.extend_from_slice(&payload[at..end]);
        let packet = Packet {
            src: segment.src,
            dst: segment.dst,
            bytes,
            gso_size: if end - at > mss { segment.gso_size } else { 0 },
            tos: segment.tos,
            damaged: false,
        };
        assert!(packet.ip_len() <= 1_500, "larger than the device's MTU");
        out.push(packet);
        at = end;
        if at >= payload.len() {
            return;
        }
    }
}
