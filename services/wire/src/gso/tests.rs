use core::net::IpAddr;

use proptest::prelude::*;

use super::{ChecksumMode, SuperFrame, complete_checksum, complete_checksum_parts};
use crate::ethernet::{self, EtherType, MacAddr};
use crate::tcp::{Flags, Options, Timestamps};
use crate::{Error, SeqNumber, fixtures, ipv4, ipv6, protocol, tcp, udp};

fn addresses(v6: bool) -> (IpAddr, IpAddr) {
    let text = if v6 {
        ("fd77::1", "fd77::2")
    } else {
        ("10.77.0.1", "10.77.0.2")
    };
    (text.0.parse().unwrap(), text.1.parse().unwrap())
}

/// Ethernet and IP headers for `len` bytes of transport header and payload.
fn lower_headers(v6: bool, protocol: u8, len: usize) -> Vec<u8> {
    let (ethertype, ip_len) = if v6 {
        (EtherType::IPV6, 40)
    } else {
        (EtherType::IPV4, 20)
    };
    let mut bytes = vec![0; 14 + ip_len];
    ethernet::Header {
        dst: MacAddr([2, 0, 0, 0, 0, 2]),
        src: MacAddr([2, 0, 0, 0, 0, 1]),
        ethertype,
    }
    .emit(&mut bytes)
    .unwrap();
    match addresses(v6) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4::Repr {
            src,
            dst,
            protocol,
            ident: 0xffff,
            dont_frag: true,
            total_len: u16::try_from(20 + len).unwrap(),
            ..ipv4::Repr::default()
        }
        .emit(&mut bytes[14..]),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6::Repr {
            src,
            dst,
            next_header: protocol,
            payload_len: u16::try_from(len).unwrap(),
            ..ipv6::Repr::default()
        }
        .emit(&mut bytes[14..]),
        _ => unreachable!(),
    }
    .unwrap();
    bytes
}

fn tcp_repr(flags: Flags, seq: u32) -> tcp::Repr {
    tcp::Repr {
        src_port: 80,
        dst_port: 40000,
        seq: SeqNumber(seq),
        ack: SeqNumber(7),
        flags,
        window: 500,
        options: Options {
            timestamps: Some(Timestamps { tsval: 1, tsecr: 2 }),
            ..Options::default()
        },
        ..tcp::Repr::default()
    }
}

fn tcp_super(v6: bool, repr: &tcp::Repr, payload_len: usize) -> Vec<u8> {
    let len = repr.header_len() + payload_len;
    let mut bytes = lower_headers(v6, protocol::TCP, len);
    let at = bytes.len();
    bytes.resize(at + repr.header_len(), 0);
    repr.emit(&mut bytes[at..]).unwrap();
    let (src, dst) = addresses(v6);
    tcp::fill_partial_checksum(&mut bytes[at..], u32::try_from(len).unwrap(), src, dst).unwrap();
    bytes
}

/// All segments as whole frames.
fn cut(frame: &SuperFrame<'_>, mode: ChecksumMode) -> Vec<Vec<u8>> {
    (0..frame.segments())
        .map(|index| {
            let mut out = vec![0xff; frame.header_len()];
            let segment = frame.segment(index, mode, &mut out).unwrap();
            assert_eq!(segment.header_len, out.len());
            for piece in frame.pieces(segment.payload.clone()) {
                out.extend(piece);
            }
            assert_eq!(out.len(), segment.header_len + segment.payload.len());
            out
        })
        .collect()
}

/// Parses a segment's IP header strictly and returns its transport bytes and identification.
fn network(v6: bool, frame: &[u8]) -> (&[u8], Option<u16>) {
    let packet = &frame[14..];
    if v6 {
        let repr = ipv6::Repr::parse(packet).unwrap();
        assert_eq!(usize::from(repr.payload_len) + 40, packet.len());
        (&packet[40..], None)
    } else {
        let repr = ipv4::Repr::parse(packet).unwrap();
        assert_eq!(usize::from(repr.total_len), packet.len());
        (&packet[20..], Some(repr.ident))
    }
}

