//! tcpd starts with many connections: those that were at work last are served while others are
//! still being read, and nothing new begins before all are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that fails should say so at once"
)]

use abi::config::{DeviceKind, Role};
use abi::session::{Answer, Op, Reply, Request, SocketId, SocketKind};
use abi::{DevIndex, Endpoint, LAYOUT_VERSION, ServiceId};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use runtime::Plumbing;
use runtime::channel::{FdChannel, Received};
use runtime::testing::{Fabric, Worker};
use shm::SizeClass;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use tcpd::Tcpd;
use wire::SeqNumber;
use wire::tcp::{Flags, Repr};

const IPD: ServiceId = ServiceId(1);
const TCPD: ServiceId = ServiceId(2);
const LISTENER: &str = "10.77.1.2:80";
const PEER: &str = "10.77.1.9";
/// Connections: more than a debug build reads before it serves anybody.
const COUNT: u16 = 20;
const FIRST_PORT: u16 = 5000;

fn now() -> abi::Nanos {
    runtime::clock::now()
}

/// A peer's end of a connection.
#[derive(Debug, Clone, Copy)]
struct Flow {
    port: u16,
    seq: u32,
    ack: u32,
}

struct Stage {
    fabric: Fabric,
    ipd: Plumbing,
    tcpd: Option<Worker<Tcpd>>,
    requests: FdChannel,
    /// The application's descriptors.
    held: Vec<OwnedFd>,
}

