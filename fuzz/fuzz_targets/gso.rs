//! Software segmentation: whatever is accepted is cut into segments that cover the payload once,
//! in order, with headers that parse and checksums that verify.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use wire::gso::{ChecksumMode, SuperFrame};
use wire::{ipv4, ipv6, tcp, udp};

fuzz_target!(|data: &[u8]| {
    let Some((&[high, low], frame)) = data.split_first_chunk() else {
        return;
    };
    let gso_size = u16::from_be_bytes([high, low]);
    let half = frame.len() / 2;
    let rest = [&frame[half..]];
    for (linear, rest) in [(frame, &[][..]), (&frame[..half], &rest[..])] {
        let Ok(frame) = SuperFrame::new(linear, rest, gso_size) else {
            continue;
        };
        let mut end = 0;
        for index in 0..frame.segments() {
            let mut out = vec![0; frame.header_len()];
            let segment = frame.segment(index, ChecksumMode::Full, &mut out).unwrap();
            assert_eq!(segment.payload.start, end);
            end = segment.payload.end;
            for piece in frame.pieces(segment.payload.clone()) {
                out.extend(piece);
            }
            assert_eq!(out.len(), segment.header_len + segment.payload.len());
            check(&out[14..], segment.transport - 14);
        }
        assert_eq!(end, frame.payload_len());
    }
});

fn check(packet: &[u8], transport: usize) {
    let (src, dst, is_tcp): (IpAddr, IpAddr, bool) = if packet[0] >> 4 == 4 {
        let repr = ipv4::Repr::parse(packet).unwrap();
        assert_eq!(usize::from(repr.total_len), packet.len());
        (
            repr.src.into(),
            repr.dst.into(),
            repr.protocol == wire::protocol::TCP,
        )
    } else {
        let repr = ipv6::Repr::parse(packet).unwrap();
        assert_eq!(
            usize::from(repr.payload_len) + ipv6::HEADER_LEN,
            packet.len()
        );
        let payload = &packet[ipv6::HEADER_LEN..];
        let upper = ipv6::ext::upper_layer(repr.next_header, payload).unwrap();
        (
            repr.src.into(),
            repr.dst.into(),
            upper.protocol == wire::protocol::TCP,
        )
    };
    if is_tcp {
        assert!(tcp::verify_checksum(&packet[transport..], src, dst));
    } else {
        assert!(udp::verify_checksum(&packet[transport..], src, dst));
    }
}
