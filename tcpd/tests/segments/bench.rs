//! A bench for one connection: the test is the peer.

use abi::Endpoint;
use abi::session::Rings;
use abi::session::SockOpt;
use arrayvec::ArrayVec;
use tcpd::engine::congestion::Algorithm;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route,
    SegmentMeta, SocketRef, State, Tcb,
};
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr, Timestamps};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000 * MS;
pub(crate) const MSS: u32 = 1460;
/// The peer's initial sequence number: near the wrap, so that every test crosses it.
pub(crate) const PEER_ISN: u32 = u32::MAX - 500;

pub(crate) const SYN: Flags = Flags::SYN;
pub(crate) const ACK: Flags = Flags::ACK;
pub(crate) const FIN: Flags = Flags::FIN;
pub(crate) const RST: Flags = Flags::RST;
pub(crate) const PSH: Flags = Flags::PSH;
pub(crate) const URG: Flags = Flags::URG;

/// A segment of the peer.
#[derive(Debug, Clone)]
pub(crate) struct Seg {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: u32,
    pub(crate) window: u16,
    pub(crate) gso_size: u16,
    pub(crate) urgent: u16,
    pub(crate) ce: bool,
    pub(crate) sack: Vec<(u32, u32)>,
    pub(crate) timestamps: Option<Timestamps>,
    pub(crate) options: Options,
}

/// A segment of the peer with these flags and numbers, a window of 65,535 and no payload.
pub(crate) fn seg(flags: Flags, seq: u32, ack: u32) -> Seg {
    Seg {
        flags,
        seq,
        ack,
        len: 0,
        window: 0xffff,
        gso_size: 0,
        urgent: 0,
        ce: false,
        sack: vec![],
        timestamps: None,
        options: Options::default(),
    }
}

impl Seg {
    pub(crate) fn len(self, len: u32) -> Self {
        Self { len, ..self }
    }
    /// Marked by the network: congestion experienced.
    pub(crate) fn ce(self) -> Self {
        Self { ce: true, ..self }
    }
    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }
    pub(crate) fn sack(self, blocks: &[(u32, u32)]) -> Self {
        Self {
            sack: blocks.to_vec(),
            ..self
        }
    }
    pub(crate) fn stamp(self, tsval: u32, tsecr: u32) -> Self {
        Self {
            timestamps: Some(Timestamps { tsval, tsecr }),
            ..self
        }
    }
}

/// A segment of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: u32,
    pub(crate) window: u16,
    pub(crate) gso_size: u16,
    pub(crate) urgent: u16,
    /// ECN's two bits of the IP header.
    pub(crate) ecn: u8,
    pub(crate) sack: Vec<(u32, u32)>,
    pub(crate) options: Options,
}

impl Sent {
    /// What most tests compare.
    pub(crate) fn brief(&self) -> (Flags, u32, u32, u32) {
        (self.flags, self.seq, self.ack, self.len)
    }
}

struct Zeros;

impl Payload for Zeros {
    fn copy_to(&self, _: usize, to: &mut [u8]) -> bool {
        to.fill(0);
        true
    }
}

/// Receive memory that only notes what was placed.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) ranges: Vec<(u64, usize)>,
    pub(crate) refuse: bool,
    next: u32,
}

impl Buffers for Placed {
    fn place(
        &mut self,
        _: SocketRef,
        _: &Rings,
        position: u64,
        _: &dyn Payload,
        _: usize,
        n: usize,
    ) -> bool {
        if !self.refuse {
            self.ranges.push((position, n));
        }
        !self.refuse
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        self.next += 1;
        (!self.refuse).then_some(SocketRef {
            region: 2,
            slot: self.next,
        })
    }
}

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) now: u64,
    pub(crate) id: ConnId,
    pub(crate) placed: Placed,
    pub(crate) notices: Vec<Notice>,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) words: AppWords,
    iss: Option<u32>,
    actions: Actions,
}

