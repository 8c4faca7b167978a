//! What holes cost: a peer that acknowledges every second segment of a large flight, in whatever
//! order, or sends every second segment of a large window, takes bounded memory and bounded time
//! for each of its segments. `cargo test -p tcpd --test holes -- --nocapture` prints the figures.

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
use tcpd::engine::reassembly::MAX_RANGES;
use tcpd::engine::recovery::Phase;
use tcpd::engine::sack::MAX_SACKED;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, OpenParams, Payload, Route, SegmentMeta,
    SegmentOut, SocketRef, State, Tcb,
};
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr};

const MSS: u32 = 1_460;
const ISN: u32 = 77;

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

/// One connection; the test is the peer.
struct Bench {
    engine: Engine,
    conn: ConnId,
    now: u64,
    local: Endpoint,
    remote: Endpoint,
    iss: u32,
    actions: Actions,
}

impl Bench {
    /// Connected, with windows of `segments`.
    fn new(segments: u32) -> Self {
        let config = Config {
            secret: [1; 16],
            max_gso: 0,
            timestamps: false,
            initial_window: segments,
            memory: tcpd::engine::memory::MemoryConfig::fixed(),
            ..Config::default()
        };
        let mut engine = Engine::new(config);
        let params = OpenParams {
            owner: SocketRef { region: 1, slot: 1 },
            v6: false,
            rcv_capacity: (segments * MSS).next_power_of_two(),
            snd_capacity: (segments * MSS).next_power_of_two(),
        };
        let now = 1_000_000_000;
        let conn = engine.open(now, &params).unwrap();
        let remote = Endpoint::new([10, 0, 0, 2].into(), 80);
        let route = Route {
            source: [10, 0, 0, 1].into(),
            mtu: 1500,
        };
        engine.connect(now, conn, remote, &route).unwrap();
        let mut bench = Self {
            engine,
            conn,
            now,
            local: remote,
            remote,
            iss: 0,
            actions: Actions::default(),
        };
        let syn = bench.output().remove(0);
        bench.local = syn.src;
        bench.iss = syn.repr.seq.0;
        bench.now += 10_000_000;
        let mut answer = bench.repr(Flags::SYN | Flags::ACK, 0, 1);
        answer.options = Options {
            mss: Some(MSS as u16),
            window_scale: Some(14),
            sack_permitted: true,
            ..Options::default()
        };
        bench.inject(&answer, 0);
        assert_eq!(bench.tcb().state(), State::Established);
        bench.output();
        // The window of a SYN is not scaled.
        let update = bench.repr(Flags::ACK, 1, 1);
        bench.inject(&update, 0);
        bench
    }

    fn tcb(&self) -> &Tcb {
        self.engine.record(self.conn).unwrap()
    }

    fn output(&mut self) -> Vec<SegmentOut> {
        self.engine.output(self.now, 1 << 20);
        self.engine.drain(&mut self.actions);
        self.actions.segments.clone()
    }

    /// A segment of the peer: numbers count from the initial ones.
    fn repr(&self, flags: Flags, seq: u32, ack: u32) -> Repr {
        Repr {
            src_port: self.remote.port,
            dst_port: self.local.port,
            seq: SeqNumber(ISN.wrapping_add(seq)),
            ack: SeqNumber(self.iss.wrapping_add(ack)),
            flags,
            window: u16::MAX,
            urgent: 0,
            options: Options::default(),
        }
    }

    fn inject(&mut self, repr: &Repr, len: u32) {
        let meta = SegmentMeta {
            src: self.remote,
            dst: self.local,
            repr,
            payload_len: len,
            gso_size: 0,
            ce: false,
            mtu: 1500,
        };
        self.engine
            .on_segment(self.now, &meta, &Nowhere, &mut Nowhere);
    }
}

/// Numbers `0..n` in an order without order.
fn shuffled(n: u32) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n).collect();
    fastrand::Rng::with_seed(u64::from(n)).shuffle(&mut all);
    all
}

