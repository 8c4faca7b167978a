//! Two hosts, two links, one clock.

use crate::app::{App, Habits};
use crate::host::Host;
use crate::link::{Impairment, Link};
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use tcpd::engine::Config;

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) impairment: Impairment,
    pub(crate) connections: u32,
    /// Most bytes each way.
    pub(crate) bytes: u64,
    /// Buffers of each socket: send and receive.
    pub(crate) buffers: (usize, usize),
    /// Probability of a crash in each batch, client and server.
    pub(crate) kill: [f64; 2],
    /// Both ends connect.
    pub(crate) simultaneous: bool,
    /// SACK, timestamps and window scaling.
    pub(crate) options: bool,
    pub(crate) max_gso: u32,
    /// Segments a batch may make.
    pub(crate) budget: usize,
    /// Probability that an application pauses.
    pub(crate) slow: f64,
    /// The client sends exactly `bytes`, the server nothing, in pieces as large as fit.
    pub(crate) bulk: bool,
    /// Longest time an application takes between two actions.
    pub(crate) app_pause: Nanos,
}

impl Plan {
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self {
            seed,
            impairment: Impairment::random(&mut rng),
            connections: rng.u32(1..4),
            bytes: [200, 20_000, 200_000, 600_000][rng.usize(..4)],
            buffers: (1 << rng.u8(12..19), 1 << rng.u8(12..19)),
            kill: [0.0, 0.0],
            simultaneous: false,
            options: rng.f64() < 0.9,
            max_gso: [0, 8_000, 65_000][rng.usize(..3)],
            budget: [1, 4, 1_000][rng.usize(..3)],
            slow: [0.0, 0.0, 0.05][rng.usize(..3)],
            bulk: false,
            app_pause: 2_000_000,
        }
    }
}

pub(crate) struct World {
    now: Nanos,
    hosts: [Host; 2],
    links: [Link; 2],
    budget: usize,
    steps: u64,
    bulk: bool,
}

fn endpoint(host: u8, port: u16) -> Endpoint {
    Endpoint::new([10, 0, 0, host].into(), port)
}

const START: Nanos = 5_000_000_000;
const PORT: u16 = 80;

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed ^ 0x5eed);
        let config = |n: u8| Config {
            capacity: 256,
            secret: [n; 16],
            max_gso: plan.max_gso,
            timestamps: plan.options,
            window_scaling: plan.options,
            sack: plan.options,
            ..Config::default()
        };
        // Streams are named by the client's port, which both ends know.
        let (seed, bytes, bulk) = (plan.seed, plan.bytes, plan.bulk);
        let habits = Habits {
            slow: plan.slow,
            bulk,
            pause: plan.app_pause,
        };
        let lengths = move |port: u16| {
            if bulk {
                return (bytes, 0);
            }
            let mut rng = Rng::with_seed(seed.wrapping_add(u64::from(port) << 20));
            (rng.u64(0..=bytes), rng.u64(0..=bytes))
        };
        let key = |port: u16, from_client: bool| u64::from(port) << 1 | u64::from(from_client);
        let side = move |port: u16, client: bool| {
            let (up, down) = lengths(port);
            let up = (key(port, true), up);
            let down = (key(port, false), down);
            if client { (up, down) } else { (down, up) }
        };
        let mut make = |client: bool, kill: f64| {
            let make_app = move |conn, record: &tcpd::engine::Tcb| {
                let port = if client {
                    record.local.port
                } else {
                    record.remote.port
                };
                let (send, receive) = side(port, client);
                App::new(
                    conn,
                    record.generation,
                    send,
                    receive,
                    habits,
                    seed ^ u64::from(port),
                )
            };
            Host::new(
                if client { "client" } else { "server" },
                config(u8::from(client)),
                plan.buffers,
                kill,
                rng.u64(..),
                Box::new(make_app),
            )
        };
        let mut client = make(true, plan.kill[0]);
        let mut server = make(false, plan.kill[1]);
        let now = START;
        if plan.simultaneous {
            let (a, b) = (endpoint(1, 5_000), endpoint(2, PORT));
            for (host, local, remote, is_client) in
                [(&mut client, a, b, true), (&mut server, b, a, false)]
            {
                let (send, receive) = side(5_000, is_client);
                host.connect(now, Some(local), local, remote, |conn, generation| {
                    App::new(conn, generation, send, receive, habits, seed)
                });
            }
        } else {
            server.listen(now, endpoint(2, PORT));
            for i in 0..plan.connections {
                let port = 6_000 + i as u16;
                let (send, receive) = side(port, true);
                let local = endpoint(1, port);
                client.connect(
                    now,
                    Some(local),
                    local,
                    endpoint(2, PORT),
                    |conn, generation| {
                        App::new(conn, generation, send, receive, habits, seed ^ u64::from(i))
                    },
                );
            }
        }
        Self {
            now,
            hosts: [client, server],
            links: [
                Link::new(plan.impairment, rng.u64(..)),
                Link::new(plan.impairment, rng.u64(..)),
            ],
            budget: plan.budget,
            steps: 0,
            bulk: plan.bulk,
        }
    }

    /// Runs until nothing is left, and returns when that was.
    pub(crate) fn run(mut self) -> Nanos {
        loop {
            for side in 0..2 {
                let out = self.hosts[side].batch(self.now, self.budget);
                for packet in out {
                    self.links[side].send(self.now, packet);
                }
            }
            if self.bulk && self.hosts.iter().all(Host::is_delivered) {
                return self.now - START;
            }
            if self.hosts.iter().all(Host::is_idle) {
                return self.now - START;
            }
            let busy = self.hosts.iter().any(|host| host.engine.wants_output());
            let next = self
                .hosts
                .iter()
                .map(Host::next)
                .chain(self.links.iter().map(Link::next))
                .flatten()
                .min()
                .unwrap_or(Nanos::MAX);
            if busy {
                self.now += 1_000;
            } else {
                assert!(
                    next != Nanos::MAX,
                    "nothing will ever happen again: {}",
                    self.state()
                );
                self.now = next.max(self.now + 1);
            }
            for side in 0..2 {
                let arrived = self.links[side].arrivals(self.now);
                self.hosts[1 - side].inbox.extend(arrived);
            }
            self.steps += 1;
            assert!(self.steps < 3_000_000, "too many steps: {}", self.state());
            assert!(
                self.now - START < 4 * 3_600 * 1_000_000_000,
                "too late: {}",
                self.state()
            );
        }
    }

    fn state(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            text += &format!("\n{}: {} kills\n", host.name, host.kills);
            for (id, tcb) in host.committed.iter().take(3) {
                text += &format!("{id:?} {} {tcb:?}\n", tcb.state().name());
            }
            for app in host.apps.values().take(3) {
                text += &format!("{app:?}\n");
            }
        }
        text
    }
}
