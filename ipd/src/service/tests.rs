//! The process on real plumbing: a netdevd below, a udpd above, both played by the test.

use super::Ipd;
use crate::engine::{Counter, counters};
use abi::config::{DeviceKind, Role};
use abi::control::Query;
use abi::skbuff::{flag, kind};
use abi::{DevIndex, Endpoint, Nanos, ServiceId};
use runtime::testing::{Fabric, Worker};
use runtime::{Plumbing, Service, clock};
use shm::link::DeviceWords;
use shm::ring::Producer;
use shm::{Side, SizeClass, SkBuff};
use std::net::Ipv4Addr;
use wire::{arp, ipv4};

const NETDEVD: ServiceId = ServiceId(1);
const IPD: ServiceId = ServiceId(2);
const UDPD: ServiceId = ServiceId(3);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 99];

struct Stack {
    fabric: Fabric,
    netdevd: Plumbing,
    udpd: Plumbing,
    ipd: Option<Worker<Ipd>>,
    now: Nanos,
}

impl Stack {
    fn new() -> Self {
        let mut fabric = Fabric::new(&[
            (
                NETDEVD,
                Role::Netdevd {
                    device: DevIndex(1),
                },
            ),
            (IPD, Role::Ipd),
            (UDPD, Role::Udpd),
        ]);
        fabric.stack_mut().devices[0].kind = DeviceKind::Tap;
        let netdevd = fabric.plumbing(NETDEVD);
        let udpd = fabric.plumbing(UDPD);
        let ipd = Some(fabric.worker(IPD));
        udpd.links[0].link().register(&[1, 17]);
        netdevd.links[0].link().set_device(DeviceWords {
            present: true,
            mtu: 1500,
            mac: OWN_MAC,
            checksum: true,
            segmentation: true,
        });
        Self {
            fabric,
            netdevd,
            udpd,
            ipd,
            now: clock::now(),
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        self.ipd.as_mut().unwrap().turn(now);
    }

    fn query(&mut self, what: Query) -> (Vec<String>, Vec<Vec<String>>) {
        let now = self.now;
        self.ipd.as_mut().unwrap().query(what, now)
    }

    fn count(&self, counter: Counter) -> u64 {
        self.ipd
            .as_ref()
            .unwrap()
            .plumbing
            .counter(counter as usize)
    }

    /// Kills ipd; `f` happens while it is dead.
    fn restart(&mut self, f: impl FnOnce(&mut Self)) {
        if let Some(ipd) = self.ipd.take() {
            ipd.kill();
        }
        f(self);
        self.ipd = Some(self.fabric.worker(IPD));
    }

    fn rx(&mut self, ethertype: u16, bytes: &[u8]) {
        let mut skb = self
            .netdevd
            .alloc
            .as_mut()
            .unwrap()
            .alloc(SizeClass::Small)
            .unwrap();
        skb.put(bytes.len()).unwrap().copy_from_slice(bytes);
        skb.desc_mut().ethertype = ethertype;
        skb.desc_mut().mac = 114;
        self.netdevd.links[0].send(skb).unwrap();
        self.netdevd.links[0].flush();
    }

    fn arp(&mut self, operation: u16) {
        let repr = arp::Repr {
            operation: operation.into(),
            sender_mac: wire::MacAddr(PEER_MAC),
            sender_ip: PEER,
            target_mac: wire::MacAddr(OWN_MAC),
            target_ip: OWN,
        };
        let mut bytes = [0; 28];
        repr.emit(&mut bytes).unwrap();
        self.rx(0x0806, &bytes);
    }

    fn datagram(&mut self, protocol: u8, payload: &[u8]) {
        let total_len = u16::try_from(20 + payload.len()).unwrap();
        let repr = ipv4::Repr {
            src: PEER,
            dst: OWN,
            protocol,
            total_len,
            ..ipv4::Repr::default()
        };
        let mut bytes = vec![0; 20];
        repr.emit(&mut bytes).unwrap();
        bytes.extend(payload);
        self.rx(0x0800, &bytes);
    }

    fn tx(&mut self, dst: Ipv4Addr, payload: &[u8]) {
        let skb = self.packet(dst, payload);
        self.udpd.links[0].send(skb).unwrap();
        self.udpd.links[0].flush();
    }

    fn packet(&mut self, dst: Ipv4Addr, payload: &[u8]) -> SkBuff {
        let mut skb = self
            .udpd
            .alloc
            .as_mut()
            .unwrap()
            .alloc(SizeClass::Small)
            .unwrap();
        skb.put(payload.len()).unwrap().copy_from_slice(payload);
        let d = skb.desc_mut();
        (d.protocol, d.family, d.dst) = (17, 2, Endpoint::new(dst.into(), 0).addr);
        skb
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        received(&mut self.netdevd)
            .into_iter()
            .map(|skb| skb.linear().to_vec())
            .collect()
    }

    fn packets(&mut self) -> Vec<SkBuff> {
        received(&mut self.udpd)
    }

    fn free(&self) -> u32 {
        [NETDEVD, IPD, UDPD]
            .iter()
            .map(|&id| self.fabric.free_slots(id))
            .sum()
    }
}

fn received(p: &mut Plumbing) -> Vec<SkBuff> {
    let mut got = Vec::new();
    let arena = &p.arena;
    p.links[0].recv(arena, 2000, |skb| got.push(skb));
    assert_eq!(
        p.links[0].take_faults(),
        runtime::link_end::LinkFaults::default()
    );
    got
}

#[test]
fn it_announces_resolves_sends_and_delivers() {
    let mut s = Stack::new();
    assert!(s.netdevd.links[0].link().registered().eq([0x0806, 0x0800]));
    s.turn();
    let announced = s.frames();
    assert_eq!((announced.len(), &announced[0][12..14]), (1, &[8, 6][..]));
    s.tx(PEER, b"ports and length, then this");
    s.turn();
    assert_eq!(s.frames()[0][..6], [0xff; 6]);
    s.arp(2);
    s.turn();
    let frames = s.frames();
    assert_eq!(
        frames[0][..14],
        [&PEER_MAC[..], &OWN_MAC[..], &[8, 0]].concat()
    );
    assert_eq!(&frames[0][34..], b"ports and length, then this");
    s.datagram(17, b"answer");
    s.turn();
    let packets = s.packets();
    assert_eq!((packets.len(), packets[0].linear()), (1, &b"answer"[..]));
    drop(packets);
    assert_eq!(s.count(Counter::IpInDelivers), 1);
    assert_eq!(s.free(), 3 * s.fabric.slots());
    let (columns, rows) = s.query(Query::Neighbours);
    assert_eq!(
        (columns.len(), &rows[0][..4]),
        (
            6,
            &["10.77.1.1", "dev1", "02:00:00:00:00:63", "REACHABLE"].map(String::from)[..]
        )
    );
    let (_, rows) = s.query(Query::Routes);
    assert_eq!(rows[0][0], "10.77.1.0/24");
    assert!(!s.query(Query::Summary).1.is_empty());
}

#[test]
fn killed_and_replaced_it_goes_on_where_it_was() {
    let mut s = Stack::new();
    s.turn();
    s.tx(PEER, b"1");
    s.turn();
    s.arp(2);
    s.turn();
    assert_eq!(s.frames().len(), 3);
    // What waits in the rings while it is dead is there for its successor.
    s.restart(|s| {
        s.tx(PEER, b"2");
        s.datagram(17, b"3");
    });
    s.turn();
    let frames = s.frames();
    assert_eq!(
        (frames.len(), &frames[0][..6], &frames[0][34..]),
        (1, &PEER_MAC[..], &b"2"[..]),
        "no ARP"
    );
    assert_eq!(s.packets()[0].linear(), b"3");
    assert_eq!(s.count(Counter::NeighRestored), 1);
    assert_eq!(s.free(), 3 * s.fabric.slots());
}

#[test]
fn what_it_had_queued_when_it_died_is_swept() {
    let mut s = Stack::new();
    s.turn();
    s.frames();
    for _ in 0..10 {
        s.tx(Ipv4Addr::new(10, 77, 1, 9), b"waits");
    }
    s.turn();
    s.frames();
    // The packets wait for ARP; a SIGKILL frees nothing.
    s.ipd.take().unwrap().kill();
    assert_eq!(s.free(), 3 * s.fabric.slots() - 10);
    s.restart(|_| ());
    assert_eq!(s.free(), 3 * s.fabric.slots());
}

#[test]
fn a_corrupt_record_is_reset_alone() {
    let mut s = Stack::new();
    s.arp(1);
    s.turn();
    s.frames();
    s.ipd = None;
    let p = s.fabric.plumbing(IPD);
    let fd = p.state.as_ref().unwrap();
    let map = shm::Mapping::map(fd, 4096, true).unwrap();
    // Somewhere in the copies of the first record.
    let copies = (4096 + 8 * super::state::LAYOUT.count as usize).next_multiple_of(4096);
    for at in (copies..copies + 128).step_by(4) {
        assert!(map.copy_in(at, &[0xa5]));
    }
    drop(p);
    s.restart(|_| ());
    s.turn();
    assert_eq!(s.count(Counter::StateCorrupt), 1);
    assert_eq!(s.count(Counter::NeighRestored), 0);
    s.tx(PEER, b"x");
    s.turn();
    assert_eq!(s.frames()[0][12..14], [8, 6], "asked again, nothing worse");
}

/// Fills a ring with handles that nobody can claim, as a producer that is no more.
fn fill(link: &'static shm::Link, producer: Side) {
    let mut producer = Producer::attach(link.words(producer).unwrap());
    for _ in 0..producer.room().unwrap() {
        let _ = producer.push(0x0900_0000_0000_0001);
    }
    producer.publish();
}

/// Takes everything out of a ring, faulty or not.
fn drain(p: &mut Plumbing) -> Vec<SkBuff> {
    let mut got = Vec::new();
    let arena = &p.arena;
    p.links[0].recv(arena, 2000, |skb| got.push(skb));
    p.links[0].take_faults();
    got
}

#[test]
fn a_transport_that_does_not_read_loses_packets_and_nobody_else_does() {
    let mut s = Stack::new();
    s.arp(1);
    s.turn();
    s.frames();
    s.restart(|s| fill(s.udpd.links[0].link(), Side::Lower));
    s.datagram(17, b"lost");
    s.datagram(1, &echo());
    s.turn();
    assert_eq!(s.count(Counter::UpperRingFull), 1);
    assert_eq!(s.frames().len(), 1, "an echo is answered all the same");
    assert_eq!(s.free(), 3 * s.fabric.slots());
    drain(&mut s.udpd);
    s.datagram(17, b"not lost");
    s.turn();
    assert_eq!(s.packets()[0].linear(), b"not lost");
}

fn echo() -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 1, 2, 3, 4];
    let sum = wire::checksum::of(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn a_device_that_is_behind_holds_transports_back_for_a_moment_only() {
    const MS: Nanos = 1_000_000;
    let mut s = Stack::new();
    s.arp(1);
    s.turn();
    s.frames();
    s.restart(|s| fill(s.netdevd.links[0].link(), Side::Upper));
    s.now += MS;
    s.tx(PEER, b"0");
    s.turn();
    s.tx(PEER, b"1");
    s.turn();
    let waiting = |s: &Stack| {
        !s.ipd
            .as_ref()
            .unwrap()
            .plumbing
            .links
            .iter()
            .all(|l| l.is_empty())
    };
    assert!(waiting(&s), "transports wait");
    assert!(s.ipd.as_ref().unwrap().service.deadline().unwrap() <= s.now + MS);
    s.datagram(17, b"in");
    s.turn();
    assert_eq!(s.packets().len(), 1, "but not the other direction");
    s.now += 10 * MS;
    s.turn();
    assert!(!waiting(&s), "and not for long");
    assert_eq!(s.count(Counter::LowerRingFull), 0);
    assert_eq!(drain(&mut s.netdevd).len(), 0);
    s.tx(PEER, b"2");
    s.turn();
    let payloads: Vec<u8> = s.frames().iter().map(|f| f[34]).collect();
    assert_eq!(payloads, b"012", "in order");
    assert_eq!(s.ipd.as_ref().unwrap().service.retry_at, None);
    assert_eq!(s.free(), 3 * s.fabric.slots());
}

#[test]
fn forged_handles_from_above_are_counted_and_survived() {
    let mut s = Stack::new();
    s.turn();
    s.frames();
    let words = s.udpd.links[0].link().words(Side::Upper).unwrap();
    let mut producer = Producer::attach(words);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let _ = producer.push(rng.u64(..));
    }
    producer.publish();
    for _ in 0..20 {
        s.turn();
    }
    // The honest producer goes on behind the forgeries.
    s.udpd = s.fabric.plumbing(UDPD);
    s.tx(OWN, b"loop");
    s.turn();
    assert_eq!(s.packets()[0].linear(), b"loop");
    let vitals = s.fabric.vitals(IPD);
    let names: Vec<(String, u64)> = vitals.counters();
    let faults = names.iter().find(|(n, _)| n == "rt_peer_faults").unwrap().1;
    assert!(
        faults
            + names
                .iter()
                .find(|(n, _)| n == "rt_stale_handles")
                .unwrap()
                .1
            >= 500
    );
    assert_eq!(
        names.len(),
        runtime::counters::NAMES.len() + counters::NAMES.len()
    );
}

#[test]
fn a_closed_port_is_answered_for_udpd() {
    let mut s = Stack::new();
    s.turn();
    s.arp(1);
    s.turn();
    s.frames();
    s.datagram(17, b"\x13\x88\x00\x35\x00\x08\x00\x00");
    s.turn();
    let mut packet = s.packets().remove(0);
    packet.desc_mut().kind = kind::ICMP_ERROR;
    packet.desc_mut().mark = 3 << 8 | 3;
    packet.desc_mut().flags &= !flag::LOOPBACK;
    s.udpd.links[0].send(packet).unwrap();
    s.udpd.links[0].flush();
    s.turn();
    let frames = s.frames();
    assert_eq!((frames[0][23], &frames[0][34..36]), (1, &[3, 3][..]));
    assert_eq!(s.free(), 3 * s.fabric.slots());
}
