//! Fragmentation and reassembly, alone and against each other.

use super::world::*;
use crate::engine::Counter;
use abi::skbuff::{checksum, flag};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use wire::ipv4;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap())
        .collect()
}

fn piece(ident: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    piece_from(PEER, ident, offset, more, data, 0)
}

fn piece_from(
    src: Ipv4Addr,
    ident: u16,
    offset: usize,
    more: bool,
    data: &[u8],
    tos: u8,
) -> Vec<u8> {
    let repr = ipv4::Repr {
        src,
        dst: OWN,
        protocol: 17,
        ident,
        tos,
        frag_offset: u16::try_from(offset).unwrap(),
        more_frags: more,
        ..ipv4::Repr::default()
    };
    ethernet(OWN_MAC, PEER_MAC, 0x0800, &datagram(&repr, data))
}

#[test]
fn fragments_in_any_order_make_the_datagram() {
    let whole = pattern(3000);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut w = World::new();
        for at in order {
            w.nothing();
            let (from, to) = (at * 1000, (at + 1) * 1000);
            w.rx(&piece(7, from, at < 2, &whole[from..to]));
        }
        let [p] = &w.packets()[..] else { panic!() };
        assert_eq!((p.upper, p.data == whole), (UDP, true));
        assert_eq!((p.desc.ip_summed, p.desc.dev_in), (checksum::NONE, 1));
        let header = ipv4::Repr::parse(&p.network).unwrap();
        assert_eq!((header.total_len, header.is_fragment()), (3020, false));
        assert_eq!(w.free_slots(), World::all_slots());
    }
}

#[test]
fn datagrams_of_different_idents_and_sources_do_not_mix() {
    let mut w = World::new();
    let other = Ipv4Addr::new(10, 77, 0, 7);
    w.rx(&piece(1, 0, true, &[1; 8]));
    w.rx(&piece(2, 0, true, &[2; 8]));
    w.rx(&piece_from(other, 1, 0, true, &[3; 8], 0));
    w.rx(&piece(2, 8, false, &[2; 3]));
    assert_eq!(w.packets()[0].data, [2; 11]);
    w.rx(&piece_from(other, 1, 8, false, &[3; 3], 0));
    assert_eq!(w.packets()[0].src(), other);
    w.rx(&piece(1, 8, false, &[1; 3]));
    assert_eq!(w.packets()[0].data, [1; 11]);
}

#[test]
fn rfc5722_overlaps_kill_the_datagram_and_duplicates_do_not() {
    let mut w = World::new();
    w.rx(&piece(7, 0, true, &[1; 16]));
    w.rx(&piece(7, 0, true, &[9; 16]));
    w.rx(&piece(7, 8, true, &[9; 8]));
    w.rx(&piece(7, 16, false, &[1; 5]));
    assert_eq!(w.packets()[0].data, [1; 21]);
    assert_eq!(w.count(Counter::IpReasmDuplicates), 2);
    w.rx(&piece(8, 0, true, &[1; 16]));
    w.rx(&piece(8, 8, true, &[9; 16]));
    assert_eq!(w.count(Counter::IpReasmOverlaps), 1);
    assert_eq!(w.free_slots(), World::all_slots(), "given up at once");
}

#[test]
fn contradictory_ends_kill_the_datagram() {
    for (a, b) in [
        ((16, false, 8), (16, false, 16)),
        ((16, false, 8), (24, true, 8)),
        ((24, true, 8), (8, false, 4)),
    ] {
        let mut w = World::new();
        for (offset, more, len) in [a, b] {
            w.rx(&piece(7, offset, more, &vec![1; len]));
        }
        assert_eq!(w.count(Counter::IpReasmFails), 1, "{a:?} {b:?}");
        assert_eq!(w.free_slots(), World::all_slots());
    }
}

