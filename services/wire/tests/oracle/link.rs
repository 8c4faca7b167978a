//! Ethernet and ARP.

use proptest::prelude::*;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame};
use wire::{MacAddr, arp, ethernet};

use crate::{damaged, noise};

fn operation(theirs: ArpOperation) -> arp::Operation {
    match theirs {
        ArpOperation::Request => arp::Operation::Request,
        ArpOperation::Reply => arp::Operation::Reply,
        ArpOperation::Unknown(other) => arp::Operation::Other(other),
    }
}

fn any_arp() -> impl Strategy<Value = arp::Repr> {
    (any::<[[u8; 6]; 2]>(), any::<[[u8; 4]; 2]>(), 0u16..5).prop_map(|(macs, ips, op)| arp::Repr {
        operation: op.into(),
        sender_mac: MacAddr(macs[0]),
        sender_ip: ips[0].into(),
        target_mac: MacAddr(macs[1]),
        target_ip: ips[1].into(),
    })
}

fn emitted(repr: &arp::Repr) -> Vec<u8> {
    let mut bytes = vec![0xff; arp::PACKET_LEN];
    repr.emit(&mut bytes).unwrap();
    bytes
}

/// smoltcp's reading, in our terms.
fn theirs(bytes: &[u8]) -> Option<arp::Repr> {
    let ArpRepr::EthernetIpv4 {
        operation: op,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    } = ArpRepr::parse(&ArpPacket::new_checked(bytes).ok()?).ok()?
    else {
        return None;
    };
    Some(arp::Repr {
        operation: operation(op),
        sender_mac: MacAddr(source_hardware_addr.0),
        sender_ip: source_protocol_addr,
        target_mac: MacAddr(target_hardware_addr.0),
        target_ip: target_protocol_addr,
    })
}

proptest! {
    #[test]
    fn ethernet_headers_agree(bytes in noise(40)) {
        let ours = ethernet::Header::parse(&bytes).ok();
        let theirs = EthernetFrame::new_checked(&bytes).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some((ours, len)), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(EthernetAddress(ours.dst.0), theirs.dst_addr());
        prop_assert_eq!(EthernetAddress(ours.src.0), theirs.src_addr());
        prop_assert_eq!(ours.ethertype.0, u16::from(theirs.ethertype()));
        prop_assert_eq!(&bytes[len..], theirs.payload());
        prop_assert_eq!(ours.src.is_multicast(), theirs.src_addr().is_multicast());
        prop_assert_eq!(theirs.dst_addr().to_string().parse(), Ok(ours.dst));
        let mut out = [0; 14];
        ours.emit(&mut out).unwrap();
        prop_assert_eq!(&out[..], &bytes[..14]);
    }

    #[test]
    fn arp_agrees_on_damaged_packets(bytes in damaged(any_arp().prop_map(|r| emitted(&r)))) {
        prop_assert_eq!(arp::Repr::parse(&bytes).ok(), theirs(&bytes));
    }

    #[test]
    fn arp_written_by_us_reads_the_same(repr in any_arp()) {
        prop_assert_eq!(theirs(&emitted(&repr)), Some(repr));
    }

    #[test]
    fn arp_written_by_smoltcp_is_what_we_write(repr in any_arp()) {
        let op = match repr.operation {
            arp::Operation::Request => ArpOperation::Request,
            arp::Operation::Reply => ArpOperation::Reply,
            arp::Operation::Other(other) => ArpOperation::Unknown(other),
        };
        let mut bytes = vec![0; arp::PACKET_LEN];
        ArpRepr::EthernetIpv4 {
            operation: op,
            source_hardware_addr: EthernetAddress(repr.sender_mac.0),
            source_protocol_addr: repr.sender_ip,
            target_hardware_addr: EthernetAddress(repr.target_mac.0),
            target_protocol_addr: repr.target_ip,
        }
        .emit(&mut ArpPacket::new_unchecked(&mut bytes));
        prop_assert_eq!(bytes, emitted(&repr));
    }
}
