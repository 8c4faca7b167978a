//! `TCP_USER_TIMEOUT` as Linux has it, and the option of RFC 5482.

use crate::bench::*;
use abi::session::SockOpt;
use tcpd::engine::{Config, Errno, State};

fn with_option() -> Config {
    Config {
        user_timeout_option: true,
        ..with_sack()
    }
}

/// Seconds until the connection is given up, from now.
fn lasts(b: &mut Bench) -> u64 {
    let start = b.now;
    while b.state() != State::Closed && b.now - start < 4_000 * S {
        b.wait(S / 10);
    }
    assert_eq!(b.tcb().error, Errno::ETIMEDOUT.0);
    (b.now - start) / S
}

// Linux, tcp(7): data unacknowledged for so long ends the connection, while connecting too.
#[test]
fn in_each_state() {
    let mut b = Bench::new(plain());
    b.set(SockOpt::UserTimeout(5_000));
    b.connect();
    assert_eq!(lasts(&mut b), 5);

    let mut b = Bench::established(plain());
    b.set(SockOpt::UserTimeout(7_000));
    b.write(10);
    assert_eq!(lasts(&mut b), 7);

    // Half closed by the peer, and while the own FIN is all that is out.
    let mut b = Bench::established(plain());
    b.set(SockOpt::UserTimeout(7_000));
    b.inject(seg(ACK | FIN, 1, 1));
    b.words.shut_wr = true;
    b.show();
    b.output();
    assert_eq!(b.state(), State::LastAck);
    assert_eq!(lasts(&mut b), 7);
}

// Linux: a closed window counts too, although the peer answers each probe.
#[test]
fn into_a_zero_window() {
    let mut b = Bench::established(plain());
    b.set(SockOpt::UserTimeout(10_000));
    b.inject(seg(ACK, 1, 1).window(0));
    b.write(10);
    let start = b.now;
    while b.state() != State::Closed && b.now - start < 60 * S {
        if !b.wait(S / 10).is_empty() {
            b.inject(seg(ACK, 1, 1).window(0));
        }
    }
    let lasted = (b.now - start) / S;
    assert_eq!(lasted, 10);
}

// Linux: it takes the place of the count of retransmissions also if it is longer.
#[test]
fn longer_than_the_count() {
    let mut b = Bench::established(plain());
    b.write(10);
    let by_count = lasts(&mut b);
    assert!((900..1_100).contains(&by_count), "{by_count}");
    let mut b = Bench::established(plain());
    b.set(SockOpt::UserTimeout(2_000_000));
    b.write(10);
    assert_eq!(lasts(&mut b), 2_000);
}

// RFC 5482 3.1: off unless enabled.
#[test]
fn the_option_is_off_by_default() {
    let mut b = Bench::new(with_sack());
    b.set(SockOpt::UserTimeout(5_000));
    assert_eq!(b.connect()[0].options.user_timeout, None);
    let mut reply = b.syn_ack();
    reply.options.user_timeout = Some(300);
    b.inject(reply);
    assert_eq!(b.write(10)[0].options.user_timeout, None);
    assert_eq!(lasts(&mut b), 5);
}

// RFC 5482 3.3: in the SYN, and with the next segment after it was set.
#[test]
fn it_is_told() {
    let mut b = Bench::new(with_option());
    b.set(SockOpt::UserTimeout(120_000));
    assert_eq!(b.connect()[0].options.user_timeout, Some(120));
    let reply = b.syn_ack();
    b.inject(reply);
    b.set(SockOpt::UserTimeout(40_000_000));
    b.set(SockOpt::NoDelay(true));
    // Too long for seconds: minutes.
    assert_eq!(b.write(10)[0].options.user_timeout, Some(0x8000 | 667));
    assert_eq!(b.write(10)[0].options.user_timeout, None);
}

// RFC 5482 3.1, 3.2: the peer's is adopted within limits, unless the application set its own.
#[test]
fn the_peers_is_adopted() {
    for (told, want) in [
        (300, 300),
        (1, 100),
        (0x8000 | 1_000, 3_600),
        (1_500, 1_500),
    ] {
        let mut b = Bench::established(with_option());
        let mut s = seg(ACK, 1, 1).len(1);
        s.options.user_timeout = Some(told);
        b.inject(s);
        b.restart();
        b.write(10);
        assert_eq!(lasts(&mut b), want, "{told}");
    }
    let mut b = Bench::established(with_option());
    b.set(SockOpt::UserTimeout(20_000));
    let mut s = seg(ACK, 1, 1).len(1);
    s.options.user_timeout = Some(300);
    b.inject(s);
    b.write(10);
    assert_eq!(lasts(&mut b), 20);
    // A time of zero is none.
    let mut b = Bench::established(with_option());
    let mut s = seg(ACK, 1, 1).len(1);
    s.options.user_timeout = Some(0x8000);
    b.inject(s);
    assert_eq!(b.tcb().user_timeout(), None);
}
