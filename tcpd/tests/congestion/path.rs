//! Hosts that send to one receiver through a bottleneck: a rate, a drop-tail queue, a delay,
//! chance losses. Payload is only counted. Units are cut into segments before the queue, as a
//! device does.

use abi::session::Rings;
use abi::{Endpoint, Nanos};
use std::collections::BTreeMap;
use tcpd::engine::congestion::Algorithm;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route,
    SegmentMeta, SegmentOut, SocketRef, Tcb,
};
use wire::tcp::{Flags, Repr};

pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000 * MS;
/// Bytes a second of 100 Mbit/s.
pub(crate) const MBIT_100: u64 = 12_500_000;
const BUFFER: u32 = 16 << 20;
const PORT: u16 = 80;

struct Nowhere;

impl Payload for Nowhere {
    fn copy_to(&self, _: usize, _: &mut [u8]) -> bool {
        true
    }
}

impl Buffers for Nowhere {
    fn place(
        &mut self,
        _: SocketRef,
        _: &Rings,
        _: u64,
        _: &dyn Payload,
        _: usize,
        _: usize,
    ) -> bool {
        true
    }

    fn attach(&mut self, _: ConnId, owner: SocketRef, _: ConnId) -> Option<SocketRef> {
        Some(owner)
    }
}

/// The bottleneck.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Bytes that wait at the most.
    pub(crate) queue: u64,
    /// Both ways together.
    pub(crate) rtt: Nanos,
    /// Probability.
    pub(crate) loss: f64,
}

struct Wire {
    to: usize,
    src: Endpoint,
    dst: Endpoint,
    repr: Repr,
    len: u32,
}

struct Host {
    engine: Engine,
    config: Config,
    actions: Actions,
    conn: ConnId,
    /// When its application begins.
    from: Nanos,
}

/// What a flow got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Bytes delivered.
    pub(crate) bytes: u64,
}

pub(crate) struct Path {
    pub(crate) now: Nanos,
    link: Link,
    hosts: Vec<Host>,
    server: Host,
    children: Vec<ConnId>,
    flying: BTreeMap<(Nanos, u64), Wire>,
    order: u64,
    free_at: Nanos,
    rng: fastrand::Rng,
    /// Longest that the queue was since it was last asked, in time.
    worst: Nanos,
    pub(crate) dropped: u64,
}

fn host(n: u8, config: Config) -> Host {
    let config = Config {
        secret: [n; 16],
        ..config
    };
    let mut engine = Engine::new(config.clone());
    let params = OpenParams {
        owner: SocketRef { region: 1, slot: 1 },
        v6: false,
        rcv_capacity: BUFFER,
        snd_capacity: BUFFER,
    };
    let conn = engine.open(1, &params).unwrap();
    Host {
        engine,
        config,
        actions: Actions::default(),
        conn,
        from: 0,
    }
}

/// Everybody who outgrows the base gets the rest of its memory.
fn give_windows(engine: &mut Engine, now: Nanos) {
    let mut wanting = Vec::new();
    engine.take_wanting(&mut wanting);
    for id in wanting {
        engine.give_window(now, id, 1);
    }
}

fn address(n: usize) -> Endpoint {
    Endpoint::new([10, 0, (n / 200) as u8, (n % 200) as u8 + 1].into(), 0)
}

impl Path {
    /// One flow for each algorithm, the next a little later than the one before.
    pub(crate) fn new(link: Link, flows: &[Algorithm], seed: u64) -> Self {
        let start = 10 * SECOND + seed * 7_919;
        let mut server = host(200, Config::default());
        let remote = Endpoint::new([10, 9, 9, 9].into(), PORT);
        server.engine.bind(start, server.conn, remote).unwrap();
        server.engine.listen(start, server.conn, 50).unwrap();
        let mut hosts = Vec::new();
        for (n, &congestion) in flows.iter().enumerate() {
            let config = Config {
                congestion,
                ..Config::default()
            };
            let mut h = host(n as u8 + 1, config);
            let route = Route {
                source: address(n).ip().unwrap(),
                mtu: 1500,
            };
            h.engine.connect(start, h.conn, remote, &route).unwrap();
            h.from = start + n as u64 * 137 * MS;
            hosts.push(h);
        }
        Self {
            now: start,
            link,
            hosts,
            server,
            children: Vec::new(),
            flying: BTreeMap::new(),
            order: 0,
            free_at: 0,
            rng: fastrand::Rng::with_seed(seed),
            worst: 0,
            dropped: 0,
        }
    }

    pub(crate) fn tcb(&self, flow: usize) -> &Tcb {
        let h = &self.hosts[flow];
        h.engine.record(h.conn).unwrap()
    }

    pub(crate) fn outcome(&self, flow: usize) -> Outcome {
        Outcome {
            bytes: self.tcb(flow).acked_upto(),
        }
    }

    /// The longest queue since the last call, as time.
    pub(crate) fn worst_queue(&mut self) -> Nanos {
        core::mem::take(&mut self.worst)
    }

