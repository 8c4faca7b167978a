//! Two engines and a path, without payload: fast enough for long flows on fast links.

use abi::{Endpoint, Nanos};
use std::collections::BTreeMap;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route,
    SegmentMeta, SocketRef, Tcb,
};
use wire::tcp::{Flags, Repr};

pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const S: Nanos = 1_000 * MS;

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
        _: &abi::session::Rings,
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

/// A path, the same both ways; only data is reordered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// Round-trip time.
    pub(crate) rtt: Nanos,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Bytes that wait at the most.
    pub(crate) queue: u64,
    /// Probability of loss for each wire segment.
    pub(crate) loss: f64,
    /// The same for bare acknowledgements.
    pub(crate) ack_loss: f64,
    /// Probability for each wire segment to be late.
    pub(crate) reorder: f64,
    /// By how much at the most.
    pub(crate) late: Nanos,
    /// The device cuts and merges: units arrive as they were sent, less what was lost.
    pub(crate) gro: bool,
    /// Bytes of each end's buffers: they bound the flight.
    pub(crate) buffer: u32,
}

impl Path {
    /// In Mbit/s and milliseconds, with a queue of one bandwidth-delay product.
    pub(crate) fn new(mbit: u64, rtt_us: u64) -> Self {
        let rate = mbit * 125_000;
        let rtt = rtt_us * 1_000;
        Self {
            rtt,
            rate,
            queue: (rate * rtt_us / 1_000_000).max(150_000),
            loss: 0.0,
            ack_loss: 0.0,
            reorder: 0.0,
            late: 0,
            gro: false,
            buffer: 64 << 20,
        }
    }
}

struct Packet {
    repr: Repr,
    src: Endpoint,
    dst: Endpoint,
    len: u32,
    gso_size: u16,
}

struct Wire {
    queue: BTreeMap<(Nanos, u64), Packet>,
    order: u64,
    free_at: Nanos,
}

pub(crate) struct Side {
    pub(crate) engine: Engine,
    config: Config,
    actions: Actions,
    conn: ConnId,
    wire: Wire,
}

impl Side {
    fn new(config: Config, buffer: u32) -> Self {
        let mut engine = Engine::new(config.clone());
        let params = OpenParams {
            owner: SocketRef { region: 1, slot: 1 },
            v6: false,
            rcv_capacity: buffer,
            snd_capacity: buffer,
        };
        let conn = engine.open(1, &params).unwrap();
        Self {
            engine,
            config,
            actions: Actions::default(),
            conn,
            wire: Wire {
                queue: BTreeMap::new(),
                order: 0,
                free_at: 0,
            },
        }
    }

    pub(crate) fn tcb(&self) -> &Tcb {
        self.engine.record(self.conn).unwrap()
    }
}

pub(crate) struct Net {
    pub(crate) now: Nanos,
    pub(crate) client: Side,
    pub(crate) server: Side,
    pub(crate) path: Path,
    buffer: u32,
    rng: fastrand::Rng,
}