fn unix_socket() -> OwnedFd {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

impl Stage {
    fn new() -> Self {
        let device = DevIndex(1);
        let mut fabric = Fabric::new(&[
            (IPD, Role::Ipd),
            (TCPD, Role::Tcpd),
            (ServiceId(3), Role::Netdevd { device }),
        ]);
        for device in &mut fabric.stack_mut().devices {
            device.kind = DeviceKind::Tap;
        }
        let name = format!("tcpd-loading-{}-{}", std::process::id(), fastrand::u64(..));
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        let listener = unix_socket();
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(16).unwrap()).unwrap();
        fabric.set_listener(TCPD, listener);
        let ipd = fabric.plumbing(IPD);
        let tcpd = fabric.worker::<Tcpd>(TCPD);
        let fd = unix_socket();
        connect(fd.as_raw_fd(), &address).unwrap();
        let mut this = Self {
            fabric,
            ipd,
            tcpd: Some(tcpd),
            requests: FdChannel::new(fd).unwrap(),
            held: Vec::new(),
        };
        let version = LAYOUT_VERSION;
        this.ask(1, Op::Hello { version });
        this.settle();
        assert!(this.answer().is_ok());
        this
    }

    fn ask(&self, id: u64, op: Op) {
        self.requests.send(&Request { id, op }, &[]).unwrap();
    }

    fn answer(&mut self) -> Result<Answer, i32> {
        match self.requests.recv::<Reply>().unwrap() {
            Received::Message(reply, fds) => {
                self.held.extend(fds);
                reply.result
            }
            other => panic!("{other:?}"),
        }
    }

    fn is_answered(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.requests.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    fn call(&mut self, id: u64, op: Op) -> Answer {
        self.ask(id, op);
        self.settle();
        self.answer().unwrap()
    }

    fn listener(&mut self) -> SocketId {
        let socket = Op::Socket {
            v6: false,
            kind: SocketKind::Stream,
        };
        let Answer::Socket(id) = self.call(2, socket) else {
            panic!("a socket")
        };
        let at: SocketAddr = LISTENER.parse().unwrap();
        assert_eq!(self.call(3, Op::Bind(id, at)), Answer::Done);
        assert_eq!(self.call(4, Op::Listen(id, 128)), Answer::Done);
        id
    }

    fn turn(&mut self) {
        self.tcpd.as_mut().unwrap().turn(now());
    }

    fn settle(&mut self) {
        self.tcpd.as_mut().unwrap().settle(now());
    }

    /// Kills tcpd and starts another, which takes no turn.
    fn restart(&mut self) {
        self.tcpd = None;
        self.tcpd = Some(self.fabric.worker::<Tcpd>(TCPD));
    }

    fn send(&mut self, flow: Flow, flags: Flags, payload: &[u8]) {
        let to: SocketAddr = LISTENER.parse().unwrap();
        let from = SocketAddr::new(PEER.parse().unwrap(), flow.port);
        let repr = Repr {
            src_port: from.port(),
            dst_port: to.port(),
            seq: SeqNumber(flow.seq),
            ack: SeqNumber(flow.ack),
            flags,
            window: 60_000,
            ..Repr::default()
        };
        let mut segment = vec![0; repr.header_len() + payload.len()];
        repr.emit(&mut segment).unwrap();
        let header = repr.header_len();
        segment[header..].copy_from_slice(payload);
        wire::tcp::fill_checksum(&mut segment, from.ip(), to.ip()).unwrap();
        let alloc = self.ipd.alloc.as_mut().unwrap();
        let mut skb = alloc.alloc(SizeClass::Small).unwrap();
        skb.put(segment.len()).unwrap().copy_from_slice(&segment);
        let at = skb.data_offset() as u16;
        let (src, dst) = (Endpoint::new(from.ip(), 0), Endpoint::new(to.ip(), 0));
        let d = skb.desc_mut();
        d.transport = at;
        (d.src, d.dst, d.family) = (src.addr, dst.addr, src.family);
        (d.protocol, d.ttl, d.dev_in) = (6, 61, 1);
        let link = self.ipd.link_to(TCPD).unwrap();
        self.ipd.links[link].send(skb).unwrap();
        self.ipd.links[link].flush();
    }

    /// What tcpd has sent to `port`: its headers.
    fn sent(&mut self) -> Vec<Repr> {
        let link = self.ipd.link_to(TCPD).unwrap();
        let Plumbing { arena, links, .. } = &mut self.ipd;
        let mut all = Vec::new();
        links[link].recv(arena, 1024, |skb| {
            all.push(Repr::parse(skb.linear()).unwrap().0);
        });
        all
    }

    fn sent_to(&mut self, port: u16) -> Vec<Repr> {
        let all = self.sent();
        all.into_iter().filter(|r| r.dst_port == port).collect()
    }

    /// The peer connects, and sends a byte.
    fn connect(&mut self, port: u16) -> Flow {
        let mut flow = Flow {
            port,
            seq: 1000,
            ack: 0,
        };
        self.send(flow, Flags::SYN, &[]);
        self.settle();
        let answer = self.sent_to(port).swap_remove(0);
        assert_eq!(answer.flags, Flags::SYN | Flags::ACK);
        flow = Flow {
            port,
            seq: 1001,
            ack: answer.seq.0.wrapping_add(1),
        };
        self.send(flow, Flags::ACK, b"x");
        flow.seq += 1;
        self.settle();
        self.sent();
        flow
    }

    fn count(&self, name: &str) -> u64 {
        let counters = self.fabric.vitals(TCPD).counters();
        counters.iter().find(|(n, _)| n == name).unwrap().1
    }
}

/// In a debug build few records are read in each turn.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "20 records are read at once")]
fn those_at_work_are_served_before_others_are_read() {
    let mut t = Stage::new();
    t.listener();
    let mut flows: Vec<Flow> = (0..COUNT).map(|n| t.connect(FIRST_PORT + n)).collect();
    let slots = t.fabric.free_slots(IPD);
    t.restart();
    assert!(t.count("records_restored") < u64::from(COUNT));

    // What came meanwhile: data on the connection that was the last at work and on one before,
    // a segment of one that is new, one that belongs to none, and a request.
    let (early, last) = (usize::from(COUNT) / 2, usize::from(COUNT) - 1);
    for n in [early, last] {
        t.send(flows[n], Flags::ACK | Flags::PSH, b"data");
        flows[n].seq += 4;
    }
    let new = Flow {
        port: 7000,
        seq: 5,
        ack: 0,
    };
    t.send(new, Flags::SYN, &[]);
    let stray = Flow { port: 7001, ..new };
    t.send(stray, Flags::ACK, &[]);
    let socket = Op::Socket {
        v6: false,
        kind: SocketKind::Stream,
    };
    t.ask(5, socket);
    t.turn();
    assert!(t.count("records_restored") < u64::from(COUNT));
    let sent = t.sent();
    let acks = |sent: &[Repr], flow: &Flow| {
        let mut to = sent.iter().filter(|r| r.dst_port == flow.port);
        to.any(|r| r.flags == Flags::ACK && r.ack.0 == flow.seq)
    };
    assert!(acks(&sent, &flows[last]), "{sent:?}");
    assert!(!acks(&sent, &flows[early]));
    assert!(sent.iter().all(|r| r.dst_port < 7000), "{sent:?}");
    assert!(!t.is_answered());

    t.settle();
    assert_eq!(t.count("records_restored"), u64::from(COUNT) + 1);
    let sent = t.sent();
    assert!(acks(&sent, &flows[early]), "{sent:?}");
    let to = |port| sent.iter().filter(move |r| r.dst_port == port);
    let flags: Vec<Flags> = to(7000).chain(to(7001)).map(|r| r.flags).collect();
    assert_eq!(flags, [Flags::SYN | Flags::ACK, Flags::RST]);
    assert!(matches!(t.answer(), Ok(Answer::Socket(_))));
    assert_eq!(t.count("loading_drops"), 0);
    assert_eq!(
        t.fabric.free_slots(IPD),
        slots,
        "packets that waited are freed"
    );
}

/// What waits is bounded.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "20 records are read at once")]
fn a_flood_does_not_wait_without_end() {
    let mut t = Stage::new();
    t.listener();
    for n in 0..COUNT {
        t.connect(FIRST_PORT + n);
    }
    t.restart();
    let slots = t.fabric.free_slots(IPD);
    for port in 7000..7100 {
        let new = Flow {
            port,
            seq: 5,
            ack: 0,
        };
        t.send(new, Flags::SYN, &[]);
    }
    t.turn();
    t.turn();
    let waiting = slots - t.fabric.free_slots(IPD);
    assert!((10..=64).contains(&waiting), "{waiting} of 100");
    t.settle();
    assert_eq!(t.count("loading_drops"), u64::from(100 - waiting));
    assert_eq!(t.fabric.free_slots(IPD), slots);
}

/// Everything there is to know of the connections is known to who asks.
#[test]
fn a_query_and_a_new_configuration_wait_for_all() {
    let mut t = Stage::new();
    t.listener();
    for n in 0..COUNT {
        t.connect(FIRST_PORT + n);
    }
    t.restart();
    let (_, rows) = t
        .tcpd
        .as_mut()
        .unwrap()
        .query(abi::control::Query::Sockets, now());
    assert_eq!(rows.len(), usize::from(COUNT) + 1);
    t.restart();
    let config = t.fabric.config(TCPD);
    t.tcpd.as_mut().unwrap().reconfigure(&config, now());
    // Counted again by the second.
    assert_eq!(t.count("records_restored"), 2 * (u64::from(COUNT) + 1));
    t.settle();
}
