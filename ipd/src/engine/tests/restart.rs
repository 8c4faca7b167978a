//! A successor on its predecessor's records: nothing to ask again.

use super::world::*;
use crate::engine::{Counter, StateRecord, records};
use abi::skbuff::flag;
use std::net::Ipv4Addr;

#[test]
fn a_successor_knows_the_neighbours() {
    let mut w = World::new();
    w.tx(UDP, PEER, &udp(b"1"), |_| ());
    w.frames();
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    assert_eq!(w.frames().len(), 1);
    w.advance(SECOND);
    w.restart();
    assert_eq!(w.count(Counter::NeighRestored), 1);
    w.tx(UDP, PEER, &udp(b"2"), |_| ());
    let frames = w.frames();
    assert_eq!(
        (frames.len(), &frames[0].bytes[..6]),
        (1, &PEER_MAC[..]),
        "no ARP"
    );
    assert_eq!(w.engine.neighbours(w.now).1[0][3], "REACHABLE");
    // The confirmation is as old as it was.
    w.advance(60 * SECOND);
    w.restart();
    assert_eq!(w.engine.neighbours(w.now).1[0][3], "STALE");
}

#[test]
fn a_successor_knows_the_path_mtus() {
    let far = Ipv4Addr::new(192, 0, 2, 1);
    let mut w = World::acquainted();
    let mut quoted = vec![0; 28];
    let repr = wire::ipv4::Repr {
        src: OWN,
        dst: far,
        protocol: 6,
        total_len: 1500,
        ..Default::default()
    };
    repr.emit(&mut quoted).unwrap();
    w.rx(&ip_frame(PEER, OWN, 1, &icmp(3, 4, [0, 0, 5, 0], &quoted)));
    w.take();
    w.restart();
    assert_eq!(w.count(Counter::PmtuRestored), 1);
    w.tx(UDP, far, &udp(&[0; 1300]), |skb| {
        skb.desc_mut().flags = flag::DONT_FRAG
    });
    assert_eq!(w.packets()[0].data[6..8], 1280u16.to_be_bytes());
}

#[test]
fn what_failed_or_was_pending_is_not_remembered() {
    let mut w = World::new();
    w.tx(UDP, PEER, &udp(b"1"), |_| ());
    w.frames();
    w.restart();
    assert_eq!(w.engine.neighbours(w.now).1.len(), 0);
    w.tx(UDP, PEER, &udp(b"1"), |_| ());
    w.rx(&arp_frame(2, PEER_MAC, PEER, OWN_MAC, OWN));
    w.advance(60 * SECOND);
    w.tx(UDP, PEER, &udp(b"1"), |_| ());
    w.take();
    assert_eq!(w.records.len(), 1);
    w.advance(20 * SECOND);
    w.take();
    assert_eq!(
        w.records.len(),
        0,
        "it did not answer when it was to be confirmed"
    );
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let mut w = World::acquainted();
    let good = *w.records.values().next().unwrap();
    let now = w.now;
    w.restart_empty();
    for bad in [
        StateRecord::default(),
        StateRecord { device: 9, ..good },
        StateRecord {
            mac: [0xff; 6],
            ..good
        },
        StateRecord {
            mac: [0; 6],
            ..good
        },
        StateRecord {
            ip: abi::Endpoint::NONE,
            ..good
        },
    ] {
        assert!(!w.engine.restore(3, &bad, now), "{bad:?}");
    }
    assert!(!w.engine.restore(records::COUNT, &good, now));
    assert!(w.engine.restore(3, &good, now));
    assert!(!w.engine.restore(3, &good, now), "taken");
    assert!(!w.engine.restore(4, &good, now), "known");
    let path = StateRecord {
        ip: good.ip,
        mtu: 1280,
        time: now + SECOND,
        ..StateRecord::default()
    };
    for bad in [
        StateRecord { mtu: 5, ..path },
        StateRecord { time: now, ..path },
        StateRecord {
            time: u64::MAX,
            ..path
        },
    ] {
        assert!(!w.engine.restore(records::COUNT - 1, &bad, now));
    }
    assert!(w.engine.restore(records::COUNT - 1, &path, now));
}

#[test]
fn a_new_configuration_keeps_what_still_holds() {
    let mut w = World::acquainted();
    w.stack.routes.clear();
    w.stack.devices[0].mtu = 1000;
    let stack = w.stack.clone();
    w.engine.reconfigure(&stack);
    w.tx(UDP, PEER, &udp(&[0; 1000]), |skb| {
        skb.desc_mut().flags = flag::DONT_FRAG
    });
    assert_eq!(w.packets()[0].data[6..8], 1000u16.to_be_bytes());
    w.tx(UDP, PEER, &udp(b""), |_| ());
    assert_eq!(w.frames()[0].bytes[..6], PEER_MAC);
    let mut gone = stack.clone();
    gone.devices.remove(0);
    w.engine.reconfigure(&gone);
    assert_eq!(w.engine.neighbours(w.now).1.len(), 0);
    w.tx(UDP, PEER, &udp(b""), |_| ());
    assert_eq!(w.packets()[0].data[..2], [3, 0]);
    // What a driver reports can only make the link smaller.
    w.engine.reconfigure(&stack);
    w.engine.device_report(DEV, OWN_MAC, 900, w.now);
    w.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], OWN));
    w.take();
    w.tx(UDP, PEER, &udp(&[0; 900]), |skb| {
        skb.desc_mut().flags = flag::DONT_FRAG
    });
    assert_eq!(w.packets()[0].data[6..8], 900u16.to_be_bytes());
}
