//! E5: nothing a peer, an application or a clock does makes the engine panic, allocate without
//! bound, or make a record that its successor would refuse. Random segments around the valid
//! numbers, random words, calls, ICMP errors and times; the engine is restored now and then.

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
use abi::session::SockOpt;
use arrayvec::ArrayVec;
use fastrand::Rng;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Errno, How, IcmpError, IcmpKind,
    OpenParams, Payload, Route, SegmentMeta, SocketRef, Tcb,
};
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr, Timestamps};

struct Zeros;

impl Payload for Zeros {
    fn copy_to(&self, _: usize, to: &mut [u8]) -> bool {
        to.fill(0);
        true
    }
}

/// Checks that what is placed lies in the free part of a buffer.
struct Checked<'a> {
    rng: &'a mut Rng,
    record: Option<Tcb>,
}

impl Buffers for Checked<'_> {
    fn place(
        &mut self,
        _: SocketRef,
        rings: &Rings,
        at: u64,
        _: &dyn Payload,
        _: usize,
        len: usize,
    ) -> bool {
        if let Some(tcb) = &self.record {
            let end = at + len as u64;
            assert!(at >= tcb.received_upto(), "into what can be read");
            assert!(
                rings.rx.stretch(at).is_some() && rings.rx.size() <= tcb.opts.rcv_capacity.into()
            );
            assert!(end <= rings.rx.limit(tcb.consumed), "beyond the buffer");
        }
        self.rng.u8(..) > 5
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        (self.rng.u8(..) > 20).then_some(SocketRef { region: 1, slot: 9 })
    }
}

fn near(rng: &mut Rng, n: u32) -> u32 {
    match rng.u8(..8) {
        0..=3 => n,
        4 => n.wrapping_add(rng.u32(..3)),
        5 => n.wrapping_sub(rng.u32(..3_000)),
        6 => n.wrapping_add(rng.u32(..70_000)),
        _ => rng.u32(..),
    }
}

fn flags(rng: &mut Rng) -> Flags {
    match rng.u8(..8) {
        0..=4 => Flags::ACK,
        5 => Flags::ACK | Flags::FIN,
        6 => Flags::SYN,
        _ => Flags::from_bits_truncate(rng.u16(..256)),
    }
}

fn options(rng: &mut Rng, tcb: Option<&Tcb>) -> Options {
    let mut o = Options::default();
    if rng.bool() {
        let base = tcb.map_or(5, |tcb| tcb.negotiated.ts_recent);
        o.timestamps = Some(Timestamps {
            tsval: base.wrapping_add(rng.u32(..5)).wrapping_sub(rng.u32(..2)),
            tsecr: near(rng, 1),
        });
    }
    o.mss = rng.bool().then(|| rng.u16(1..));
    o.window_scale = rng.bool().then(|| rng.u8(..15));
    o.sack_permitted = rng.bool();
    let base = tcb.map_or(0, |tcb| tcb.iss.wrapping_add(tcb.snd_una as u32));
    let mut sack = ArrayVec::new();
    for _ in 0..rng.usize(..4) {
        let left = near(rng, base);
        sack.push((
            SeqNumber(left),
            SeqNumber(left.wrapping_add(rng.u32(..5_000))),
        ));
    }
    o.sack = sack;
    o
}

struct Fuzz {
    rng: Rng,
    engine: Engine,
    config: Config,
    now: u64,
    actions: Actions,
    ids: Vec<ConnId>,
}

const LOCAL: [u8; 4] = [10, 0, 0, 1];
const REMOTE: [u8; 4] = [10, 0, 0, 2];

impl Fuzz {
    fn new(seed: u64) -> Self {
        let config = Config {
            capacity: 24,
            secret: [1; 16],
            ..Config::default()
        };
        Self {
            rng: Rng::with_seed(seed),
            engine: Engine::new(config.clone()),
            config,
            now: 1,
            actions: Actions::default(),
            ids: (0..24).map(ConnId).collect(),
        }
    }

    fn any(&mut self) -> ConnId {
        let i = self.rng.usize(..self.ids.len());
        self.ids[i]
    }

    fn endpoint(&mut self, host: [u8; 4]) -> Endpoint {
        Endpoint::new(host.into(), self.rng.u16(1..4))
    }

    fn segment(&mut self) {
        let id = self.any();
        let tcb = self
            .engine
            .record(id)
            .copied()
            .filter(|tcb| tcb.state().has_peer());
        let rng = &mut self.rng;
        let (src, dst, seq, ack) = match &tcb {
            Some(tcb) => (
                tcb.remote,
                tcb.local,
                tcb.irs.wrapping_add(tcb.rcv_nxt as u32),
                tcb.iss.wrapping_add(tcb.snd_nxt as u32),
            ),
            None => (
                Endpoint::new(REMOTE.into(), rng.u16(1..4)),
                Endpoint::new(LOCAL.into(), rng.u16(1..4)),
                rng.u32(..),
                rng.u32(..),
            ),
        };
        let options = options(rng, tcb.as_ref());
        let repr = Repr {
            src_port: src.port,
            dst_port: dst.port,
            seq: SeqNumber(near(rng, seq)),
            ack: SeqNumber(near(rng, ack)),
            flags: flags(rng),
            window: [0, 1, 500, u16::MAX][rng.usize(..4)],
            urgent: rng.u16(..),
            options,
        };
        let payload_len = [0, 0, 1, 1_460, 64_000][rng.usize(..5)];
        let meta = SegmentMeta {
            src,
            dst,
            repr: &repr,
            payload_len,
            gso_size: [0, 0, 1, 1_460][rng.usize(..4)],
            ce: rng.bool(),
            mtu: [0, 60, 1_500, u16::MAX][rng.usize(..4)],
        };
        let mut checked = Checked {
            rng: &mut self.rng,
            record: tcb,
        };
        self.engine
            .on_segment(self.now, &meta, &Zeros, &mut checked);
    }

