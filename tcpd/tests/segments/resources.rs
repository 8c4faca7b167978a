//! Many sockets: records, ports, TIME_WAIT, both families.

use crate::bench::*;
use abi::Endpoint;
use std::collections::HashSet;
use tcpd::engine::{Config, Engine, Errno, OpenParams, Route, SocketRef};

fn params(v6: bool) -> OpenParams {
    OpenParams {
        owner: SocketRef { region: 1, slot: 1 },
        v6,
        rcv_capacity: 65_536,
        snd_capacity: 65_536,
    }
}

// A freed number is not used again before the drain: what names it still means the old socket.
#[test]
fn freed_numbers_rest_until_the_drain() {
    let mut b = Bench::new(plain());
    let old = b.id;
    b.engine.close(b.now, old);
    assert_ne!(b.engine.open(b.now, &params(false)), Ok(old));
    b.output();
    assert_eq!(b.engine.open(b.now, &params(false)), Ok(old));
}

// RFC 6056 3.3.3, 3.3.4: where a destination's ports begin is nobody's to guess, neither from
// those of another destination nor from those of another stack.
#[test]
fn ports_of_other_destinations_are_unrelated() {
    let route = Route {
        source: [10, 0, 0, 1].into(),
        mtu: 1_500,
    };
    let ports = |secret: u8| -> Vec<u16> {
        let mut engine = Engine::new(Config {
            capacity: 1_000,
            secret: [secret; 16],
            ..plain()
        });
        let mut connect = |host: u8| {
            let id = engine.open(1, &params(false)).unwrap();
            let remote = Endpoint::new([10, 0, 0, host].into(), 80);
            engine.connect(1, id, remote, &route).unwrap();
            engine.record(id).unwrap().local.port
        };
        (2..202).map(&mut connect).collect()
    };
    let ours = ports(1);
    let steps = ours.windows(2).map(|w| w[1].wrapping_sub(w[0]));
    let different: HashSet<u16> = steps.collect();
    assert!(different.len() > 180, "{} steps", different.len());
    let same = ours.iter().zip(ports(2)).filter(|(a, b)| **a == *b).count();
    assert!(same < 5, "{same} ports are those of another stack");
}

// RFC 6056: ports differ for one destination, and are shared between destinations.
#[test]
fn ephemeral_ports() {
    let mut engine = Engine::new(Config {
        capacity: 1_000,
        ephemeral: (40_000, 40_099),
        ..plain()
    });
    let route = Route {
        source: [10, 0, 0, 1].into(),
        mtu: 1_500,
    };
    let mut connect = |host: u8| {
        let id = engine.open(1, &params(false)).unwrap();
        let remote = Endpoint::new([10, 0, 0, host].into(), 80);
        engine
            .connect(1, id, remote, &route)
            .map(|()| engine.record(id).unwrap().local.port)
    };
    let ports: HashSet<u16> = (0..100).map(|_| connect(2).unwrap()).collect();
    assert_eq!(ports.len(), 100);
    assert_eq!(connect(2), Err(Errno::EADDRNOTAVAIL));
    assert!(connect(3).is_ok());
}
