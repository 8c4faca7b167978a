//! The process against a played ipd: what it puts into the ring, what it makes of what comes,
//! what a successor finds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that fails should say so at once"
)]

mod common;

use abi::session::{Answer, Op, SockOpt, SocketKind, control};
use abi::skbuff::{checksum, flag, kind};
use abi::{Endpoint, Nanos};
use common::{App, IPD, Sock, UDPD, at, fabric, now, readiness};
use nix::sys::socket::UnixAddr;
use runtime::Plumbing;
use runtime::testing::{Fabric, Worker};
use shm::sync::Ordering;
use shm::{SizeClass, SkBuff};
use udpd::Udpd;
use wire::udp;

struct Stage {
    fabric: Fabric,
    ipd: Plumbing,
    udpd: Option<Worker<Udpd>>,
    address: UnixAddr,
    app: App,
}

impl Stage {
    fn new() -> Self {
        let (mut fabric, address) = fabric();
        let ipd = fabric.plumbing(IPD);
        let mut udpd = fabric.worker::<Udpd>(UDPD);
        let app = App::new(&address, &mut udpd);
        Self {
            fabric,
            ipd,
            udpd: Some(udpd),
            address,
            app,
        }
    }

    fn udpd(&mut self) -> &mut Worker<Udpd> {
        self.udpd.as_mut().unwrap()
    }

    fn settle(&mut self) {
        self.udpd().settle(now());
    }

    /// Kills udpd and starts another.
    fn restart(&mut self) {
        self.udpd = None;
        self.udpd = Some(self.fabric.worker::<Udpd>(UDPD));
    }

    fn link(&mut self) -> usize {
        self.ipd.link_to(UDPD).unwrap()
    }

    /// What udpd has put into the ring.
    fn sent(&mut self) -> Vec<SkBuff> {
        let link = self.link();
        let Plumbing { arena, links, .. } = &mut self.ipd;
        let mut all = Vec::new();
        links[link].recv(arena, 1024, |skb| all.push(skb));
        all
    }

    /// Delivers an IPv4 packet's payload as ipd does.
    fn deliver(
        &mut self,
        protocol: u8,
        from: &str,
        to: &str,
        payload: &[u8],
        change: impl FnOnce(&mut SkBuff),
    ) {
        let alloc = self.ipd.alloc.as_mut().unwrap();
        let class = if payload.len() < 1500 {
            SizeClass::Small
        } else {
            SizeClass::Large
        };
        let mut skb = alloc.alloc(class).unwrap();
        let header = wire::ipv4::Repr {
            src: from.parse().unwrap(),
            dst: to.parse().unwrap(),
            protocol,
            ttl: 61,
            total_len: 20 + payload.len() as u16,
            ..Default::default()
        };
        header.emit(skb.put(20).unwrap()).unwrap();
        skb.put(payload.len()).unwrap().copy_from_slice(payload);
        let network = skb.data_offset() as u16;
        skb.pull(20);
        let (src, dst) = (
            Endpoint::new(from.parse().unwrap(), 0),
            Endpoint::new(to.parse().unwrap(), 0),
        );
        let d = skb.desc_mut();
        (d.network, d.transport) = (network, network + 20);
        (d.src, d.dst, d.family) = (src.addr, dst.addr, src.family);
        (d.protocol, d.ttl, d.dev_in) = (protocol, 61, 1);
        change(&mut skb);
        let link = self.link();
        self.ipd.links[link].send(skb).unwrap();
        self.ipd.links[link].flush();
    }

    fn datagram(&mut self, from: &str, to: &str, payload: &[u8]) {
        let bytes = datagram(from, to, payload);
        let (from, to) = (at(from).ip().to_string(), at(to).ip().to_string());
        self.deliver(17, &from, &to, &bytes, |_| {});
    }

    fn count(&self, name: &str) -> u64 {
        let counters = self.fabric.vitals(UDPD).counters();
        counters
            .iter()
            .find(|(n, _)| n == name)
            .unwrap_or_else(|| panic!("{name}"))
            .1
    }
}

