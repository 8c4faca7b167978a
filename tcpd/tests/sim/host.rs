//! One machine: an engine, its committed records, the memory of its sockets, its applications;
//! and a shell that does what tcpd's process does, crashes included.

use crate::app::{App, Memory};
use crate::invariants::History;
use crate::link::Packet;
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use std::collections::{BTreeMap, HashMap};
use tcpd::engine::{
    Actions, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route, SegmentMeta,
    SegmentOut, SocketRef, Tcb,
};
use wire::tcp::Repr;

/// All sockets' memory.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    pub(crate) sockets: HashMap<SocketRef, Memory>,
    next_slot: u32,
    capacity: (usize, usize),
}

impl Memories {
    fn make(&mut self) -> SocketRef {
        self.next_slot += 1;
        let owner = SocketRef {
            region: 1 << 24,
            slot: self.next_slot,
        };
        let memory = Memory {
            tx: vec![0; self.capacity.0],
            rx: vec![0; self.capacity.1],
        };
        self.sockets.insert(owner, memory);
        owner
    }
}

impl Buffers for Memories {
    fn place(
        &mut self,
        owner: SocketRef,
        position: u64,
        payload: &dyn Payload,
        offset: usize,
        len: usize,
    ) -> bool {
        let Some(memory) = self.sockets.get_mut(&owner) else {
            return false;
        };
        let mut bytes = vec![0; len];
        assert!(payload.copy_to(offset, &mut bytes));
        let size = memory.rx.len();
        assert!(len <= size);
        for (i, byte) in bytes.into_iter().enumerate() {
            memory.rx[(position as usize + i) % size] = byte;
        }
        true
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        Some(self.make())
    }
}

/// How applications on a host behave; told by the world.
pub(crate) type MakeApp = Box<dyn FnMut(ConnId, &Tcb) -> App>;

pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) committed: BTreeMap<ConnId, Tcb>,
    pub(crate) memories: Memories,
    pub(crate) apps: HashMap<SocketRef, App>,
    pub(crate) inbox: Vec<Packet>,
    pub(crate) wake: Option<Nanos>,
    /// Probability that a batch ends in a crash.
    pub(crate) kill: f64,
    pub(crate) kills: u64,
    pub(crate) finished: u64,
    make_app: MakeApp,
    history: History,
    actions: Actions,
    rng: Rng,
}

impl Host {
    pub(crate) fn new(
        name: &'static str,
        config: Config,
        capacity: (usize, usize),
        kill: f64,
        seed: u64,
        make_app: MakeApp,
    ) -> Self {
        Self {
            name,
            engine: Engine::new(config.clone()),
            config,
            committed: BTreeMap::new(),
            memories: Memories {
                capacity,
                ..Memories::default()
            },
            apps: HashMap::new(),
            inbox: Vec::new(),
            wake: None,
            kill,
            kills: 0,
            finished: 0,
            make_app,
            history: History::default(),
            actions: Actions::default(),
            rng: Rng::with_seed(seed),
        }
    }

    fn open(&mut self, now: Nanos) -> (ConnId, SocketRef) {
        let owner = self.memories.make();
        let params = OpenParams {
            owner,
            v6: false,
            rcv_capacity: self.memories.capacity.1 as u32,
            snd_capacity: self.memories.capacity.0 as u32,
        };
        (self.engine.open(now, &params).unwrap(), owner)
    }

    pub(crate) fn listen(&mut self, now: Nanos, local: Endpoint) {
        let (id, _) = self.open(now);
        self.engine.bind(now, id, local).unwrap();
        self.engine.listen(now, id, 128).unwrap();
        self.commit_all();
    }

    pub(crate) fn connect(
        &mut self,
        now: Nanos,
        local: Option<Endpoint>,
        source: Endpoint,
        remote: Endpoint,
        app: impl FnOnce(ConnId, u32) -> App,
    ) {
        let (id, owner) = self.open(now);
        if let Some(local) = local {
            self.engine.bind(now, id, local).unwrap();
        }
        let route = Route {
            source: source.ip().unwrap(),
            mtu: 1500,
        };
        self.engine.connect(now, id, remote, &route).unwrap();
        let generation = self.engine.record(id).unwrap().generation;
        self.apps.insert(owner, app(id, generation));
        self.commit_all();
    }

    /// The calls above are answered only when they are committed.
    fn commit_all(&mut self) {
        for (id, tcb) in self.engine.records() {
            self.committed.insert(id, *tcb);
        }
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        [self.engine.next_deadline(), self.wake]
            .into_iter()
            .flatten()
            .min()
    }

    /// One turn of the service loop.
    pub(crate) fn batch(&mut self, now: Nanos, budget: usize) -> Vec<Packet> {
        for packet in std::mem::take(&mut self.inbox) {
            self.receive(now, &packet);
        }
        self.engine.on_timer(now);
        self.show_words(now);
        self.engine.output(now, budget);
        let mut actions = std::mem::take(&mut self.actions);
        self.engine.drain(&mut actions);
        let crash = (self.rng.f64() < self.kill).then(|| self.rng.u8(..4));
        let mut out = Vec::new();
        match crash {
            // Nothing of the batch has happened.
            Some(0) => {}
            // Some of the records were committed.
            Some(1) => {
                let n = self.rng.usize(..=actions.dirty.len());
                self.commit(&actions.dirty[..n]);
            }
            // Everything was committed, nothing was let out.
            Some(2) => self.commit(&actions.dirty),
            _ => {
                self.commit(&actions.dirty);
                out = self.release(&actions.segments);
                self.notice(now, &actions.notices);
            }
        }
        self.actions = actions;
        if crash.is_some() {
            self.restart(now);
        }
        self.run_apps(now);
        if crash.is_some() {
            // A restarted transport looks at all words.
            self.wake = Some(now);
        }
        out
    }