#[test]
fn impossible_fragments_are_refused() {
    let mut w = World::new();
    // Not a multiple of 8, empty, and past the largest datagram ("ping of death").
    w.rx(&piece(7, 0, true, &[1; 9]));
    w.rx(&piece(7, 8, true, &[]));
    w.rx(&piece(7, 65_528, false, &[1; 9]));
    w.rx(&piece(7, 65_512, false, &[1; 8]));
    assert_eq!(w.count(Counter::IpInHdrErrors), 4);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn rfc1122_3_3_2_time_runs_out_and_the_sender_is_told_if_the_first_came() {
    let mut w = World::acquainted();
    let first = piece(7, 0, true, &[1; 16]);
    w.rx(&first);
    w.rx(&piece(8, 8, false, &[1; 16]));
    w.advance(29 * SECOND);
    w.nothing();
    w.advance(SECOND);
    let frames = w.frames();
    let icmp = frames.iter().find(|f| f.bytes[12..14] == [8, 0]).unwrap();
    let (_, message) = ip_of(icmp);
    assert_eq!(message[..2], [11, 1]);
    assert_eq!(message[8..], first[14..], "as it came");
    assert_eq!(w.count(Counter::IpReasmTimeout), 2);
    assert_eq!(w.count(Counter::IcmpOutTimeExcds), 1);
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn memory_for_reassembly_is_bounded() {
    let mut w = World::new();
    for ident in 0..20 {
        w.rx(&piece(ident, 0, true, &[1; 8]));
    }
    assert_eq!(w.engine.reassembly.len(), 8, "of one source");
    for n in 10..40 {
        w.rx(&piece_from(
            Ipv4Addr::new(10, 77, 0, n),
            1,
            0,
            true,
            &[1; 8],
            0,
        ));
    }
    // Half of the 40 large slots.
    assert_eq!(w.engine.reassembly.len(), 20);
    assert_eq!(w.count(Counter::IpReasmEvicted), 12 + 18);
    // The newest survive.
    w.rx(&piece_from(
        Ipv4Addr::new(10, 77, 0, 39),
        1,
        8,
        false,
        &[1; 8],
        0,
    ));
    assert_eq!(w.packets().len(), 1);
    w.advance(40 * SECOND);
    w.take();
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn rfc3168_5_3_congestion_marks_survive_reassembly() {
    for (a, b, expected) in [(2, 3, Some(3)), (2, 2, Some(2)), (0, 3, None)] {
        let mut w = World::new();
        w.rx(&piece_from(PEER, 7, 0, true, &[1; 8], a));
        w.rx(&piece_from(PEER, 7, 8, false, &[1; 8], b));
        assert_eq!(w.packets().first().map(|p| p.desc.tos & 3), expected);
        assert_eq!(w.free_slots(), World::all_slots());
    }
}

#[test]
fn a_big_datagram_is_fragmented_with_its_checksum_complete() {
    let mut w = World::acquainted();
    let mut sent = udp(&pattern(4000));
    let seed = wire::checksum::partial_seed(OWN.into(), PEER.into(), 17, 4008);
    sent[6..8].copy_from_slice(&seed.to_be_bytes());
    w.tx(UDP, PEER, &sent, |skb| {
        let d = skb.desc_mut();
        (d.ip_summed, d.csum_start, d.csum_offset, d.ttl) = (checksum::PARTIAL, 128, 6, 33);
    });
    let frames = w.frames();
    assert_eq!(frames.len(), 3);
    let mut whole = Vec::new();
    let ident = ip_of(&frames[0]).0.ident;
    for (i, f) in frames.iter().enumerate() {
        let (ip, payload) = ip_of(f);
        assert!(f.bytes.len() <= 1514 && f.desc.ip_summed == checksum::NONE);
        assert_eq!(
            (usize::from(ip.frag_offset), ip.more_frags),
            (whole.len(), i < 2)
        );
        assert_eq!(
            (ip.ident, ip.ttl, ip.dont_frag, ip.src),
            (ident, 33, false, OWN)
        );
        whole.extend(payload);
    }
    assert_eq!(whole[8..], sent[8..]);
    let mut sum = wire::checksum::pseudo_header(OWN.into(), PEER.into(), 17, 4008);
    sum.add(&whole);
    assert_eq!(sum.finish(), 0);
    assert_eq!(
        (w.count(Counter::IpFragOks), w.count(Counter::IpFragCreates)),
        (1, 3)
    );
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn fragments_wait_for_the_neighbour_together_and_fail_as_one() {
    let mut w = World::new();
    w.tx(UDP, PEER, &udp(&pattern(4000)), |_| ());
    assert_eq!(w.frames().len(), 1, "one request");
    w.advance(3 * SECOND);
    let (frames, packets) = w.take();
    assert_eq!(
        (frames.len(), packets.len()),
        (2, 1),
        "one error for three fragments"
    );
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn without_buffers_none_of_the_fragments_goes() {
    let mut stack = stack();
    stack.devices[0].mtu = 100;
    let mut w = World::with(stack);
    w.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], OWN));
    w.frames();
    // 65,000 bytes in pieces of 80 need more slots than the pool has.
    w.tx(UDP, PEER, &udp(&pattern(65_000)), |_| ());
    w.nothing();
    assert_eq!(
        (w.count(Counter::IpFragFails), w.count(Counter::NoBuffers)),
        (1, 1)
    );
    assert_eq!(w.free_slots(), World::all_slots());
}

#[test]
fn a_big_echo_comes_back_in_fragments() {
    let mut w = World::acquainted();
    let request = icmp(8, 0, [1, 2, 3, 4], &pattern(5000));
    for (i, chunk) in request.chunks(1480).enumerate() {
        let mut frame = piece(5, i * 1480, (i + 1) * 1480 < request.len(), chunk);
        frame[23] = 1;
        frame[24..26].fill(0);
        let sum = wire::checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        w.rx(&frame);
    }
    let frames = w.frames();
    let reply: Vec<u8> = frames.iter().flat_map(|f| ip_of(f).1.to_vec()).collect();
    assert_eq!(reply, icmp(0, 0, [1, 2, 3, 4], &pattern(5000)));
    assert_eq!(w.free_slots(), World::all_slots());
}

/// What a datagram should come to, byte by byte: the first copy of each byte, unless a fragment
/// overlaps what is there without being wholly there, or the ends contradict each other.
fn oracle(list: &[(usize, usize, bool)], whole: &[u8]) -> Vec<Vec<u8>> {
    let mut done = Vec::new();
    let mut have = vec![false; 1200];
    let mut total = None;
    for &(start, end, last) in list {
        let high = have.iter().rposition(|b| *b).map_or(0, |i| i + 1);
        let span = have[start..end].iter().filter(|b| **b).count();
        let contradicts = match (last, total) {
            (true, Some(t)) => t != end,
            (true, None) => high > end,
            (false, Some(t)) => end > t,
            (false, None) => false,
        };
        if contradicts || (span > 0 && span < end - start) {
            have.fill(false);
            total = None;
            continue;
        }
        if span == end - start {
            continue;
        }
        have[start..end].fill(true);
        if last {
            total = Some(end);
        }
        if let Some(t) = total
            && have[..t].iter().all(|b| *b)
        {
            done.push(whole[..t].to_vec());
            have.fill(false);
            total = None;
        }
    }
    done
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Random pieces of one datagram in random order, with duplicates, overlaps and lies.
    #[test]
    fn reassembly_agrees_with_the_oracle(
        list in proptest::collection::vec((0usize..12, 1usize..6, any::<bool>(), 0usize..8), 1..40),
    ) {
        let whole = pattern(1200);
        let list: Vec<_> = list
            .into_iter()
            .map(|(start, len, last, cut)| {
                let cut = if last { cut } else { 0 };
                (start * 8, start * 8 + len * 8 - cut, last)
            })
            .collect();
        let mut w = World::new();
        let mut got = Vec::new();
        for &(start, end, last) in &list {
            w.rx(&piece(7, start, !last, &whole[start..end]));
            got.extend(w.packets().into_iter().map(|p| p.data));
        }
        // A datagram of one "fragment" at offset 0 with no more to come is none, and passes.
        let list: Vec<_> = list.into_iter().collect();
        let expected = oracle_with_whole(&list, &whole);
        prop_assert_eq!(got, expected);
        w.advance(40 * SECOND);
        w.take();
        prop_assert_eq!(w.free_slots(), World::all_slots());
    }

    /// Cut by one engine, shuffled, put together by another.
    #[test]
    fn what_is_fragmented_is_reassembled(len in 1473usize..20_000, mtu in 576u16..1500, seed: u64) {
        let mut stack = stack();
        stack.devices[0].mtu = mtu;
        let mut a = World::with(stack);
        a.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], OWN));
        a.frames();
        let sent = udp(&pattern(len));
        a.tx(UDP, PEER, &sent, |skb| skb.desc_mut().flags = 0);
        let mut frames = a.frames();
        fastrand::Rng::with_seed(seed).shuffle(&mut frames);
        let mut peer = super::world::stack();
        peer.devices[0].addresses = vec!["10.77.0.1/24".parse().unwrap()];
        peer.routes.clear();
        let mut b = World::with(peer);
        for f in &frames {
            prop_assert!(f.bytes.len() <= usize::from(mtu) + 14);
            b.rx(&f.bytes);
        }
        let packets = b.packets();
        prop_assert_eq!(packets.len(), 1);
        prop_assert!(packets[0].data == sent);
        prop_assert_eq!(packets[0].desc.flags & flag::LOOPBACK, 0);
        prop_assert_eq!(a.free_slots(), World::all_slots());
        prop_assert_eq!(b.free_slots(), World::all_slots());
    }
}

fn oracle_with_whole(list: &[(usize, usize, bool)], whole: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut fragments = Vec::new();
    for &(start, end, last) in list {
        if start == 0 && last {
            out.push((
                out.len() + oracle(&fragments, whole).len(),
                whole[..end].to_vec(),
            ));
        } else {
            fragments.push((start, end, last));
        }
    }
    let mut all = oracle(&fragments, whole);
    for (at, data) in out {
        all.insert(at, data);
    }
    all
}