/// Without options but the MSS, so that sizes are round, and with those sizes for good.
pub(crate) fn plain() -> Config {
    Config {
        capacity: 64,
        secret: [3; 16],
        timestamps: false,
        window_scaling: false,
        sack: false,
        max_gso: 0,
        mtu_probing: abi::config::MtuProbing::Off,
        // Windows in these tests are reckoned in NewReno's halves.
        congestion: Algorithm::NewReno,
        ..Config::default()
    }
}

pub(crate) fn with_sack() -> Config {
    Config {
        sack: true,
        ..plain()
    }
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        Self::sized(config, 65_536)
    }

    /// With buffers of `size` bytes.
    pub(crate) fn sized(config: Config, size: u32) -> Self {
        let mut engine = Engine::new(config);
        let now = 10 * S;
        let params = OpenParams {
            owner: SocketRef { region: 1, slot: 1 },
            v6: false,
            rcv_capacity: size,
            snd_capacity: size,
        };
        let id = engine.open(now, &params).unwrap();
        Self {
            engine,
            now,
            id,
            placed: Placed::default(),
            notices: vec![],
            local: Endpoint::new([10, 0, 0, 1].into(), 5_000),
            remote: Endpoint::new([10, 0, 0, 2].into(), 80),
            words: AppWords::default(),
            iss: None,
            actions: Actions::default(),
        }
    }

    pub(crate) fn connect(&mut self) -> Vec<Sent> {
        self.engine.bind(self.now, self.id, self.local).unwrap();
        let route = Route {
            source: self.local.ip().unwrap(),
            mtu: 1500,
        };
        self.engine
            .connect(self.now, self.id, self.remote, &route)
            .unwrap();
        self.iss = Some(self.tcb().iss);
        self.output()
    }

    /// A SYN,ACK with everything the configuration offers.
    pub(crate) fn syn_ack(&self) -> Seg {
        let c = self.engine.config();
        let mut s = seg(SYN | ACK, 0, 1);
        s.options = Options {
            mss: Some(1460),
            sack_permitted: c.sack,
            window_scale: c.window_scaling.then_some(7),
            timestamps: c.timestamps.then_some(Timestamps { tsval: 1, tsecr: 1 }),
            ..Options::default()
        };
        s
    }

    /// Connected by us, nothing sent yet.
    pub(crate) fn established(config: Config) -> Self {
        let mut b = Self::new(config);
        b.handshake();
        b
    }

    pub(crate) fn handshake(&mut self) {
        self.connect();
        let reply = self.syn_ack();
        self.now += 100 * MS;
        let out = self.inject(reply);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].brief(), (ACK, 1, 1, 0));
        assert_eq!(self.state(), State::Established);
    }

    /// Listens on the local end; `inject` then talks to it, and `id` becomes the child.
    pub(crate) fn listening(config: Config, backlog: u32) -> Self {
        let mut b = Self::new(config);
        b.engine.bind(b.now, b.id, b.local).unwrap();
        b.engine.listen(b.now, b.id, backlog).unwrap();
        b
    }

    pub(crate) fn tcb(&self) -> &Tcb {
        self.engine.record(self.id).unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.tcb().state()
    }

    pub(crate) fn set(&mut self, option: SockOpt) {
        self.engine.set_option(self.now, self.id, &option).unwrap();
    }

    /// The peer sends; returns what the engine answers in the same batch.
    pub(crate) fn inject(&mut self, s: Seg) -> Vec<Sent> {
        self.feed(s);
        self.output()
    }

    /// The peer sends, within a batch that goes on.
    pub(crate) fn feed(&mut self, s: Seg) {
        let iss = self.iss.unwrap_or(0);
        let wire = |n: u32| SeqNumber(PEER_ISN.wrapping_add(n));
        let own = |n: u32| SeqNumber(iss.wrapping_add(n));
        let mut options = s.options.clone();
        if options.timestamps.is_none() {
            options.timestamps = s.timestamps;
        }
        options.sack = s
            .sack
            .iter()
            .map(|&(l, r)| (own(l), own(r)))
            .collect::<ArrayVec<_, 4>>();
        let repr = Repr {
            src_port: self.remote.port,
            dst_port: self.local.port,
            seq: wire(s.seq),
            ack: own(s.ack),
            flags: s.flags,
            window: s.window,
            urgent: s.urgent,
            options,
        };
        let meta = SegmentMeta {
            src: self.remote,
            dst: self.local,
            repr: &repr,
            payload_len: s.len,
            gso_size: s.gso_size,
            ce: s.ce,
            mtu: 1500,
        };
        self.engine
            .on_segment(self.now, &meta, &Zeros, &mut self.placed);
    }

    /// Ends the batch.
    pub(crate) fn output(&mut self) -> Vec<Sent> {
        self.engine.on_timer(self.now);
        self.engine.output(self.now, 1_000);
        let mut actions = std::mem::take(&mut self.actions);
        self.engine.drain(&mut actions);
        self.notices.extend_from_slice(&actions.notices);
        let out = actions
            .segments
            .iter()
            .map(|s| {
                if s.repr.flags.contains(SYN) {
                    self.iss = Some(s.repr.seq.0);
                }
                let iss = self.iss.unwrap_or(0);
                let own = |n: SeqNumber| n.0.wrapping_sub(iss);
                let peer = |n: SeqNumber| n.0.wrapping_sub(PEER_ISN);
                Sent {
                    flags: s.repr.flags,
                    seq: own(s.repr.seq),
                    ack: if s.repr.flags.contains(ACK) {
                        peer(s.repr.ack)
                    } else {
                        0
                    },
                    len: s.payload.map_or(0, |p| p.len),
                    window: s.repr.window,
                    gso_size: s.gso_size,
                    urgent: s.repr.urgent,
                    ecn: s.tos & 3,
                    sack: s
                        .repr
                        .options
                        .sack
                        .iter()
                        .map(|&(l, r)| (peer(l), peer(r)))
                        .collect(),
                    options: s.repr.options.clone(),
                }
            })
            .collect();
        self.actions = actions;
        out
    }

    /// Time passes; returns what is sent meanwhile, with the delay since now.
    pub(crate) fn wait(&mut self, time: u64) -> Vec<(u64, Sent)> {
        let start = self.now;
        let end = start + time;
        let mut out = vec![];
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= end) {
            self.now = at.max(self.now);
            let sent = self.output();
            out.extend(sent.into_iter().map(|s| (self.now - start, s)));
        }
        self.now = end;
        out
    }

    /// The application writes `n` bytes more.
    pub(crate) fn write(&mut self, n: u64) -> Vec<Sent> {
        self.words.written += n;
        self.show();
        self.output()
    }

    /// The application reads `n` bytes more.
    pub(crate) fn read(&mut self, n: u64) -> Vec<Sent> {
        self.words.consumed += n;
        self.show();
        self.output()
    }

    pub(crate) fn show(&mut self) {
        let words = self.words;
        self.engine.on_app(self.now, self.id, &words).unwrap();
    }

    pub(crate) fn close(&mut self) -> Vec<Sent> {
        self.engine.close(self.now, self.id);
        self.output()
    }

    pub(crate) fn iss(&self) -> u32 {
        self.iss.unwrap_or(0)
    }

    /// Makes the peer's acknowledgements relative to another connection's numbers.
    pub(crate) fn set_iss(&mut self, iss: u32) {
        self.iss = Some(iss);
    }

    /// Takes the notices so far.
    pub(crate) fn news(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Kills the engine after its last commit.
    pub(crate) fn restart(&mut self) -> Vec<Sent> {
        let records: Vec<_> = self.engine.records().map(|(id, tcb)| (id, *tcb)).collect();
        let config = self.engine.config().clone();
        let mut refused = vec![];
        self.engine = Engine::restore(config, self.now, records, &mut refused);
        assert!(refused.is_empty());
        self.output()
    }
}

/// The briefs of several segments.
pub(crate) fn briefs(sent: &[Sent]) -> Vec<(Flags, u32, u32, u32)> {
    sent.iter().map(Sent::brief).collect()
}
