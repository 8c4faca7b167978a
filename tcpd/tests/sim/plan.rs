//! A run as drawn from its seed.
//!
//! All of a run follows from its [`Plan`], and the parts draw from generators of their own, so
//! that a plan can be simplified ([`FEATURES`]) and the rest stays as it was.

use crate::link::{Impairment, Loss};
use crate::mangle::Mangling;
use crate::middlebox::{Meddling, SynStrips};
use crate::script::{End, Habits, Script, Stream, random_algorithm};
use abi::Nanos;
use abi::config::{EcnMode, MtuProbing};
use fastrand::Rng;
use tcpd::engine::congestion::Algorithm;

pub(crate) const SECOND: Nanos = 1_000_000_000;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Far {
    /// Another engine.
    Engine,
    /// smoltcp; true: it opens.
    Smoltcp(bool),
    /// A scripted peer with bad manners; true: it opens.
    Model(crate::peers::Manners, bool),
}

/// What of a host is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostPlan {
    /// Probability of a crash in each batch.
    pub(crate) kill: f64,
    pub(crate) max_gso: u32,
    /// Received segments are merged.
    pub(crate) gro: bool,
    /// Buffers of each socket: send and receive.
    pub(crate) buffers: (usize, usize),
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) scaling: bool,
    /// Segments a batch may make.
    pub(crate) budget: usize,
    pub(crate) ecn: EcnMode,
    pub(crate) mtu_probing: MtuProbing,
    pub(crate) congestion: Algorithm,
    /// Half-open connections of a listener before it answers with cookies.
    pub(crate) syn_backlog: u32,
    /// Data in SYNs is sent and taken (RFC 7413).
    pub(crate) fast_open: bool,
    /// Bytes of all buffers from which on memory is short; 0: it never is.
    pub(crate) pressure: u64,
}

/// How the applications of a run are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppPlan {
    /// Most bytes each way.
    pub(crate) bytes: u64,
    /// The client sends exactly `bytes`, the server nothing, in pieces as large as fit.
    pub(crate) bulk: bool,
    /// Questions and answers in turn.
    pub(crate) exchange: bool,
    /// Some ends are not orderly.
    pub(crate) rude: bool,
    /// Probability that an application pauses.
    pub(crate) slow: f64,
    /// Longest time an application takes between two actions.
    pub(crate) pause: Nanos,
    /// Socket options at random.
    pub(crate) options: bool,
    /// Sockets are closed so long after the start, whatever happened; 0: not.
    pub(crate) patience: Nanos,
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) far: Far,
    pub(crate) v6: bool,
    pub(crate) paths: [Impairment; 2],
    pub(crate) boxes: [Meddling; 2],
    pub(crate) hosts: [HostPlan; 2],
    pub(crate) apps: AppPlan,
    pub(crate) connections: u16,
    /// Times that the same ports are used.
    pub(crate) rounds: u32,
    /// Both ends connect.
    pub(crate) simultaneous: bool,
    /// The first connection's sequence numbers wrap early.
    pub(crate) wraps: bool,
}

impl HostPlan {
    fn random(rng: &mut Rng) -> Self {
        let options = rng.f64() < 0.85;
        let mut option = || options || rng.bool();
        let (timestamps, sack, scaling) = (option(), option(), option());
        Self {
            kill: 0.0,
            max_gso: [0, 8_000, 65_000][rng.usize(..3)],
            gro: rng.bool(),
            buffers: (1 << rng.u8(12..20), 1 << rng.u8(12..20)),
            timestamps,
            sack,
            scaling,
            budget: [1, 4, 1_000][rng.usize(..3)],
            ecn: [EcnMode::Off, EcnMode::On, EcnMode::Passive][rng.usize(..3)],
            mtu_probing: [MtuProbing::Blackhole, MtuProbing::Always][rng.usize(..2)],
            // Of a copy, so that what is drawn after it stays what it was.
            congestion: random_algorithm(&mut rng.clone()),
            syn_backlog: [1_024, 1_024, 1_024, 1, 0][rng.usize(..5)],
            fast_open: false,
            pressure: [0, 0, 0, 20_000, 200_000][rng.clone().usize(..5)],
        }
    }
}

