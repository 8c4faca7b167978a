//! IPv4, IPv6 and its extension headers.

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6ExtHeader, Ipv6FragmentHeader, Ipv6Packet, Ipv6Repr,
};
use wire::{ipv4, ipv6, protocol};

use crate::{damaged, noise};

prop_compose! {
    fn any_v4()(
        src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, tos: u8, ident: u16, flags in 0u8..4,
        offset in prop_oneof![Just(0), 0u16..8192], extra in 0u16..64,
        options in prop::collection::vec(any::<[u8; 4]>(), 0..=10),
    ) -> ipv4::Repr {
        let options = options.concat();
        ipv4::Repr {
            src: src.into(), dst: dst.into(), protocol, ttl, tos, ident,
            dont_frag: flags & 1 != 0, more_frags: flags & 2 != 0, frag_offset: offset * 8,
            total_len: 20 + u16::try_from(options.len()).unwrap() + extra,
            options: options[..].try_into().unwrap(),
        }
    }
}

fn emitted_v4(repr: &ipv4::Repr) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::from(repr.total_len)];
    repr.emit(&mut bytes).unwrap();
    bytes
}

prop_compose! {
    fn any_v6()(
        src: [u8; 16], dst: [u8; 16], next_header: u8, hop_limit: u8, traffic_class: u8,
        flow_label in 0u32..1 << 20, payload_len in 0u16..64,
    ) -> ipv6::Repr {
        ipv6::Repr {
            src: src.into(), dst: dst.into(), next_header, hop_limit, traffic_class, flow_label,
            payload_len,
        }
    }
}

fn emitted_v6(repr: &ipv6::Repr) -> Vec<u8> {
    let mut bytes = vec![0xee; ipv6::HEADER_LEN + usize::from(repr.payload_len)];
    repr.emit(&mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn ipv4_agrees_on_damaged_packets(
        bytes in prop_oneof![damaged(any_v4().prop_map(|r| emitted_v4(&r))), noise(70)],
    ) {
        // smoltcp checks the version later, in its Repr.
        let theirs = Ipv4Packet::new_checked(&bytes[..]).ok().filter(|p| p.version() == 4);
        let ours = ipv4::Packet::new(&bytes).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some(view), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(view.verify_checksum(), theirs.verify_checksum());
        prop_assert_eq!(ipv4::Repr::parse(&bytes).is_ok(), theirs.verify_checksum());
        prop_assert_eq!(view.payload, theirs.payload());
        let ours = ipv4::Repr::parse_unchecked(&bytes).unwrap();
        prop_assert_eq!(ours.src, theirs.src_addr());
        prop_assert_eq!(ours.dst, theirs.dst_addr());
        prop_assert_eq!(ours.protocol, u8::from(theirs.next_header()));
        prop_assert_eq!(ours.ttl, theirs.hop_limit());
        prop_assert_eq!(ours.tos, theirs.dscp() << 2 | theirs.ecn());
        prop_assert_eq!(ours.ident, theirs.ident());
        prop_assert_eq!(ours.dont_frag, theirs.dont_frag());
        prop_assert_eq!(ours.more_frags, theirs.more_frags());
        prop_assert_eq!(ours.frag_offset, theirs.frag_offset());
        prop_assert_eq!(ours.header_len(), usize::from(theirs.header_len()));
        prop_assert_eq!(ours.total_len, theirs.total_len());
    }

    #[test]
    fn ipv4_written_by_smoltcp_is_what_we_write(
        src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, payload_len in 0u16..100,
    ) {
        let mut bytes = vec![0xee; 20 + usize::from(payload_len)];
        Ipv4Repr {
            src_addr: src.into(),
            dst_addr: dst.into(),
            next_header: IpProtocol::from(protocol),
            payload_len: payload_len.into(),
            hop_limit: ttl,
        }
        .emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
        let repr = ipv4::Repr {
            src: src.into(), dst: dst.into(), protocol, ttl, dont_frag: true,
            total_len: 20 + payload_len, ..ipv4::Repr::default()
        };
        prop_assert_eq!(ipv4::Repr::parse(&bytes), Ok(repr.clone()));
        prop_assert_eq!(emitted_v4(&repr), bytes);
    }

    #[test]
    fn ipv6_agrees_on_damaged_packets(
        bytes in prop_oneof![damaged(any_v6().prop_map(|r| emitted_v6(&r))), noise(70)],
    ) {
        let theirs = Ipv6Packet::new_checked(&bytes[..]).ok().filter(|p| p.version() == 6);
        let ours = ipv6::Repr::parse(&bytes).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(ours.src, theirs.src_addr());
        prop_assert_eq!(ours.dst, theirs.dst_addr());
        prop_assert_eq!(ours.next_header, u8::from(theirs.next_header()));
        prop_assert_eq!(ours.hop_limit, theirs.hop_limit());
        prop_assert_eq!(ours.traffic_class, theirs.traffic_class());
        prop_assert_eq!(ours.flow_label, theirs.flow_label());
        prop_assert_eq!(ours.payload_len, theirs.payload_len());
        prop_assert_eq!(ipv6::Packet::new(&bytes).unwrap().payload, theirs.payload());
    }

    #[test]
    fn ipv6_written_by_smoltcp_is_what_we_write(repr in any_v6()) {
        let repr = ipv6::Repr { traffic_class: 0, flow_label: 0, ..repr };
        let mut bytes = vec![0xee; ipv6::HEADER_LEN + usize::from(repr.payload_len)];
        Ipv6Repr {
            src_addr: repr.src,
            dst_addr: repr.dst,
            next_header: IpProtocol::from(repr.next_header),
            payload_len: repr.payload_len.into(),
            hop_limit: repr.hop_limit,
        }
        .emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
        prop_assert_eq!(ipv6::Repr::parse(&bytes), Ok(repr));
        prop_assert_eq!(emitted_v6(&repr), bytes);
    }

    #[test]
    fn one_extension_header_agrees(
        kind in prop_oneof![
            Just(protocol::IPV6_HOP_BY_HOP), Just(protocol::IPV6_ROUTING),
            Just(protocol::IPV6_DEST_OPTIONS),
        ],
        len in 0u8..4, rest in noise(40),
    ) {
        // Followed by nothing to walk.
        let bytes = [&[protocol::TCP, len][..], &rest].concat();
        let ours = ipv6::ext::Extensions::new(kind, &bytes).next().unwrap().ok();
        let theirs = Ipv6ExtHeader::new_checked(&bytes[..]).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(&ours.bytes[2..], theirs.payload());
        let upper = ipv6::ext::upper_layer(kind, &bytes).unwrap();
        prop_assert_eq!(upper.protocol, u8::from(theirs.next_header()));
        prop_assert_eq!(upper.offset, theirs.payload().len() + 2);
    }

    #[test]
    fn fragment_headers_agree(bytes in noise(12)) {
        let ours = ipv6::ext::Fragment::parse(&bytes).ok();
        let Some(ours) = ours else {
            prop_assert!(bytes.len() < 8);
            return Ok(());
        };
        // smoltcp's header starts behind next header and reserved byte, its offset counts eights.
        let theirs = Ipv6FragmentHeader::new_checked(&bytes[2..]).unwrap();
        prop_assert_eq!(ours.offset, theirs.frag_offset() * 8);
        prop_assert_eq!(ours.more, theirs.more_frags());
        prop_assert_eq!(ours.ident, theirs.ident());
    }
}
