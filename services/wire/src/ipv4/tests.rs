use proptest::prelude::*;

use super::{HEADER_LEN, Packet, Repr, decrement_ttl};
use crate::{Error, fixtures, protocol};

fn syn() -> Vec<u8> {
    fixtures::bytes(fixtures::SYN_V4)[14..].to_vec()
}

#[test]
fn a_linux_header_is_read_and_written_back() {
    let bytes = syn();
    let repr = Repr::parse(&bytes).unwrap();
    assert_eq!(repr.src.to_string(), "10.77.0.1");
    assert_eq!(repr.dst.to_string(), "10.77.0.2");
    assert_eq!((repr.protocol, repr.ttl, repr.tos), (protocol::TCP, 64, 0));
    assert_eq!(
        (repr.ident, repr.total_len, repr.frag_offset),
        (0x6c30, 60, 0)
    );
    assert!(repr.dont_frag && !repr.more_frags && !repr.is_fragment());
    assert_eq!((repr.header_len(), repr.payload_len()), (20, 40));
    let mut out = [0; HEADER_LEN];
    repr.emit(&mut out).unwrap();
    assert_eq!(out, bytes[..HEADER_LEN]);
}

// RFC 791 3.1: the total length, not the frame, ends the datagram.
#[test]
fn link_padding_is_cut_off() {
    let mut bytes = syn();
    bytes.extend([0xee; 6]);
    assert_eq!(Packet::new(&bytes).unwrap().payload.len(), 40);
}

#[test]
fn impossible_headers_are_refused() {
    let good = syn();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Repr::parse_unchecked(&bytes)
    };
    assert_eq!(Repr::parse(&good[..19]), Err(Error::Truncated));
    assert_eq!(Repr::parse(&good[..59]), Err(Error::BadLength));
    assert_eq!(with(0, 0x65), Err(Error::BadVersion));
    assert_eq!(with(0, 0x44), Err(Error::BadLength));
    assert_eq!(with(3, 61), Err(Error::BadLength));
    assert_eq!(with(3, 19), Err(Error::BadLength));
    let mut long_header = good[..24].to_vec();
    long_header[0] = 0x4f;
    assert_eq!(Repr::parse(&long_header), Err(Error::Truncated));
}

// RFC 1122 3.2.1.2: a host MUST verify the header checksum.
#[test]
fn a_wrong_checksum_is_refused_unless_unchecked() {
    let mut bytes = syn();
    bytes[8] ^= 1;
    assert_eq!(Repr::parse(&bytes), Err(Error::BadChecksum));
    assert_eq!(Repr::parse_unchecked(&bytes).unwrap().ttl, 65);
}

#[test]
fn unemittable_headers_are_refused() {
    let repr = Repr::default();
    assert_eq!(repr.emit(&mut [0; 19]), Err(Error::BufferTooSmall));
    let short = Repr {
        total_len: 19,
        ..Repr::default()
    };
    assert_eq!(short.emit(&mut [0; 20]), Err(Error::BadLength));
    let odd = Repr {
        frag_offset: 4,
        ..Repr::default()
    };
    assert_eq!(odd.emit(&mut [0; 20]), Err(Error::Malformed));
}

#[test]
fn options_are_padded_to_words() {
    // Router alert (RFC 2113) and a NOP.
    let repr = Repr {
        options: [148, 4, 0, 0, 1].into_iter().collect(),
        total_len: 28,
        ..Repr::default()
    };
    let mut out = [0xff; 28];
    repr.emit(&mut out).unwrap();
    assert_eq!(out[0], 0x47);
    assert_eq!(out[20..], [148, 4, 0, 0, 1, 0, 0, 0]);
    assert_eq!(Repr::parse(&out).unwrap().options.as_slice(), &out[20..]);
}

#[test]
fn a_dead_ttl_stays_dead() {
    let mut bytes = syn();
    bytes[8] = 1;
    assert_eq!(decrement_ttl(&mut bytes), Ok(0));
    assert_eq!(decrement_ttl(&mut bytes), Ok(0));
    assert_eq!(bytes[8], 0);
    assert_eq!(decrement_ttl(&mut bytes[..10]), Err(Error::Truncated));
    bytes[0] = 0x60;
    assert_eq!(decrement_ttl(&mut bytes), Err(Error::BadVersion));
}

prop_compose! {
    fn any_repr()(
        src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, tos: u8, ident: u16, dont_frag: bool,
        more_frags: bool, offset in 0u16..8192, extra in 0u16..1400,
        options in prop::collection::vec(any::<[u8; 4]>(), 0..=10),
    ) -> Repr {
        let options: Vec<u8> = options.concat();
        Repr {
            src: src.into(), dst: dst.into(), protocol, ttl, tos, ident, dont_frag, more_frags,
            frag_offset: offset * 8,
            total_len: 20 + u16::try_from(options.len()).unwrap() + extra,
            options: options.as_slice().try_into().unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn emit_then_parse_gives_it_back(repr in any_repr()) {
        let mut bytes = vec![0xaa; usize::from(repr.total_len)];
        repr.emit(&mut bytes).unwrap();
        prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
    }

    // RFC 1624: forwarding keeps the checksum right without computing it.
    #[test]
    fn a_hop_keeps_the_checksum_right(repr in any_repr()) {
        let mut bytes = vec![0; usize::from(repr.total_len)];
        repr.emit(&mut bytes).unwrap();
        let ttl = decrement_ttl(&mut bytes).unwrap();
        prop_assert_eq!(ttl, repr.ttl.saturating_sub(1));
        prop_assert_eq!(Repr::parse(&bytes), Ok(Repr { ttl, ..repr }));
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Repr::parse(&bytes);
        if let Ok(repr) = Repr::parse_unchecked(&bytes) {
            prop_assert!(repr.header_len() + repr.payload_len() <= bytes.len());
        }
        let _ = decrement_ttl(&mut bytes);
    }
}
