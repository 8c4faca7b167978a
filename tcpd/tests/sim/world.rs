//! Two hosts, two paths, one clock.

use crate::app::App;
use crate::host::Host;
use crate::invariants::History;
use crate::link::Link;
use crate::middlebox::{Meddling, Middlebox};
use crate::packet::Packet;
use crate::peers::model::Model;
use crate::peers::smol;
use crate::plan::{Far, HostPlan, Plan};
use crate::trace::{SENT, Trace};
use crate::wiretap::Wiretap;
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use std::cell::Cell;
use std::rc::Rc;
use tcpd::engine::memory::{Limits, MemoryConfig};
use tcpd::engine::{Config, Tcb};

/// When a run begins.
pub(crate) const START: Nanos = 5_000_000_000;
/// The server's port; clients have `CLIENT_PORT` and the next.
pub(crate) const PORT: u16 = 80;
pub(crate) const CLIENT_PORT: u16 = 6_000;
/// No run takes longer, in virtual time.
const MOST_TIME: Nanos = 12 * 3_600 * 1_000_000_000;
const MOST_STEPS: u64 = 4_000_000;
/// How often a connect is tried again that TIME_WAIT forbids.
const TRY_AGAIN: Nanos = 1_000_000_000;

/// Who is on a side.
enum Node {
    Engine(Box<Host>),
    Smoltcp(Box<smol::Peer>),
    Model(Box<Model>),
}

impl Node {
    fn turn(&mut self, now: Nanos) -> Vec<Packet> {
        match self {
            Self::Engine(host) => host.batch(now),
            Self::Smoltcp(peer) => peer.turn(now),
            Self::Model(peer) => peer.turn(now),
        }
    }

    fn receive(&mut self, packets: Vec<Packet>) {
        match self {
            Self::Engine(host) => host.inbox.extend(packets),
            Self::Smoltcp(peer) => peer.inbox.extend(packets),
            Self::Model(peer) => peer.inbox.extend(packets),
        }
    }

    fn next(&mut self, now: Nanos) -> Option<Nanos> {
        match self {
            Self::Engine(host) if host.engine.wants_output() => Some(now + 1_000),
            Self::Engine(host) => host.next(),
            Self::Smoltcp(peer) => peer.next(now),
            Self::Model(peer) => peer.next(),
        }
    }

    fn is_idle(&self) -> bool {
        match self {
            Self::Engine(host) => host.is_idle(),
            Self::Smoltcp(peer) => peer.is_done(),
            Self::Model(peer) => peer.is_idle(),
        }
    }

    fn host(&self) -> Option<&Host> {
        match self {
            Self::Engine(host) => Some(host),
            _ => None,
        }
    }
}

pub(crate) struct World {
    plan: Plan,
    start: Nanos,
    now: Nanos,
    nodes: [Node; 2],
    boxes: [Middlebox; 2],
    links: [Link; 2],
    wiretap: Wiretap,
    pub(crate) trace: Trace,
    /// The present use of the ports; applications that are accepted look here.
    round: Rc<Cell<u32>>,
    /// When connects are (tried again and) still to be made, and from which ports.
    to_connect: Vec<(Nanos, u16)>,
    steps: u64,
}

pub(crate) fn endpoint(v6: bool, host: u8, port: u16) -> Endpoint {
    if v6 {
        let ip = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into());
        Endpoint::new(ip.into(), port)
    } else {
        Endpoint::new([10, 0, 0, host].into(), port)
    }
}

/// On every other host buffers begin with two pages and grow while the connections go on. Where
/// applications set sizes, a SYN may offer 64 KiB, and no base may be less.
fn memory(plan: &HostPlan, sizes: bool) -> MemoryConfig {
    let mut usual = MemoryConfig::default();
    if plan.pressure > 0 {
        usual.limits = Limits {
            low: plan.pressure / 2,
            pressure: plan.pressure,
            high: u64::MAX,
        };
    }
    if plan.buffers.0 <= plan.buffers.1 {
        return usual;
    }
    MemoryConfig {
        rmem: [2_048, 8_192, 8 << 20],
        wmem: [2_048, 8_192, 8 << 20],
        base: if sizes { 1 << 16 } else { 8_192 },
        idle: 1_000_000_000,
        ..usual
    }
}