fn datagram(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (at(from), at(to));
    let mut bytes = vec![0; 8 + payload.len()];
    bytes[8..].copy_from_slice(payload);
    udp::Repr {
        src_port: from.port(),
        dst_port: to.port(),
        len: bytes.len() as u16,
    }
    .emit(&mut bytes)
    .unwrap();
    udp::fill_checksum(&mut bytes, from.ip(), to.ip()).unwrap();
    bytes
}

#[test]
fn a_datagram_goes_out_with_everything_ipd_needs() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "10.77.1.2:5000");
    t.app.option(udpd, &s, SockOpt::Ttl(9));
    t.app.option(udpd, &s, SockOpt::Tos(0x10));
    t.app.send(&mut s, b"hello", Some("10.77.1.9:7"));
    t.settle();
    let sent = t.sent();
    assert_eq!(sent.len(), 1);
    let skb = &sent[0];
    let d = skb.desc();
    assert_eq!(
        (d.protocol, d.ttl, d.tos, d.kind),
        (17, 9, 0x10, kind::PACKET)
    );
    let ep = |a: [u8; 16]| {
        Endpoint {
            addr: a,
            family: d.family,
            port: 0,
        }
        .ip()
        .unwrap()
    };
    assert_eq!(
        (ep(d.src), ep(d.dst)),
        (at("10.77.1.2:0").ip(), at("10.77.1.9:0").ip())
    );
    assert_eq!(d.ip_summed, checksum::PARTIAL);
    assert_eq!(u32::from(d.csum_start), skb.data_offset());
    assert_eq!(d.csum_offset, 6);
    let repr = udp::Repr::parse(skb.linear()).unwrap();
    assert_eq!((repr.src_port, repr.dst_port, repr.len), (5000, 7, 13));
    assert_eq!(&skb.linear()[8..], b"hello");
    // Completed as a device does it, the checksum is right.
    let mut whole = skb.linear().to_vec();
    let mut sum = wire::checksum::Checksum::new();
    sum.add(&whole);
    let c = match sum.finish() {
        0 => 0xffff,
        c => c,
    };
    whole[6..8].copy_from_slice(&c.to_be_bytes());
    assert!(udp::verify_checksum(&whole, ep(d.src), ep(d.dst)));
    assert_eq!(t.app.u64(&s, control::TX_HEAD), s.tx_tail);
    assert_eq!(
        (t.count("tx_payload_bytes"), t.count("tx_copied_bytes")),
        (5, 5),
        "one copy"
    );
    drop(sent);
    assert_eq!(t.fabric.free_slots(UDPD), t.fabric.slots());
}

#[test]
fn a_datagram_comes_in_with_its_addresses_and_a_token() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    assert_eq!(readiness(&s), (false, true));
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"hello");
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"");
    t.settle();
    assert_eq!(readiness(&s), (true, true));
    let got = t.app.recv(&mut s).unwrap();
    assert_eq!(
        (got.from, got.to),
        (at("10.77.1.9:7"), at("10.77.1.2:5000"))
    );
    assert_eq!((got.ttl, &got.bytes[..]), (61, &b"hello"[..]));
    assert_eq!(t.app.recv(&mut s).unwrap().bytes, b"");
    assert!(t.app.take_tokens(&s));
    assert_eq!(readiness(&s), (false, true));
    assert_eq!(t.count("rx_copied_bytes"), 5, "one copy");
    assert_eq!(t.fabric.free_slots(IPD), t.fabric.slots());
}

