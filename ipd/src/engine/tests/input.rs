//! Validation and delivery of what comes in.

use super::world::*;
use crate::engine::Counter;
use abi::skbuff::{checksum, flag, kind};
use std::net::Ipv4Addr;
use wire::ipv4;

/// Literal bytes: a UDP datagram from 10.77.0.1:5000 to 10.77.0.2:53 with "hi", padded to 60.
const FRAME: [u8; 60] = [
    0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01, 0x08, 0x00, // Ethernet
    0x45, 0x00, 0x00, 0x1e, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x13, 0xff, // IPv4
    10, 77, 0, 1, 10, 77, 0, 2, // addresses
    0x13, 0x88, 0x00, 0x35, 0x00, 0x0a, 0x00, 0x00, b'h', b'i', // UDP
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn fixed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let len = usize::from(frame[14] & 15) * 4;
    let sum = wire::checksum::of(&frame[14..14 + len]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_datagram_is_delivered_in_the_slot_it_came_in() {
    let mut w = World::new();
    let frame = fixed(FRAME.to_vec());
    let handle = w.rx_with(DEV, &frame, |d| d.ip_summed = checksum::UNNECESSARY);
    let [p] = &w.packets()[..] else { panic!() };
    // No copy: the same slot, the payload where it was.
    assert_eq!((p.upper, p.handle), (UDP, handle));
    assert_eq!(
        p.data,
        [&FRAME[34..42], b"hi"].concat(),
        "the link's padding is cut off"
    );
    assert_eq!(p.network[..20], frame[14..34]);
    let d = &p.desc;
    assert_eq!(d.network + 20, d.transport);
    assert_eq!(u32::from(d.transport), d.data);
    assert_eq!(
        (d.kind, d.protocol, d.ttl, d.tos, d.dev_in),
        (kind::PACKET, 17, 64, 0, 1)
    );
    assert_eq!(
        (d.family, d.flags, d.ip_summed),
        (2, 0, checksum::UNNECESSARY)
    );
    assert_eq!(d.src[..4], [10, 77, 0, 1]);
    assert_eq!(d.dst[..4], [10, 77, 0, 2]);
    assert_eq!(w.count(Counter::IpInDelivers), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn rfc1122_3_2_1_bad_headers_are_silently_discarded() {
    let change = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = FRAME.to_vec();
        f(&mut frame);
        frame
    };
    let cases: &[(Vec<u8>, Counter)] = &[
        (change(&|f| f.truncate(14)), Counter::IpInTruncated),
        (change(&|f| f.truncate(33)), Counter::IpInTruncated),
        (fixed(change(&|f| f[14] = 0x65)), Counter::IpInHdrErrors),
        (change(&|f| f[14] = 0x44), Counter::IpInHdrErrors),
        (fixed(change(&|f| f[17] = 19)), Counter::IpInHdrErrors),
        (fixed(change(&|f| f[17] = 47)), Counter::IpInTruncated),
        (change(&|f| f[22] ^= 1), Counter::IpInCsumErrors),
        (change(&|f| f[12] = 0x86), Counter::LinkUnknownType),
        (
            change(&|f| f[12..14].copy_from_slice(&[0x86, 0xdd])),
            Counter::Ip6Unsupported,
        ),
    ];
    for (frame, counter) in cases {
        let mut w = World::new();
        w.rx(frame);
        w.nothing();
        assert_eq!(w.count(*counter), 1, "{counter:?}");
        assert_eq!(w.free_slots(), World::all_slots());
    }
}

#[test]
fn options_are_tolerated() {
    let mut w = World::new();
    let mut repr = ipv4::Repr {
        src: PEER,
        dst: OWN,
        protocol: 17,
        ..ipv4::Repr::default()
    };
    repr.options
        .try_extend_from_slice(&[7, 7, 4, 0, 0, 0, 0, 0])
        .unwrap();
    w.rx(&ethernet(
        OWN_MAC,
        PEER_MAC,
        0x0800,
        &datagram(&repr, &udp(b"x")),
    ));
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!(p.data, udp(b"x"));
    assert_eq!(p.desc.transport - p.desc.network, 28);
}

#[test]
fn rfc1122_3_2_1_3_martians_are_discarded() {
    for src in [
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "10.77.0.255",
        "0.0.0.0",
        "0.1.2.3",
        "10.77.0.2",
        "10.88.0.2",
    ] {
        let mut w = World::new();
        w.rx(&ip_frame(src.parse().unwrap(), OWN, 17, &udp(b"")));
        w.nothing();
        assert_eq!(w.count(Counter::IpInMartianSource), 1, "{src}");
    }
    for (dst, counter) in [
        ("127.0.0.1", Counter::IpInMartianDest),
        ("0.0.0.0", Counter::IpInMartianDest),
        ("241.0.0.1", Counter::IpInMartianDest),
        ("10.77.0.3", Counter::IpInAddrErrors),
        ("192.0.2.1", Counter::IpInAddrErrors),
        // Of the other network: not passed on.
        ("10.88.0.255", Counter::IpInAddrErrors),
    ] {
        let mut w = World::new();
        w.rx(&ip_frame(PEER, dst.parse().unwrap(), 17, &udp(b"")));
        w.nothing();
        assert_eq!(w.count(counter), 1, "{dst}");
    }
}

#[test]
fn broadcast_and_multicast_are_flagged() {
    for (mac, dst) in [
        (BROADCAST_MAC, "255.255.255.255"),
        (BROADCAST_MAC, "10.77.0.255"),
        (OWN_MAC, "10.77.0.255"),
        ([1, 0, 0x5e, 0, 0, 1], "224.0.0.1"),
    ] {
        let mut w = World::new();
        let dst: Ipv4Addr = dst.parse().unwrap();
        let mut frame = ip_frame(PEER, dst, 17, &udp(b"all"));
        frame[..6].copy_from_slice(&mac);
        w.rx(&frame);
        let [p] = &w.packets()[..] else {
            panic!("{dst}")
        };
        assert_eq!(p.desc.flags, flag::LINK_BROADCAST, "{dst}");
    }
    // A host that asks for its address says so to all.
    let mut w = World::new();
    let mut frame = ip_frame(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 17, &udp(b""));
    frame[..6].fill(0xff);
    w.rx(&frame);
    assert_eq!(w.packets().len(), 1);
}

#[test]
fn rfc1122_3_3_6_unicast_in_a_broadcast_frame_is_discarded() {
    let mut w = World::new();
    let mut frame = ip_frame(PEER, OWN, 17, &udp(b""));
    frame[..6].fill(0xff);
    w.rx(&frame);
    w.nothing();
    assert_eq!(w.count(Counter::IpInLinkBroadcast), 1);
}

#[test]
fn either_address_is_ours_on_either_device() {
    let mut w = World::new();
    w.rx(&ip_frame(PEER, Ipv4Addr::new(10, 88, 0, 2), 6, &[0; 20]));
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!(p.upper, TCP);
}

#[test]
fn a_super_frame_passes_as_one() {
    let mut w = World::new();
    let payload: Vec<u8> = (0..40_000u32).map(|i| i.to_le_bytes()[0]).collect();
    let handle = w.rx_with(DEV, &ip_frame(PEER, OWN, 6, &payload), |d| {
        (d.gso_type, d.gso_size, d.ip_summed) = (1, 1448, checksum::PARTIAL);
        (d.csum_start, d.csum_offset) = (162, 16);
    });
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!((p.handle, p.data == payload), (handle, true));
    assert_eq!(
        (p.desc.gso_size, p.desc.csum_start, p.desc.nr_frags),
        (1448, 162, 1)
    );
    assert_eq!(w.count(Counter::IpCopiedBytes), 0);
    assert_eq!(w.free_slots(), World::all_slots());
}