impl Plan {
    /// Impaired paths, ordinary applications; nobody dies and nothing stands in the way.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x9a1);
        let path = Impairment::random(&mut rng);
        let bytes = [0, 200, 20_000, 200_000, 600_000, 2_000_000][rng.usize(..6)];
        let mut plan = Self {
            seed,
            far: Far::Engine,
            v6: rng.bool(),
            paths: [path.clone(), path],
            boxes: Default::default(),
            hosts: [HostPlan::random(&mut rng), HostPlan::random(&mut rng)],
            apps: AppPlan {
                bytes,
                bulk: false,
                exchange: rng.u8(..4) == 0,
                rude: false,
                slow: [0.0, 0.0, 0.05][rng.usize(..3)],
                pause: 2_000_000,
                options: rng.bool(),
                patience: 0,
            },
            connections: rng.u16(1..4),
            rounds: 1,
            simultaneous: false,
            wraps: rng.u8(..4) == 0,
        };
        if rng.u8(..3) == 0 {
            // The two directions differ.
            plan.paths[1] = Impairment::random(&mut rng);
        }
        plan.keep_short();
        plan
    }

    /// Bytes that the slower direction carries in reasonable virtual time.
    pub(crate) fn keep_short(&mut self) {
        for path in &mut self.paths {
            if path.rate > 0 {
                // Seconds of bufferbloat, not hours.
                path.queue = path.queue.min(8 * path.rate).max(5_000);
            }
            let most = match path.loss {
                Loss::Random(p) if p > 0.05 => 100_000,
                Loss::Random(p) if p > 0.02 => 400_000,
                Loss::Burst { .. } | Loss::Every(_) => 300_000,
                _ => u64::MAX,
            };
            self.apps.bytes = self.apps.bytes.min(most);
            if path.rate > 0 {
                self.apps.bytes = self.apps.bytes.min(path.rate * 20);
            }
            if path.delay >= 100_000_000 {
                self.apps.bytes = self.apps.bytes.min(300_000);
            }
        }
    }

    /// Everything else that links do: bursts, outages, corruption, bunching, MTU changes.
    pub(crate) fn with_trouble(mut self) -> Self {
        let mut rng = Rng::with_seed(self.seed ^ 0x7b0b1e);
        for path in &mut self.paths {
            trouble(path, &mut rng);
        }
        self.keep_short();
        self
    }

    /// Middleboxes.
    pub(crate) fn with_middleboxes(mut self) -> Self {
        let mut rng = Rng::with_seed(self.seed ^ 0xb0c5);
        for meddling in &mut self.boxes {
            *meddling = draw_meddling(&mut rng);
        }
        if rng.u8(..5) == 0 {
            // In both directions: what is echoed to one that is alone in being stripped gets older
            // and older, and so do its round-trip times.
            let from = Some(rng.u64(0..2 * SECOND));
            self.boxes[0].strip_timestamps_from = from;
            self.boxes[1].strip_timestamps_from = from;
        }
        if self.boxes.iter().any(Meddling::spoils_windows) {
            // Windows that the ends understand differently make crawling connections.
            self.apps.bytes = self.apps.bytes.min(20_000);
        }
        self
    }

    /// Middleboxes that mangle, too.
    pub(crate) fn with_mangling(mut self) -> Self {
        let mut rng = Rng::with_seed(self.seed ^ 0x3a_96e);
        let both = Mangling::random(&mut rng);
        let echoes = both
            .iter()
            .any(|m| m.garble_echo > 0.0 || m.shift_stamp > 0);
        for (meddling, mangling) in self.boxes.iter_mut().zip(both) {
            meddling.mangling = mangling;
        }
        if self.boxes.iter().any(|b| b.mangling.is_active()) {
            // A timeout for each hole, where SACK says nothing or what is wrong.
            self.apps.bytes = self.apps.bytes.min(60_000);
        }
        if echoes {
            // A cookie's options come back in the echo.
            hosts(&mut self, |host| host.syn_backlog = 1_024);
        }
        self
    }

    /// For peers that do not search for the path's MTU: their direction carries what they send.
    pub(crate) fn with_full_mtu_back(mut self) -> Self {
        self.paths[1].mtu.clear();
        self.paths[1].icmp = true;
        self
    }

    /// Paths with MTUs below IPv6's least, where there is no IPv6.
    pub(crate) fn with_small_mtu(mut self) -> Self {
        let mut rng = Rng::with_seed(self.seed ^ 0x576);
        self.v6 = false;
        for path in &mut self.paths {
            let mut at = rng.u64(0..2 * SECOND);
            path.icmp = rng.u8(..3) != 0;
            path.mtu = vec![(0, [576, 1_000, 1_279, 1_500][rng.usize(..4)])];
            for _ in 0..rng.u8(..3) {
                path.mtu.push((at, rng.u16(576..1_280)));
                at += rng.u64(0..5 * SECOND);
            }
        }
        self
    }

    /// ICMP errors of all kinds, true ones and forged ones.
    pub(crate) fn with_icmp(mut self) -> Self {
        let mut rng = Rng::with_seed(self.seed ^ 0x1c3b);
        for path in &mut self.paths {
            path.unreachable = [0.0, 0.005, 0.05][rng.usize(..3)];
            path.forged = [0.01, 0.1, 0.5][rng.usize(..3)];
        }
        self
    }

    /// Data in SYNs, and the same ports again, so that there are cookies. What is duplicated could
    /// be delivered twice (RFC 7413 2.1), so nothing is.
    pub(crate) fn with_fast_open(mut self) -> Self {
        for path in &mut self.paths {
            (path.duplicate, path.reorder, path.jitter) = (0.0, 0.0, 0);
        }
        for host in &mut self.hosts {
            host.fast_open = true;
        }
        self.rounds = 3;
        self.apps.bytes = self.apps.bytes.min(50_000);
        self
    }

    /// Crashes.
    pub(crate) fn with_kills(mut self, kill: [f64; 2]) -> Self {
        self.hosts[0].kill = kill[0];
        self.hosts[1].kill = kill[1];
        self
    }

    /// What both ends of a connection do; `client`: the end that opened.
    pub(crate) fn script(&self, round: u32, port: u16, client: bool, start: Nanos) -> Script {
        let a = &self.apps;
        let salt = (u64::from(port) << 20) ^ (u64::from(round) << 40);
        let mut rng = Rng::with_seed(self.seed.wrapping_add(salt));
        let (mut up, mut down) = if a.bulk {
            (a.bytes, 0)
        } else {
            (rng.u64(0..=a.bytes), rng.u64(0..=a.bytes))
        };
        let mut exchange = None;
        if a.exchange {
            let turns = rng.u64(1..=40);
            let (question, answer) = (rng.u64(1..=3_000), rng.u64(1..=20_000));
            let turns = turns.min(a.bytes / (question + answer)).max(1);
            (up, down) = (turns * question, turns * answer);
            exchange = Some((question, answer));
        }
        let mut ends = [End::Orderly; 2];
        if a.rude {
            for end in &mut ends {
                *end = match rng.u8(..5) {
                    // Of what is known already, so that what is drawn stays what it was.
                    0 if (self.seed ^ u64::from(port)) & 1 == 0 => {
                        End::Linger(1_000 * (1 + u32::from(port)))
                    }
                    0 => End::Close,
                    1 => End::Abandon(rng.u64(0..=up + down)),
                    2 => End::Abort(rng.u64(0..=up + down)),
                    _ => End::Orderly,
                };
            }
        }
        let key = |from_client: bool| salt.rotate_left(9) | u64::from(from_client);
        let seeds = [rng.u64(..), rng.u64(..)];
        let streams = [true, false].map(|from_client| Stream {
            key: key(from_client),
            total: if from_client { up } else { down },
        });
        let own = usize::from(!client);
        let exchange = exchange.map(|(question, answer)| {
            if client {
                (question, answer, true)
            } else {
                (answer, question, false)
            }
        });
        Script {
            send: streams[own],
            receive: streams[1 - own],
            exchange,
            end: ends[own],
            habits: Habits {
                slow: a.slow,
                bulk: a.bulk,
                pause: a.pause,
                options: a.options,
            },
            tolerant: ends[1 - own] != End::Orderly || self.may_break(),
            waits: self.is_hard(),
            patience: (a.patience > 0).then_some(start + a.patience),
            seed: seeds[own],
        }
    }

    /// The far end or the path may end a connection.
    fn may_break(&self) -> bool {
        matches!(self.far, Far::Model(..))
    }

    /// A path may be dead for longer than an orphan tries.
    pub(crate) fn is_hard(&self) -> bool {
        let hard = |p: &Impairment| {
            !p.outages.is_empty()
                || !p.icmp
                || p.loss != Loss::None
                || p.corrupt > 0.0
                || p.unreachable > 0.0
        };
        self.paths.iter().any(hard)
            || self.boxes.iter().any(|b| b.mangling.is_active())
            || matches!(self.far, Far::Model(..))
    }

    /// Nothing is lost, late or out of order, and nobody dies.
    pub(crate) fn is_clean(&self) -> bool {
        let clean = |p: &Impairment| {
            p.loss == Loss::None
                && p.duplicate == 0.0
                && p.corrupt == 0.0
                && p.reorder == 0.0
                && p.jitter == 0
                && p.rate == 0
                && p.mtu.is_empty()
                && p.outages.is_empty()
                && p.bunch == 0
                && !p.ack_filter
                && p.unreachable == 0.0
        };
        self.far == Far::Engine
            && self.paths.iter().all(clean)
            && !self.boxes.iter().any(Meddling::is_active)
            && self.hosts.iter().all(|host| host.kill == 0.0)
    }
}

