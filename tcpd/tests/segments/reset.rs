//! Resets and other attacks: RFC 9293 3.5.2, 3.5.3, RFC 5961, RFC 7323 5.

use crate::bench::*;
use tcpd::engine::{Config, Errno, Notice, State};

// RFC 5961 3.2: exactly the expected number.
#[test]
fn reset_at_the_expected_number() {
    let mut b = Bench::established(plain());
    b.news();
    assert!(b.inject(seg(RST, 1, 0)).is_empty());
    assert_eq!(b.news(), [Notice::Reset(b.id)]);
    assert_eq!(b.tcb().error, Errno::ECONNRESET.0);
    assert_eq!(b.state(), State::Closed);
    // The record goes when the application lets go.
    b.close();
    assert!(b.engine.record(b.id).is_none());
}

// RFC 5961 3.2: in the window, but not exact: challenged; outside: dropped.
#[test]
fn blind_reset() {
    let mut b = Bench::established(plain());
    assert_eq!(briefs(&b.inject(seg(RST, 500, 0))), [(ACK, 1, 1, 0)]);
    assert!(b.inject(seg(RST, 70_000, 0)).is_empty());
    assert!(b.inject(seg(RST, 0, 0)).is_empty());
    assert_eq!(b.state(), State::Established);
}

// RFC 5961 4.2.
#[test]
fn blind_syn() {
    let mut b = Bench::established(plain());
    assert_eq!(briefs(&b.inject(seg(SYN, 500, 0))), [(ACK, 1, 1, 0)]);
    assert_eq!(briefs(&b.inject(seg(SYN, 90_000, 0))), [(ACK, 1, 1, 0)]);
    assert_eq!(b.state(), State::Established);
}

// RFC 5961 7.
#[test]
fn challenges_are_rationed() {
    let mut b = Bench::established(plain());
    let answers: usize = (0..3_000).map(|_| b.inject(seg(SYN, 500, 0)).len()).sum();
    assert_eq!(answers, 1_000);
    b.now += S;
    assert_eq!(b.inject(seg(SYN, 500, 0)).len(), 1);
}

// RFC 5961 5.2 and RFC 9293 3.10.7.4, fifth.
#[test]
fn acknowledgement_of_what_was_not_sent() {
    let mut b = Bench::established(plain());
    let out = b.inject(seg(ACK, 1, 500).len(10));
    assert_eq!(briefs(&out), [(ACK, 1, 1, 0)]);
    assert!(b.placed.ranges.is_empty());
    let out = b.inject(seg(ACK, 1, 1u32.wrapping_sub(100_000)).len(10));
    assert_eq!(briefs(&out), [(ACK, 1, 1, 0)]);
    assert!(b.placed.ranges.is_empty());
}

// RFC 9293 3.10.7.4: a segment without ACK is dropped.
#[test]
fn segment_without_ack() {
    let mut b = Bench::established(plain());
    assert!(b.inject(seg(PSH, 1, 0).len(10)).is_empty());
    assert!(b.placed.ranges.is_empty());
}

fn stamped() -> Bench {
    Bench::established(Config {
        timestamps: true,
        ..plain()
    })
}

// RFC 7323 5.3 R1: dropped, and acknowledged.
#[test]
fn paws() {
    let mut b = stamped();
    b.inject(seg(ACK, 1, 1).len(10).stamp(100, 1));
    let out = b.inject(seg(ACK, 11, 1).len(10).stamp(99, 1));
    assert_eq!(briefs(&out), [(ACK, 1, 11, 0)]);
    assert_eq!(b.engine.stats().paws_drops, 1);
    assert_eq!(b.placed.ranges.len(), 1);
    // RFC 7323 5.5: not after 24 days.
    b.now += 25 * 24 * 3_600 * S;
    b.inject(seg(ACK, 11, 1).len(10).stamp(99, 1));
    assert_eq!(b.placed.ranges.len(), 2);
}

// RFC 7323 5.2: resets are exempt.
#[test]
fn paws_lets_resets_through() {
    let mut b = stamped();
    b.inject(seg(ACK, 1, 1).len(10).stamp(100, 1));
    b.inject(seg(RST, 11, 0).stamp(5, 0));
    assert_eq!(b.state(), State::Closed);
}

// RFC 7323 4.3: the timestamp of the segment that was last acknowledged is echoed, not that of
// one that arrived out of order.
#[test]
fn echo_of_the_last_in_order_segment() {
    let mut b = stamped();
    let echo = |out: Vec<Sent>| out[0].options.timestamps.unwrap().tsecr;
    assert_eq!(echo(b.inject(seg(ACK, 1, 1).len(10).stamp(100, 1))), 100);
    assert_eq!(echo(b.inject(seg(ACK, 21, 1).len(10).stamp(105, 1))), 100);
    assert_eq!(echo(b.inject(seg(ACK, 11, 1).len(10).stamp(104, 1))), 104);
}

// Linux's tcp_invalid_ratelimit: two confused ends do not answer each other for ever.
#[test]
fn empty_segments_outside_are_answered_rarely() {
    let mut b = Bench::established(plain());
    assert_eq!(b.inject(seg(ACK, 0, 1)).len(), 1);
    assert_eq!(b.inject(seg(ACK, 0, 1)).len(), 0);
    b.now += 600 * MS;
    assert_eq!(b.inject(seg(ACK, 0, 1)).len(), 1);
    // With data they always are: it is a retransmission.
    assert_eq!(b.inject(seg(ACK, 0, 1).len(1)).len(), 1);
    assert_eq!(b.inject(seg(ACK, 0, 1).len(1)).len(), 1);
}

// RFC 9293 3.10.5.
#[test]
fn abort_resets() {
    let mut b = Bench::established(plain());
    b.engine.abort(b.now, b.id, Errno::ECONNABORTED);
    assert_eq!(briefs(&b.output()), [(RST | ACK, 1, 1, 0)]);
    assert_eq!(b.tcb().error, Errno::ECONNABORTED.0);
}
