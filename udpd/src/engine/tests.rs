//! Tests of the engine: names, lookups, options, restart.
#![allow(
    clippy::cast_possible_truncation,
    reason = "patterns of bytes, and offsets in small buffers"
)]

use super::demux::{Flow, Space};
use super::errors;
use super::record::{Kind, Record, flag, kind_of};
use super::{Engine, Errno};
use abi::config::{
    DeviceConfig, DeviceKind, Impairment, Offload, StackConfig, TcpConfig, UdpConfig,
};
use abi::session::{SockOpt, SockOptName, SocketKind};
use abi::{DevIndex, Endpoint, RegionId, ServiceId};
use runtime::Fib;
use session::SocketRef;
use std::net::{IpAddr, SocketAddr};

fn fib() -> Fib {
    let device = |index, name: &str, addresses: &[&str]| DeviceConfig {
        index: DevIndex(index),
        name: name.to_owned(),
        kind: DeviceKind::Tap,
        service: ServiceId(1),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, 1],
        offload: Offload::Full,
        impairment: Impairment::default(),
    };
    Fib::new(&StackConfig {
        name: "test".to_owned(),
        devices: vec![
            device(1, "a", &["10.77.0.2/24", "fd77::2/64"]),
            device(2, "b", &["10.88.0.2/24"]),
        ],
        routes: Vec::new(),
        links: Vec::new(),
        dns: Vec::new(),
        tcp: TcpConfig::default(),
        udp: UdpConfig::default(),
        secret: [1; 16],
    })
}

struct Table {
    engine: Engine,
    fib: Fib,
    slot: u32,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint::from(at(text))
}

impl Table {
    fn new() -> Self {
        Self::of(64)
    }

    fn of(count: u32) -> Self {
        let engine = Engine::new(count, (1 << 18, 1 << 18), [1; 16], [2; 16]);
        Self {
            engine,
            fib: fib(),
            slot: 0,
        }
    }

    fn open(&mut self, kind: Kind, v6: bool) -> u32 {
        self.slot += 1;
        let place = SocketRef {
            region: RegionId(0x0200_0401),
            slot: self.slot,
        };
        self.engine.open(kind, v6, place, 3, 1).unwrap()
    }

    fn udp(&mut self) -> u32 {
        self.open(Kind::Udp, false)
    }

    fn bind(&mut self, index: u32, to: &str) -> Result<(), Errno> {
        self.engine.bind(index, at(to), &self.fib)
    }

    fn bound(&mut self, to: &str) -> u32 {
        let index = self.open(Kind::Udp, at(to).is_ipv6());
        self.bind(index, to).unwrap();
        index
    }

    fn connect(&mut self, index: u32, to: &str) -> Result<(), Errno> {
        self.engine.connect(index, Some(at(to)), &self.fib)
    }

    fn set(&mut self, index: u32, option: SockOpt) {
        self.engine.set_option(index, &option).unwrap();
    }

    fn local(&self, index: u32) -> SocketAddr {
        let s = self.engine.get(index).unwrap();
        s.shown_endpoint(&s.record.local)
    }

    fn who(&self, local: &str, peer: &str) -> Option<u32> {
        let flow = Flow {
            local: endpoint(local),
            peer: endpoint(peer),
        };
        self.engine.find(Space::Udp, &flow)
    }

    fn all(&self, local: &str, peer: &str) -> Vec<u32> {
        let flow = Flow {
            local: endpoint(local),
            peer: endpoint(peer),
        };
        let mut found = Vec::new();
        self.engine.receivers(Space::Udp, &flow, true, &mut found);
        found.sort_unstable();
        found
    }
}

#[test]
fn bind_checks_the_address() {
    let mut t = Table::new();
    let s = t.udp();
    assert_eq!(t.bind(s, "10.77.0.3:53"), Err(libc::EADDRNOTAVAIL));
    assert_eq!(t.bind(s, "[::]:53"), Err(libc::EAFNOSUPPORT));
    assert_eq!(t.bind(s, "10.77.0.2:53"), Ok(()));
    assert_eq!(
        t.bind(s, "10.77.0.2:54"),
        Err(libc::EINVAL),
        "bound already"
    );
    assert_eq!(t.local(s), at("10.77.0.2:53"));
    // Broadcast and multicast addresses may be bound, to receive what is sent to them.
    t.bound("10.77.0.255:53");
    t.bound("224.0.0.251:5353");
    t.bound("127.0.0.1:53");
}

