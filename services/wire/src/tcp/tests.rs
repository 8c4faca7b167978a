use core::net::IpAddr;

use arrayvec::ArrayVec;
use proptest::prelude::*;

use super::{
    Flags, HEADER_LEN, MAX_HEADER_LEN, Options, Repr, Segment, Timestamps, fill_checksum,
    fill_checksum_parts, fill_partial_checksum, options, verify_checksum, verify_checksum_parts,
};
use crate::{Error, SeqNumber, fixtures};

fn v4() -> (IpAddr, IpAddr) {
    ("10.77.0.1".parse().unwrap(), "10.77.0.2".parse().unwrap())
}

fn v6() -> (IpAddr, IpAddr) {
    ("fd77::1".parse().unwrap(), "fd77::2".parse().unwrap())
}

/// A segment with ACK, no payload and these option bytes.
fn with_options(flags: Flags, list: &[u8]) -> Vec<u8> {
    assert!(list.len().is_multiple_of(4));
    let mut bytes = vec![0; HEADER_LEN];
    Repr {
        flags,
        ..Repr::default()
    }
    .emit(&mut bytes)
    .unwrap();
    bytes[12] = u8::try_from((HEADER_LEN + list.len()) / 4).unwrap() << 4;
    bytes.extend(list);
    bytes
}

fn options_of(flags: Flags, list: &[u8]) -> Options {
    Repr::parse(&with_options(flags, list)).unwrap().0.options
}

#[test]
fn a_linux_syn_is_read_and_written_back() {
    for (frame, skip, (src, dst), mss) in [
        (fixtures::SYN_V4, 34, v4(), 1460),
        (fixtures::SYN_V6, 54, v6(), 1440),
    ] {
        let bytes = fixtures::bytes(frame)[skip..].to_vec();
        let (repr, header_len) = Repr::parse(&bytes).unwrap();
        assert_eq!((header_len, repr.header_len()), (40, 40));
        assert_eq!((repr.src_port, repr.dst_port), (40000, 80));
        assert_eq!(repr.flags, Flags::SYN);
        assert_eq!(repr.ack, SeqNumber(0));
        assert_eq!(repr.options.mss, Some(mss));
        assert_eq!(repr.options.window_scale, Some(10));
        assert!(repr.options.sack_permitted && repr.options.sack.is_empty());
        assert_eq!(repr.options.timestamps.unwrap().tsecr, 0);
        assert_eq!(repr.seq_len(0), 1);
        assert!(verify_checksum(&bytes, src, dst));
        // The options come out in Linux's order, byte for byte.
        let mut out = vec![0xff; 40];
        repr.emit(&mut out).unwrap();
        fill_checksum(&mut out, src, dst).unwrap();
        assert_eq!(out, bytes);
    }
}

#[test]
fn the_partial_checksum_is_the_one_linux_leaves() {
    for (frame, skip, (src, dst)) in [
        (fixtures::SYN_V4_PARTIAL, 34, v4()),
        (fixtures::SYN_V6_PARTIAL, 54, v6()),
    ] {
        let bytes = fixtures::bytes(frame)[skip..].to_vec();
        assert!(!verify_checksum(&bytes, src, dst));
        let mut out = bytes.clone();
        Repr::parse(&bytes).unwrap().0.emit(&mut out).unwrap();
        fill_partial_checksum(&mut out, 40, src, dst).unwrap();
        assert_eq!(out, bytes);
    }
}

// RFC 9293 3.1: the data offset says where the data begins; it is at least 5.
#[test]
fn only_a_data_offset_out_of_range_is_an_error() {
    let mut bytes = with_options(Flags::ACK, &[1, 1, 1, 0]);
    bytes.extend(b"data");
    assert_eq!(Repr::parse(&bytes).unwrap().1, 24);
    assert_eq!(Segment::new(&bytes).unwrap().payload, b"data");
    assert_eq!(Repr::parse(&bytes[..19]), Err(Error::Truncated));
    bytes[12] = 0x40;
    assert_eq!(Repr::parse(&bytes), Err(Error::BadLength));
    bytes[12] = 0x80;
    assert_eq!(Repr::parse(&bytes), Err(Error::BadLength));
    // RFC 9293 3.1: reserved bits must be ignored in received segments.
    bytes[12] = 0x5f;
    assert_eq!(Repr::parse(&bytes).unwrap().1, 20);
}