#[test]
fn flags_and_identification_change_where_they_must() {
    let all = Flags::ACK | Flags::PSH | Flags::FIN | Flags::CWR;
    let linear = tcp_super(false, &tcp_repr(all, u32::MAX - 5), 25);
    let payload = [0xab; 25];
    let pieces = [&payload[..]];
    let frame = SuperFrame::new(&linear, &pieces, 10).unwrap();
    assert_eq!(
        (frame.segments(), frame.payload_len(), frame.header_len()),
        (3, 25, 66)
    );
    let segments = cut(&frame, ChecksumMode::Full);
    let seen: Vec<_> = segments
        .iter()
        .map(|segment| {
            let (transport, ident) = network(false, segment);
            let (repr, header_len) = tcp::Repr::parse(transport).unwrap();
            (
                ident.unwrap(),
                repr.seq.0,
                repr.flags,
                transport.len() - header_len,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0xffff, u32::MAX - 5, Flags::ACK | Flags::CWR, 10),
            (0, 4, Flags::ACK, 10),
            (1, 14, Flags::ACK | Flags::PSH | Flags::FIN, 5),
        ]
    );
    assert_eq!(
        frame.segment(3, ChecksumMode::Full, &mut [0; 66]),
        Err(Error::BadLength)
    );
    assert_eq!(
        frame.segment(0, ChecksumMode::Full, &mut [0; 65]),
        Err(Error::BufferTooSmall)
    );
}

#[test]
fn a_frame_without_payload_is_one_segment() {
    let linear = tcp_super(false, &tcp_repr(Flags::ACK | Flags::FIN, 1), 0);
    let frame = SuperFrame::new(&linear, &[], 1448).unwrap();
    let segments = cut(&frame, ChecksumMode::Full);
    assert_eq!(segments.len(), 1);
    let (src, dst) = addresses(false);
    assert!(tcp::verify_checksum(
        network(false, &segments[0]).0,
        src,
        dst
    ));
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let linear = tcp_super(false, &tcp_repr(Flags::ACK, 1), 4);
    let rest = [&b"data"[..]];
    assert!(SuperFrame::new(&linear, &rest, 1).is_ok());
    assert_eq!(
        SuperFrame::new(&linear, &rest, 0).unwrap_err(),
        Error::Malformed
    );
    assert_eq!(
        SuperFrame::new(&linear, &[], 1).unwrap_err(),
        Error::BadLength
    );
    assert_eq!(
        SuperFrame::new(&linear[..60], &rest, 1).unwrap_err(),
        Error::BadLength
    );
    assert_eq!(
        SuperFrame::new(&linear[..30], &rest, 1).unwrap_err(),
        Error::Truncated
    );
    let with = |at: usize, value: u8| {
        let mut bytes = linear.clone();
        bytes[at] = value;
        SuperFrame::new(&bytes, &rest, 1).unwrap_err()
    };
    assert_eq!(with(13, 0x06), Error::Unsupported); // ARP
    assert_eq!(with(23, protocol::ICMP), Error::Unsupported);
    assert_eq!(with(20, 0x20), Error::Unsupported); // a fragment
}

// Linux left these partial; completing them must give what it would have sent itself.
#[test]
fn partial_checksums_of_linux_are_completed() {
    for (hex, start, offset, v6) in [
        (fixtures::SYN_V4_PARTIAL, 34, 16, false),
        (fixtures::SYN_V6_PARTIAL, 54, 16, true),
        (fixtures::UDP_V4_PARTIAL, 34, 6, false),
    ] {
        let mut bytes = fixtures::bytes(hex);
        let mut parts = bytes.clone();
        complete_checksum(&mut bytes, start, offset).unwrap();
        let (src, dst) = addresses(v6);
        let transport = &bytes[usize::from(start)..];
        if offset == 16 {
            assert!(tcp::verify_checksum(transport, src, dst));
        } else {
            assert!(udp::verify_checksum(transport, src, dst));
        }
        let rest = parts.split_off(usize::from(start) + 25.min(usize::from(offset) + 2));
        complete_checksum_parts(&mut parts, &[&rest], start, offset).unwrap();
        assert_eq!([parts, rest].concat(), bytes);
    }
}

#[test]
fn a_checksum_field_outside_the_frame_is_refused() {
    for (start, offset) in [(19, 0), (20, 0), (21, 0), (0, 19), (u16::MAX, u16::MAX)] {
        let mut frame = [1; 20];
        assert_eq!(
            complete_checksum(&mut frame, start, offset),
            Err(Error::BadLength)
        );
        assert_eq!(frame, [1; 20]);
    }
    assert_eq!(complete_checksum(&mut [1; 20], 18, 0), Ok(()));
}

