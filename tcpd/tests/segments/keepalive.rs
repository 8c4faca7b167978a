//! Keepalive of ten thousand connections whose timers go off at the same time (RFC 9293 3.8.4): so
//! many probes and no more, at a bounded cost for each, and nothing left behind.

use crate::bench::*;
use abi::Endpoint;
use abi::session::{Rings, SockOpt};
use std::time::Instant;
use tcpd::engine::{
    Actions, Buffers, Config, ConnId, Engine, OpenParams, Payload, Route, SegmentMeta, SegmentOut,
    SocketRef, State,
};
use wire::SeqNumber;
use wire::tcp::Repr;

const COUNT: usize = 10_000;
const IDLE: u64 = 60 * S;
const INTERVAL: u64 = 10 * S;
const PROBES: u32 = 5;
/// Segments that one batch may make: what a daemon's ring has room for.
const BATCH: usize = 64;
/// Nanoseconds for a probe or its answer; a release build takes a hundredth of it. What grows with
/// the number of connections takes far more.
const MOST: f64 = 100_000.0;

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

/// The engine, and what it and its peers' answers cost.
struct Crowd {
    engine: Engine,
    actions: Actions,
    ids: Vec<ConnId>,
    now: u64,
    /// Largest number of segments that one batch made.
    largest: usize,
}

impl Crowd {
    fn new() -> Self {
        let config = Config {
            capacity: COUNT as u32 + 64,
            ..plain()
        };
        let mut crowd = Self {
            engine: Engine::new(config),
            actions: Actions::default(),
            ids: vec![],
            now: 10 * S,
            largest: 0,
        };
        for number in 0..COUNT {
            let params = OpenParams {
                owner: SocketRef {
                    region: 1,
                    slot: number as u32,
                },
                v6: false,
                rcv_capacity: 65_536,
                snd_capacity: 65_536,
            };
            let id = crowd.engine.open(crowd.now, &params).unwrap();
            for option in [
                SockOpt::KeepAlive(true),
                SockOpt::KeepIdle((IDLE / MS) as u32),
                SockOpt::KeepInterval((INTERVAL / MS) as u32),
                SockOpt::KeepCount(PROBES),
            ] {
                crowd.engine.set_option(crowd.now, id, &option).unwrap();
            }
            let route = Route {
                source: [10, 0, 0, 1].into(),
                mtu: 1500,
            };
            let to = Endpoint::new([10, 0, 0, 2].into(), 1 + number as u16);
            crowd.engine.connect(crowd.now, id, to, &route).unwrap();
            crowd.ids.push(id);
        }
        let syns = crowd.all_output();
        assert_eq!(syns.len(), COUNT);
        for syn in &syns {
            let mut repr = answer_to(syn);
            repr.flags = SYN | ACK;
            repr.seq = SeqNumber(PEER_ISN);
            repr.ack = SeqNumber(syn.repr.seq.0.wrapping_add(1));
            crowd.give(syn, &repr);
        }
        assert_eq!(crowd.all_output().len(), COUNT, "an acknowledgement each");
        crowd.largest = 0;
        crowd
    }

    /// What is due now, a batch at a time.
    fn all_output(&mut self) -> Vec<SegmentOut> {
        let mut all = vec![];
        loop {
            self.engine.on_timer(self.now);
            self.engine.output(self.now, BATCH);
            self.engine.drain(&mut self.actions);
            self.largest = self.largest.max(self.actions.segments.len());
            if self.actions.segments.is_empty() {
                return all;
            }
            all.append(&mut self.actions.segments);
        }
    }

    fn give(&mut self, to: &SegmentOut, repr: &Repr) {
        let meta = SegmentMeta {
            src: to.dst,
            dst: to.src,
            repr,
            payload_len: 0,
            gso_size: 0,
            ce: false,
            mtu: 1500,
        };
        self.engine
            .on_segment(self.now, &meta, &Nothing, &mut Nothing);
    }

    fn alive(&self) -> usize {
        let state = |&&id: &&ConnId| {
            let record = self.engine.record(id);
            record.is_some_and(|tcb| tcb.state() == State::Established)
        };
        self.ids.iter().filter(state).count()
    }

    /// Time passes until `end`; peers for which `answers` says so answer. Returns the segments sent
    /// and the nanoseconds that each took, answers included.
    fn wait(&mut self, end: u64, answers: impl Fn(&SegmentOut) -> bool) -> (usize, f64) {
        let begin = Instant::now();
        let mut sent = 0;
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= end) {
            self.now = at.max(self.now);
            let probes = self.all_output();
            sent += probes.len();
            for probe in probes.iter().filter(|p| answers(p)) {
                self.give(probe, &answer_to(probe));
            }
        }
        self.now = end;
        (sent, begin.elapsed().as_nanos() as f64 / sent.max(1) as f64)
    }
}

/// A bare acknowledgement of everything.
fn answer_to(segment: &SegmentOut) -> Repr {
    Repr {
        src_port: segment.repr.dst_port,
        dst_port: segment.repr.src_port,
        seq: segment.repr.ack,
        // A keepalive's sequence number is one that was acknowledged already.
        ack: SeqNumber(segment.repr.seq.0.wrapping_add(1)),
        flags: ACK,
        window: 0xffff,
        urgent: 0,
        options: wire::tcp::Options::default(),
    }
}

#[test]
fn ten_thousand_at_once() {
    let mut crowd = Crowd::new();
    let begin = crowd.now;
    let heap = crowd.engine.footprint().heap;
    assert!(heap <= 2 * COUNT + 48, "{heap} entries of the timer heap");

    // Nothing before its time.
    let (early, _) = crowd.wait(begin + IDLE - 1, |_| true);
    assert_eq!(early, 0);
    // Each asks once, and is content with the answer for as long again.
    for round in 1..=10 {
        let (probes, nanos) = crowd.wait(begin + round * IDLE + S, |_| true);
        println!("round {round}: {probes} probes, {nanos:.0} ns each with its answer");
        assert_eq!(probes, COUNT, "round {round}");
        assert!(nanos < MOST, "{nanos} ns");
    }
    assert_eq!(crowd.alive(), COUNT);
    println!("at most {} segments in a batch", crowd.largest);
    assert!(crowd.largest <= BATCH, "{} in a batch", crowd.largest);
    let heap = crowd.engine.footprint().heap;
    assert!(heap <= 4 * COUNT + 48, "{heap} entries of the timer heap");

    // Every second peer is gone: five questions, and the connection with it; the others as before.
    let gone = |segment: &SegmentOut| segment.dst.port.is_multiple_of(2);
    let from = begin + 10 * IDLE + S;
    let (probes, nanos) = crowd.wait(from + 2 * IDLE, |s| !gone(s));
    let resets = crowd.engine.stats().resets_out as usize;
    println!("half of them gone: {probes} segments, {nanos:.0} ns each, {resets} resets");
    assert_eq!(crowd.alive(), COUNT / 2);
    assert_eq!(crowd.engine.stats().aborted_timeout as usize, COUNT / 2);
    // Two questions of those that live, and of those that do not, five and a reset at most.
    assert_eq!(
        probes - resets,
        2 * (COUNT / 2) + PROBES as usize * (COUNT / 2)
    );
    assert!(resets <= COUNT / 2);
    assert!(nanos < MOST, "{nanos} ns");
}
