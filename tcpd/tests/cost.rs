//! What the engine costs: two engines back to back, without payload copies, records "committed"
//! by a copy. Prints nanoseconds a unit; `cargo test --release -p tcpd --test cost -- --nocapture`
//! for figures that mean something.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test: whatever fails shall fail loudly"
)]

use abi::Endpoint;
use abi::session::Rings;
use std::time::Instant;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route,
    SegmentMeta, SocketRef,
};

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

struct Side {
    engine: Engine,
    actions: Actions,
    wanting: Vec<ConnId>,
    conn: ConnId,
}

impl Side {
    fn new(secret: u8, max_gso: u32) -> Self {
        let config = Config {
            secret: [secret; 16],
            max_gso,
            ..Config::default()
        };
        let mut engine = Engine::new(config);
        let params = OpenParams {
            owner: SocketRef { region: 1, slot: 1 },
            v6: false,
            rcv_capacity: 1 << 20,
            snd_capacity: 1 << 20,
        };
        let conn = engine.open(1, &params).unwrap();
        Self {
            engine,
            actions: Actions::default(),
            wanting: Vec::new(),
            conn,
        }
    }

    /// Output, drain and commit; the number of units made.
    fn turn(&mut self, now: u64) -> usize {
        self.engine.take_wanting(&mut self.wanting);
        for id in self.wanting.drain(..) {
            self.engine.give_window(now, id, 1);
        }
        self.engine.output(now, 64);
        let mut actions = std::mem::take(&mut self.actions);
        self.engine.drain(&mut actions);
        for &id in &actions.dirty {
            std::hint::black_box(self.engine.record(id).copied());
        }
        for notice in &actions.notices {
            if let Notice::Accepted { child, .. } = *notice {
                self.conn = child;
            }
        }
        self.actions = actions;
        self.actions.segments.len()
    }

    fn take(&mut self, now: u64, other: &Actions) {
        for segment in &other.segments {
            let meta = SegmentMeta {
                src: segment.src,
                dst: segment.dst,
                repr: &segment.repr,
                payload_len: segment.payload.map_or(0, |p| p.len),
                gso_size: segment.gso_size,
                ce: false,
                mtu: 1500,
            };
            self.engine.on_segment(now, &meta, &Nowhere, &mut Nowhere);
        }
    }
}

fn bulk(max_gso: u32, bytes: u64) -> (f64, f64) {
    let mut now = 1_000_000_000;
    let mut client = Side::new(1, max_gso);
    let mut server = Side::new(2, max_gso);
    let local = Endpoint::new([10, 0, 0, 1].into(), 0);
    let remote = Endpoint::new([10, 0, 0, 2].into(), 80);
    server.engine.bind(now, server.conn, remote).unwrap();
    server.engine.listen(now, server.conn, 5).unwrap();
    let route = Route {
        source: local.ip().unwrap(),
        mtu: 1500,
    };
    client
        .engine
        .connect(now, client.conn, remote, &route)
        .unwrap();
    let mut units = 0;
    let mut written = 0;
    let start = Instant::now();
    loop {
        now += 50_000;
        client.engine.on_timer(now);
        server.engine.on_timer(now);
        let record = *client.engine.record(client.conn).unwrap();
        if record.acked_upto() >= bytes {
            break;
        }
        if record.state().can_transmit() {
            written = record.write_limit().max(written);
            let words = AppWords {
                written,
                ..AppWords::default()
            };
            client.engine.on_app(now, client.conn, &words).unwrap();
        }
        units += client.turn(now);
        server.take(now, &client.actions);
        if server
            .engine
            .record(server.conn)
            .unwrap()
            .state()
            .can_receive()
        {
            let words = AppWords {
                consumed: server.engine.record(server.conn).unwrap().received_upto(),
                accepted: true,
                ..AppWords::default()
            };
            server.engine.on_app(now, server.conn, &words).unwrap();
        }
        units += server.turn(now);
        client.take(now, &server.actions);
    }
    let nanos = start.elapsed().as_nanos() as f64;
    (nanos / units as f64, nanos / bytes as f64)
}

#[test]
fn bulk_costs_little() {
    for max_gso in [65_000, 0] {
        let (unit, byte) = bulk(max_gso, 1 << 30);
        eprintln!("max_gso {max_gso}: {unit:.0} ns a unit, both ends; {byte:.4} ns a byte");
        // Far from what release builds need; this only catches what is badly wrong.
        assert!(unit < 50_000.0);
    }
}
