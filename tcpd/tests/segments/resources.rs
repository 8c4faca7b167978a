//! Many sockets: records, ports, TIME_WAIT, both families.

use crate::bench::*;
use abi::Endpoint;
use abi::session::SockOpt;
use std::collections::HashSet;
use tcpd::engine::{Config, Engine, Errno, OpenParams, Route, SocketRef, State};

fn params(v6: bool) -> OpenParams {
    OpenParams {
        owner: SocketRef { region: 1, slot: 1 },
        v6,
        rcv_capacity: 65_536,
        snd_capacity: 65_536,
    }
}

#[test]
fn records_run_out() {
    let mut b = Bench::new(Config {
        capacity: 3,
        ..plain()
    });
    let mut open = || b.engine.open(b.now, &params(false));
    assert!(open().is_ok() && open().is_ok());
    assert_eq!(open(), Err(Errno::ENOBUFS));
    b.close();
    assert!(b.engine.open(b.now, &params(false)).is_ok());
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

// TIME_WAIT makes way when records run short.
#[test]
fn time_wait_is_recycled() {
    let mut b = Bench::new(Config {
        capacity: 4,
        ..plain()
    });
    for port in 1_000..1_010 {
        b.local.port = port;
        b.handshake();
        b.close();
        b.inject(seg(ACK | FIN, 1, 2));
        b.output();
        b.id = b.engine.open(b.now, &params(false)).unwrap();
    }
    assert!(b.engine.stats().time_wait_recycled > 5);
    let waiting = b.engine.records();
    let waiting = waiting.filter(|(_, tcb)| tcb.state() == State::TimeWait);
    assert!(waiting.count() >= 2);
}

// A server that is started again can have its port in spite of TIME_WAIT, with SO_REUSEADDR.
#[test]
fn port_with_time_wait() {
    let mut b = Bench::listening(plain(), 5);
    let listener = b.id;
    b.inject(seg(SYN, 0, 0));
    b.inject(seg(ACK, 1, 1));
    let child = b.engine.records().map(|(id, _)| id).max().unwrap();
    b.engine.handed_over(b.now, child);
    b.engine.close(b.now, child);
    b.output();
    b.inject(seg(ACK | FIN, 1, 2));
    b.engine.close(b.now, listener);
    b.output();
    let again = b.engine.open(b.now, &params(false)).unwrap();
    assert_eq!(b.engine.bind(b.now, again, b.local), Err(Errno::EADDRINUSE));
    b.id = again;
    b.set(SockOpt::ReuseAddr(true));
    assert_eq!(b.engine.bind(b.now, again, b.local), Ok(b.local));
    assert_eq!(b.engine.listen(b.now, again, 5), Ok(()));
}

// RFC 6691 and RFC 8200 8.3: the IPv6 header is 20 bytes longer.
#[test]
fn ipv6() {
    let mut b = Bench::new(plain());
    b.close();
    b.id = b.engine.open(b.now, &params(true)).unwrap();
    b.local = Endpoint::new("2001:db8::1".parse().unwrap(), 5_000);
    b.remote = Endpoint::new("2001:db8::2".parse().unwrap(), 80);
    let out = b.connect();
    assert_eq!(out[0].options.mss, Some(1_440));
    let reply = b.syn_ack();
    assert_eq!(briefs(&b.inject(reply)), [(ACK, 1, 1, 0)]);
    assert_eq!(b.write(5_000)[0].len, 1_440);
}

// RFC 4291 2.5.5.2: an IPv6 socket that connects to a mapped address speaks IPv4.
#[test]
fn mapped_addresses() {
    let mut b = Bench::new(plain());
    b.close();
    b.id = b.engine.open(b.now, &params(true)).unwrap();
    let route = Route {
        source: b.local.ip().unwrap(),
        mtu: 1_500,
    };
    let mapped = Endpoint::new("::ffff:10.0.0.2".parse().unwrap(), 80);
    b.engine.connect(b.now, b.id, mapped, &route).unwrap();
    assert_eq!(b.tcb().remote, b.remote);
    // And an IPv4 socket cannot speak IPv6.
    let v4 = b.engine.open(b.now, &params(false)).unwrap();
    let v6 = Endpoint::new("2001:db8::2".parse().unwrap(), 80);
    assert_eq!(
        b.engine.connect(b.now, v4, v6, &route),
        Err(Errno::EAFNOSUPPORT)
    );
}

// A dual-stack listener takes both families.
#[test]
fn dual_stack_listener() {
    let mut b = Bench::new(plain());
    b.close();
    b.id = b.engine.open(b.now, &params(true)).unwrap();
    let any = Endpoint::new("::".parse().unwrap(), b.local.port);
    b.engine.bind(b.now, b.id, any).unwrap();
    b.engine.listen(b.now, b.id, 5).unwrap();
    assert_eq!(b.inject(seg(SYN, 0, 0))[0].flags, SYN | ACK);
}