#[test]
fn wrong_checksums_and_lengths_are_dropped_and_counted() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    let good = datagram("10.77.1.9:7", "10.77.1.2:5000", b"hello");
    let mut bad = good.clone();
    bad[9] ^= 1;
    t.deliver(17, "10.77.1.9", "10.77.1.2", &bad, |_| {});
    // RFC 768: no checksum.
    let mut none = good.clone();
    none[6..8].fill(0);
    t.deliver(17, "10.77.1.9", "10.77.1.2", &none, |_| {});
    // The device verified it, or a local sender has not filled it in.
    t.deliver(17, "10.77.1.9", "10.77.1.2", &bad, |s| {
        s.desc_mut().ip_summed = checksum::UNNECESSARY
    });
    t.deliver(17, "10.77.1.9", "10.77.1.2", &bad, |s| {
        let start = s.data_offset() as u16;
        let d = s.desc_mut();
        (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, start, 6);
    });
    for len in [0u16, 7, 14, 9000] {
        let mut odd = good.clone();
        odd[4..6].copy_from_slice(&len.to_be_bytes());
        t.deliver(17, "10.77.1.9", "10.77.1.2", &odd, |_| {});
    }
    for n in 0..8 {
        t.deliver(17, "10.77.1.9", "10.77.1.2", &good[..n], |_| {});
    }
    // Longer than the datagram says: the rest is not part of it.
    let mut padded = good;
    padded.extend_from_slice(b"padding");
    t.deliver(17, "10.77.1.9", "10.77.1.2", &padded, |_| {});
    t.settle();
    let got: Vec<_> = std::iter::from_fn(|| t.app.recv(&mut s))
        .map(|g| g.bytes.len())
        .collect();
    assert_eq!(got, [5, 5, 5, 5]);
    assert_eq!(t.count("udp_in_csum_errors"), 1);
    assert_eq!(t.count("udp_in_errors"), 1 + 4 + 8);
    assert_eq!(t.fabric.free_slots(IPD), t.fabric.slots());
}

#[test]
fn rfc1122_4_1_3_1_nobody_there_is_handed_back_for_an_unreachable() {
    let mut t = Stage::new();
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"hello");
    let broadcast = datagram("10.77.1.9:7", "10.77.1.255:5000", b"all");
    t.deliver(17, "10.77.1.9", "10.77.1.255", &broadcast, |s| {
        s.desc_mut().flags |= flag::LINK_BROADCAST
    });
    t.settle();
    let back = t.sent();
    assert_eq!(back.len(), 1, "not for the broadcast");
    let d = back[0].desc();
    assert_eq!((d.kind, d.mark), (kind::ICMP_ERROR, 3 << 8 | 3));
    assert_eq!(back[0].from_offset(d.network)[0], 0x45);
}

#[test]
fn broadcasts_reach_every_socket() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        let s = t.app.socket(udpd, SocketKind::Datagram, false);
        t.app.option(udpd, &s, SockOpt::ReuseAddr(true));
        assert_eq!(
            t.app.call(udpd, Op::Bind(s.id, at("0.0.0.0:67"))),
            Ok(Answer::Done)
        );
        all.push(s);
    }
    let bytes = datagram("10.77.1.9:68", "255.255.255.255:67", b"discover");
    t.deliver(17, "10.77.1.9", "255.255.255.255", &bytes, |s| {
        s.desc_mut().flags |= flag::LINK_BROADCAST
    });
    t.settle();
    for s in &mut all {
        assert_eq!(t.app.recv(s).unwrap().bytes, b"discover");
    }
}

#[test]
fn a_full_queue_drops_and_counts_and_takes_again_when_there_is_room() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    t.app.option(udpd, &s, SockOpt::RecvBuffer(8192));
    for _ in 0..40 {
        t.datagram("10.77.1.9:7", "10.77.1.2:5000", &[7; 1000]);
    }
    t.settle();
    let n = std::iter::from_fn(|| t.app.recv(&mut s)).count();
    assert_eq!(n, 16384 / (64 + 1000 + 8));
    assert_eq!(t.count("udp_rcvbuf_errors"), 40 - n as u64);
    // It said nothing to the transport, which looks when it needs to.
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"again");
    t.settle();
    assert_eq!(t.app.recv(&mut s).unwrap().bytes, b"again");
}

