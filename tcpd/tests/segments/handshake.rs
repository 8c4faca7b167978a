//! Opening: RFC 9293 3.5, 3.10.1, 3.10.7.3; RFC 7323 2; RFC 2018 2.

use crate::bench::*;
use tcpd::engine::{Config, Errno, Notice, State};

// RFC 9293 3.5, figure 6.
#[test]
fn active_open() {
    let mut b = Bench::new(plain());
    let out = b.connect();
    assert_eq!(briefs(&out), [(SYN, 0, 0, 0)]);
    assert_eq!(out[0].options.mss, Some(1460));
    assert_eq!(b.state(), State::SynSent);
    let reply = b.syn_ack();
    assert_eq!(briefs(&b.inject(reply)), [(ACK, 1, 1, 0)]);
    assert_eq!(b.news(), [Notice::Connected(b.id)]);
}

// RFC 7323 2.2, 3.2; RFC 2018 2: everything is offered, and the SYN's window is not scaled.
#[test]
fn syn_offers_all_options() {
    let config = Config {
        capacity: 8,
        ..Config::default()
    };
    let mut b = Bench::sized(config, 1 << 20);
    let out = b.connect();
    let o = &out[0].options;
    assert_eq!((o.mss, o.window_scale), (Some(1460), Some(5)));
    assert!(o.sack_permitted && o.timestamps.is_some_and(|ts| ts.tsecr == 0));
    assert_eq!(out[0].window, 0xffff);
    let reply = b.syn_ack();
    let out = b.inject(reply);
    // RFC 7323 2.3: from now on it is.
    assert_eq!(out[0].window, (1 << 20 >> 5) as u16);
    assert_eq!(out[0].options.timestamps.unwrap().tsecr, 1);
}

// RFC 7323 1.3: an option that the peer does not answer is not used.
#[test]
fn options_need_both_sides() {
    let mut b = Bench::new(Config {
        capacity: 8,
        ..Config::default()
    });
    b.connect();
    let out = b.inject(seg(SYN | ACK, 0, 1));
    assert_eq!(out[0].options, wire::tcp::Options::default());
    // RFC 9293 3.7.1: no MSS option means 536.
    let out = b.write(2_000);
    assert_eq!(out[0].gso_size, 536);
}

// RFC 6298 2.1, 5.5; six retries as Linux.
#[test]
fn syn_is_retried_with_back_off_and_given_up() {
    let mut b = Bench::new(plain());
    b.connect();
    let sent = b.wait(200 * S);
    let times: Vec<u64> = sent.iter().map(|(t, _)| t / S).collect();
    assert_eq!(times, [1, 3, 7, 15, 31, 63]);
    assert!(sent.iter().all(|(_, s)| s.brief() == (SYN, 0, 0, 0)));
    assert_eq!(b.news(), [Notice::ConnectFailed(b.id)]);
    assert_eq!(b.tcb().error, Errno::ETIMEDOUT.0);
    // The socket can try again (as Linux).
    assert_eq!(b.state(), State::Closed);
}

// RFC 9293 3.10.7.3, second.
#[test]
fn refused() {
    let mut b = Bench::new(plain());
    b.connect();
    assert!(b.inject(seg(RST | ACK, 0, 1)).is_empty());
    assert_eq!(b.news(), [Notice::ConnectFailed(b.id)]);
    assert_eq!(b.tcb().error, Errno::ECONNREFUSED.0);
    assert_eq!(b.engine.take_error(b.now, b.id), Some(Errno::ECONNREFUSED));
    assert_eq!(b.engine.take_error(b.now, b.id), None);
    // And once more on the same socket.
    let route = tcpd::engine::Route {
        source: b.local.ip().unwrap(),
        mtu: 1500,
    };
    b.engine.connect(b.now, b.id, b.remote, &route).unwrap();
    assert_eq!(b.output().len(), 1);
}

// RFC 9293 3.10.7.3, first and second: what does not acknowledge our SYN proves nothing.
#[test]
fn strangers_cannot_refuse() {
    let mut b = Bench::new(plain());
    b.connect();
    assert!(b.inject(seg(RST, 0, 0)).is_empty());
    assert!(b.inject(seg(RST | ACK, 0, 7)).is_empty());
    assert!(b.inject(seg(ACK, 0, 1)).is_empty());
    // RFC 9293 3.5.2, group 2: half-open discovery.
    assert_eq!(briefs(&b.inject(seg(ACK, 9, 77))), [(RST, 77, 0, 0)]);
    assert_eq!(briefs(&b.inject(seg(SYN | ACK, 0, 2))), [(RST, 2, 0, 0)]);
    assert_eq!(b.state(), State::SynSent);
}

// RFC 9293 3.5, figure 7.
#[test]
fn simultaneous_open() {
    let mut b = Bench::new(plain());
    b.connect();
    let mut syn = b.syn_ack();
    syn.flags = SYN;
    assert_eq!(briefs(&b.inject(syn)), [(SYN | ACK, 0, 1, 0)]);
    assert_eq!(b.state(), State::SynReceived);
    let out = b.inject(seg(SYN | ACK, 0, 1));
    assert_eq!(briefs(&out), [(ACK, 1, 1, 0)]);
    assert_eq!(b.state(), State::Established);
    assert_eq!(b.news(), [Notice::Connected(b.id)]);
}

// RFC 9293 3.5: "if we receive a connection request before … SYN-RECEIVED … RST: refused".
#[test]
fn reset_in_simultaneous_open_refuses() {
    let mut b = Bench::new(plain());
    b.connect();
    b.inject(seg(SYN, 0, 0));
    b.inject(seg(RST, 1, 0));
    assert_eq!(b.tcb().error, Errno::ECONNREFUSED.0);
}

// The handshake survives the engine.
#[test]
fn restart_in_syn_sent() {
    let mut b = Bench::new(plain());
    b.connect();
    assert!(b.restart().is_empty());
    let sent = b.wait(1_500 * MS);
    assert_eq!(sent.len(), 1);
    let reply = b.syn_ack();
    assert_eq!(briefs(&b.inject(reply)), [(ACK, 1, 1, 0)]);
}

// RFC 9293 3.10.1 and connect(2).
#[test]
fn wrong_calls() {
    let mut b = Bench::new(plain());
    let route = tcpd::engine::Route {
        source: b.local.ip().unwrap(),
        mtu: 0,
    };
    let multicast = abi::Endpoint::new([224, 0, 0, 1].into(), 80);
    assert_eq!(
        b.engine.connect(b.now, b.id, multicast, &route),
        Err(Errno::ENETUNREACH)
    );
    b.connect();
    assert_eq!(
        b.engine.connect(b.now, b.id, b.remote, &route),
        Err(Errno::EALREADY)
    );
    assert_eq!(b.engine.listen(b.now, b.id, 1), Err(Errno::EINVAL));
    let reply = b.syn_ack();
    b.inject(reply);
    assert_eq!(
        b.engine.connect(b.now, b.id, b.remote, &route),
        Err(Errno::EISCONN)
    );
}
