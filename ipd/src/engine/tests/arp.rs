//! ARP and the neighbour table, on virtual time.

use super::world::*;
use crate::engine::{Counter, Engine};
use abi::skbuff::kind;
use std::net::Ipv4Addr;
use wire::MacAddr;
use wire::arp::Operation;

const MS: u64 = 1_000_000;

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n)
}

#[test]
fn rfc826_a_request_is_answered_in_its_own_buffer() {
    // Who has 10.77.0.2? Tell 10.77.0.1. Padded as Ethernet wants it.
    let mut request = arp_frame(1, PEER_MAC, PEER, [0; 6], OWN);
    request.resize(60, 0);
    let mut w = World::new();
    let handle = w.rx(&request);
    let [reply] = &w.frames()[..] else { panic!() };
    assert_eq!(reply.handle, handle);
    let literal = [
        0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x06, // Ethernet, to the asker
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x02, // reply
        0x02, 0, 0, 0, 0, 2, 10, 77, 0, 2, // we are at
        0x02, 0, 0, 0, 0, 1, 10, 77, 0, 1, // told the asker
    ];
    assert_eq!(reply.bytes, literal);
    assert_eq!((reply.desc.dev_out, reply.desc.ethertype), (1, 0x0806));
    // What the asker said of itself is enough to answer without asking back.
    w.tx(UDP, PEER, &udp(b"x"), |_| ());
    let [frame] = &w.frames()[..] else { panic!() };
    assert_eq!(frame.bytes[..6], PEER_MAC);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn requests_for_others_and_nonsense_are_not_answered() {
    let mut w = World::new();
    w.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], host(9)));
    // Our other device's address is not answered for here.
    w.rx(&arp_frame(
        1,
        PEER_MAC,
        PEER,
        [0; 6],
        Ipv4Addr::new(10, 88, 0, 2),
    ));
    // A group, nobody, or a multicast or loopback IP address as the sender.
    w.rx(&arp_frame(1, BROADCAST_MAC, PEER, [0; 6], OWN));
    w.rx(&arp_frame(1, [0; 6], PEER, [0; 6], OWN));
    w.rx(&arp_frame(
        1,
        PEER_MAC,
        Ipv4Addr::new(224, 0, 0, 1),
        [0; 6],
        OWN,
    ));
    w.rx(&arp_frame(1, PEER_MAC, Ipv4Addr::LOCALHOST, [0; 6], OWN));
    w.rx(&arp_frame(8, PEER_MAC, PEER, [0; 6], OWN));
    w.rx(&ethernet(OWN_MAC, PEER_MAC, 0x0806, &[0; 10]));
    w.nothing();
    assert_eq!(w.count(Counter::ArpInErrors), 6);
    assert_eq!(w.engine.neighbours(w.now).1.len(), 0);
}