fn trouble(path: &mut Impairment, rng: &mut Rng) {
    match rng.u8(..5) {
        0 => {
            path.loss = Loss::Burst {
                worsens: [0.001, 0.01][rng.usize(..2)],
                heals: [0.05, 0.2, 0.5][rng.usize(..3)],
                loss: [0.5, 1.0][rng.usize(..2)],
            }
        }
        1 => path.loss = Loss::Acks([0.05, 0.15, 0.3][rng.usize(..3)]),
        2 => path.loss = Loss::Every(rng.u64(7..200)),
        _ => {}
    }
    if rng.u8(..4) == 0 {
        path.corrupt = [0.001, 0.02][rng.usize(..2)];
    }
    if rng.u8(..3) == 0 {
        path.bunch = [1_000_000, 5_000_000, 20_000_000][rng.usize(..3)];
    }
    path.ack_filter = rng.u8(..4) == 0;
    if path.rate > 0 && rng.bool() {
        path.mark_at = path.queue / 4;
    }
    if rng.u8(..3) == 0 {
        for _ in 0..rng.u8(1..3) {
            let from = rng.u64(0..5 * SECOND);
            let length = rng.u64(SECOND..60 * SECOND);
            path.outages.push((from, from + length));
        }
    }
    if rng.u8(..3) == 0 {
        // It falls, perhaps again, and may rise; nobody may say so.
        path.icmp = rng.bool();
        let mut at = rng.u64(0..SECOND);
        path.mtu.push((0, 1_500));
        for _ in 0..rng.u8(1..4) {
            path.mtu.push((at, rng.u16(1_280..=1_500)));
            at += rng.u64(0..5 * SECOND);
        }
    }
}