    /// The sender dies and goes on from its record.
    pub(crate) fn kill(&mut self, flow: usize) {
        let h = &mut self.hosts[flow];
        let records: Vec<(ConnId, Tcb)> = h.engine.records().map(|(id, t)| (id, *t)).collect();
        let mut refused = Vec::new();
        h.engine = Engine::restore(h.config.clone(), self.now, records, &mut refused);
        assert!(refused.is_empty());
    }

    fn transmit(&mut self, to: usize, out: &SegmentOut) {
        let len = out.payload.map_or(0, |p| p.len);
        let size = match out.gso_size {
            0 => len.max(1),
            size => u32::from(size),
        };
        let mut done = 0;
        loop {
            let part = (len - done).min(size);
            let mut repr = out.repr.clone();
            repr.seq.0 = repr.seq.0.wrapping_add(done);
            done += part;
            if done < len {
                repr.flags.remove(Flags::FIN | Flags::PSH);
            }
            self.enqueue(Wire {
                to,
                src: out.src,
                dst: out.dst,
                repr,
                len: part,
            });
            if done >= len {
                return;
            }
        }
    }

    fn enqueue(&mut self, wire: Wire) {
        let mut at = self.now;
        if wire.to == usize::MAX {
            let free_at = self.free_at.max(self.now);
            let waiting = free_at - self.now;
            let backlog = waiting as u128 * u128::from(self.link.rate) / u128::from(SECOND);
            if backlog as u64 + u64::from(wire.len) > self.link.queue {
                self.dropped += 1;
                return;
            }
            self.worst = self.worst.max(waiting);
            let bytes = u64::from(wire.len) + 66;
            self.free_at = free_at + bytes * SECOND / self.link.rate;
            at = self.free_at;
            // Behind the bottleneck, so that what is lost took its time.
            if self.rng.f64() < self.link.loss {
                return;
            }
        }
        at += self.link.rtt / 2;
        self.order += 1;
        self.flying.insert((at, self.order), wire);
    }

    /// Runs for `time`.
    pub(crate) fn run(&mut self, time: Nanos) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            let timers = self
                .hosts
                .iter()
                .chain([&self.server])
                .filter_map(|h| h.engine.next_deadline());
            let next = timers
                .chain(self.flying.keys().next().map(|&(at, _)| at))
                .min()
                .unwrap();
            self.now = next.max(self.now + 1).min(end);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let wire = entry.remove();
            let meta = SegmentMeta {
                src: wire.src,
                dst: wire.dst,
                repr: &wire.repr,
                payload_len: wire.len,
                gso_size: 0,
                ce: false,
                mtu: 1500,
            };
            let engine = match self.hosts.get_mut(wire.to) {
                Some(h) => &mut h.engine,
                None => &mut self.server.engine,
            };
            engine.on_segment(now, &meta, &Nowhere, &mut Nowhere);
            // As a process does with few packets: what follows from this one leaves at once.
            if wire.to == usize::MAX {
                self.serve();
            } else {
                self.send(wire.to);
            }
        }
        for n in 0..self.hosts.len() {
            self.hosts[n].engine.on_timer(now);
            self.send(n);
        }
        self.server.engine.on_timer(now);
        self.serve();
    }

    fn send(&mut self, n: usize) {
        let now = self.now;
        let h = &mut self.hosts[n];
        let record = h.engine.record(h.conn).unwrap();
        if record.state().can_transmit() && now >= h.from {
            let written = record.write_limit();
            if written > record.written {
                let words = AppWords {
                    written,
                    ..AppWords::default()
                };
                h.engine.on_app(now, h.conn, &words).unwrap();
            }
        }
        give_windows(&mut self.hosts[n].engine, now);
        let h = &mut self.hosts[n];
        h.engine.output(now, 1_000);
        let mut actions = std::mem::take(&mut h.actions);
        h.engine.drain(&mut actions);
        for out in &actions.segments {
            self.transmit(usize::MAX, out);
        }
        self.hosts[n].actions = actions;
    }

    fn serve(&mut self) {
        let now = self.now;
        for &child in &self.children {
            let Some(record) = self.server.engine.record(child) else {
                continue;
            };
            let consumed = record.received_upto();
            if consumed > record.consumed {
                let words = AppWords {
                    consumed,
                    accepted: true,
                    ..AppWords::default()
                };
                self.server.engine.on_app(now, child, &words).unwrap();
            }
        }
        give_windows(&mut self.server.engine, now);
        self.server.engine.output(now, 1_000);
        let mut actions = std::mem::take(&mut self.server.actions);
        self.server.engine.drain(&mut actions);
        for notice in &actions.notices {
            if let Notice::Accepted { child, .. } = *notice {
                self.children.push(child);
            }
        }
        for out in &actions.segments {
            let to = (0..self.hosts.len())
                .find(|&n| address(n).ip() == out.dst.ip())
                .unwrap();
            self.transmit(to, out);
        }
        self.server.actions = actions;
    }
}