#[test]
fn packets_wait_for_resolution_and_go_in_order() {
    let mut w = World::new();
    for i in 0..5u8 {
        w.tx(UDP, PEER, &udp(&[i]), |_| ());
    }
    let [ask] = &w.frames()[..] else {
        panic!("one request for all")
    };
    assert_eq!(ask.bytes[..6], BROADCAST_MAC);
    let arp = arp_of(ask);
    assert_eq!(
        (arp.operation, arp.sender_ip, arp.target_ip),
        (Operation::Request, OWN, PEER)
    );
    assert_eq!(
        (arp.sender_mac, arp.target_mac),
        (MacAddr(OWN_MAC), MacAddr::UNSPECIFIED)
    );
    w.advance(300 * MS);
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    let frames = w.frames();
    assert_eq!(frames.len(), 5);
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!(frame.bytes[..6], PEER_MAC);
        assert_eq!(ip_of(frame).1, udp(&[u8::try_from(i).unwrap()]));
    }
    assert_eq!(w.count(Counter::NeighResolved), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn behind_the_gateway_the_gateway_is_asked_for() {
    let mut w = World::new();
    w.tx(UDP, Ipv4Addr::new(192, 0, 2, 7), &udp(b""), |_| ());
    assert_eq!(arp_of(&w.frames()[0]).target_ip, PEER);
}

#[test]
fn three_unanswered_requests_make_the_host_unreachable() {
    let mut w = World::new();
    w.tx(UDP, host(9), &udp(b"one"), |_| ());
    w.tx(TCP, host(9), &[7; 20], |_| ());
    assert_eq!(w.frames().len(), 1);
    // RFC 1122 2.3.2.1: one request a second.
    for _ in 0..2 {
        w.advance(999 * MS);
        w.nothing();
        w.advance(MS);
        assert_eq!(w.frames().len(), 1);
    }
    w.advance(SECOND);
    let packets = w.packets();
    let [a, b] = &packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!((a.upper, b.upper), (UDP, TCP));
    for (p, protocol, quoted) in [(a, 17, udp(b"one")), (b, 6, vec![7; 20])] {
        assert_eq!((p.desc.kind, p.desc.protocol), (kind::ICMP_ERROR, protocol));
        assert_eq!(p.data[..2], [3, 1], "destination unreachable, host");
        assert_eq!(wire::checksum::of(&p.data), 0);
        // network is the ICMP packet's own header, as of one from a router.
        assert_eq!(wire::ipv4::Repr::parse(&p.network).unwrap().protocol, 1);
        let e = wire::icmpv4::Embedded::parse(&p.data[8..]).unwrap();
        assert_eq!((e.src, e.dst, e.protocol), (OWN, host(9), protocol));
        assert_eq!(p.data[28..], quoted[..]);
    }
    // RFC 1122 2.3.2.1's flood prevention: for a while it is not asked again.
    w.tx(UDP, host(9), &udp(b"two"), |_| ());
    assert_eq!(w.packets()[0].data[..2], [3, 1]);
    assert_eq!(w.count(Counter::NeighNegativeHits), 1);
    w.advance(3 * SECOND);
    w.tx(UDP, host(9), &udp(b"three"), |_| ());
    assert_eq!(w.frames().len(), 1, "asked again");
    w.advance(10 * SECOND);
    w.take();
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn the_queue_is_bounded_and_the_oldest_gives_way() {
    let mut w = World::new();
    for i in 0..100u8 {
        w.tx(UDP, PEER, &udp(&[i]), |_| ());
    }
    assert_eq!(w.count(Counter::NeighQueueDrops), 36);
    w.frames();
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    let frames = w.frames();
    assert_eq!(frames.len(), 64);
    assert_eq!(ip_of(&frames[0]).1, udp(&[36]));
    // Over all neighbours together, too.
    for n in 10..30 {
        for i in 0..29 {
            w.tx(UDP, host(n), &udp(&[i]), |_| ());
        }
    }
    assert_eq!(w.engine.neigh.queued(), 512);
    w.advance(10 * SECOND);
    assert_eq!(w.engine.neigh.queued(), 0);
    w.take();
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn rfc4861_7_3_a_neighbour_in_use_is_confirmed_now_and_then() {
    let mut w = World::new();
    w.tx(UDP, PEER, &udp(b""), |_| ());
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    w.take();
    let send = |w: &mut World| {
        w.tx(UDP, PEER, &udp(b""), |_| ());
        let frames = w.frames();
        assert_eq!(frames.len(), 1);
        assert_eq!(
            frames[0].bytes[12..14],
            [0x08, 0x00],
            "it goes, whatever the state"
        );
    };
    let state = |w: &World| w.engine.neighbours(w.now).1[0][3].clone();
    assert_eq!(state(&w), "REACHABLE");
    // The confirmation is good for 15 to 45 s.
    w.advance(14 * SECOND);
    send(&mut w);
    assert_eq!(state(&w), "REACHABLE");
    w.advance(32 * SECOND);
    w.nothing();
    assert_eq!(state(&w), "STALE");
    send(&mut w);
    assert_eq!(state(&w), "DELAY");
    w.advance(4 * SECOND);
    w.nothing();
    w.advance(SECOND);
    let [probe] = &w.frames()[..] else { panic!() };
    assert_eq!(state(&w), "PROBE");
    assert_eq!(probe.bytes[..6], PEER_MAC, "asked by unicast");
    send(&mut w);
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    assert_eq!(state(&w), "REACHABLE");
    // Unused, it costs nothing.
    w.advance(3600 * SECOND);
    w.nothing();
    // And when it is gone, the next packet asks everybody.
    send(&mut w);
    w.advance(5 * SECOND);
    assert_eq!(w.frames().len(), 1);
    w.advance(2 * SECOND);
    assert_eq!(w.frames().len(), 2);
    w.advance(SECOND);
    w.nothing();
    assert_eq!(state(&w), "FAILED");
    w.tx(UDP, PEER, &udp(b""), |_| ());
    assert_eq!(w.frames()[0].bytes[..6], BROADCAST_MAC);
}

#[test]
fn a_moved_neighbour_is_followed_but_not_at_each_whim() {
    let moved = [2, 0, 0, 0, 0, 0x77];
    let mut w = World::acquainted();
    w.advance(100 * MS);
    w.rx(&arp_frame(2, moved, PEER, OWN_MAC, OWN));
    assert_eq!(w.count(Counter::ArpLocked), 1, "the first answer wins");
    w.advance(2 * SECOND);
    w.rx(&arp_frame(1, moved, PEER, [0; 6], PEER));
    w.tx(UDP, PEER, &udp(b""), |_| ());
    assert_eq!(w.frames()[0].bytes[..6], moved, "an announcement updates");
}

#[test]
fn strangers_are_not_learned_from_what_is_not_for_us() {
    let mut w = World::new();
    w.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], PEER));
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    w.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], host(9)));
    // Not on this link: we would not send to it directly.
    w.rx(&arp_frame(
        1,
        PEER_MAC,
        Ipv4Addr::new(192, 0, 2, 1),
        [0; 6],
        OWN,
    ));
    w.take();
    assert_eq!(w.engine.neighbours(w.now).1.len(), 0);
}