#[test]
fn the_largest_datagram_goes_both_ways() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    let big: Vec<u8> = (0..65_507u32).map(|n| n as u8).collect();
    for _ in 0..6 {
        t.app.send(&mut s, &big, Some("10.77.1.9:7"));
        t.settle();
        let sent = t.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(&sent[0].linear()[8..], &big[..]);
        t.datagram("10.77.1.9:7", "10.77.1.2:5000", &big);
        t.settle();
        assert_eq!(t.app.recv(&mut s).unwrap().bytes, big);
    }
    let too_big = vec![0; 65_508];
    t.app.send(&mut s, &too_big, Some("10.77.1.9:7"));
    t.settle();
    assert_eq!(t.app.error(&mut s), Some(libc::EMSGSIZE));
    assert!(t.sent().is_empty());
}

#[test]
fn what_cannot_be_sent_is_told() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    let cases = [
        (None, libc::EDESTADDRREQ),
        (Some("192.0.2.1:7"), libc::ENETUNREACH),
        (Some("10.77.1.255:7"), libc::EACCES),
        (Some("10.77.1.9:0"), libc::EINVAL),
        (Some("[fd77::1]:7"), libc::EAFNOSUPPORT),
    ];
    for (to, errno) in cases {
        t.app.send(&mut s, b"x", to);
        t.settle();
        assert_eq!(t.app.error(&mut s), Some(errno), "{to:?}");
        assert!(readiness(&s).0);
        t.app.take_tokens(&s);
    }
    assert!(t.sent().is_empty());
    let udpd = t.udpd.as_mut().unwrap();
    t.app.option(udpd, &s, SockOpt::Broadcast(true));
    t.app.option(udpd, &s, SockOpt::MtuDiscover(2));
    t.app.send(&mut s, b"x", Some("10.77.1.255:7"));
    t.app.send(&mut s, &[0; 1473], Some("10.77.1.9:7"));
    t.settle();
    assert_eq!(t.app.error(&mut s), Some(libc::EMSGSIZE));
    let sent = t.sent();
    assert_eq!(sent[0].desc().flags, flag::BROADCAST_OK | flag::DONT_FRAG);
}

#[test]
fn a_refused_port_is_told_to_the_connected_socket_only() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut plain = t.app.bound(udpd, "0.0.0.0:5001");
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    t.app.connect(udpd, &s, "10.77.1.9:7");
    assert_eq!(t.app.u32(&s, control::STATE), 3);
    let icmp = |from_port: u16, to: &str, code: u8| {
        let mut quoted = vec![0u8; 28];
        wire::ipv4::Repr {
            src: "10.77.1.2".parse().unwrap(),
            dst: to.parse().unwrap(),
            protocol: 17,
            ttl: 1,
            total_len: 60,
            ..Default::default()
        }
        .emit(&mut quoted)
        .unwrap();
        quoted[20..22].copy_from_slice(&from_port.to_be_bytes());
        quoted[22..24].copy_from_slice(&7u16.to_be_bytes());
        let mut m = vec![3, code, 0, 0, 0, 0, 0, 0];
        m.extend(quoted);
        m
    };
    // About another peer, another port, a soft one, garbage.
    let ignored = [
        icmp(5000, "10.77.1.8", 3),
        icmp(5002, "10.77.1.9", 3),
        icmp(5000, "10.77.1.9", 1),
        vec![3; 9],
    ];
    for m in ignored {
        t.deliver(17, "10.77.1.9", "10.77.1.2", &m, |s| {
            s.desc_mut().kind = kind::ICMP_ERROR
        });
    }
    let m = icmp(5001, "10.77.1.9", 3);
    t.deliver(17, "10.77.1.9", "10.77.1.2", &m, |s| {
        s.desc_mut().kind = kind::ICMP_ERROR
    });
    t.settle();
    assert_eq!(t.app.error(&mut s), None);
    assert_eq!(t.app.error(&mut plain), None, "not connected");
    let m = icmp(5000, "10.77.1.9", 3);
    t.deliver(17, "10.77.1.9", "10.77.1.2", &m, |s| {
        s.desc_mut().kind = kind::ICMP_ERROR
    });
    t.settle();
    assert_eq!(t.app.error(&mut s), Some(libc::ECONNREFUSED));
    assert!(readiness(&s).0);
    assert_eq!(t.fabric.free_slots(IPD), t.fabric.slots());
}