    fn words(&mut self) {
        let id = self.any();
        let Some(tcb) = self.engine.record(id) else {
            return;
        };
        let (written, consumed) = (tcb.written, tcb.consumed);
        let rng = &mut self.rng;
        let words = AppWords {
            written: written
                .wrapping_add(rng.u64(..5_000))
                .wrapping_sub(rng.u64(..10)),
            consumed: consumed
                .wrapping_add(rng.u64(..3_000))
                .wrapping_sub(rng.u64(..2)),
            urgent: [0, written, rng.u64(..)][rng.usize(..3)],
            shut_rd: rng.u8(..) < 5,
            shut_wr: rng.u8(..) < 5,
            accepted: rng.bool(),
        };
        let _ = self.engine.on_app(self.now, id, &words);
    }

    fn call(&mut self) {
        let id = self.any();
        let now = self.now;
        let local = self.endpoint(LOCAL);
        let remote = self.endpoint(REMOTE);
        let route = Route {
            source: LOCAL.into(),
            mtu: self.rng.u16(..),
        };
        let params = OpenParams {
            owner: SocketRef { region: 1, slot: 1 },
            v6: self.rng.bool(),
            rcv_capacity: 1 << self.rng.u8(12..21),
            snd_capacity: 1 << self.rng.u8(12..21),
        };
        let how = [How::Read, How::Write, How::Both][self.rng.usize(..3)];
        let option = [
            SockOpt::NoDelay(true),
            SockOpt::Cork(self.rng.bool()),
            SockOpt::KeepAlive(true),
            SockOpt::KeepIdle(self.rng.u32(..)),
            SockOpt::Linger(Some(0)),
            SockOpt::RecvBuffer(self.rng.u32(..)),
            SockOpt::SendBuffer(self.rng.u32(..)),
            SockOpt::UserTimeout(self.rng.u32(..)),
            SockOpt::MaxSegment(self.rng.u32(..2_000)),
            SockOpt::ReuseAddr(true),
            SockOpt::ReusePort(self.rng.bool()),
            SockOpt::DeferAccept(10),
            SockOpt::MaxPacingRate(self.rng.u64(..)),
            SockOpt::NotSentLowat(self.rng.u32(..)),
        ][self.rng.usize(..14)]
        .clone();
        let e = &mut self.engine;
        match self.rng.u8(..16) {
            0..=3 => drop(e.open(now, &params)),
            4 => drop(e.bind(now, id, local)),
            5..=6 => drop(e.connect(now, id, remote, &route)),
            7 => drop(e.listen(now, id, self.rng.u32(..))),
            8 => drop(e.shutdown(now, id, how)),
            9 => e.close(now, id),
            10 => e.abort(now, id, Errno::ECONNABORTED),
            11..=12 => drop(e.set_option(now, id, &option)),
            13 => drop(e.handed_over(now, id)),
            14 => drop(e.take_error(now, id)),
            _ => drop(e.info(now, id)),
        }
    }

    fn icmp(&mut self) {
        let id = self.any();
        let Some(tcb) = self.engine.record(id) else {
            return;
        };
        let error = IcmpError {
            local: tcb.local,
            remote: tcb.remote,
            seq: SeqNumber(tcb.iss.wrapping_add(tcb.snd_una as u32)),
            kind: [
                IcmpKind::HostUnreachable,
                IcmpKind::PortUnreachable,
                IcmpKind::FragmentationNeeded {
                    mtu: self.rng.u16(..),
                },
            ][self.rng.usize(..3)],
        };
        self.engine.on_icmp_error(self.now, &error);
    }

    fn commit(&mut self) {
        let budget = self.rng.usize(..20);
        self.engine.output(self.now, budget);
        self.engine.drain(&mut self.actions);
        for &id in &self.actions.dirty {
            let record = self.engine.record(id);
            assert!(record.is_none_or(Tcb::is_valid), "{record:?}");
        }
        for segment in &self.actions.segments {
            assert!(segment.repr.header_len() <= 60);
            assert!(segment.payload.is_none_or(|p| p.len <= 65_500 && p.len > 0));
        }
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            match self.rng.u8(..20) {
                0..=9 => self.segment(),
                10..=12 => self.words(),
                13..=15 => self.call(),
                16 => self.icmp(),
                17 => {
                    let most = [1_000, 1_000_000, 300_000_000, 70_000_000_000];
                    let most = most[self.rng.usize(..4)];
                    self.now += self.rng.u64(..most);
                    self.engine.on_timer(self.now);
                }
                _ => self.commit(),
            }
            if self.rng.u16(..) < 60 {
                self.commit();
                let records: Vec<_> = self.engine.records().map(|(id, tcb)| (id, *tcb)).collect();
                let mut refused = vec![];
                self.engine = Engine::restore(self.config.clone(), self.now, records, &mut refused);
                assert!(refused.is_empty(), "refused {refused:?}");
            }
        }
    }
}

#[test]
fn nothing_makes_it_panic() {
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..300 * number("SIM_LONG").unwrap_or(1),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| Fuzz::new(seed).run(3_000));
        if let Err(panic) = outcome {
            eprintln!("failed: again with SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