#[test]
fn a_flood_of_requests_stays_within_the_table() {
    let mut stack = stack();
    stack.devices[0].addresses = vec!["10.77.0.2/16".parse().unwrap()];
    let mut w = World::with(stack);
    w.tx(UDP, PEER, &udp(b""), |_| ());
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    w.take();
    for i in 0..5000u16 {
        let [a, b] = i.to_be_bytes();
        w.rx(&arp_frame(
            1,
            [2, 1, 1, 1, a, b],
            Ipv4Addr::new(10, 77, 100 + a, b),
            [0; 6],
            OWN,
        ));
        w.take();
    }
    assert_eq!(w.engine.neighbours(w.now).1.len(), 1024);
    assert_eq!(w.count(Counter::NeighEvicted), 0);
    // Our own needs come first, and who is in use is not disturbed.
    w.tx(UDP, Ipv4Addr::new(10, 77, 9, 9), &udp(b""), |_| ());
    assert_eq!(w.count(Counter::NeighEvicted), 1);
    assert_eq!(w.frames().len(), 1);
    w.tx(UDP, PEER, &udp(b""), |_| ());
    assert_eq!(w.frames()[0].bytes[..6], PEER_MAC);
    // A minute later the flood's entries may make room for honest strangers.
    w.advance(61 * SECOND);
    w.take();
    w.rx(&arp_frame(
        1,
        [2, 9, 9, 9, 9, 9],
        Ipv4Addr::new(10, 77, 8, 8),
        [0; 6],
        OWN,
    ));
    assert_eq!(w.count(Counter::NeighEvicted), 2);
}

#[test]
fn rfc5227_2_4_our_addresses_are_defended_once_in_ten_seconds() {
    let thief = [2, 6, 6, 6, 6, 6];
    let mut w = World::new();
    w.rx(&arp_frame(1, thief, OWN, [0; 6], host(9)));
    let frames = w.frames();
    let arp = arp_of(&frames[0]);
    assert_eq!(
        (arp.sender_ip, arp.target_ip, arp.sender_mac),
        (OWN, OWN, MacAddr(OWN_MAC))
    );
    assert_eq!(frames[0].bytes[..6], BROADCAST_MAC);
    w.advance(SECOND);
    w.rx(&arp_frame(2, thief, OWN, OWN_MAC, OWN));
    w.nothing();
    w.advance(10 * SECOND);
    w.rx(&arp_frame(1, thief, OWN, [0; 6], OWN));
    assert_eq!(w.frames().len(), 1);
    assert_eq!(
        (
            w.count(Counter::ArpConflicts),
            w.count(Counter::ArpDefences)
        ),
        (3, 2)
    );
    // RFC 5227 2.1.1: a probe for it is answered, which is a defence, too.
    w.rx(&arp_frame(1, thief, Ipv4Addr::UNSPECIFIED, [0; 6], OWN));
    assert_eq!(arp_of(&w.frames()[0]).operation, Operation::Reply);
    assert_eq!(w.engine.neighbours(w.now).1.len(), 0);
}

#[test]
fn rfc5227_2_3_addresses_are_announced_when_the_device_reports() {
    let mut w = World::new();
    w.engine = Engine::new(&w.stack, w.now, true);
    w.advance(5 * SECOND);
    w.nothing();
    w.engine.device_report(DEV, OWN_MAC, 1500, w.now);
    w.advance(0);
    let frames = w.frames();
    let arp = arp_of(&frames[0]);
    assert_eq!((frames.len(), arp.sender_ip, arp.target_ip), (1, OWN, OWN));
    assert_eq!(arp.operation, Operation::Request);
    w.advance(2 * SECOND);
    assert_eq!(w.frames().len(), 1);
    w.advance(60 * SECOND);
    w.nothing();
    // The same words again are no news; another address is.
    w.engine.device_report(DEV, OWN_MAC, 1500, w.now);
    w.advance(SECOND);
    w.nothing();
    w.engine.device_report(DEV, [2, 0, 0, 0, 0, 9], 1500, w.now);
    w.advance(0);
    assert_eq!(
        arp_of(&w.frames()[0]).sender_mac,
        MacAddr([2, 0, 0, 0, 0, 9])
    );
    assert_eq!(w.engine.deadline(), Some(w.now + 2 * SECOND));
}
