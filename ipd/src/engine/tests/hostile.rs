//! Anything at all from below and above: nobody panics, nothing leaks, counters move.

use super::world::*;
use abi::DevIndex;
use abi::skbuff::SkBuffDesc;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn scramble(d: &mut SkBuffDesc, noise: &[u8; 16]) {
    let [a, b, c, e, f, g, h, i, j, k, l, m, n, o, p, q] = *noise;
    (d.ip_summed, d.gso_type, d.gso_size) = (a & 3, b & 7, u16::from_le_bytes([c, e]));
    (d.csum_start, d.csum_offset) = (
        u16::from(f) + u16::from(g & 1),
        u16::from(h & 63) << (i & 1),
    );
    (d.flags, d.kind, d.ttl, d.tos) = (j, k & 1, l, m);
    (d.dev_out, d.mark) = (u16::from(n & 3), u32::from_be_bytes([0, 0, o, p]));
    d.network = if q & 1 == 0 { u16::MAX } else { d.network };
}

/// A frame worth mutating.
fn seed_frame(which: u8, payload: &[u8]) -> Vec<u8> {
    let far = Ipv4Addr::new(192, 0, 2, 1);
    match which % 8 {
        0 => arp_frame(1, PEER_MAC, PEER, [0; 6], OWN),
        1 => arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN),
        2 => ip_frame(PEER, OWN, 1, &icmp(8, 0, [1, 2, 3, 4], payload)),
        3 => ip_frame(PEER, OWN, 6, payload),
        4 => ip_frame(PEER, OWN, 200, payload),
        5 => {
            let mut quoted = ip_frame(OWN, far, 17, payload);
            quoted.drain(..14);
            ip_frame(
                PEER,
                OWN,
                1,
                &icmp(3, payload.first().copied().unwrap_or(4), [0; 4], &quoted),
            )
        }
        6 => {
            let mut f = ip_frame(PEER, OWN, 17, payload);
            f[20] = 0x20;
            f
        }
        _ => ip_frame(PEER, OWN, 17, payload),
    }
}

/// Makes the header checksum right again, so that the damage gets further in.
fn mend(frame: &mut [u8]) {
    let len = frame.get(14).map_or(0, |b| usize::from(b & 15) * 4);
    if let Some(header) = frame.get_mut(14..14 + len)
        && len >= 20
    {
        header[10..12].fill(0);
        let sum = wire::checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[derive(Debug, Clone)]
enum Event {
    Noise(Vec<u8>, [u8; 16]),
    Mutant {
        which: u8,
        payload: Vec<u8>,
        damage: Vec<(u8, u8)>,
        mended: bool,
        noise: [u8; 16],
    },
    Send {
        tcp: bool,
        dst: u32,
        len: u16,
        noise: [u8; 16],
        headroom: u8,
    },
    Time(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let near = prop_oneof![
        Just(u32::from(PEER)),
        Just(u32::from(OWN)),
        Just(u32::MAX),
        Just(0x7f00_0001),
        any::<u32>()
    ];
    prop_oneof![
        (bytes(200), any::<[u8; 16]>()).prop_map(|(b, n)| Event::Noise(b, n)),
        (
            any::<u8>(),
            bytes(80),
            proptest::collection::vec(any::<(u8, u8)>(), 0..4),
            any::<bool>(),
            any::<[u8; 16]>()
        )
            .prop_map(|(which, payload, damage, mended, noise)| Event::Mutant {
                which,
                payload,
                damage,
                mended,
                noise
            }),
        (
            any::<bool>(),
            near,
            0u16..9000,
            any::<[u8; 16]>(),
            any::<u8>()
        )
            .prop_map(|(tcp, dst, len, noise, headroom)| {
                Event::Send {
                    tcp,
                    dst,
                    len,
                    noise,
                    headroom,
                }
            }),
        (0u32..4_000_000_000).prop_map(Event::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_panics_and_nothing_leaks(events in proptest::collection::vec(event(), 1..60)) {
        let mut w = World::new();
        for event in events {
            match event {
                Event::Noise(bytes, noise) => {
                    w.rx_with(DevIndex(u16::from(noise[0] % 4)), &bytes, |d| scramble(d, &noise));
                }
                Event::Mutant { which, payload, damage, mended, noise } => {
                    let mut frame = seed_frame(which, &payload);
                    for (at, value) in damage {
                        let len = frame.len();
                        frame[usize::from(at) % len] = value;
                    }
                    if mended {
                        mend(&mut frame);
                    }
                    if noise[15] & 2 == 0 {
                        w.rx_with(DevIndex(1 + u16::from(noise[14] & 1)), &frame, |_| ());
                    } else {
                        w.rx_with(DEV, &frame, |d| scramble(d, &noise));
                    }
                }
                Event::Send { tcp, dst, len, noise, headroom } => {
                    let upper = if tcp { TCP } else { UDP };
                    w.tx(upper, Ipv4Addr::from(dst), &vec![noise[3]; usize::from(len)], |skb| {
                        scramble(skb.desc_mut(), &noise);
                        skb.desc_mut().protocol = [1, 6, 17, 200][usize::from(noise[15] >> 6)];
                        let _ = skb.push(usize::from(headroom & 127));
                    });
                }
                Event::Time(ns) => w.advance(u64::from(ns)),
            }
            w.take();
        }
        w.advance(100 * SECOND);
        w.take();
        prop_assert_eq!(w.free_slots(), World::all_slots());
    }
}