fn draw_meddling(rng: &mut Rng) -> Meddling {
    let mut rarely = || rng.u8(..5) == 0;
    let syn_strips = SynStrips {
        timestamps: rarely(),
        sack: rarely(),
        scale: rarely(),
        mss: rarely(),
        others: rarely(),
    };
    let mut meddling = Meddling {
        syn_strips,
        strip_sack_blocks: rarely(),
        clear_ecn: rarely(),
        ..Meddling::default()
    };
    if rng.u8(..4) == 0 {
        meddling.clamp_mss = Some(rng.u16(536..1_460));
    }
    if rng.u8(..8) == 0 {
        meddling.rewrite_scale = Some(rng.u8(..=14));
    }
    if rng.u8(..4) == 0 {
        meddling.split = Some(rng.usize(1..1_400));
    }
    if rng.u8(..4) == 0 {
        meddling.coalesce = Some(rng.usize(100..1_200));
    }
    if rng.u8(..3) == 0 {
        meddling.replay = [0.01, 0.1][rng.usize(..2)];
        meddling.replay_delay = [1_000_000, SECOND, 20 * SECOND][rng.usize(..3)];
    }
    if rng.u8(..3) == 0 {
        meddling.duplicate_syn = 0.5;
    }
    if rng.u8(..4) == 0 {
        meddling.blind_reset = 0.05;
    }
    meddling
}