#[test]
fn conflicts_are_those_of_linux() {
    // First name, second name, may both be bound without any flag.
    let cases = [
        ("0.0.0.0:53", "0.0.0.0:53", false),
        ("0.0.0.0:53", "10.77.0.2:53", false),
        ("10.77.0.2:53", "0.0.0.0:53", false),
        ("10.77.0.2:53", "10.88.0.2:53", true),
        ("10.77.0.2:53", "10.77.0.2:54", true),
        ("[::]:53", "0.0.0.0:53", false),
        ("[::]:53", "10.77.0.2:53", false),
        ("[fd77::2]:53", "10.77.0.2:53", true),
        ("[fd77::2]:53", "0.0.0.0:53", true),
        ("[::ffff:10.77.0.2]:53", "10.77.0.2:53", false),
    ];
    for (first, second, fine) in cases {
        let mut t = Table::new();
        t.bound(first);
        let s = t.open(Kind::Udp, at(second).is_ipv6());
        let expected = if fine { Ok(()) } else { Err(libc::EADDRINUSE) };
        assert_eq!(t.bind(s, second), expected, "{first} {second}");
        for option in [
            SockOpt::ReuseAddr as fn(bool) -> _,
            SockOpt::ReusePort as fn(bool) -> _,
        ] {
            let mut t = Table::new();
            let pair = [
                t.open(Kind::Udp, at(first).is_ipv6()),
                t.open(Kind::Udp, at(second).is_ipv6()),
            ];
            t.set(pair[0], option(true));
            t.bind(pair[0], first).unwrap();
            assert_eq!(t.bind(pair[1], second), expected, "one flag is not enough");
            let third = t.open(Kind::Udp, at(second).is_ipv6());
            t.set(third, option(true));
            if !fine {
                assert_eq!(t.bind(third, second), Ok(()), "{first} {second}");
            }
        }
    }
}

#[test]
fn v6_only_leaves_ipv4_alone() {
    let mut t = Table::new();
    let six = t.open(Kind::Udp, true);
    t.set(six, SockOpt::V6Only(true));
    t.bind(six, "[::]:53").unwrap();
    let four = t.bound("0.0.0.0:53");
    assert_eq!(t.who("10.77.0.2:53", "10.77.0.9:1"), Some(four));
    assert_eq!(t.who("[fd77::2]:53", "[fd77::9]:1"), Some(six));
    let other = t.open(Kind::Udp, true);
    t.set(other, SockOpt::V6Only(true));
    assert_eq!(t.bind(other, "[::ffff:10.77.0.2]:1"), Err(libc::EINVAL));
}

#[test]
fn rfc6056_ephemeral_ports_are_random_distinct_and_run_out() {
    let mut t = Table::of(70_000);
    let mut seen = std::collections::HashSet::new();
    let mut in_order = 0;
    let mut last = 0;
    for _ in 32_768..=60_999u32 {
        let s = t.bound("0.0.0.0:0");
        let port = t.local(s).port();
        assert!((32_768..=60_999).contains(&port));
        assert!(seen.insert(port));
        in_order += u32::from(port == last + 1);
        last = port;
    }
    assert!(
        in_order < 2000,
        "the last ones are found in turn: {in_order}"
    );
    let s = t.udp();
    assert_eq!(t.bind(s, "0.0.0.0:0"), Err(libc::EAGAIN));
    assert_eq!(t.engine.autobind(s), Err(libc::EAGAIN));
    let freed = t.engine.iter().next().unwrap().0;
    let port = t.local(freed).port();
    t.engine.close(freed);
    t.engine.autobind(s).unwrap();
    assert_eq!(t.local(s).port(), port);
}

