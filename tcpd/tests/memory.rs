//! Buffers that grow, pressure, idle sockets: the engine alone, with an application that reads and
//! writes at once, over a path of 100 ms.
#![allow(clippy::unwrap_used, reason = "a test")]

use abi::Endpoint;
use abi::session::{Rings, SockOpt, SockOptName};
use tcpd::engine::memory::{Limits, MemoryConfig};
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route,
    SegmentMeta, SegmentOut, SocketRef,
};

const DELAY: u64 = 50_000_000;
const STEP: u64 = 5_000_000;

struct Nothing;

impl Payload for Nothing {
    fn copy_to(&self, _: usize, _: &mut [u8]) -> bool {
        true
    }
}

impl Buffers for Nothing {
    fn place(
        &mut self,
        _: SocketRef,
        rings: &Rings,
        position: u64,
        _: &dyn Payload,
        _: usize,
        _: usize,
    ) -> bool {
        rings.rx.stretch(position).is_some()
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        Some(SocketRef { region: 2, slot: 7 })
    }
}

struct Host {
    engine: Engine,
    conn: ConnId,
    idle: Vec<ConnId>,
    /// Segments on their way, with the time of their arrival.
    wire: Vec<(u64, SegmentOut)>,
}

impl Host {
    fn new(n: u8, memory: &MemoryConfig) -> Self {
        let config = Config {
            secret: [n; 16],
            memory: memory.clone(),
            ..Config::default()
        };
        let mut engine = Engine::new(config);
        let params = OpenParams {
            owner: SocketRef { region: 1, slot: 1 },
            v6: false,
            rcv_capacity: 8 << 20,
            snd_capacity: 8 << 20,
        };
        let conn = engine.open(1, &params).unwrap();
        Self {
            engine,
            conn,
            idle: Vec::new(),
            wire: Vec::new(),
        }
    }

    fn turn(&mut self, now: u64, write: bool, read: bool) {
        self.engine.on_timer(now);
        if let Some(tcb) = self.engine.record(self.conn).copied()
            && tcb.state().is_synchronized()
        {
            let words = AppWords {
                written: if write {
                    tcb.write_limit()
                } else {
                    tcb.written
                },
                consumed: if read {
                    tcb.received_upto()
                } else {
                    tcb.consumed
                },
                accepted: true,
                ..AppWords::default()
            };
            self.engine.on_app(now, self.conn, &words).unwrap();
        }
        let mut wanting = Vec::new();
        self.engine.take_wanting(&mut wanting);
        for id in wanting {
            self.engine.give_window(now, id, 1);
        }
        self.engine.trim_idle(now);
        self.engine.output(now, 1_000);
        let mut actions = Actions::default();
        self.engine.drain(&mut actions);
        for notice in &actions.notices {
            match *notice {
                Notice::Accepted { child, .. } => self.conn = child,
                Notice::Idle(id) => self.idle.push(id),
                _ => {}
            }
        }
        let sent = actions.segments.drain(..).map(|s| (now + DELAY, s));
        self.wire.extend(sent);
    }

    fn arrived(&mut self, now: u64) -> Vec<SegmentOut> {
        let (there, under_way) = self.wire.drain(..).partition(|(at, _)| *at <= now);
        self.wire = under_way;
        let there: Vec<(u64, SegmentOut)> = there;
        there.into_iter().map(|(_, s)| s).collect()
    }

    fn take(&mut self, now: u64, segments: &[SegmentOut]) {
        for s in segments {
            let meta = SegmentMeta {
                src: s.src,
                dst: s.dst,
                repr: &s.repr,
                payload_len: s.payload.map_or(0, |p| p.len),
                gso_size: s.gso_size,
                ce: false,
                mtu: 1_500,
            };
            self.engine.on_segment(now, &meta, &Nothing, &mut Nothing);
        }
    }
}

struct Pair {
    client: Host,
    server: Host,
    now: u64,
}