fn config(plan: &HostPlan, secret: u8, hard: bool, sizes: bool) -> Config {
    let mut usual = Config::default();
    usual.open.fast_open_client = plan.fast_open;
    usual.open.fast_open_server = plan.fast_open;
    Config {
        // Handshakes outlive outages.
        syn_retries: usual.syn_retries + 3 * u32::from(hard),
        synack_retries: usual.synack_retries + 3 * u32::from(hard),
        capacity: 256,
        secret: [secret; 16],
        max_gso: plan.max_gso,
        timestamps: plan.timestamps,
        window_scaling: plan.scaling,
        sack: plan.sack,
        ecn: plan.ecn,
        mtu_probing: plan.mtu_probing,
        congestion: plan.congestion,
        max_syn_backlog: plan.syn_backlog,
        memory: memory(plan, sizes),
        ..usual
    }
}

/// When a run begins: usually at [`START`]. Initial sequence numbers come from a clock, so that
/// there is a time at which those of the first connection are about to wrap.
fn start_of(plan: &Plan) -> Nanos {
    if !plan.wraps || plan.far != Far::Engine {
        return START;
    }
    let (local, remote) = (
        endpoint(plan.v6, 1, CLIENT_PORT),
        endpoint(plan.v6, 2, PORT),
    );
    let first_sequence = |now: Nanos| {
        let config = config(&plan.hosts[0], 1, false, plan.apps.options);
        let mut host = Host::new(
            "trial",
            config,
            plan.hosts[0],
            plan.v6,
            0,
            Box::new(|_, _| panic!("nobody connects")),
            History::new(false),
        );
        let script = plan.script(0, CLIENT_PORT, true, now);
        host.connect(now, local, remote, |conn, generation| {
            App::new(conn, generation, script)
        })
        .unwrap();
        host.engine.records().next().unwrap().1.iss
    };
    let iss = first_sequence(START);
    // RFC 6528 3: a tick each four microseconds.
    let ticks = (1 + plan.seed as u32 % 100_000)
        .wrapping_add(iss)
        .wrapping_neg();
    let start = START + Nanos::from(ticks) * 4_000;
    let iss = first_sequence(start);
    assert!(iss > u32::MAX - 200_000, "{iss} is not about to wrap");
    start
}

impl World {
    pub(crate) fn new(plan: &Plan, full_trace: bool) -> Self {
        let mut rng = Rng::with_seed(plan.seed ^ 0x5eed);
        let start = start_of(plan);
        let round = Rc::new(Cell::new(0));
        let make = |near: bool, seed: u64| {
            let (accepted, round) = (plan.clone(), round.clone());
            let make_app = move |conn, record: &Tcb| {
                // The client's port names the connection.
                let port = record.remote.port;
                let script = accepted.script(round.get(), port, false, record.created_at);
                App::new(conn, record.generation, script)
            };
            let own = plan.hosts[usize::from(!near)];
            Box::new(Host::new(
                if near { "near" } else { "far" },
                config(&own, u8::from(near), plan.is_hard(), plan.apps.options),
                own,
                plan.v6,
                seed,
                Box::new(make_app),
                History::new(plan.is_clean()),
            ))
        };
        let near = make(true, rng.u64(..));
        let seed = rng.u64(..);
        let far = match plan.far {
            Far::Engine => Node::Engine(make(false, seed)),
            Far::Smoltcp(opens) => Node::Smoltcp(Box::new(smol::Peer::new(plan, opens, seed))),
            Far::Model(manners, opens) => {
                Node::Model(Box::new(Model::new(plan, manners, opens, seed)))
            }
        };
        let link = |side: usize, seed| Link::new(side, start, plan.paths[side].clone(), seed);
        let meddle = |side: usize, seed| Middlebox::new(start, plan.boxes[side].clone(), seed);
        let scales_hold = !plan.boxes.iter().any(Meddling::spoils_windows);
        // Where numbers are moved, what one end says is not about what the other sent.
        let moved = plan.boxes.iter().any(|b| b.mangling.shift_seq != 0);
        let judged = [!moved, !moved && plan.far == Far::Engine];
        let mut world = Self {
            plan: plan.clone(),
            now: start,
            start,
            nodes: [Node::Engine(near), far],
            boxes: [meddle(0, rng.u64(..)), meddle(1, rng.u64(..))],
            links: [link(0, rng.u64(..)), link(1, rng.u64(..))],
            wiretap: Wiretap::new(judged, scales_hold),
            trace: Trace::new(start, full_trace),
            round,
            to_connect: Vec::new(),
            steps: 0,
        };
        world.open();
        world
    }

