use super::*;
use abi::skbuff::OFFSET_NONE;

/// An Ethernet frame with a TCP segment without payload.
fn segment(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 54];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&src);
    frame[30..34].copy_from_slice(&dst);
    frame[34..36].copy_from_slice(&ports.0.to_be_bytes());
    frame[36..38].copy_from_slice(&ports.1.to_be_bytes());
    frame[47] = flags;
    frame
}

fn handed_on(frame: &[u8]) -> SkBuffDesc {
    let mut desc = SkBuffDesc {
        family: 2,
        protocol: frame[23],
        network: OFFSET_NONE,
        ..SkBuffDesc::default()
    };
    desc.src[..4].copy_from_slice(&frame[26..30]);
    desc.dst[..4].copy_from_slice(&frame[30..34]);
    desc
}

#[test]
fn every_layer_calls_a_packet_the_same() {
    let frame = segment([10, 0, 0, 1], [10, 0, 0, 2], (7, 80), 16);
    let none = SkBuffDesc::default();
    let suspect = identify(note::FRAME, &none, &frame);
    let Suspect::Flow(flow) = suspect else {
        panic!("{suspect:?}");
    };
    assert_eq!((flow.protocol, flow.src_port, flow.dst_port), (6, 7, 80));
    assert_eq!(identify(note::IP, &none, &frame[14..]), suspect);
    let desc = handed_on(&frame);
    assert_eq!(identify(note::TRANSPORT, &desc, &frame[34..]), suspect);
}

#[test]
fn what_is_no_flow_is_known_by_its_bytes() {
    let arp = [0xffu8; 42];
    let none = SkBuffDesc::default();
    assert_eq!(
        identify(note::FRAME, &none, &arp),
        Suspect::Packet(digest(&arp))
    );
    // Cut off anywhere, it is still something, and nothing panics.
    let frame = segment([10, 0, 0, 1], [10, 0, 0, 2], (7, 80), 16);
    for len in 0..frame.len() {
        let _ = identify(note::FRAME, &none, &frame[..len]);
        let _ = identify(note::IP, &none, &frame[..len]);
        let _ = identify(note::TRANSPORT, &none, &frame[..len]);
    }
}

/// Ports of a fragment but the first would be made of its payload.
#[test]
fn a_later_fragment_has_no_ports() {
    let mut frame = segment([10, 0, 0, 1], [10, 0, 0, 2], (7, 80), 16);
    frame[21] = 1;
    let suspect = identify(note::FRAME, &SkBuffDesc::default(), &frame);
    assert!(matches!(suspect, Suspect::Flow(f) if (f.src_port, f.dst_port) == (0, 0)));
}

#[test]
fn a_quarantined_flow_is_held_one_way_but_for_our_reset() {
    let none = SkBuffDesc::default();
    let there = segment([10, 0, 0, 1], [10, 0, 0, 2], (7, 80), 16);
    let back = segment([10, 0, 0, 2], [10, 0, 0, 1], (80, 7), 16);
    let suspect = identify(note::FRAME, &none, &there);
    let held = Quarantine::new(&[suspect]);
    assert!(held.holds(note::FRAME, &none, &there, false));
    assert!(!held.holds(note::FRAME, &none, &back, false));
    let reset = segment([10, 0, 0, 1], [10, 0, 0, 2], (7, 80), 4);
    assert!(!held.holds(note::FRAME, &none, &reset, true));
    assert!(held.holds(note::FRAME, &none, &reset, false));
    assert!(!Quarantine::default().holds(note::FRAME, &none, &there, false));
    let socket = Suspect::Socket {
        index: 1,
        generation: 1,
    };
    assert!(Quarantine::new(&[socket]).is_empty());
}

#[test]
fn a_flow_concerns_its_connection_both_ways() {
    let local = Endpoint::new("10.0.0.2".parse().unwrap(), 80);
    let remote = Endpoint::new("10.0.0.1".parse().unwrap(), 7);
    let there = segment([10, 0, 0, 1], [10, 0, 0, 2], (7, 80), 16);
    let suspect = identify(note::FRAME, &SkBuffDesc::default(), &there);
    assert!(concerns(&suspect, 6, local, remote));
    assert!(concerns(&suspect, 6, remote, local));
    assert!(!concerns(&suspect, 17, local, remote));
    let other = Endpoint::new("10.0.0.1".parse().unwrap(), 8);
    assert!(!concerns(&suspect, 6, local, other));
}
