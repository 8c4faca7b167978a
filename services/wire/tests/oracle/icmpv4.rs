//! ICMPv4: echo both ways, errors and their quotation.

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv4TimeExceeded, IpProtocol, Ipv4Repr,
};
use wire::icmpv4::{self, Embedded, HEADER_LEN, Repr};

use crate::{damaged, noise};

fn echo(repr: Repr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; HEADER_LEN];
    repr.emit(&mut bytes).unwrap();
    bytes.extend(payload);
    icmpv4::fill_checksum(&mut bytes).unwrap();
    bytes
}

fn theirs_emitted(repr: &Icmpv4Repr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = Icmpv4Packet::new_unchecked(&mut bytes[..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    bytes
}

proptest! {
    #[test]
    fn echoes_agree_on_damaged_messages(
        bytes in damaged((any::<(u16, u16)>(), any::<bool>(), noise(40)).prop_map(
            |((ident, seq), reply, payload)| if reply {
                echo(Repr::EchoReply { ident, seq }, &payload)
            } else {
                echo(Repr::EchoRequest { ident, seq }, &payload)
            },
        )),
    ) {
        let theirs = Icmpv4Packet::new_checked(&bytes[..]).ok();
        let ours = Repr::parse_unchecked(&bytes).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(Repr::parse(&bytes).is_ok(), theirs.verify_checksum());
        prop_assert_eq!(ours.kind(), u8::from(theirs.msg_type()));
        let parsed = Icmpv4Repr::parse(&theirs, &ChecksumCapabilities::ignored());
        match ours {
            Repr::EchoRequest { ident, seq } => prop_assert_eq!(
                parsed,
                Ok(Icmpv4Repr::EchoRequest { ident, seq_no: seq, data: &bytes[HEADER_LEN..] })
            ),
            Repr::EchoReply { ident, seq } => prop_assert_eq!(
                parsed,
                Ok(Icmpv4Repr::EchoReply { ident, seq_no: seq, data: &bytes[HEADER_LEN..] })
            ),
            _ => {
                let echo = matches!(
                    parsed,
                    Ok(Icmpv4Repr::EchoRequest { .. } | Icmpv4Repr::EchoReply { .. })
                );
                prop_assert!(!echo);
            }
        }
    }

    #[test]
    fn echoes_written_by_smoltcp_are_what_we_write(
        ident: u16, seq: u16, reply: bool, data in noise(60),
    ) {
        let (theirs, ours) = if reply {
            let theirs = Icmpv4Repr::EchoReply { ident, seq_no: seq, data: &data };
            (theirs, Repr::EchoReply { ident, seq })
        } else {
            let theirs = Icmpv4Repr::EchoRequest { ident, seq_no: seq, data: &data };
            (theirs, Repr::EchoRequest { ident, seq })
        };
        let bytes = theirs_emitted(&theirs);
        prop_assert_eq!(Repr::parse(&bytes), Ok(ours));
        prop_assert_eq!(echo(ours, &data), bytes);
    }

    #[test]
    fn errors_and_quotations_agree(
        src: [u8; 4], dst: [u8; 4], proto: u8, ttl: u8, code in (0u8..16).prop_filter(
            "smoltcp writes no MTU", |&code| code != icmpv4::unreachable::FRAG_NEEDED,
        ),
        data in prop::collection::vec(any::<u8>(), 8..60), exceeded: bool,
    ) {
        let header = Ipv4Repr {
            src_addr: src.into(), dst_addr: dst.into(), next_header: IpProtocol::from(proto),
            payload_len: data.len(), hop_limit: ttl,
        };
        let (theirs, ours) = if exceeded {
            let reason = Icmpv4TimeExceeded::from(code % 2);
            let theirs = Icmpv4Repr::TimeExceeded { reason, header, data: &data };
            (theirs, Repr::TimeExceeded { code: code % 2 })
        } else {
            let reason = Icmpv4DstUnreachable::from(code);
            let theirs = Icmpv4Repr::DstUnreachable { reason, header, data: &data };
            (theirs, Repr::DestinationUnreachable { code, next_hop_mtu: 0 })
        };
        // smoltcp leaves the unused word of an error as it found it: zero, here.
        let bytes = theirs_emitted(&theirs);
        prop_assert_eq!(Repr::parse(&bytes), Ok(ours));

        let embedded = Embedded::parse(&bytes[HEADER_LEN..]).unwrap();
        prop_assert_eq!((embedded.src, embedded.dst), (src.into(), dst.into()));
        prop_assert_eq!(embedded.protocol, proto);
        prop_assert_eq!(&embedded.transport[..], &data[..8]);

        // Our builder, about the same datagram, writes the same message.
        let mut out = vec![0xff; bytes.len()];
        let len = icmpv4::build_error(&ours, &bytes[HEADER_LEN..], &mut out).unwrap();
        prop_assert_eq!(len, out.len());
        prop_assert_eq!(out, bytes);
    }
}