    fn receive(&mut self, now: Nanos, packet: &Packet) {
        let (repr, header) = Repr::parse(&packet.bytes).unwrap();
        let payload = packet.bytes[header..].to_vec();
        let meta = SegmentMeta {
            src: packet.src,
            dst: packet.dst,
            repr: &repr,
            payload_len: payload.len() as u32,
            gso_size: packet.gso_size,
            ce: false,
            mtu: 1500,
        };
        self.engine
            .on_segment(now, &meta, &Bytes(payload), &mut self.memories);
    }

    /// Words are levels: the engine may look at them at any time.
    fn show_words(&mut self, now: Nanos) {
        for app in self.apps.values() {
            let Some(record) = self.engine.record(app.conn) else {
                continue;
            };
            if record.generation != app.generation {
                continue;
            }
            self.engine.on_app(now, app.conn, &app.words).unwrap();
            if app.closed {
                self.engine.close(now, app.conn);
            }
        }
    }

    fn commit(&mut self, dirty: &[ConnId]) {
        let queued = self.engine.wants_output();
        for &id in dirty {
            match self.engine.record(id) {
                Some(tcb) => {
                    self.history.check(id, tcb, queued);
                    self.committed.insert(id, *tcb);
                }
                None => {
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
                let Some(memory) = self.memories.sockets.get(&p.owner) else {
                    continue;
                };
                let size = memory.tx.len();
                payload.extend(
                    (p.position..p.position + u64::from(p.len))
                        .map(|position| memory.tx[position as usize % size]),
                );
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
                    self.memories.sockets.remove(&owner);
                }
                Notice::ConnectFailed(id) => panic!("{}: {id:?} failed to connect", self.name),
                Notice::Reset(id) => panic!("{}: {id:?} was reset", self.name),
                Notice::Finished(_) => self.finished += 1,
                _ => {}
            }
        }
    }

    fn accept(&mut self, now: Nanos, child: ConnId) {
        let Some(record) = self.committed.get(&child) else {
            return;
        };
        let record = *record;
        if !self.apps.contains_key(&record.owner) && record.owner != SocketRef::NONE {
            let app = (self.make_app)(child, &record);
            self.apps.insert(record.owner, app);
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
    }

    fn run_apps(&mut self, now: Nanos) {
        let mut wake: Option<Nanos> = None;
        for (owner, app) in &mut self.apps {
            let record = self
                .committed
                .get(&app.conn)
                .filter(|tcb| tcb.generation == app.generation);
            let Some(memory) = self.memories.sockets.get_mut(owner) else {
                assert!(app.closed, "memory of an open socket was released");
                continue;
            };
            let was_closed = app.closed;
            let before = app.words;
            let mut next = app.act(now, record, memory);
            if before != app.words || was_closed != app.closed {
                // The doorbell.
                next = Some(now + 1_000);
            }
            wake = [wake, next].into_iter().flatten().min();
        }
        self.wake = wake;
    }

    /// Every application has what it waits for.
    pub(crate) fn is_delivered(&self) -> bool {
        !self.apps.is_empty() && self.apps.values().all(App::is_delivered)
    }

    /// No connection is left, only the listener.
    pub(crate) fn is_idle(&self) -> bool {
        self.committed
            .values()
            .all(|tcb| tcb.state() == tcpd::engine::State::Listen)
            && self.apps.values().all(|app| app.closed)
    }
}

/// Payload in hand.
pub(crate) struct Bytes(pub Vec<u8>);

impl Payload for Bytes {
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        self.0.copy_to_slice(offset, to)
    }
}

trait CopyToSlice {
    fn copy_to_slice(&self, offset: usize, to: &mut [u8]) -> bool;
}

impl CopyToSlice for Vec<u8> {
    fn copy_to_slice(&self, offset: usize, to: &mut [u8]) -> bool {
        match self.get(offset..offset + to.len()) {
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
    use wire::tcp::Flags;
    let mss = usize::from(segment.gso_size);
    let merged = if mss == 0 { 0 } else { mss * rng.usize(1..6) };
    let piece = if merged == 0 {
        payload.len().max(1)
    } else {
        merged
    };
    let mut at = 0;
    loop {
        let end = (at + piece).min(payload.len());
        let mut repr = segment.repr.clone();
        repr.seq += at as u32;
        if end < payload.len() {
            repr.flags.remove(Flags::FIN | Flags::PSH);
        }
        let len = repr.header_len();
        let mut bytes = vec![0; len];
        repr.emit(&mut bytes).unwrap();
        bytes.extend_from_slice(&payload[at..end]);
        assert!(
            len + end - at <= 1480 || segment.gso_size != 0,
            "larger than the MTU"
        );
        out.push(Packet {
            src: segment.src,
            dst: segment.dst,
            bytes,
            gso_size: if end - at > mss { segment.gso_size } else { 0 },
        });
        at = end;
        if at >= payload.len() {
            return;
        }
    }
}