#[test]
fn ping_sockets_send_requests_and_get_their_replies() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut a = t.app.socket(udpd, SocketKind::Ping, false);
    let mut b = t.app.socket(udpd, SocketKind::Ping, false);
    for s in [&mut a, &mut b] {
        t.app.send(
            s,
            &[8, 0, 0, 0, 0, 0, 0, 5, b'd', b'a', b't', b'a'],
            Some("10.77.1.9:0"),
        );
    }
    t.settle();
    let sent = t.sent();
    assert_eq!(sent.len(), 2);
    let idents: Vec<u16> = sent
        .iter()
        .map(|skb| {
            assert_eq!(skb.desc().protocol, 1);
            assert_eq!(wire::checksum::of(skb.linear()), 0);
            match wire::icmpv4::Repr::parse(skb.linear()).unwrap() {
                wire::icmpv4::Repr::EchoRequest { ident, seq: 5 } => ident,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_ne!(idents[0], idents[1]);
    let mut reply = sent[1].linear().to_vec();
    reply[0] = 0;
    t.deliver(1, "10.77.1.9", "10.77.1.2", &reply, |_| {});
    reply[4] ^= 0x55;
    t.deliver(1, "10.77.1.9", "10.77.1.2", &reply, |_| {});
    t.settle();
    assert_eq!(t.app.recv(&mut a), None);
    let got = t.app.recv(&mut b).unwrap();
    assert_eq!(
        (got.from.ip(), &got.bytes[8..]),
        (at("10.77.1.9:0").ip(), &b"data"[..])
    );
    // Anything but an echo request is refused.
    t.app
        .send(&mut a, &[13, 0, 0, 0, 0, 0, 0, 5], Some("10.77.1.9:0"));
    t.app.send(&mut a, &[8, 0], Some("10.77.1.9:0"));
    t.settle();
    assert_eq!(t.app.error(&mut a), Some(libc::EINVAL));
    assert!(t.sent().is_empty());
    assert_eq!(t.count("ping_unmatched"), 1);
}

#[test]
fn raw_sockets_see_the_ip_header_and_register_their_protocol() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.socket(udpd, SocketKind::Raw(89), false);
    t.settle();
    let link = t.link();
    assert_eq!(
        t.ipd.links[link].link().registered().collect::<Vec<_>>(),
        [17, 1, 89]
    );
    t.deliver(89, "10.77.1.9", "10.77.1.2", b"ospf", |_| {});
    t.settle();
    let got = t.app.recv(&mut s).unwrap();
    assert_eq!(
        (got.bytes.len(), got.bytes[0], &got.bytes[20..]),
        (24, 0x45, &b"ospf"[..])
    );
    t.app.send(&mut s, b"hello", Some("10.77.1.9:0"));
    t.settle();
    let sent = t.sent();
    assert_eq!(
        (sent[0].desc().protocol, sent[0].linear()),
        (89, &b"hello"[..])
    );
    drop(s);
    t.settle();
    t.settle();
    assert_eq!(
        t.ipd.links[link].link().registered().collect::<Vec<_>>(),
        [17, 1]
    );
    let refused = t.app.call(
        t.udpd.as_mut().unwrap(),
        Op::Socket {
            v6: false,
            kind: SocketKind::Raw(6),
        },
    );
    assert_eq!(refused, Err(libc::EPROTONOSUPPORT));
}

#[test]
fn what_was_sent_before_closing_still_goes_out() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    for n in 0..100u8 {
        t.app.send(&mut s, &[n], Some("10.77.1.9:7"));
    }
    drop(s);
    t.settle();
    let sent: Vec<u8> = t.sent().iter().map(|s| s.linear()[8]).collect();
    assert_eq!(sent, (0..100).collect::<Vec<_>>());
    // The port is free again.
    t.app.bound(t.udpd.as_mut().unwrap(), "0.0.0.0:5000");
}

