//! Two engines, applications that read and write at once or not at all, and a path of 100 ms.

use abi::Endpoint;
use abi::session::Rings;
use tcpd::engine::memory::MemoryConfig;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Notice, OpenParams, Payload, Route,
    SegmentMeta, SegmentOut, SocketRef, Tcb,
};

pub(crate) const SECOND: u64 = 1_000_000_000;
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

    fn attach(&mut self, _: ConnId, _: SocketRef, child: ConnId) -> Option<SocketRef> {
        Some(SocketRef {
            region: 2,
            slot: 7 + child.0,
        })
    }
}

/// What an application does each time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Use {
    pub(crate) write: bool,
    pub(crate) read: bool,
}

pub(crate) const NOTHING: Use = Use {
    write: false,
    read: false,
};
pub(crate) const READ: Use = Use {
    write: false,
    read: true,
};
pub(crate) const WRITE: Use = Use {
    write: true,
    read: false,
};
pub(crate) const BOTH: Use = Use {
    write: true,
    read: true,
};

pub(crate) struct Host {
    pub(crate) engine: Engine,
    /// Connections, in the order in which they were opened or accepted.
    pub(crate) conns: Vec<ConnId>,
    pub(crate) idle: Vec<ConnId>,
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
        Self {
            engine: Engine::new(config),
            conns: Vec::new(),
            idle: Vec::new(),
            wire: Vec::new(),
        }
    }

    fn open(&mut self, now: u64) -> ConnId {
        let params = OpenParams {
            owner: SocketRef {
                region: 1,
                slot: 1 + self.conns.len() as u32,
            },
            v6: false,
            rcv_capacity: 8 << 20,
            snd_capacity: 8 << 20,
        };
        self.engine.open(now, &params).unwrap()
    }

    /// Of a connection that is there.
    pub(crate) fn tcb(&self, index: usize) -> Tcb {
        *self.engine.record(self.conns[index]).unwrap()
    }

    pub(crate) fn charge(&self, index: usize) -> u64 {
        self.engine.charge(self.conns[index])
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.engine.memory_use().bytes
    }

    fn turn(&mut self, now: u64, uses: impl Fn(usize) -> Use) {
        self.engine.on_timer(now);
        for (index, &id) in self.conns.iter().enumerate() {
            let Some(tcb) = self.engine.record(id).copied() else {
                continue;
            };
            if !tcb.state().is_synchronized() || tcb.is_orphan() {
                continue;
            }
            let Use { write, read } = uses(index);
            let written = if write {
                tcb.written.max(tcb.acked_upto() + tcb.send_room())
            } else {
                tcb.written
            };
            let consumed = if read {
                tcb.received_upto()
            } else {
                tcb.consumed
            };
            let words = AppWords {
                written,
                consumed,
                accepted: true,
                ..AppWords::default()
            };
            self.engine.on_app(now, id, &words).unwrap();
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
                Notice::Accepted { child, .. } => self.conns.push(child),
                Notice::Idle(id) => self.idle.push(id),
                Notice::Spare(id) => self.engine.gave_back(id, true, true),
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

pub(crate) struct Pair {
    pub(crate) client: Host,
    pub(crate) server: Host,
    pub(crate) listener: ConnId,
    pub(crate) now: u64,
    /// Nothing arrives.
    pub(crate) cut: bool,
    /// The server's next segment with data is lost, so many times.
    pub(crate) lose: u32,
}

fn remote() -> Endpoint {
    Endpoint::new([10, 0, 0, 2].into(), 80)
}

impl Pair {
    /// One connection is on its way.
    pub(crate) fn new(client: &MemoryConfig, server: &MemoryConfig) -> Self {
        let (client, mut server) = (Host::new(1, client), Host::new(2, server));
        let listener = server.open(1);
        server.engine.bind(1, listener, remote()).unwrap();
        server.engine.listen(1, listener, 1_000).unwrap();
        let mut pair = Self {
            client,
            server,
            listener,
            now: SECOND,
            cut: false,
            lose: 0,
        };
        pair.connect();
        pair
    }

    /// Another one.
    pub(crate) fn connect(&mut self) {
        let route = Route {
            source: [10, 0, 0, 1].into(),
            mtu: 1_500,
        };
        let id = self.client.open(self.now);
        self.client
            .engine
            .connect(self.now, id, remote(), &route)
            .unwrap();
        self.client.conns.push(id);
    }

    /// `client` and `server` say what is done with each connection.
    pub(crate) fn run(
        &mut self,
        time: u64,
        client: impl Fn(usize) -> Use,
        server: impl Fn(usize) -> Use,
    ) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let mut to_server = self.client.arrived(self.now);
            let mut to_client = self.server.arrived(self.now);
            if self.cut {
                to_server.clear();
                to_client.clear();
            }
            if self.lose > 0
                && let Some(at) = to_server.iter().position(|s| s.payload.is_some())
            {
                to_server.remove(at);
                self.lose -= 1;
            }
            self.server.take(self.now, &to_server);
            self.client.take(self.now, &to_client);
            self.client.turn(self.now, &client);
            self.server.turn(self.now, &server);
        }
    }
}