#[test]
fn the_most_specific_socket_gets_it() {
    let mut t = Table::new();
    let any = t.udp();
    let own = t.udp();
    let peer = t.udp();
    for s in [any, own, peer] {
        t.set(s, SockOpt::ReuseAddr(true));
    }
    t.bind(any, "0.0.0.0:53").unwrap();
    assert_eq!(t.who("10.77.0.2:53", "10.77.0.9:7"), Some(any));
    t.bind(own, "10.77.0.2:53").unwrap();
    assert_eq!(t.who("10.77.0.2:53", "10.77.0.9:7"), Some(own));
    assert_eq!(t.who("10.88.0.2:53", "10.77.0.9:7"), Some(any));
    t.bind(peer, "10.77.0.2:53").unwrap();
    t.connect(peer, "10.77.0.9:7").unwrap();
    assert_eq!(t.who("10.77.0.2:53", "10.77.0.9:7"), Some(peer));
    assert_eq!(
        t.who("10.77.0.2:53", "10.77.0.9:8"),
        Some(own),
        "not its peer"
    );
    assert_eq!(t.who("10.77.0.2:54", "10.77.0.9:7"), None);
    // An IPv4 socket wins over a dual one.
    let dual = t.open(Kind::Udp, true);
    t.set(dual, SockOpt::ReuseAddr(true));
    t.bind(dual, "[::]:53").unwrap();
    t.engine.close(own);
    t.engine.close(peer);
    assert_eq!(t.who("10.77.0.2:53", "10.77.0.9:7"), Some(any));
    t.engine.close(any);
    assert_eq!(t.who("10.77.0.2:53", "10.77.0.9:7"), Some(dual));
}

#[test]
fn reuse_address_favours_the_newest_and_reuse_port_shares_by_flow() {
    let mut t = Table::new();
    let sockets: Vec<u32> = (0..4).map(|_| t.udp()).collect();
    for &s in &sockets {
        t.set(s, SockOpt::ReuseAddr(true));
        t.bind(s, "0.0.0.0:53").unwrap();
    }
    assert_eq!(
        t.who("10.77.0.2:53", "10.77.0.9:7"),
        sockets.last().copied()
    );

    let mut t = Table::new();
    let sockets: Vec<u32> = (0..4).map(|_| t.udp()).collect();
    for &s in &sockets {
        t.set(s, SockOpt::ReusePort(true));
        t.bind(s, "0.0.0.0:53").unwrap();
    }
    let mut shares = std::collections::HashMap::new();
    for port in 1..1000u16 {
        let peer = format!("10.77.0.9:{port}");
        let who = t.who("10.77.0.2:53", &peer).unwrap();
        assert_eq!(t.who("10.77.0.2:53", &peer), Some(who), "a flow stays");
        *shares.entry(who).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 4);
    assert!(shares.values().all(|&n| n > 180), "{shares:?}");
}

#[test]
fn broadcast_goes_to_all_that_match() {
    let mut t = Table::new();
    let any = t.udp();
    let to_broadcast = t.udp();
    let own = t.udp();
    let peer = t.udp();
    for s in [any, to_broadcast, own, peer] {
        t.set(s, SockOpt::ReuseAddr(true));
        t.set(s, SockOpt::Broadcast(true));
    }
    t.bind(any, "0.0.0.0:67").unwrap();
    t.bind(to_broadcast, "10.77.0.255:67").unwrap();
    t.bind(own, "10.77.0.2:67").unwrap();
    t.bind(peer, "10.77.0.255:67").unwrap();
    t.connect(peer, "10.77.0.8:68").unwrap();
    assert_eq!(t.all("10.77.0.255:67", "10.77.0.9:68"), [any, to_broadcast]);
    assert_eq!(
        t.all("10.77.0.255:67", "10.77.0.8:68"),
        [any, to_broadcast, peer]
    );
    assert_eq!(t.all("255.255.255.255:67", "10.77.0.9:68"), [any]);
}

