//! What transports send.

use super::world::*;
use crate::engine::Counter;
use abi::skbuff::{checksum, flag, gso, kind};
use abi::{DevIndex, Endpoint};
use std::net::Ipv4Addr;

fn set_src(skb: &mut shm::SkBuff, src: Ipv4Addr) {
    skb.desc_mut().src = Endpoint::new(src.into(), 0).addr;
}

#[test]
fn headers_are_pushed_before_the_payload_which_stays() {
    let mut w = World::acquainted();
    let handle = w.tx(UDP, PEER, &udp(b"hello"), |skb| {
        set_src(skb, OWN);
        let d = skb.desc_mut();
        (d.tos, d.ttl, d.flags) = (0x2e << 2, 9, flag::DONT_FRAG);
        (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, 128, 6);
        d.stamp = 77;
    });
    let frames = w.frames();
    let [f] = &frames[..] else { panic!() };
    assert_eq!((f.handle, f.device), (handle, DEV));
    assert_eq!(f.bytes[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let (ip, payload) = ip_of(f);
    assert_eq!(payload, udp(b"hello"));
    assert_eq!(
        (ip.src, ip.dst, ip.protocol, ip.ttl, ip.tos),
        (OWN, PEER, 17, 9, 0xb8)
    );
    assert!(ip.dont_frag && !ip.more_frags && ip.frag_offset == 0);
    let d = &f.desc;
    assert_eq!(
        (d.dev_out, d.ip_summed, d.csum_start, d.csum_offset),
        (1, checksum::PARTIAL, 128, 6)
    );
    assert_eq!(
        (u32::from(d.mac), d.network, d.transport),
        (d.data, 108, 128)
    );
    assert_eq!((d.mac, d.stamp), (94, 77));
    assert_eq!(w.count(Counter::IpCopiedBytes), 0);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn a_source_is_chosen_by_route_and_checked_if_given() {
    let mut w = World::acquainted();
    w.tx(UDP, PEER, &udp(b""), |_| ());
    assert_eq!(ip_of(&w.frames()[0]).0.src, OWN);
    // Weak hosts may use another own address, but nobody else's, and 127/8 never leaves.
    let other = Ipv4Addr::new(10, 88, 0, 2);
    w.tx(UDP, PEER, &udp(b""), |skb| set_src(skb, other));
    assert_eq!(ip_of(&w.frames()[0]).0.src, other);
    for src in [
        Ipv4Addr::new(10, 77, 0, 9),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
    ] {
        w.tx(UDP, PEER, &udp(b""), |skb| set_src(skb, src));
        w.nothing();
    }
    for dst in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::new(240, 0, 0, 1),
    ] {
        w.tx(UDP, dst, &udp(b""), |_| ());
        w.nothing();
    }
    assert_eq!(w.count(Counter::IpOutAddrErrors), 6);
    w.tx(UDP, PEER, &udp(b""), |skb| skb.desc_mut().family = 0);
    w.tx(UDP, PEER, &udp(b""), |skb| {
        skb.desc_mut().family = abi::endpoint::FAMILY_V6
    });
    w.nothing();
    assert_eq!(w.count(Counter::Ip6Unsupported), 1);
}

#[test]
fn idents_of_one_destination_follow_each_other() {
    let mut w = World::acquainted();
    let ident = |w: &mut World| {
        w.tx(UDP, PEER, &udp(b""), |_| ());
        ip_of(&w.frames()[0]).0.ident
    };
    let first = ident(&mut w);
    assert_eq!(ident(&mut w), first.wrapping_add(1));
    // A super-frame takes one for each segment that the device will make of it.
    let segments = |w: &mut World| {
        w.tx(TCP, PEER, &tcp_segment(4000), |skb| {
            (skb.desc_mut().gso_type, skb.desc_mut().gso_size) = (gso::TCPV4, 1400);
        });
        ip_of(&w.frames()[0]).0.ident
    };
    let first = segments(&mut w);
    assert_eq!(segments(&mut w), first.wrapping_add(3));
}

fn tcp_segment(len: usize) -> Vec<u8> {
    let mut segment = vec![0; 20 + len];
    segment[12] = 5 << 4;
    segment
}

#[test]
fn rfc1191_what_is_too_big_with_df_is_refused_with_the_mtu() {
    let mut w = World::acquainted();
    w.tx(UDP, PEER, &udp(&[1; 1473]), |skb| {
        skb.desc_mut().flags = flag::DONT_FRAG
    });
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!(
        (p.upper, p.desc.kind, p.desc.protocol),
        (UDP, kind::ICMP_ERROR, 17)
    );
    assert_eq!(p.data[..2], [3, 4]);
    assert_eq!(p.data[6..8], 1500u16.to_be_bytes());
    assert_eq!(p.desc.flags & flag::LOOPBACK, flag::LOOPBACK);
    let e = wire::icmpv4::Embedded::parse(&p.data[8..]).unwrap();
    assert_eq!((e.src, e.dst, e.total_len), (OWN, PEER, 1501));
    w.tx(UDP, PEER, &udp(&[1; 1472]), |skb| {
        skb.desc_mut().flags = flag::DONT_FRAG
    });
    assert_eq!(w.frames()[0].bytes.len(), 1514);
    assert_eq!(
        w.count(Counter::PmtuUpdates),
        0,
        "our own error teaches nothing"
    );
}

#[test]
fn super_frames_are_never_fragmented() {
    let mut w = World::acquainted();
    let send = |w: &mut World, size: u16| {
        w.tx(TCP, PEER, &tcp_segment(60_000), |skb| {
            (skb.desc_mut().gso_type, skb.desc_mut().gso_size) = (gso::TCPV4, size);
        })
    };
    let handle = send(&mut w, 1460);
    let frames = w.frames();
    assert_eq!((frames.len(), frames[0].handle), (1, handle));
    assert_eq!(
        (frames[0].desc.gso_size, frames[0].bytes.len()),
        (1460, 60_054)
    );
    send(&mut w, 1461);
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!((p.upper, &p.data[..2]), (TCP, &[3, 4][..]));
    assert_eq!(w.count(Counter::IpFragCreates), 0);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn broadcast_must_be_asked_for_and_multicast_stays_near() {
    let mut w = World::new();
    for dst in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 77, 0, 255)] {
        w.tx(UDP, dst, &udp(b""), |_| ());
        w.nothing();
        w.tx(UDP, dst, &udp(b""), |skb| {
            skb.desc_mut().flags = flag::BROADCAST_OK
        });
        let frames = w.frames();
        assert_eq!(frames[0].bytes[..6], BROADCAST_MAC);
        assert_eq!(ip_of(&frames[0]).0.src, OWN);
    }
    assert_eq!(w.count(Counter::IpOutBroadcastDenied), 2);
    w.tx(UDP, Ipv4Addr::new(239, 129, 2, 3), &udp(b""), |_| ());
    let frames = w.frames();
    assert_eq!(frames[0].bytes[..6], [1, 0, 0x5e, 1, 2, 3]);
    assert_eq!(ip_of(&frames[0]).0.ttl, 1, "RFC 1112 6.1");
    // By the device that the socket is bound to.
    w.tx(UDP, Ipv4Addr::BROADCAST, &udp(b""), |skb| {
        (skb.desc_mut().flags, skb.desc_mut().dev_out) = (flag::BROADCAST_OK, 2);
    });
    assert_eq!(w.frames()[0].device, DevIndex(2));
}

#[test]
fn without_a_route_the_sender_is_told() {
    let mut stack = stack();
    stack.routes.clear();
    let mut w = World::with(stack);
    w.tx(UDP, Ipv4Addr::new(192, 0, 2, 1), &udp(b"x"), |_| ());
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!((p.desc.kind, &p.data[..2]), (kind::ICMP_ERROR, &[3, 0][..]));
    assert_eq!(w.count(Counter::IpOutNoRoutes), 1);
}

#[test]
fn own_addresses_are_looped() {
    let mut w = World::new();
    for (dst, src) in [(OWN, OWN), (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST)] {
        let handle = w.tx(UDP, dst, &udp(b"self"), |skb| {
            let d = skb.desc_mut();
            (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, 128, 6);
        });
        let [p] = &w.packets()[..] else { panic!() };
        assert_eq!((p.upper, p.handle, &p.data), (UDP, handle, &udp(b"self")));
        assert_eq!(p.desc.flags, flag::LOOPBACK);
        assert_eq!((p.src(), p.desc.ip_summed), (src, checksum::PARTIAL));
    }
    // Super-frames and all, in one piece.
    let handle = w.tx(TCP, OWN, &tcp_segment(60_000), |skb| {
        (skb.desc_mut().gso_type, skb.desc_mut().gso_size) = (gso::TCPV4, 32_000);
    });
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!((p.upper, p.handle, p.data.len()), (TCP, handle, 60_020));
    assert_eq!(w.count(Counter::IpCopiedBytes), 0);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn looped_to_another_transport_it_is_copied_where_that_can_read_it() {
    let mut w = World::new();
    w.tx(UDP, OWN, &tcp_segment(5), |skb| {
        let d = skb.desc_mut();
        (d.protocol, d.ip_summed, d.csum_start, d.csum_offset) = (6, checksum::PARTIAL, 128, 16);
    });
    let [p] = &w.packets()[..] else { panic!() };
    assert_eq!((p.upper, &p.data), (TCP, &tcp_segment(5)));
    assert_eq!(
        (p.desc.csum_start, p.desc.transport),
        (p.desc.transport, p.desc.network + 20)
    );
    assert_eq!(w.count(Counter::IpLoopbackCopies), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn a_transport_that_leaves_no_headroom_loses_the_packet() {
    let mut w = World::acquainted();
    w.tx(UDP, PEER, &udp(b""), |skb| {
        let fill = skb.headroom() - 20;
        skb.push(fill).unwrap();
    });
    w.nothing();
    assert_eq!(w.count(Counter::IpOutDiscards), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}