proptest! {
    #[test]
    fn tcp_segments_reassemble_and_verify(
        v6: bool, bits in 0u16..256, seq: u32,
        payload in prop::collection::vec(any::<u8>(), 1..5000), gso_size in 1u16..1500,
        cuts in prop::collection::vec(0usize..5000, 3),
    ) {
        let gso_size = gso_size.max(u16::try_from(payload.len() / 200).unwrap() + 1);
        let repr = tcp_repr(Flags::from_bits_truncate(bits), seq);
        let mut linear = tcp_super(v6, &repr, payload.len());
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(payload.len())).collect();
        cuts.sort_unstable();
        // Some of the payload behind the headers, the rest in three pieces.
        linear.extend(&payload[..cuts[0]]);
        let rest = [&payload[cuts[0]..cuts[1]], &payload[cuts[1]..cuts[2]], &payload[cuts[2]..]];
        let frame = SuperFrame::new(&linear, &rest, gso_size).unwrap();
        let (src, dst) = addresses(v6);

        let whole = cut(&frame, ChecksumMode::Full);
        let mut data: Vec<u8> = vec![];
        for (index, segment) in whole.iter().enumerate() {
            let (transport, ident) = network(v6, segment);
            prop_assert!(tcp::verify_checksum(transport, src, dst));
            let (got, header_len) = tcp::Repr::parse(transport).unwrap();
            prop_assert_eq!(got.seq, repr.seq + u32::try_from(data.len()).unwrap());
            let (first, last) = (index == 0, index + 1 == whole.len());
            let mut flags = repr.flags;
            if !last {
                flags.remove(Flags::FIN | Flags::PSH);
            }
            if !first {
                flags.remove(Flags::CWR);
            }
            prop_assert_eq!(&got, &tcp::Repr { seq: got.seq, flags, ..repr.clone() });
            prop_assert!(last || transport.len() - header_len == usize::from(gso_size));
            if let Some(ident) = ident {
                prop_assert_eq!(ident, 0xffffu16.wrapping_add(u16::try_from(index).unwrap()));
            }
            data.extend(&transport[header_len..]);
        }
        prop_assert_eq!(&data, &payload);

        // A device that completes the partial ones sends the same frames.
        let start = if v6 { 54 } else { 34 };
        for (mut partial, whole) in cut(&frame, ChecksumMode::Partial).into_iter().zip(whole) {
            complete_checksum(&mut partial, start, tcp::CHECKSUM_OFFSET).unwrap();
            // One's complement has two zeros; both verify.
            let at = usize::from(start + tcp::CHECKSUM_OFFSET);
            if whole[at..at + 2] == [0, 0] {
                partial[at..at + 2].fill(0);
            }
            prop_assert_eq!(partial, whole);
        }
    }

    #[test]
    fn udp_segments_are_datagrams_of_their_own(
        v6: bool, payload in prop::collection::vec(any::<u8>(), 1..3000), gso_size in 20u16..1400,
    ) {
        let len = 8 + payload.len();
        let mut linear = lower_headers(v6, protocol::UDP, len);
        let at = linear.len();
        linear.resize(at + 8, 0);
        let repr = udp::Repr { src_port: 9, dst_port: 10, len: u16::try_from(len).unwrap() };
        repr.emit(&mut linear[at..]).unwrap();
        let rest = [&payload[..]];
        let frame = SuperFrame::new(&linear, &rest, gso_size).unwrap();
        let (src, dst) = addresses(v6);
        let mut data: Vec<u8> = vec![];
        for segment in cut(&frame, ChecksumMode::Full) {
            let (transport, _) = network(v6, &segment);
            prop_assert!(udp::verify_checksum(transport, src, dst));
            prop_assert_ne!(&transport[6..8], &[0, 0]);
            let view = udp::Datagram::new(transport).unwrap();
            prop_assert_eq!(view.payload.len() + 8, transport.len());
            data.extend(view.payload);
        }
        prop_assert_eq!(data, payload);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120), v6: Option<bool>,
        gso_size: u16, start in 0u16..140, offset: u16,
    ) {
        if let (Some(v6), true) = (v6, bytes.len() > 24) {
            bytes[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            bytes[if v6 { 20 } else { 23 }] = protocol::TCP;
        }
        if let Ok(frame) = SuperFrame::new(&bytes, &[], gso_size) {
            for index in 0..frame.segments() {
                let _ = frame.segment(index, ChecksumMode::Full, &mut [0; 200]);
            }
        }
        let _ = complete_checksum(&mut bytes, start, offset % 64);
    }
}