#[test]
fn connecting_names_the_socket_and_disconnecting_takes_back_what_was_not_asked_for() {
    let mut t = Table::new();
    let s = t.udp();
    t.connect(s, "10.88.0.9:7").unwrap();
    let local = t.local(s);
    assert_eq!(local.ip(), "10.88.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(t.who(&local.to_string(), "10.88.0.9:7"), Some(s));
    assert_eq!(t.who(&local.to_string(), "10.88.0.9:8"), None);
    t.connect(s, "10.77.0.9:7").unwrap();
    assert_eq!(
        t.local(s),
        SocketAddr::new("10.77.0.2".parse().unwrap(), local.port())
    );
    t.engine.connect(s, None, &t.fib).unwrap();
    assert_eq!(t.local(s), at("0.0.0.0:0"));
    assert_eq!(t.who(&local.to_string(), "10.88.0.9:7"), None);

    let s = t.bound("10.77.0.2:99");
    t.connect(s, "10.77.0.9:7").unwrap();
    t.engine.connect(s, None, &t.fib).unwrap();
    assert_eq!(t.local(s), at("10.77.0.2:99"));
    assert_eq!(t.who("10.77.0.2:99", "10.77.0.1:1"), Some(s));

    assert_eq!(t.connect(s, "192.0.2.1:7"), Err(libc::ENETUNREACH));
    assert_eq!(t.connect(s, "10.77.0.255:7"), Err(libc::EACCES));
    assert_eq!(t.connect(s, "[fd77::1]:7"), Err(libc::EAFNOSUPPORT));
    t.connect(s, "0.0.0.0:7").unwrap();
    let peer = t.engine.get(s).unwrap().record.peer;
    assert_eq!(
        peer,
        endpoint("127.0.0.1:7"),
        "to unspecified is to this host"
    );
}

#[test]
fn ipv6_sockets_see_mapped_addresses() {
    let mut t = Table::new();
    let s = t.open(Kind::Udp, true);
    t.connect(s, "[::ffff:10.77.0.9]:7").unwrap();
    assert_eq!(
        t.local(s).ip(),
        "::ffff:10.77.0.2".parse::<IpAddr>().unwrap()
    );
    let local = format!("10.77.0.2:{}", t.local(s).port());
    assert_eq!(t.who(&local, "10.77.0.9:7"), Some(s));
}

#[test]
fn ping_identifiers_are_a_space_of_their_own() {
    let mut t = Table::new();
    let udp = t.bound("0.0.0.0:7");
    let ping = t.open(Kind::Ping, false);
    t.bind(ping, "0.0.0.0:7").unwrap();
    let flow = Flow {
        local: endpoint("10.77.0.2:7"),
        peer: endpoint("10.77.0.9:0"),
    };
    assert_eq!(t.engine.find(Space::Ping, &flow), Some(ping));
    assert_eq!(t.who("10.77.0.2:7", "10.77.0.9:0"), Some(udp));
    let other = t.open(Kind::Ping, false);
    assert_eq!(t.bind(other, "0.0.0.0:7"), Err(libc::EADDRINUSE));
    t.connect(other, "10.77.0.9:0").unwrap();
    assert_ne!(t.local(other).port(), 0);
}

#[test]
fn raw_sockets_match_by_protocol_and_addresses() {
    let mut t = Table::new();
    let any = t.open(Kind::Raw(89), false);
    let bound = t.open(Kind::Raw(89), false);
    t.bind(bound, "10.88.0.2:0").unwrap();
    let connected = t.open(Kind::Raw(89), false);
    t.connect(connected, "10.77.0.9:0").unwrap();
    let who = |t: &Table, dst: &str, src: &str| {
        let mut found = Vec::new();
        t.engine
            .raw_receivers(89, dst.parse().unwrap(), src.parse().unwrap(), &mut found);
        found.sort_unstable();
        found
    };
    assert_eq!(who(&t, "10.77.0.2", "10.77.0.9"), [any, connected]);
    assert_eq!(who(&t, "10.88.0.2", "10.88.0.9"), [any, bound]);
    assert_eq!(t.engine.raw_protocols().collect::<Vec<_>>(), [89]);
    for s in [any, bound, connected] {
        t.engine.close(s);
    }
    assert!(!t.engine.has_raw(89));
    assert_eq!(kind_of(SocketKind::Raw(6)), Err(libc::EPROTONOSUPPORT));
    assert_eq!(kind_of(SocketKind::Stream), Err(libc::ESOCKTNOSUPPORT));
}

#[test]
fn options_are_kept_and_checked() {
    let mut t = Table::new();
    let s = t.udp();
    let get = |t: &Table, name| t.engine.option(s, name);
    assert_eq!(get(&t, SockOptName::Ttl), Ok(SockOpt::Ttl(64)));
    t.set(s, SockOpt::Ttl(3));
    t.set(s, SockOpt::RecvBuffer(4096));
    assert_eq!(get(&t, SockOptName::Ttl), Ok(SockOpt::Ttl(3)));
    assert_eq!(
        get(&t, SockOptName::RecvBuffer),
        Ok(SockOpt::RecvBuffer(8192)),
        "doubled as Linux"
    );
    t.set(s, SockOpt::RecvBuffer(u32::MAX));
    assert_eq!(
        get(&t, SockOptName::RecvBuffer),
        Ok(SockOpt::RecvBuffer(1 << 18))
    );
    t.set(s, SockOpt::SendBuffer(0));
    assert_eq!(
        get(&t, SockOptName::SendBuffer),
        Ok(SockOpt::SendBuffer(2304))
    );
    for bad in [
        SockOpt::Ttl(0),
        SockOpt::MtuDiscover(6),
        SockOpt::V6Only(true),
    ] {
        assert_eq!(t.engine.set_option(s, &bad), Err(libc::EINVAL));
    }
    assert_eq!(
        t.engine.set_option(s, &SockOpt::NoDelay(true)),
        Err(libc::ENOPROTOOPT)
    );
    assert!(t.engine.may_fragment(s));
    t.set(s, SockOpt::MtuDiscover(2));
    assert!(!t.engine.may_fragment(s));
}

#[test]
fn a_successor_looks_up_the_same() {
    let mut t = Table::new();
    let a = t.bound("0.0.0.0:53");
    let b = t.udp();
    t.set(b, SockOpt::ReusePort(true));
    t.connect(b, "10.77.0.9:7").unwrap();
    let c = t.open(Kind::Raw(89), false);
    let d = t.bound("10.77.0.2:99");
    t.engine.close(d);
    let mut kept: std::collections::BTreeMap<u32, Record> = Default::default();
    t.engine.commit(|index, record| match record {
        Some(r) => {
            kept.insert(index, *r);
        }
        None => {
            kept.remove(&index);
        }
    });
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [a, b, c]);
    t.engine.commit(|_, _| panic!("nothing is dirty"));
    let mut again = Table::new();
    for (&index, record) in &kept {
        assert!(again.engine.restore(index, *record));
        assert!(!again.engine.restore(index, *record), "once");
    }
    let b_local = t.local(b).to_string();
    for (local, peer) in [
        ("10.77.0.2:53", "10.77.0.9:7"),
        (b_local.as_str(), "10.77.0.9:7"),
        ("10.77.0.2:99", "10.77.0.9:7"),
    ] {
        assert_eq!(again.who(local, peer), t.who(local, peer));
    }
    assert!(again.engine.has_raw(89));
    let e = again.bound("0.0.0.0:1000");
    assert!(![a, b, c].contains(&e));
    assert!(again.engine.done_before(a, 1));
    assert!(!again.engine.done_before(a, 2));
    assert!(again.engine.get(b).unwrap().record.has(flag::REUSE_PORT));
    let nonsense = Record {
        kind: 77,
        ..kept[&a]
    };
    assert!(!again.engine.restore(60, nonsense));
}