/// What can be taken out of a plan: name, whether it is there, and how.
type Feature = (&'static str, fn(&mut Plan));

/// All of them, those that explain most first.
pub(crate) const FEATURES: &[Feature] = &[
    ("kills of the near host", |p| p.hosts[0].kill = 0.0),
    ("kills of the far host", |p| p.hosts[1].kill = 0.0),
    ("moved sequence numbers", |p| {
        for b in &mut p.boxes {
            (b.mangling.shift_seq, b.mangling.shift_ack) = (0, 0);
        }
    }),
    ("mangled timestamps", |p| {
        for b in &mut p.boxes {
            let m = &mut b.mangling;
            (m.garble_echo, m.age_stamp, m.shift_stamp) = (0.0, 0.0, 0);
        }
    }),
    ("foreign options", |p| {
        for b in &mut p.boxes {
            (b.mangling.unknown, b.mangling.malformed) = (0.0, 0.0);
        }
    }),
    ("the middlebox there, mangling aside", |p| {
        let mangling = std::mem::take(&mut p.boxes[0].mangling);
        p.boxes[0] = Meddling {
            mangling,
            ..Meddling::default()
        };
    }),
    ("the middlebox back, mangling aside", |p| {
        let mangling = std::mem::take(&mut p.boxes[1].mangling);
        p.boxes[1] = Meddling {
            mangling,
            ..Meddling::default()
        };
    }),
    ("memory pressure", |p| hosts(p, |host| host.pressure = 0)),
    ("loss there", |p| p.paths[0].loss = Loss::None),
    ("loss back", |p| p.paths[1].loss = Loss::None),
    ("duplication", |p| both(p, |path| path.duplicate = 0.0)),
    ("corruption", |p| both(p, |path| path.corrupt = 0.0)),
    ("reordering", |p| both(p, |path| path.reorder = 0.0)),
    ("jitter", |p| both(p, |path| path.jitter = 0)),
    ("outages", |p| both(p, |path| path.outages.clear())),
    ("MTU changes", |p| both(p, |path| path.mtu.clear())),
    ("bunching", |p| both(p, |path| path.bunch = 0)),
    ("the ACK filter", |p| {
        both(p, |path| path.ack_filter = false)
    }),
    ("cookies", |p| hosts(p, |host| host.syn_backlog = 1_024)),
    ("the congestion control", |p| {
        hosts(p, |host| host.congestion = Algorithm::NewReno);
    }),
    ("wrapping sequence numbers", |p| p.wraps = false),
    ("lost reports of MTUs", |p| both(p, |path| path.icmp = true)),
    ("ICMP errors", |p| {
        both(p, |path| (path.unreachable, path.forged) = (0.0, 0.0));
    }),
    ("Fast Open", |p| hosts(p, |host| host.fast_open = false)),
    ("ECN", |p| hosts(p, |host| host.ecn = EcnMode::Off)),
    ("ECN marks", |p| both(p, |path| path.mark_at = 0)),
    ("the rate limit", |p| both(p, |path| path.rate = 0)),
    ("the delay", |p| both(p, |path| path.delay = 50_000)),
    ("socket options", |p| p.apps.options = false),
    ("rude ends", |p| p.apps.rude = false),
    ("exchanges", |p| p.apps.exchange = false),
    ("slow applications", |p| p.apps.slow = 0.0),
    ("more connections than one", |p| p.connections = 1),
    ("more rounds than one", |p| p.rounds = 1),
    ("IPv6", |p| p.v6 = false),
    ("simultaneous opening", |p| p.simultaneous = false),
    ("large units", |p| hosts(p, |host| host.max_gso = 0)),
    ("merged reception", |p| hosts(p, |host| host.gro = false)),
    ("small budgets", |p| hosts(p, |host| host.budget = 1_000)),
    ("small buffers", |p| {
        hosts(p, |host| host.buffers = (1 << 19, 1 << 19))
    }),
    ("timestamps", |p| hosts(p, |host| host.timestamps = false)),
    ("SACK", |p| hosts(p, |host| host.sack = false)),
    ("window scaling", |p| hosts(p, |host| host.scaling = false)),
    ("many bytes", |p| p.apps.bytes = p.apps.bytes.min(5_000)),
];

fn both(plan: &mut Plan, f: impl Fn(&mut Impairment)) {
    plan.paths.iter_mut().for_each(f);
}

fn hosts(plan: &mut Plan, f: impl Fn(&mut HostPlan)) {
    plan.hosts.iter_mut().for_each(f);
}