#[test]
fn without_buffers_datagrams_wait() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut s = t.app.bound(udpd, "0.0.0.0:5000");
    let slots = t.fabric.slots() as usize;
    let mut got = 0;
    let mut held = Vec::new();
    for _ in 0..slots {
        t.app.send(&mut s, b"x", Some("10.77.1.9:7"));
        t.settle();
        held.extend(t.sent());
    }
    got += held.len();
    assert!(got < slots);
    assert!(t.udpd().service_deadline() > 0);
    held.clear();
    for _ in 0..10 {
        t.udpd().turn(now() + 1_000_000_000);
        got += t.sent().len();
    }
    assert_eq!(got, slots);
}

trait Deadline {
    fn service_deadline(&self) -> Nanos;
}

impl Deadline for Worker<Udpd> {
    fn service_deadline(&self) -> Nanos {
        use runtime::Service;
        self.service.deadline().unwrap_or(0)
    }
}

#[test]
fn a_successor_has_every_socket_name_option_and_queue() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut server = t.app.bound(udpd, "0.0.0.0:5000");
    let mut client = t.app.socket(udpd, SocketKind::Datagram, false);
    t.app.option(udpd, &client, SockOpt::Ttl(7));
    t.app.connect(udpd, &client, "10.77.1.9:7");
    let local = t.app.local(udpd, &client);
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"before");
    t.settle();
    t.app.take_tokens(&server);
    t.app.send(&mut client, b"queued", None);
    // Not looked at by the first one.
    t.restart();
    t.settle();
    assert_eq!(
        readiness(&server),
        (true, true),
        "what is queued is readable"
    );
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"after");
    t.settle();
    assert_eq!(t.app.recv(&mut server).unwrap().bytes, b"before");
    assert_eq!(t.app.recv(&mut server).unwrap().bytes, b"after");
    let sent = t.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].desc().ttl, &sent[0].linear()[8..]),
        (7, &b"queued"[..])
    );
    drop(sent);
    let udpd = t.udpd.as_mut().unwrap();
    assert_eq!(t.app.local(udpd, &client), local);
    assert_eq!(t.app.u32(&client, control::STATE), 3);
    let other = t.app.socket(udpd, SocketKind::Datagram, false);
    assert_eq!(
        t.app.call(udpd, Op::Bind(other.id, at("10.77.1.2:5000"))),
        Err(libc::EADDRINUSE)
    );
    assert_eq!(t.count("sockets_restored"), 2);
}

#[test]
fn killed_between_any_two_steps_requests_have_one_effect() {
    // The request is there, the first udpd takes so many steps of a turn, and dies.
    for step in 0..4 {
        let mut t = Stage::new();
        let udpd = t.udpd.as_mut().unwrap();
        let s = t.app.socket(udpd, SocketKind::Datagram, false);
        let id = t.app.send_request(Op::Bind(s.id, at("0.0.0.0:5000")));
        {
            use runtime::{Context, Service};
            let w = t.udpd.as_mut().unwrap();
            let mut cx = Context {
                now: now(),
                plumbing: &mut w.plumbing,
            };
            for _ in 0..2 {
                w.service.on_fd(&mut cx, 1, runtime::EpollFlags::EPOLLIN);
            }
            if step >= 1 {
                w.service.poll(&mut cx, 64);
            }
            if step >= 2 {
                w.service.commit(&mut cx);
            }
            if step >= 3 {
                w.service.release(&mut cx);
            }
        }
        t.restart();
        t.settle();
        let mut replies = Vec::new();
        while let Ok(runtime::channel::Received::Message(r, _)) =
            t.app.requests().recv::<abi::session::Reply>()
        {
            replies.push(r);
        }
        assert!(!replies.is_empty(), "step {step}");
        for r in &replies {
            assert_eq!((r.id, &r.result), (id, &Ok(Answer::Done)), "step {step}");
        }
        let udpd = t.udpd.as_mut().unwrap();
        assert_eq!(t.app.local(udpd, &s), at("0.0.0.0:5000"));
        t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"x");
        t.settle();
        let mut s = s;
        assert_eq!(t.app.recv(&mut s).unwrap().bytes, b"x");
    }
}