impl Net {
    /// A client that sends as much as it can.
    pub(crate) fn new(path: Path, config: &Config, seed: u64) -> Self {
        let buffer = path.buffer;
        let now = 10 * S;
        let side = |n: u8| {
            let config = Config {
                secret: [n; 16],
                memory: tcpd::engine::memory::MemoryConfig::fixed(),
                ..config.clone()
            };
            Side::new(config, buffer)
        };
        let (mut client, mut server) = (side(1), side(2));
        let remote = Endpoint::new([10, 0, 0, 2].into(), 80);
        server.engine.bind(now, server.conn, remote).unwrap();
        server.engine.listen(now, server.conn, 5).unwrap();
        let route = Route {
            source: [10, 0, 0, 1].into(),
            mtu: 1500,
        };
        client
            .engine
            .connect(now, client.conn, remote, &route)
            .unwrap();
        Self {
            now,
            client,
            server,
            path,
            buffer,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Runs for `time`; returns the bytes delivered in it.
    pub(crate) fn run(&mut self, time: Nanos) -> u64 {
        let end = self.now + time;
        let before = self.client.tcb().acked_upto();
        while self.now < end {
            self.step(end);
        }
        self.client.tcb().acked_upto() - before
    }

    fn step(&mut self, end: Nanos) {
        let path = self.path;
        self.write();
        turn(&mut self.client, self.now, &path, &mut self.rng);
        self.read();
        turn(&mut self.server, self.now, &path, &mut self.rng);
        let next = [&self.client, &self.server]
            .into_iter()
            .flat_map(|side| {
                [
                    side.engine.next_deadline(),
                    side.wire.queue.keys().next().map(|&(at, _)| at),
                    side.engine.wants_output().then_some(self.now + 1_000),
                ]
            })
            .flatten()
            .min();
        self.now = next
            .unwrap_or(end)
            .clamp(self.now + 1, end.max(self.now + 1));
        take(&mut self.client.wire, &mut self.server.engine, self.now);
        take(&mut self.server.wire, &mut self.client.engine, self.now);
        self.client.engine.on_timer(self.now);
        self.server.engine.on_timer(self.now);
    }

    fn write(&mut self) {
        let record = *self.client.tcb();
        if record.state().can_transmit() {
            let most = record.acked_upto() + u64::from(self.buffer);
            let words = AppWords {
                written: most.max(record.written),
                ..AppWords::default()
            };
            let conn = self.client.conn;
            self.client.engine.on_app(self.now, conn, &words).unwrap();
        }
    }

    fn read(&mut self) {
        let record = self.server.tcb();
        if record.state().can_receive() {
            let words = AppWords {
                consumed: record.received_upto(),
                accepted: true,
                ..AppWords::default()
            };
            let conn = self.server.conn;
            self.server.engine.on_app(self.now, conn, &words).unwrap();
        }
    }

    /// The sender is killed and restored from what it last committed, `dead` later; what it had
    /// sent goes on its way, and what comes for it waits.
    pub(crate) fn kill(&mut self, dead: Nanos) {
        let records: Vec<_> = self
            .client
            .engine
            .records()
            .map(|(id, tcb)| (id, *tcb))
            .collect();
        let end = self.now + dead;
        let path = self.path;
        while self.now < end {
            let next = self.client.wire.queue.keys().next().map(|&(at, _)| at);
            let timer = self.server.engine.next_deadline();
            self.now = [next, timer, Some(end)]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(end)
                .clamp(self.now + 1, end.max(self.now + 1));
            take(&mut self.client.wire, &mut self.server.engine, self.now);
            self.server.engine.on_timer(self.now);
            self.read();
            turn(&mut self.server, self.now, &path, &mut self.rng);
        }
        let mut refused = vec![];
        self.client.engine =
            Engine::restore(self.client.config.clone(), self.now, records, &mut refused);
        assert!(refused.is_empty());
        // The timers of the new process go first.
        self.client.engine.on_timer(self.now);
    }
}

fn turn(side: &mut Side, now: Nanos, path: &Path, rng: &mut fastrand::Rng) {
    side.engine.output(now, 1_000);
    let mut actions = std::mem::take(&mut side.actions);
    side.engine.drain(&mut actions);
    for notice in &actions.notices {
        if let Notice::Accepted { child, .. } = *notice {
            side.conn = child;
            side.engine.handed_over(now, child);
        }
    }
    for segment in &actions.segments {
        let total = segment.payload.map_or(0, |p| p.len);
        let size = match segment.gso_size {
            0 => total.max(1),
            n => u32::from(n),
        };
        let mut at = 0;
        // What was cut and not lost in between is merged again.
        let mut run: Option<(u32, u32)> = None;
        let mut sent;
        loop {
            let len = size.min(total - at);
            side.wire.free_at = side.wire.free_at.max(now);
            let waiting = (side.wire.free_at - now) * path.rate / S;
            let full = len > 0 && waiting > path.queue;
            // A handshake is not what this is about.
            let syn = segment.repr.flags.contains(Flags::SYN);
            let loss = if len > 0 { path.loss } else { path.ack_loss };
            let lost = full || (!syn && loss > 0.0 && rng.f64() < loss);
            if !full {
                side.wire.free_at += (u64::from(len) + 66) * S / path.rate;
            }
            sent = side.wire.free_at + path.rtt / 2;
            if len > 0 && rng.f64() < path.reorder {
                sent += rng.u64(0..=path.late);
            }
            if path.gro {
                if lost {
                    put(&mut side.wire, sent, segment, run.take());
                } else {
                    run = Some(run.map_or((at, len), |(from, n)| (from, n + len)));
                }
            } else if !lost {
                put(&mut side.wire, sent, segment, Some((at, len)));
            }
            at += len;
            if at >= total {
                put(&mut side.wire, sent, segment, run);
                break;
            }
        }
    }
    side.actions = actions;
}

fn put(wire: &mut Wire, at: Nanos, segment: &tcpd::engine::SegmentOut, part: Option<(u32, u32)>) {
    let Some((from, len)) = part else {
        return;
    };
    let mut repr = segment.repr.clone();
    repr.seq += from as usize as u32;
    wire.order += 1;
    let packet = Packet {
        repr,
        src: segment.src,
        dst: segment.dst,
        len,
        gso_size: if len > u32::from(segment.gso_size) {
            segment.gso_size
        } else {
            0
        },
    };
    wire.queue.insert((at, wire.order), packet);
}

fn take(wire: &mut Wire, engine: &mut Engine, now: Nanos) {
    while let Some(entry) = wire.queue.first_entry() {
        if entry.key().0 > now {
            break;
        }
        let packet = entry.remove();
        let meta = SegmentMeta {
            src: packet.src,
            dst: packet.dst,
            repr: &packet.repr,
            payload_len: packet.len,
            gso_size: packet.gso_size,
            ce: false,
            mtu: 1500,
        };
        engine.on_segment(now, &meta, &Nowhere, &mut Nowhere);
    }
}