    /// The address and port that the far end has, and the near one's, for connection `i`.
    fn ends(&self, i: u16) -> (Endpoint, Endpoint) {
        let v6 = self.plan.v6;
        (endpoint(v6, 1, CLIENT_PORT + i), endpoint(v6, 2, PORT))
    }

    fn open(&mut self) {
        let now = self.now;
        let v6 = self.plan.v6;
        if self.plan.simultaneous {
            let (a, b) = self.ends(0);
            for (side, local, remote) in [(0, a, b), (1, b, a)] {
                let script = self.plan.script(0, CLIENT_PORT, side == 0, now);
                let Node::Engine(host) = &mut self.nodes[side] else {
                    panic!("only engines open at the same time");
                };
                host.connect(now, local, remote, |conn, generation| {
                    App::new(conn, generation, script)
                })
                .unwrap();
            }
            return;
        }
        let far_opens = matches!(self.plan.far, Far::Smoltcp(true) | Far::Model(_, true));
        if far_opens {
            if let Node::Engine(host) = &mut self.nodes[0] {
                host.listen(now, endpoint(v6, 1, PORT));
            }
            return;
        }
        if let Node::Engine(host) = &mut self.nodes[1] {
            host.listen(now, endpoint(v6, 2, PORT));
        }
        self.to_connect = (0..self.plan.connections).map(|i| (now, i)).collect();
        self.connect();
    }

    /// The connects that are due.
    fn connect(&mut self) {
        let now = self.now;
        for (at, i) in std::mem::take(&mut self.to_connect) {
            if at > now {
                self.to_connect.push((at, i));
                continue;
            }
            let (local, remote) = self.ends(i);
            let script = self.plan.script(self.round.get(), local.port, true, now);
            let Node::Engine(host) = &mut self.nodes[0] else {
                panic!("the near host is an engine");
            };
            let outcome = host.connect(now, local, remote, |conn, generation| {
                App::new(conn, generation, script)
            });
            if outcome.is_err() {
                self.to_connect.push((now + TRY_AGAIN, i));
            }
        }
    }

    /// All connections of a round are over for the applications: the same ports again.
    fn next_round(&mut self) {
        let more = self.round.get() + 1 < self.plan.rounds;
        let quiet = |node: &Node| node.host().is_none_or(Host::is_quiet);
        if more && self.to_connect.is_empty() && self.nodes.iter().all(quiet) {
            self.round.set(self.round.get() + 1);
            self.to_connect = (0..self.plan.connections).map(|i| (self.now, i)).collect();
        }
    }

    fn is_over(&self) -> bool {
        let delivered = |node: &Node| {
            node.host()
                .is_some_and(|host| host.apps.values().any(App::is_delivered))
        };
        if self.plan.apps.bulk {
            return self.nodes[1]
                .host()
                .is_some_and(|host| !host.apps.is_empty())
                && delivered(&self.nodes[1]);
        }
        self.to_connect.is_empty()
            && self.round.get() + 1 >= self.plan.rounds
            && self.nodes.iter().all(Node::is_idle)
    }

    /// Runs until nothing is left, and returns when that was.
    pub(crate) fn run(&mut self) -> Nanos {
        loop {
            self.turn();
            if self.is_over() {
                self.finish();
                return self.now - self.start;
            }
            self.next_round();
            self.advance();
            self.steps += 1;
            assert!(self.steps < MOST_STEPS, "too many steps");
            assert!(self.now - self.start < MOST_TIME, "too late");
        }
    }

