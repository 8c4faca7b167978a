//! UDP over both families.

use std::net::IpAddr;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{UdpPacket, UdpRepr};
use wire::udp;

use crate::{any_addresses, damaged, noise};

fn emitted(src_port: u16, dst_port: u16, payload: &[u8], (src, dst): (IpAddr, IpAddr)) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = [&[0xff; 8][..], payload].concat();
    udp::Repr {
        src_port,
        dst_port,
        len,
    }
    .emit(&mut bytes)
    .unwrap();
    udp::fill_checksum(&mut bytes, src, dst).unwrap();
    bytes
}

prop_compose! {
    fn any_datagram()(
        ports in any::<(u16, u16)>(), payload in noise(60), addresses in any_addresses(),
    ) -> (Vec<u8>, (IpAddr, IpAddr)) {
        (emitted(ports.0, ports.1, &payload, addresses), addresses)
    }
}

proptest! {
    #[test]
    fn both_agree_on_damaged_datagrams(
        (bytes, (src, dst)) in any_datagram(), noise in noise(30), swap: bool, extra in noise(4),
    ) {
        let bytes = if swap { noise } else { [bytes, extra].concat() };
        let theirs = UdpPacket::new_checked(&bytes[..]).ok();
        let ours = udp::Repr::parse(&bytes).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(ours.src_port, theirs.src_port());
        prop_assert_eq!(ours.dst_port, theirs.dst_port());
        prop_assert_eq!(ours.len, theirs.len());
        prop_assert_eq!(udp::Datagram::new(&bytes).unwrap().payload, theirs.payload());
        // smoltcp takes a missing checksum over IPv6 too; RFC 8200 8.1 has it discarded.
        let expected = theirs.verify_checksum(&src.into(), &dst.into())
            && (theirs.checksum() != 0 || src.is_ipv4());
        prop_assert_eq!(udp::verify_checksum(&bytes, src, dst), expected);
    }

    #[test]
    fn a_damaged_checksum_is_seen_by_both(
        (good, (src, dst)) in any_datagram(), bytes in damaged(Just(vec![0u8; 60])),
    ) {
        // Damage the payload, not the length.
        let mut damaged = good;
        for (to, from) in damaged.iter_mut().skip(8).zip(bytes) {
            *to ^= from;
        }
        let theirs = UdpPacket::new_checked(&damaged[..]).unwrap();
        let verdict = theirs.verify_checksum(&src.into(), &dst.into());
        prop_assert_eq!(udp::verify_checksum(&damaged, src, dst), verdict);
    }

    #[test]
    fn written_by_smoltcp_is_what_we_write(
        ports in any::<(u16, u16)>(), payload in noise(60), (src, dst) in any_addresses(),
    ) {
        let mut bytes = vec![0xee; 8 + payload.len()];
        UdpRepr { src_port: ports.0, dst_port: ports.1 }.emit(
            &mut UdpPacket::new_unchecked(&mut bytes),
            &src.into(),
            &dst.into(),
            payload.len(),
            |to| to.copy_from_slice(&payload),
            &ChecksumCapabilities::default(),
        );
        prop_assert!(udp::verify_checksum(&bytes, src, dst));
        prop_assert_eq!(emitted(ports.0, ports.1, &payload, (src, dst)), bytes);
    }
}