// RFC 9293 3.2, MUST-6: unknown options are skipped by their length.
#[test]
fn unknown_options_are_skipped() {
    let found = options_of(Flags::SYN, &[254, 4, 0xf9, 0x89, 2, 4, 5, 0xb4]);
    assert_eq!(
        found,
        Options {
            mss: Some(1460),
            ..Options::default()
        }
    );
    let found = options_of(Flags::SYN, &[1, 1, 30, 2, 2, 4, 5, 0xb4]);
    assert_eq!(found.mss, Some(1460));
}

// RFC 9293 3.2, MUST-7: illegal lengths must be handled without crashing.
#[test]
fn a_broken_list_ends_and_keeps_what_came_before() {
    let kept = Options {
        mss: Some(1460),
        ..Options::default()
    };
    for tail in [
        [3, 0, 0, 0],  // length 0: would loop
        [3, 1, 7, 0],  // length 1: would go back
        [8, 10, 1, 2], // ends behind the header
        [1, 1, 1, 8],  // no length byte
        [0, 3, 3, 7],  // behind the end of the list
    ] {
        let list = [&[2, 4, 5, 0xb4][..], &tail].concat();
        assert_eq!(options_of(Flags::SYN, &list), kept, "{tail:?}");
    }
}

#[test]
fn known_options_of_a_wrong_size_are_skipped() {
    let list = [
        2, 3, 5, 3, 4, 9, 4, 3, 0, 5, 6, 0, 0, 0, 0, 8, 4, 0, 0, 34, 3, 1, 1, 1,
    ];
    assert_eq!(options_of(Flags::SYN, &list), Options::default());
    let list = [&[28, 4, 0x80, 5][..], &list[..20]].concat();
    assert_eq!(options_of(Flags::SYN, &list).user_timeout, Some(0x8005));
}

// RFC 9293 3.7.1, RFC 7323 2.2, RFC 2018 2, RFC 7413 2: these belong on a SYN only.
#[test]
fn syn_options_count_on_a_syn_only() {
    let list = [2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 34, 2, 0];
    assert_eq!(options_of(Flags::ACK, &list), Options::default());
    let found = options_of(Flags::SYN | Flags::ACK, &list);
    assert_eq!((found.mss, found.window_scale), (Some(1460), Some(7)));
    assert!(found.sack_permitted && found.fast_open.unwrap().is_empty());
}

// RFC 7323 2.3: "If a Window Scale option is received with a shift.cnt value larger than 14, …
// use 14". An MSS of 0 would let nothing through.
#[test]
fn values_out_of_range_are_limited() {
    let found = options_of(Flags::SYN, &[3, 3, 200, 2, 4, 0, 0, 0]);
    assert_eq!((found.window_scale, found.mss), (Some(14), None));
}

