//! ICMP: echo, errors in both directions, their limits, path MTU discovery.

use super::world::*;
use crate::engine::Counter;
use abi::skbuff::{checksum, flag, kind};
use std::net::Ipv4Addr;
use wire::ipv4;

const PORT_UNREACHABLE: u32 = 3 << 8 | 3;

fn quoted(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let repr = ipv4::Repr {
        src,
        dst,
        protocol,
        total_len: len,
        ..ipv4::Repr::default()
    };
    repr.emit(&mut bytes).unwrap();
    bytes
}

#[test]
fn rfc1122_3_2_2_6_an_echo_is_answered_in_its_own_buffer() {
    let mut w = World::acquainted();
    let request = icmp(8, 0, [0x12, 0x34, 0, 1], b"abcdefgh");
    let handle = w.rx(&ip_frame(PEER, OWN, 1, &request));
    let frames = w.frames();
    let [f] = &frames[..] else { panic!() };
    assert_eq!(f.handle, handle);
    let (ip, payload) = ip_of(f);
    assert_eq!((ip.src, ip.dst, ip.ttl), (OWN, PEER, 64));
    assert_eq!(payload, icmp(0, 0, [0x12, 0x34, 0, 1], b"abcdefgh"));
    assert_eq!(w.count(Counter::IcmpOutEchoReps), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn options_of_an_echo_are_not_returned() {
    let mut w = World::acquainted();
    let mut repr = ipv4::Repr {
        src: PEER,
        dst: OWN,
        protocol: 1,
        tos: 0xb9,
        ..ipv4::Repr::default()
    };
    repr.options
        .try_extend_from_slice(&[7, 7, 4, 0, 0, 0, 0, 0])
        .unwrap();
    let request = icmp(8, 0, [0; 4], b"x");
    w.rx(&ethernet(
        OWN_MAC,
        PEER_MAC,
        0x0800,
        &datagram(&repr, &request),
    ));
    let frames = w.frames();
    let (ip, payload) = ip_of(&frames[0]);
    assert_eq!(
        (ip.options.len(), ip.tos),
        (0, 0xb8),
        "the class, but no congestion mark"
    );
    assert_eq!(payload, icmp(0, 0, [0; 4], b"x"));
}

#[test]
fn bad_echoes_are_not_answered() {
    let mut w = World::acquainted();
    let mut wrong = icmp(8, 0, [0; 4], b"data");
    wrong[9] ^= 1;
    w.rx(&ip_frame(PEER, OWN, 1, &wrong));
    w.rx(&ip_frame(PEER, OWN, 1, &wrong[..7]));
    let mut all = ip_frame(
        PEER,
        Ipv4Addr::new(10, 77, 0, 255),
        1,
        &icmp(8, 0, [0; 4], b""),
    );
    all[..6].fill(0xff);
    w.rx(&all);
    w.nothing();
    assert_eq!(w.count(Counter::IcmpInCsumErrors), 1);
    assert_eq!(w.count(Counter::IcmpInErrors), 1);
    assert_eq!(w.count(Counter::IcmpInEchoBcast), 1);
}

#[test]
fn echo_replies_and_only_they_reach_the_registered_transport() {
    let mut w = World::new();
    let reply = icmp(0, 0, [0, 5, 0, 1], b"pong");
    w.rx(&ip_frame(PEER, OWN, 1, &reply));
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!(
        (p.upper, p.desc.kind, p.desc.protocol, &p.data),
        (UDP, kind::PACKET, 1, &reply)
    );
    assert_eq!(p.desc.ttl, 61);
    w.rx(&ip_frame(
        PEER,
        OWN,
        1,
        &icmp(5, 1, [10, 77, 0, 9], &quoted(OWN, PEER, 17, 28)),
    ));
    w.rx(&ip_frame(PEER, OWN, 1, &icmp(13, 0, [0; 4], &[0; 12])));
    w.nothing();
    assert_eq!(w.count(Counter::IcmpInIgnored), 2);
}

#[test]
fn pinging_ourselves_works_without_a_device() {
    let mut w = World::new();
    for partial in [false, true] {
        w.tx(UDP, OWN, &icmp(8, 0, [0, 1, 0, 2], b"self"), |skb| {
            skb.desc_mut().protocol = 1;
            if partial {
                skb.desc_mut().ip_summed = checksum::PARTIAL;
            }
        });
        let [p] = &w.packets()[..] else { panic!() };
        assert_eq!((p.upper, p.data[0], p.src()), (UDP, 0, OWN));
        assert_eq!(p.data[4..], icmp(0, 0, [0, 1, 0, 2], b"self")[4..]);
    }
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn rfc1122_3_2_2_1_errors_reach_the_transport_they_are_about() {
    let mut w = World::new();
    for (kind_, code, protocol, upper) in [
        (3, 3, 17, UDP),
        (3, 1, 6, TCP),
        (11, 0, 6, TCP),
        (12, 0, 17, UDP),
    ] {
        let message = icmp(kind_, code, [0; 4], &quoted(OWN, PEER, protocol, 28));
        w.rx(&ip_frame(PEER, OWN, 1, &message));
        let [p] = &w.packets()[..] else { panic!() };
        assert_eq!(
            (p.upper, p.desc.kind, p.desc.protocol),
            (upper, kind::ICMP_ERROR, protocol)
        );
        assert_eq!((p.src(), &p.data), (PEER, &message));
        assert_eq!(p.desc.network + 20, p.desc.transport);
    }
    // About what another host sent, about nobody's protocol, cut too short, source quench.
    for (message, counter) in [
        (
            icmp(3, 3, [0; 4], &quoted(PEER, OWN, 17, 28)),
            Counter::IcmpInUnmatched,
        ),
        (
            icmp(3, 3, [0; 4], &quoted(OWN, PEER, 99, 28)),
            Counter::IcmpInUnmatched,
        ),
        (
            icmp(3, 3, [0; 4], &quoted(OWN, PEER, 17, 28)[..27]),
            Counter::IcmpInErrors,
        ),
        (
            icmp(4, 0, [0; 4], &quoted(OWN, PEER, 17, 28)),
            Counter::IcmpInIgnored,
        ),
    ] {
        let before = w.count(counter);
        w.rx(&ip_frame(PEER, OWN, 1, &message));
        w.nothing();
        assert_eq!(w.count(counter), before + 1, "{counter:?}");
    }
}

#[test]
fn a_closed_port_is_reported_when_the_transport_asks() {
    let mut w = World::acquainted();
    let frame = ip_frame(PEER, OWN, 17, &udp(b"anybody there?"));
    w.rx(&frame);
    w.complain(UDP, PORT_UNREACHABLE);
    let frames = w.frames();
    let [f] = &frames[..] else { panic!() };
    let (ip, payload) = ip_of(f);
    // RFC 1812 4.3.2.5: precedence of internetwork control.
    assert_eq!((ip.src, ip.dst, ip.protocol, ip.tos), (OWN, PEER, 1, 0xc0));
    assert_eq!(payload[..2], [3, 3]);
    assert_eq!(wire::checksum::of(payload), 0);
    assert_eq!(
        payload[8..],
        frame[14..],
        "the whole of a small datagram is quoted"
    );
    assert_eq!(w.count(Counter::IcmpOutDestUnreachs), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn a_quotation_fits_576_bytes() {
    let mut w = World::acquainted();
    w.rx(&ip_frame(PEER, OWN, 17, &udp(&[0x55; 1400])));
    w.complain(UDP, PORT_UNREACHABLE);
    let frames = w.frames();
    assert_eq!(ip_of(&frames[0]).0.total_len, 576);
}

#[test]
fn a_closed_local_port_is_reported_to_the_local_sender() {
    let mut w = World::new();
    w.tx(UDP, OWN, &udp(b"me"), |_| ());
    w.complain(UDP, PORT_UNREACHABLE);
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!(
        (p.upper, p.desc.kind, &p.data[..2]),
        (UDP, kind::ICMP_ERROR, &[3, 3][..])
    );
    let e = wire::icmpv4::Embedded::parse(&p.data[8..]).unwrap();
    assert_eq!((e.src, e.dst, e.ports()), (OWN, OWN, Some((5000, 53))));
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn unknown_protocols_are_refused_but_absent_transports_never_answered_for() {
    let mut w = World::acquainted();
    w.rx(&ip_frame(PEER, OWN, 99, b"what is this"));
    let frames = w.frames();
    assert_eq!(ip_of(&frames[0]).1[..2], [3, 2]);
    assert_eq!(w.count(Counter::IpInUnknownProtos), 1);
    // A fifth daemon comes, serves, and goes.
    w.engine.register(TCP, [6, 99].into_iter());
    w.rx(&ip_frame(PEER, OWN, 99, b"now known"));
    assert_eq!(w.packets()[0].upper, TCP);
    w.engine.register(TCP, std::iter::empty());
    w.rx(&ip_frame(PEER, OWN, 99, b"down"));
    w.rx(&ip_frame(PEER, OWN, 6, &[0; 20]));
    w.nothing();
    assert_eq!(w.count(Counter::IpInTransportAbsent), 2);
}

#[test]
fn rfc1122_3_2_2_no_errors_about_errors_broadcasts_or_later_fragments() {
    let suppressed = |f: &dyn Fn(&mut World)| {
        let mut w = World::acquainted();
        f(&mut w);
        w.nothing();
        assert_eq!(w.count(Counter::IcmpOutSuppressed), 1);
    };
    suppressed(&|w| {
        let mut frame = ip_frame(PEER, Ipv4Addr::new(10, 77, 0, 255), 17, &udp(b""));
        frame[..6].fill(0xff);
        w.rx(&frame);
        w.complain(UDP, PORT_UNREACHABLE);
    });
    suppressed(&|w| {
        w.rx(&ip_frame(
            PEER,
            OWN,
            1,
            &icmp(3, 3, [0; 4], &quoted(OWN, PEER, 17, 28)),
        ));
        w.complain(UDP, PORT_UNREACHABLE);
    });
    suppressed(&|w| {
        let mut frame = ip_frame(PEER, Ipv4Addr::new(224, 0, 0, 1), 99, b"");
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
        w.rx(&frame);
    });
    suppressed(&|w| {
        let mut frame = ip_frame(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 99, b"");
        frame[..6].fill(0xff);
        w.rx(&frame);
    });
    // What a transport may not ask for at all.
    let mut w = World::acquainted();
    w.rx(&ip_frame(PEER, OWN, 17, &udp(b"")));
    w.complain(UDP, 8 << 8);
    w.nothing();
    assert_eq!(w.count(Counter::IpOutDiscards), 1);
}

#[test]
fn rfc1812_4_3_2_8_errors_are_rate_limited_by_destination() {
    let mut w = World::acquainted();
    for _ in 0..20 {
        w.rx(&ip_frame(PEER, OWN, 99, b""));
    }
    assert_eq!(w.frames().len(), 6);
    assert_eq!(w.count(Counter::IcmpOutRateHost), 14);
    w.advance(SECOND);
    w.rx(&ip_frame(PEER, OWN, 99, b""));
    assert_eq!(w.frames().len(), 1);
}

#[test]
fn rfc1191_a_router_s_mtu_is_believed_for_ten_minutes() {
    let far = Ipv4Addr::new(192, 0, 2, 1);
    let mut w = World::acquainted();
    let message = icmp(3, 4, [0, 0, 5, 0], &quoted(OWN, far, 6, 1500));
    w.rx(&ip_frame(PEER, OWN, 1, &message));
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!((p.upper, p.desc.kind), (TCP, kind::ICMP_ERROR));
    let send = |w: &mut World, len| {
        w.tx(UDP, far, &udp(&vec![0; len]), |skb| {
            skb.desc_mut().flags = flag::DONT_FRAG
        });
        w.take()
    };
    let (frames, packets) = send(&mut w, 1253);
    assert_eq!(
        (frames.len(), &packets[0].data[6..8]),
        (0, &1280u16.to_be_bytes()[..])
    );
    let (frames, _) = send(&mut w, 1252);
    assert_eq!(frames.len(), 1);
    assert_eq!(w.engine.routes(w.now).1.last().unwrap()[0], "192.0.2.1");
    w.advance(601 * SECOND);
    w.take();
    let (frames, packets) = send(&mut w, 1253);
    assert_eq!((frames.len(), packets.len()), (1, 0));
}

#[test]
fn nothing_is_unreachable_while_a_transport_is_still_to_come() {
    let mut w = World::acquainted();
    w.engine.expect(crate::engine::Upper(2));
    w.rx(&ip_frame(PEER, OWN, 99, b""));
    w.nothing();
    w.engine
        .register(crate::engine::Upper(2), std::iter::empty());
    w.rx(&ip_frame(PEER, OWN, 99, b""));
    w.nothing();
    w.engine
        .register(crate::engine::Upper(2), [132].into_iter());
    w.rx(&ip_frame(PEER, OWN, 99, b""));
    assert_eq!(w.frames().len(), 1);
}

#[test]
fn an_echo_that_leaves_by_another_device_is_copied_where_that_can_read_it() {
    let mut w = World::acquainted();
    let request = icmp(8, 0, [0, 1, 0, 1], &[7; 40]);
    let place = w.rx_with(DEV2, &ip_frame(PEER, OWN, 1, &request), |_| ());
    let frames = w.frames();
    assert_eq!(frames[0].device, DEV);
    assert_ne!(frames[0].handle.0, place.0, "another pool");
    assert_eq!(ip_of(&frames[0]).1, icmp(0, 0, [0, 1, 0, 1], &[7; 40]));
    assert_eq!(w.free_slots(), World::all_slots());
}