    /// Both hosts do what they can; what they let out enters the paths.
    fn turn(&mut self) {
        for side in 0..2 {
            let out = self.nodes[side].turn(self.now);
            for packet in &out {
                self.trace.note(self.now, side, SENT, packet);
                self.wiretap.emitted(self.now, side, packet);
            }
            for (packet, late) in self.boxes[side].pass(self.now, out) {
                self.links[side].send(self.now, packet, late, &mut self.trace);
            }
        }
    }

    /// To the next event.
    fn advance(&mut self) {
        let now = self.now;
        let nodes = self.nodes.iter_mut().filter_map(|node| node.next(now));
        let links = self.links.iter().filter_map(Link::next);
        let connects = self.to_connect.iter().map(|&(at, _)| at);
        let next = nodes.chain(links).chain(connects).min();
        let next = next.expect("nothing will ever happen again");
        self.now = next.max(now + 1);
        self.connect();
        for side in 0..2 {
            let arrived = self.links[side].arrivals(self.now, &mut self.trace);
            self.nodes[1 - side].receive(arrived);
            for report in self.links[side].reports(self.now) {
                if let Node::Engine(host) = &mut self.nodes[side] {
                    host.on_icmp(self.now, &report);
                }
            }
        }
    }

    fn finish(&mut self) {
        let bulk = self.plan.apps.bulk;
        for host in self.nodes.iter().filter_map(Node::host) {
            if self.plan.is_clean() {
                let stats = host.engine.stats();
                assert_eq!(stats.timeouts, 0, "timeouts on a clean link");
                // Otherwise a probe of the tail may overtake a delayed acknowledgement.
                assert!(!bulk || stats.retrans == 0, "sent again on a clean link");
            }
            let asked = host.engine.stats().fast_open_requests;
            if host.name == "far" && host.plan.fast_open && host.kills == 0 {
                assert!(asked > 0, "nobody asked for a Fast Open cookie");
            }
            if !bulk {
                host.assert_baseline();
            }
        }
        if let Node::Model(peer) = &self.nodes[1] {
            peer.assert_complete();
        }
    }

    /// What there is to see, for a report.
    pub(crate) fn state(&self) -> String {
        let time = (self.now - self.start) as f64 / 1e9;
        let mut text = format!(
            "at {time:.6} s, step {}, round {}\n",
            self.steps,
            self.round.get()
        );
        for node in &self.nodes {
            match node {
                Node::Engine(host) => text += &describe(host),
                Node::Smoltcp(peer) => text += &peer.describe(),
                Node::Model(peer) => text += &peer.describe(),
            }
        }
        text
    }
}

fn describe(host: &Host) -> String {
    let mut text = format!(
        "{}: {} kills, {:?}\n",
        host.name,
        host.kills,
        host.engine.stats()
    );
    for (id, tcb) in host.committed.iter().take(4) {
        text += &format!("{id:?} {} {}\n", tcb.state().name(), summary(tcb));
    }
    for app in host.apps.values().take(4) {
        text += &format!("{:?} closed {} {:?}\n", app.words, app.closed, app.script);
    }
    text
}

/// The part of a record that explains most.
fn summary(tcb: &Tcb) -> String {
    format!(
        "una {} nxt {} end {} wnd {} (flags {:#x}) | nxt {} adv {} consumed {} fin {} | cwnd {} \
         ssthresh {} pipe-phase {:?} | timers {:?}\n   {:?}\n   {:?}\n   {:?}",
        tcb.snd_una,
        tcb.snd_nxt,
        tcb.data_end(),
        tcb.snd_wnd,
        tcb.flags,
        tcb.rcv_nxt,
        tcb.rcv_adv,
        tcb.consumed,
        tcb.fin_at,
        tcb.cc.cwnd,
        tcb.cc.ssthresh,
        tcb.recovery.phase(),
        tcb.deadlines,
        tcb.negotiated,
        tcb.counters,
        tcb.recovery,
    )
}