#[test]
fn an_index_closed_and_used_again_in_one_batch_commits_the_new_socket() {
    let mut t = Table::of(1);
    let a = t.udp();
    t.engine.commit(|_, _| {});
    t.engine.close(a);
    let b = t.udp();
    assert_eq!(a, b);
    let mut commits = Vec::new();
    t.engine.commit(|i, r| commits.push((i, r.map(|r| r.slot))));
    assert_eq!(commits, [(a, Some(2))]);
}

#[test]
fn rfc1122_icmp_errors_as_linux_converts_them() {
    use wire::icmpv4::{Embedded, Repr};
    let about = Embedded {
        src: "10.77.0.2".parse().unwrap(),
        dst: "10.77.0.9".parse().unwrap(),
        protocol: 17,
        total_len: 40,
        frag_offset: 0,
        transport: [0, 53, 0, 7, 0, 20, 0, 0],
    };
    let of = |code| {
        errors::meaning(
            &Repr::DestinationUnreachable {
                code,
                next_hop_mtu: 0,
            },
            &about,
        )
    };
    let port = of(3).unwrap();
    assert_eq!((port.errno, port.hard), (libc::ECONNREFUSED, true));
    assert_eq!(
        port.flow,
        Flow {
            local: endpoint("10.77.0.2:53"),
            peer: endpoint("10.77.0.9:7")
        }
    );
    assert_eq!(
        of(1).map(|t| (t.errno, t.hard)),
        Some((libc::EHOSTUNREACH, false))
    );
    assert_eq!(of(200), None);
    assert_eq!(
        errors::meaning(
            &Repr::DestinationUnreachable {
                code: 3,
                next_hop_mtu: 0
            },
            &Embedded {
                frag_offset: 8,
                ..about
            }
        ),
        None
    );

    let mut t = Table::new();
    let s = t.bound("10.77.0.2:53");
    assert!(!port.concerns(t.engine.get(s).unwrap()), "not connected");
    t.connect(s, "10.77.0.9:7").unwrap();
    assert!(port.concerns(t.engine.get(s).unwrap()));
    assert!(!of(1).unwrap().concerns(t.engine.get(s).unwrap()), "soft");
}