impl Pair {
    fn new(client: &MemoryConfig, server: &MemoryConfig) -> Self {
        let (mut client, mut server) = (Host::new(1, client), Host::new(2, server));
        let remote = Endpoint::new([10, 0, 0, 2].into(), 80);
        server.engine.bind(1, server.conn, remote).unwrap();
        server.engine.listen(1, server.conn, 8).unwrap();
        let route = Route {
            source: [10, 0, 0, 1].into(),
            mtu: 1_500,
        };
        let now = 1_000_000_000;
        client
            .engine
            .connect(now, client.conn, remote, &route)
            .unwrap();
        Self {
            client,
            server,
            now,
        }
    }

    fn run(&mut self, time: u64, write: bool, read: bool) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let to_server = self.client.arrived(self.now);
            let to_client = self.server.arrived(self.now);
            self.server.take(self.now, &to_server);
            self.client.take(self.now, &to_client);
            self.client.turn(self.now, write, read);
            self.server.turn(self.now, false, read);
        }
    }
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn buffers_follow_the_path_and_the_pages_of_idle_ones_go_back() {
    let usual = MemoryConfig::default();
    let mut p = Pair::new(&usual, &usual);
    p.run(3 * SECOND, true, true);
    let (client, server) = (
        *p.client.engine.record(p.client.conn).unwrap(),
        *p.server.engine.record(p.server.conn).unwrap(),
    );
    // 100 ms without a limit: as large as they can be.
    assert_eq!(client.memory.rings.tx.size(), 8 << 20);
    assert_eq!(server.memory.rings.rx.size(), 8 << 20);
    assert_eq!(server.memory.rings.tx.size(), 1 << 17, "nothing was sent");
    assert!(
        server.received_upto() > 50 << 20,
        "{}",
        server.received_upto()
    );
    assert!(p.server.engine.memory_use().bytes >= 8 << 20);
    // Nothing more is written: at first there is nothing to give back, then everything.
    p.run(5 * SECOND, false, true);
    assert!(p.server.idle.is_empty() && p.client.idle.is_empty());
    p.run(30 * SECOND, false, true);
    assert_eq!(p.server.idle, [p.server.conn]);
    assert_eq!(p.client.idle, [p.client.conn]);
    assert_eq!(p.server.engine.memory_use().bytes, 0);
    assert_eq!(p.client.engine.memory_use().bytes, 0);
    assert_eq!(p.server.engine.next_trim(), None);
}

#[test]
fn under_pressure_nothing_grows_and_windows_are_small() {
    let usual = MemoryConfig::default();
    let tight = MemoryConfig {
        limits: Limits {
            low: 200_000,
            pressure: 300_000,
            high: 600_000,
        },
        session: 1 << 30,
        ..usual.clone()
    };
    let mut p = Pair::new(&usual, &tight);
    p.run(3 * SECOND, true, true);
    let used = p.server.engine.memory_use();
    assert!(used.bytes <= 300_000 && used.refused > 0, "{used:?}");
    let tcb = *p.server.engine.record(p.server.conn).unwrap();
    assert!(tcb.memory.rings.rx.size() <= 1 << 18);
    // Who does not read keeps no more than what was offered.
    p.run(5 * SECOND, true, false);
    assert!(p.server.engine.memory_use().bytes <= 300_000);
    // And goes on afterwards.
    let before = tcb.received_upto();
    p.run(3 * SECOND, true, true);
    let after = p
        .server
        .engine
        .record(p.server.conn)
        .unwrap()
        .received_upto();
    assert!(after > before + (1 << 20), "{before} {after}");
}

#[test]
fn a_size_that_was_set_stays_and_is_doubled_when_read() {
    let usual = MemoryConfig::default();
    let mut p = Pair::new(&usual, &usual);
    let id = p.server.conn;
    let now = p.now;
    let set = SockOpt::RecvBuffer(50_000);
    p.server.engine.set_option(now, id, &set).unwrap();
    p.run(2 * SECOND, true, true);
    let child = p.server.conn;
    let tcb = p.server.engine.record(child).unwrap();
    assert_eq!(tcb.opts.rcv_buf, 50_000);
    assert_eq!(
        p.server.engine.option(child, SockOptName::RecvBuffer),
        Ok(SockOpt::RecvBuffer(100_000))
    );
    assert!(tcb.rcv_adv - tcb.rcv_nxt <= 50_000);
}
