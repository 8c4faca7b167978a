use core::net::IpAddr;

use proptest::prelude::*;

use super::{
    Datagram, HEADER_LEN, Repr, fill_checksum, fill_checksum_parts, fill_partial_checksum,
    verify_checksum,
};
use crate::{Error, fixtures};

fn v4() -> (IpAddr, IpAddr) {
    ("10.77.0.1".parse().unwrap(), "10.77.0.2".parse().unwrap())
}

fn v6() -> (IpAddr, IpAddr) {
    ("fd77::1".parse().unwrap(), "fd77::2".parse().unwrap())
}

#[test]
fn linux_datagrams_verify_and_are_written_back() {
    for (frame, skip, (src, dst)) in [(fixtures::UDP_V4, 34, v4()), (fixtures::UDP_V6, 54, v6())] {
        let bytes = fixtures::bytes(frame)[skip..].to_vec();
        let repr = Repr::parse(&bytes).unwrap();
        assert_eq!(
            repr,
            Repr {
                src_port: 5000,
                dst_port: 7,
                len: 13
            }
        );
        assert_eq!(repr.payload_len(), 5);
        assert_eq!(Datagram::new(&bytes).unwrap().payload, b"hello");
        assert!(verify_checksum(&bytes, src, dst));
        let mut out = bytes.clone();
        out[..HEADER_LEN].fill(0xff);
        repr.emit(&mut out).unwrap();
        fill_checksum(&mut out, src, dst).unwrap();
        assert_eq!(out, bytes);
        out[12] ^= 1;
        assert!(!verify_checksum(&out, src, dst));
    }
}

#[test]
fn the_partial_checksum_is_the_one_linux_leaves() {
    let bytes = fixtures::bytes(fixtures::UDP_V4_PARTIAL)[34..].to_vec();
    let mut out = bytes.clone();
    Repr::parse(&bytes).unwrap().emit(&mut out).unwrap();
    let (src, dst) = v4();
    fill_partial_checksum(&mut out, src, dst).unwrap();
    assert_eq!(out, bytes);
}

// RFC 768: zero means "no checksum"; RFC 8200 8.1: not over IPv6.
#[test]
fn a_missing_checksum_is_fine_over_ipv4_only() {
    let bytes = [0x13, 0x88, 0, 7, 0, 9, 0, 0, b'x'];
    assert!(verify_checksum(&bytes, v4().0, v4().1));
    assert!(!verify_checksum(&bytes, v6().0, v6().1));
}

// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    let (src, dst) = v4();
    let mut bytes = [0x13, 0x88, 0, 7, 0, 10, 0, 0, 0, 0];
    fill_checksum(&mut bytes, src, dst).unwrap();
    // Putting the checksum into the payload makes the sum come out as zero.
    let check = [bytes[6], bytes[7]];
    bytes[8..].copy_from_slice(&check);
    fill_checksum(&mut bytes, src, dst).unwrap();
    assert_eq!(bytes[6..8], [0xff, 0xff]);
    assert!(verify_checksum(&bytes, src, dst));
}

#[test]
fn impossible_lengths_are_refused() {
    let (src, dst) = v4();
    for len in [0u8, 7, 10] {
        let mut bytes = [0, 1, 0, 2, 0, len, 0x55, 0x55, b'x'];
        assert_eq!(Repr::parse(&bytes), Err(Error::BadLength));
        assert_eq!(fill_checksum(&mut bytes, src, dst), Err(Error::BadLength));
        assert!(!verify_checksum(&bytes, src, dst));
    }
    assert_eq!(Repr::parse(&[0; 7]), Err(Error::Truncated));
    assert_eq!(Repr::default().emit(&mut [0; 8]), Err(Error::BadLength));
    let repr = Repr {
        len: 8,
        ..Repr::default()
    };
    assert_eq!(repr.emit(&mut [0; 7]), Err(Error::BufferTooSmall));
    let mut header = [0; 8];
    repr.emit(&mut header).unwrap();
    assert_eq!(
        fill_checksum_parts(&mut header, &[b"x"], src, dst),
        Err(Error::BadLength)
    );
}

proptest! {
    #[test]
    fn what_is_filled_verifies_whole_or_in_pieces(
        src_port: u16, dst_port: u16, payload in prop::collection::vec(any::<u8>(), 0..100),
        cut in 0usize..100, padding in 0usize..4,
    ) {
        let len = u16::try_from(HEADER_LEN + payload.len()).unwrap();
        let repr = Repr { src_port, dst_port, len };
        for (src, dst) in [v4(), v6()] {
            let mut header = [0; HEADER_LEN];
            repr.emit(&mut header).unwrap();
            let (front, back) = payload.split_at(cut.min(payload.len()));
            fill_checksum_parts(&mut header, &[front, back], src, dst).unwrap();
            let mut bytes = [&header[..], &payload[..]].concat();
            bytes.resize(bytes.len() + padding, 0xee);
            prop_assert!(verify_checksum(&bytes, src, dst));
            prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
            let before = bytes.clone();
            fill_checksum(&mut bytes, src, dst).unwrap();
            prop_assert_eq!(bytes, before);
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let (src, dst) = v6();
        let _ = Repr::parse(&bytes);
        let _ = verify_checksum(&bytes, src, dst);
        let _ = fill_checksum(&mut bytes, src, dst);
        let _ = fill_partial_checksum(&mut bytes, src, dst);
    }
}
