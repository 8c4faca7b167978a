//! Keepalive (RFC 9293 3.8.4), user timeout (RFC 5482), giving up (3.8.3).

use crate::bench::*;
use abi::session::SockOpt;
use tcpd::engine::{Errno, Notice};

fn keepalive() -> Bench {
    let mut b = Bench::established(plain());
    b.set(SockOpt::KeepIdle(10_000));
    b.set(SockOpt::KeepInterval(1_000));
    b.set(SockOpt::KeepCount(3));
    b.set(SockOpt::KeepAlive(true));
    b.news();
    b
}

// RFC 9293 3.8.4: off unless asked for (MUST-25).
#[test]
fn idle_connections_are_silent() {
    let mut b = Bench::established(plain());
    assert!(b.wait(100_000 * S).is_empty());
}

#[test]
fn keepalive_finds_a_dead_peer() {
    let mut b = keepalive();
    let sent = b.wait(60 * S);
    let times: Vec<u64> = sent.iter().map(|(t, _)| t / S).collect();
    assert_eq!(times, [10, 11, 12, 13]);
    assert_eq!(sent[0].1.brief(), (ACK, 0, 1, 0));
    assert_eq!(sent[3].1.flags, RST | ACK);
    assert_eq!(b.news(), [Notice::Reset(b.id)]);
    assert_eq!(b.tcb().error, Errno::ETIMEDOUT.0);
}

#[test]
fn keepalive_with_answers_goes_on() {
    let mut b = keepalive();
    for _ in 0..20 {
        let sent = b.wait(10 * S);
        assert_eq!(sent.len(), 1);
        b.inject(seg(ACK, 1, 1));
    }
    assert_eq!(b.news(), []);
}

// TCP_USER_TIMEOUT.
#[test]
fn user_timeout() {
    let mut b = Bench::established(plain());
    b.set(SockOpt::UserTimeout(5_000));
    b.news();
    b.write(10);
    b.wait(4_900 * MS);
    assert_eq!(b.news(), []);
    b.wait(200 * MS);
    assert_eq!(b.news(), [Notice::Reset(b.id)]);
    assert_eq!(b.tcb().error, Errno::ETIMEDOUT.0);
}

// RFC 9293 3.8.3, R2: at least 100 seconds (Linux: fifteen retransmissions).
#[test]
fn a_silent_peer_is_given_up() {
    let mut b = Bench::established(plain());
    b.write(10);
    b.news();
    b.wait(100 * S);
    assert_eq!(b.news(), []);
    let sent = b.wait(3_000 * S);
    assert_eq!(b.news(), [Notice::Reset(b.id)]);
    assert!(sent.len() < 15);
    assert_eq!(b.tcb().counters.timeouts, 15);
}

// Deadlines are absolute: a successor keeps them.
#[test]
fn timers_survive() {
    let mut b = keepalive();
    b.wait(9 * S);
    b.restart();
    let sent = b.wait(2 * S);
    assert_eq!(sent[0].0, S);
}