#[test]
fn hostile_words_reset_their_socket_alone() {
    let mut t = Stage::new();
    let udpd = t.udpd.as_mut().unwrap();
    let mut good = t.app.bound(udpd, "0.0.0.0:5000");
    let mut hostile = App::new(&t.address, udpd);
    let spoil: [(usize, u64); 5] = [
        (control::TX_TAIL, u64::MAX),
        (control::TX_TAIL, 64),
        (control::TX_TAIL, 7),
        (control::RX_HEAD, 1),
        (control::TX_TAIL, 1 << 18),
    ];
    for (n, (word, value)) in spoil.into_iter().enumerate() {
        let s = hostile.bound(t.udpd.as_mut().unwrap(), &format!("0.0.0.0:{}", 6000 + n));
        if value == 64 {
            // A record that claims more than there is.
            let base = hostile.memory.tx_offset(s.id.slot).unwrap();
            assert!(hostile.memory.mapping().copy_in(base, &[0xf0; 64]));
        }
        hostile
            .memory
            .u64(s.id.slot, word)
            .unwrap()
            .store(value, Ordering::Release);
        let _ = hostile.memory.mark_dirty(s.id.slot);
        t.settle();
        if value == 1 << 18 {
            // A buffer of zeroes is as many empty datagrams to nobody: nonsense, but possible.
            continue;
        }
        assert_eq!(t.count("app_faults"), n as u64 + 1);
    }
    t.datagram("10.77.1.9:7", "10.77.1.2:5000", b"fine");
    t.settle();
    assert_eq!(t.app.recv(&mut good).unwrap().bytes, b"fine");
}

/// Random traffic, requests and deaths: nothing panics, no slot leaks, what is delivered is
/// what was sent.
#[test]
fn random_traffic_and_deaths() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(fastrand::u64(..));
    println!("SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut t = Stage::new();
    let mut socks: Vec<(Sock, u16)> = Vec::new();
    let mut received = 0;
    for round in 0..400u32 {
        let udpd = t.udpd.as_mut().unwrap();
        match rng.u32(0..8) {
            0 if socks.len() < 20 => {
                let s = t.app.bound(udpd, "0.0.0.0:0");
                let port = t.app.local(udpd, &s).port();
                socks.push((s, port));
            }
            1 if !socks.is_empty() => {
                socks.swap_remove(rng.usize(..socks.len()));
            }
            2 => t.restart(),
            3..5 if !socks.is_empty() => {
                let i = rng.usize(..socks.len());
                let len = rng.usize(..3000);
                t.app.send(
                    &mut socks[i].0,
                    &vec![round as u8; len],
                    Some("10.77.1.9:7"),
                );
            }
            _ if !socks.is_empty() => {
                for _ in 0..rng.usize(..20) {
                    let port = socks[rng.usize(..socks.len())].1;
                    let n = rng.usize(1..1400);
                    let payload = vec![port as u8; n];
                    t.datagram("10.77.1.9:7", &format!("10.77.1.2:{port}"), &payload);
                }
            }
            _ => {}
        }
        t.settle();
        for skb in t.sent() {
            if skb.desc().kind == kind::PACKET {
                assert_eq!(skb.desc().protocol, 17);
            }
        }
        for (s, port) in &mut socks {
            while let Some(got) = t.app.recv(s) {
                assert!(got.bytes.iter().all(|&b| b == *port as u8));
                received += 1;
            }
            assert_eq!(t.app.u64(s, control::TX_HEAD), s.tx_tail, "all was sent");
        }
    }
    assert!(received > 100);
    t.settle();
    drop(t.sent());
    assert_eq!(t.fabric.free_slots(UDPD), t.fabric.slots());
    assert_eq!(t.fabric.free_slots(IPD), t.fabric.slots());
}