mod queue {
    use crate::engine::queue::{Next, Queue, record_size};
    use abi::session::{DATAGRAM_SKIP, DatagramHeader};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    const CAPACITY: u64 = 4096;

    fn put(buffer: &mut [u8], q: &mut Queue, payload: &[u8], limit: u64) -> bool {
        let Some(place) = q.place(payload.len() as u64, CAPACITY, limit) else {
            return false;
        };
        if let Some(f) = place.filler {
            buffer[f as usize..f as usize + 4].copy_from_slice(&DATAGRAM_SKIP.to_ne_bytes());
        }
        let at = place.at as usize;
        let header = DatagramHeader {
            len: payload.len() as u32,
            ..DatagramHeader::default()
        };
        buffer[at..at + 64].copy_from_slice(header.as_bytes());
        buffer[at + 64..at + 64 + payload.len()].copy_from_slice(payload);
        q.tail = place.tail;
        true
    }

    fn take(buffer: &[u8], q: &mut Queue) -> Option<Vec<u8>> {
        let read = |at: u64, into: &mut [u8]| {
            let at = at as usize;
            buffer.get(at..at + into.len()).is_some_and(|b| {
                into.copy_from_slice(b);
                true
            })
        };
        match q.next(CAPACITY, read).unwrap() {
            Next::Empty => None,
            Next::Record { header, at, head } => {
                q.head = head;
                Some(buffer[at as usize..at as usize + header.len as usize].to_vec())
            }
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(ops in prop::collection::vec((any::<bool>(), 0usize..3000), 1..400), limit in 100u64..5000) {
            let mut buffer = vec![0u8; CAPACITY as usize];
            let mut q = Queue::default();
            let mut model: std::collections::VecDeque<Vec<u8>> = Default::default();
            for (i, (write, len)) in ops.into_iter().enumerate() {
                if write {
                    let payload: Vec<u8> = (0..len).map(|n| (n + i) as u8).collect();
                    let empty = q.used() == 0;
                    if put(&mut buffer, &mut q, &payload, limit) {
                        model.push_back(payload);
                        prop_assert!(q.used() <= CAPACITY);
                    } else if empty {
                        // Alone it fits unless the filler in front of it takes the room.
                        prop_assert!(2 * record_size(len as u64) > CAPACITY);
                    }
                } else {
                    prop_assert_eq!(take(&buffer, &mut q), model.pop_front());
                }
            }
            while let Some(expected) = model.pop_front() {
                prop_assert_eq!(take(&buffer, &mut q), Some(expected));
            }
        }

        #[test]
        fn hostile_buffers_never_panic(bytes in prop::collection::vec(any::<u8>(), CAPACITY as usize), head in any::<u64>(), used in 0u64..=CAPACITY) {
            let head = head >> 2;
            let mut q = Queue { head, tail: head + used };
            for _ in 0..200 {
                let read = |at: u64, into: &mut [u8]| {
                    let at = at as usize;
                    into.copy_from_slice(&bytes[at..at + into.len()]);
                    true
                };
                match q.next(CAPACITY, read) {
                    Ok(Next::Record { header, at, head }) => {
                        prop_assert!(at + u64::from(header.len) <= CAPACITY);
                        prop_assert!(head > q.head && head <= q.tail);
                        q.head = head;
                    }
                    _ => break,
                }
            }
        }
    }
}