/// Nanoseconds for each call: the median of batches, so that it does not count when others have
/// the processor meanwhile.
fn of_each(order: &[u32], mut f: impl FnMut(u32)) -> f64 {
    let mut batches: Vec<f64> = order
        .chunks(64)
        .map(|batch| {
            let start = Instant::now();
            batch.iter().for_each(|&n| f(n));
            start.elapsed().as_nanos() as f64 / batch.len() as f64
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

/// Nanoseconds for each acknowledgement of a flight of so many segments of which every second one
/// arrived.
fn acknowledgements(segments: u32, in_order: bool) -> f64 {
    let mut b = Bench::new(segments);
    let words = AppWords {
        written: u64::from(segments * MSS),
        ..AppWords::default()
    };
    b.engine.on_app(b.now, b.conn, &words).unwrap();
    b.output();
    assert!(b.tcb().flight() > u64::from(segments / 2 * MSS));
    b.now += 10_000_000;
    let sent = b.tcb().flight() as u32 / MSS;
    let order = if in_order {
        (0..sent / 2).collect()
    } else {
        shuffled(sent / 2)
    };
    let nanos = of_each(&order, |n| {
        b.now += 1_000;
        let mut repr = b.repr(Flags::ACK, 1, 1);
        let left = b.iss.wrapping_add(1 + (2 * n + 1) * MSS);
        repr.options
            .sack
            .push((SeqNumber(left), SeqNumber(left.wrapping_add(MSS))));
        b.inject(&repr, 0);
        b.engine.output(b.now, 1 << 10);
        b.engine.drain(&mut b.actions);
        std::hint::black_box(b.tcb());
    });
    assert_eq!(b.tcb().recovery.phase(), Phase::Recovery);
    assert!(b.tcb().sacked.len() <= MAX_SACKED);
    // Everything arrives in the end.
    let all = b.tcb().flight() as u32;
    b.now += 10_000_000;
    let repr = b.repr(Flags::ACK, 1, 1 + all);
    b.inject(&repr, 0);
    assert_eq!(b.tcb().flight(), 0);
    nanos
}

/// Nanoseconds for each of so many segments, every second one of a window.
fn segments(segments: u32) -> f64 {
    let mut b = Bench::new(segments);
    let order = shuffled(segments / 2);
    let nanos = of_each(&order, |n| {
        b.now += 1_000;
        let repr = b.repr(Flags::ACK, 1 + (2 * n + 1) * MSS, 1);
        b.inject(&repr, MSS);
        b.engine.output(b.now, 1 << 10);
        b.engine.drain(&mut b.actions);
        assert!(b.actions.segments.len() <= 1);
    });
    assert!(b.tcb().reassembly.len() <= MAX_RANGES);
    assert_eq!(b.tcb().received_upto(), 0);
    nanos
}

/// The least of some, for the same reason.
fn least(f: impl Fn() -> f64) -> f64 {
    (0..3).map(|_| f()).fold(f64::INFINITY, f64::min)
}

// Sixteen times as many holes: a cost that grew with them would be as much larger, or more.
#[test]
fn an_acknowledgement_costs_the_same_however_many_holes_there_are() {
    for in_order in [true, false] {
        let few = least(|| acknowledgements(2_048, in_order));
        let many = least(|| acknowledgements(32_768, in_order));
        eprintln!("acknowledgements, in order {in_order}: {few:.0} and {many:.0} ns each");
        assert!(many < 6.0 * few, "{few:.0} and {many:.0} ns");
    }
}

#[test]
fn a_segment_costs_the_same_however_many_holes_there_are() {
    let few = least(|| segments(2_048));
    let many = least(|| segments(32_768));
    eprintln!("segments out of order: {few:.0} and {many:.0} ns each");
    assert!(many < 6.0 * few, "{few:.0} and {many:.0} ns");
}