#[test]
fn a_data_segment_carries_aligned_timestamps() {
    let options = Options {
        timestamps: Some(Timestamps {
            tsval: 0x0102_0304,
            tsecr: 0x0506_0708,
        }),
        ..Options::default()
    };
    let repr = Repr {
        flags: Flags::ACK | Flags::PSH,
        options,
        ..Repr::default()
    };
    let mut out = [0; 32];
    repr.emit(&mut out).unwrap();
    // RFC 7323 appendix A.
    assert_eq!(out[20..], [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(Repr::parse(&out).unwrap(), (repr, 32));
}

#[test]
fn sack_blocks_that_do_not_fit_are_left_out() {
    let sack: ArrayVec<_, 4> = (0..4)
        .map(|n| (SeqNumber(n * 100), SeqNumber(n * 100 + 50)))
        .collect();
    let mut repr = Repr {
        flags: Flags::ACK,
        options: Options {
            sack: sack.clone(),
            ..Options::default()
        },
        ..Repr::default()
    };
    assert_eq!(repr.header_len(), 56);
    repr.options.timestamps = Some(Timestamps::default());
    assert_eq!(repr.header_len(), MAX_HEADER_LEN);
    let mut out = [0; MAX_HEADER_LEN];
    repr.emit(&mut out).unwrap();
    let (parsed, len) = Repr::parse(&out).unwrap();
    assert_eq!(len, MAX_HEADER_LEN);
    assert_eq!(parsed.options.sack[..], sack[..Options::sack_room(true)]);
    assert_eq!(Options::sack_room(false), 4);
}

// RFC 7413 4.1.1: an empty cookie asks for one; a cookie is 4 to 16 bytes, an even number.
#[test]
fn fast_open_cookies_of_every_legal_size_round_trip() {
    for len in [0u8, 4, 6, 8, 10, 12, 14, 16] {
        let cookie: ArrayVec<u8, 16> = (0..len).collect();
        let options = Options {
            mss: Some(536),
            fast_open: Some(cookie),
            ..Options::default()
        };
        let repr = Repr {
            flags: Flags::SYN,
            options,
            ..Repr::default()
        };
        let mut out = [0xff; MAX_HEADER_LEN];
        repr.emit(&mut out).unwrap();
        assert_eq!(
            Repr::parse(&out).unwrap(),
            (repr.clone(), repr.header_len()),
            "{len}"
        );
    }
    for len in [1u8, 2, 3, 5, 15] {
        let options = Options {
            fast_open: Some((0..len).collect()),
            ..Options::default()
        };
        assert_eq!(options.wire_len(), 0, "{len}");
        assert_eq!(options.emit(&mut []), Ok(0));
    }
}

#[test]
fn short_buffers_are_refused() {
    let options = Options {
        mss: Some(1),
        ..Options::default()
    };
    let repr = Repr {
        options,
        ..Repr::default()
    };
    assert_eq!(repr.emit(&mut [0; 19]), Err(Error::BufferTooSmall));
    assert_eq!(repr.emit(&mut [0; 23]), Err(Error::BufferTooSmall));
    let (src, dst) = v4();
    assert_eq!(fill_checksum(&mut [0; 19], src, dst), Err(Error::Truncated));
    assert_eq!(
        fill_partial_checksum(&mut [0; 19], 20, src, dst),
        Err(Error::Truncated)
    );
}

#[test]
fn syn_and_fin_take_a_sequence_number_each() {
    let repr = Repr {
        flags: Flags::SYN | Flags::FIN,
        ..Repr::default()
    };
    assert_eq!(repr.seq_len(5), 7);
}

prop_compose! {
    fn any_options(syn: bool)(
        mss in prop::option::of(1u16..), window_scale in prop::option::of(0u8..=14),
        sack_permitted: bool, timestamps: Option<(u32, u32)>,
        sack in prop::collection::vec(any::<(u32, u32)>(), 0..=4), user_timeout: Option<u16>,
        fast_open in prop::option::of(prop_oneof![
            Just(vec![]),
            prop::collection::vec(any::<[u8; 2]>(), 2..=8).prop_map(|pairs| pairs.concat()),
        ]),
    ) -> Options {
        Options {
            mss: mss.filter(|_| syn),
            window_scale: window_scale.filter(|_| syn),
            sack_permitted: sack_permitted && syn,
            timestamps: timestamps.map(|(tsval, tsecr)| Timestamps { tsval, tsecr }),
            sack: sack.into_iter().map(|(l, r)| (SeqNumber(l), SeqNumber(r))).collect(),
            user_timeout,
            fast_open: fast_open.filter(|_| syn).map(|cookie| cookie[..].try_into().unwrap()),
        }
    }
}

prop_compose! {
    fn any_repr()(bits in 0u16..256)(
        ports in any::<(u16, u16)>(), seq in any::<u32>(), ack in any::<u32>(), bits in Just(bits),
        window in any::<u16>(), urgent in any::<u16>(), options in any_options(bits & 2 != 0),
    ) -> Repr {
        Repr {
            src_port: ports.0, dst_port: ports.1, seq: SeqNumber(seq), ack: SeqNumber(ack),
            flags: Flags::from_bits_truncate(bits), window, urgent, options,
        }
    }
}

proptest! {
    #[test]
    fn emit_then_parse_gives_back_what_fits(repr in any_repr()) {
        let mut bytes = [0xff; MAX_HEADER_LEN];
        repr.emit(&mut bytes).unwrap();
        let (parsed, len) = Repr::parse(&bytes).unwrap();
        prop_assert_eq!(len, repr.header_len());
        prop_assert!(len <= MAX_HEADER_LEN && len.is_multiple_of(4));
        // Only a user timeout and trailing SACK blocks may have been left out, and only for room.
        let mut expected = repr.clone();
        if parsed.options.user_timeout != repr.options.user_timeout {
            prop_assert_eq!(parsed.options.user_timeout, None);
            expected.options.user_timeout = None;
            prop_assert!(expected.options.wire_len() == options::MAX_LEN || !repr.options.sack.is_empty());
        }
        expected.options.sack.truncate(parsed.options.sack.len());
        if parsed.options.sack.len() < repr.options.sack.len() {
            let needed = if parsed.options.sack.is_empty() { 12 } else { 8 };
            prop_assert!(len + needed > MAX_HEADER_LEN);
        }
        prop_assert_eq!(parsed, expected);
        // What was parsed fits, so it is a fixed point.
        let mut again = [0xff; MAX_HEADER_LEN];
        let parsed = Repr::parse(&bytes).unwrap().0;
        parsed.emit(&mut again).unwrap();
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn what_is_filled_verifies_whole_or_in_pieces(
        repr in any_repr(), payload in prop::collection::vec(any::<u8>(), 0..100),
        cut in 0usize..100,
    ) {
        let (front, back) = payload.split_at(cut.min(payload.len()));
        for (src, dst) in [v4(), v6()] {
            let mut header = vec![0; repr.header_len()];
            repr.emit(&mut header).unwrap();
            fill_checksum_parts(&mut header, &[front, back], src, dst).unwrap();
            prop_assert!(verify_checksum_parts(&[&header, front, back], src, dst));
            let mut segment = [&header[..], &payload].concat();
            prop_assert!(verify_checksum(&segment, src, dst));
            let before = segment.clone();
            fill_checksum(&mut segment, src, dst).unwrap();
            prop_assert_eq!(segment, before);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), flags in 0u16..256) {
        if let Ok((repr, len)) = Repr::parse(&bytes) {
            prop_assert!(len <= bytes.len());
            prop_assert!(repr.header_len() <= MAX_HEADER_LEN);
        }
        let list = &bytes[..bytes.len().min(40) / 4 * 4];
        let _ = options_of(Flags::from_bits_truncate(flags), list);
    }

    // Bytes that look like options more often than random ones do.
    #[test]
    fn option_like_bytes_never_panic(
        items in prop::collection::vec((0u8..36, 0u8..20, any::<[u8; 8]>()), 0..5), syn: bool,
    ) {
        let list: Vec<u8> =
            items.iter().flat_map(|(kind, len, value)| [&[*kind, *len][..], value].concat()).collect();
        let found = Options::parse(&list, syn);
        prop_assert!(found.wire_len() <= options::MAX_LEN);
        prop_assert!(found.window_scale.is_none_or(|shift| shift <= 14));
        prop_assert!(found.mss != Some(0));
    }
}
