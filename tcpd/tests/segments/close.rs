//! Closing: RFC 9293 3.6, 3.10.4, 3.10.7.4; RFC 2525 2.17; TIME_WAIT (RFC 9293 3.6.1, RFC 6191).

use crate::bench::*;
use abi::session::SockOpt;
use tcpd::engine::{How, Notice, SocketRef, State};

// RFC 9293 3.6, figure 12, the active side.
#[test]
fn active_close() {
    let mut b = Bench::established(plain());
    b.news();
    assert_eq!(briefs(&b.close()), [(ACK | FIN, 1, 1, 0)]);
    assert_eq!(b.state(), State::FinWait1);
    b.inject(seg(ACK, 1, 2));
    assert_eq!(b.state(), State::FinWait2);
    let owner = SocketRef { region: 1, slot: 1 };
    assert!(b.news().contains(&Notice::Released { id: b.id, owner }));
    assert_eq!(briefs(&b.inject(seg(ACK | FIN, 1, 2))), [(ACK, 2, 2, 0)]);
    assert_eq!(b.state(), State::TimeWait);
    // A FIN again is acknowledged, and the wait starts over.
    b.wait(50 * S);
    assert_eq!(briefs(&b.inject(seg(ACK | FIN, 1, 2))), [(ACK, 2, 2, 0)]);
    b.wait(59 * S);
    assert_eq!(b.state(), State::TimeWait);
    b.news();
    b.wait(2 * S);
    assert!(b.engine.record(b.id).is_none());
    assert_eq!(b.news(), [Notice::PeerFin(b.id), Notice::Closed(b.id)][1..]);
}

// Figure 12, the passive side.
#[test]
fn passive_close() {
    let mut b = Bench::established(plain());
    b.news();
    assert_eq!(briefs(&b.inject(seg(ACK | FIN, 1, 1))), [(ACK, 1, 2, 0)]);
    assert_eq!(b.state(), State::CloseWait);
    assert_eq!(b.news(), [Notice::PeerFin(b.id)]);
    // Half-closed: sending goes on.
    assert_eq!(briefs(&b.write(10)), [(ACK | PSH, 1, 2, 10)]);
    b.inject(seg(ACK, 2, 11));
    assert_eq!(briefs(&b.close()), [(ACK | FIN, 11, 2, 0)]);
    assert_eq!(b.state(), State::LastAck);
    b.inject(seg(ACK, 2, 12));
    assert!(b.engine.record(b.id).is_none());
}

// RFC 9293 3.6, figure 13.
#[test]
fn simultaneous_close() {
    let mut b = Bench::established(plain());
    b.close();
    assert_eq!(briefs(&b.inject(seg(ACK | FIN, 1, 1))), [(ACK, 2, 2, 0)]);
    assert_eq!(b.state(), State::Closing);
    b.inject(seg(ACK, 2, 2));
    assert_eq!(b.state(), State::TimeWait);
}

// A FIN and its acknowledgement in one segment.
#[test]
fn fin_with_ack_of_fin() {
    let mut b = Bench::established(plain());
    b.close();
    b.inject(seg(ACK | FIN, 1, 2));
    assert_eq!(b.state(), State::TimeWait);
}

// shutdown(SHUT_WR): receiving goes on.
#[test]
fn half_close() {
    let mut b = Bench::established(plain());
    b.write(10);
    b.engine.shutdown(b.now, b.id, How::Write).unwrap();
    assert_eq!(briefs(&b.output()), [(ACK | FIN, 11, 1, 0)]);
    b.inject(seg(ACK, 1, 12));
    assert_eq!(b.state(), State::FinWait2);
    assert_eq!(b.inject(seg(ACK, 1, 12).len(100))[0].ack, 101);
    assert_eq!(b.tcb().received_upto(), 100);
    // FIN_WAIT_2 of a socket that someone holds may last.
    b.wait(3_600 * S);
    assert_eq!(b.state(), State::FinWait2);
    b.news();
    b.inject(seg(ACK | FIN, 101, 12));
    assert!(b.news().contains(&Notice::Finished(b.id)));
    // TIME_WAIT is over, the application has not let go: what was received can be read.
    b.wait(70 * S);
    assert_eq!(b.state(), State::Closed);
    assert_eq!(b.tcb().error, 0);
    b.read(100);
    b.close();
    assert!(b.engine.record(b.id).is_none());
}

// RFC 2525 2.17.
#[test]
fn close_with_unread_data_resets() {
    let mut b = Bench::established(plain());
    b.inject(seg(ACK, 1, 1).len(10));
    assert_eq!(briefs(&b.close()), [(RST | ACK, 1, 11, 0)]);
    assert!(b.engine.record(b.id).is_none());
}

// RFC 9293 3.6.1: data for nobody.
#[test]
fn data_after_close_resets() {
    let mut b = Bench::established(plain());
    b.close();
    b.inject(seg(ACK, 1, 2));
    assert_eq!(
        briefs(&b.inject(seg(ACK, 1, 2).len(10))),
        [(RST | ACK, 2, 1, 0)]
    );
    assert!(b.engine.record(b.id).is_none());
}

// SO_LINGER with a time of zero.
#[test]
fn linger_zero_resets() {
    let mut b = Bench::established(plain());
    b.set(SockOpt::Linger(Some(0)));
    b.write(100);
    assert_eq!(briefs(&b.close()), [(RST | ACK, 101, 1, 0)]);
}

// What was written before is sent before the FIN.
#[test]
fn close_sends_what_waits() {
    let mut b = Bench::established(plain());
    b.write(10);
    assert!(b.write(20).is_empty());
    assert_eq!(briefs(&b.close()), [(ACK | PSH | FIN, 11, 1, 20)]);
    b.inject(seg(ACK, 1, 32));
    assert_eq!(b.state(), State::FinWait2);
}

// A lost FIN is sent again.
#[test]
fn fin_is_retransmitted() {
    let mut b = Bench::established(plain());
    b.close();
    let sent = b.wait(400 * MS);
    assert_eq!(sent[0].1.brief(), (ACK | FIN, 1, 1, 0));
}

// An orphan in FIN_WAIT_2 is given up after a minute (as Linux).
#[test]
fn orphan_in_fin_wait_2() {
    let mut b = Bench::established(plain());
    b.close();
    b.inject(seg(ACK, 1, 2));
    b.wait(59 * S);
    assert!(b.engine.record(b.id).is_some());
    b.wait(2 * S);
    assert!(b.engine.record(b.id).is_none());
}

// An orphan whose peer is gone is given up after eight retransmissions.
#[test]
fn orphan_without_answer() {
    let mut b = Bench::established(plain());
    b.close();
    let sent = b.wait(1_000 * S);
    assert_eq!(sent.len(), 8);
    assert!(b.engine.record(b.id).is_none());
}

// RFC 9293 3.6.1 (MAY-2): a newer SYN takes the place of TIME_WAIT.
#[test]
fn syn_in_time_wait() {
    let mut b = Bench::listening(plain(), 5);
    let listener = b.id;
    b.inject(seg(SYN, 0, 0));
    b.inject(seg(ACK, 1, 1));
    let Some(&Notice::Accepted { child, .. }) = b.news().last() else {
        panic!()
    };
    b.engine.handed_over(b.now, child);
    b.id = child;
    b.close();
    b.inject(seg(ACK | FIN, 1, 2));
    assert_eq!(b.state(), State::TimeWait);
    let old = b.tcb().iss;
    // An old duplicate is answered with an acknowledgement.
    assert_eq!(briefs(&b.inject(seg(SYN, 0, 0))), [(ACK, 2, 2, 0)]);
    let out = b.inject(seg(SYN, 5_000, 0));
    assert_eq!(out[0].flags, SYN | ACK);
    assert!(b.iss().wrapping_sub(old) > 65_536 && b.iss().wrapping_sub(old) < 70_000);
    b.id = listener;
    assert_eq!(b.engine.records().count(), 2);
}

// A close while connecting ends the attempt.
#[test]
fn close_in_syn_sent() {
    let mut b = Bench::new(plain());
    b.connect();
    assert!(b.close().is_empty());
    assert!(b.engine.record(b.id).is_none());
}

// A close survives the engine, at every step.
#[test]
fn restart_while_closing() {
    let mut b = Bench::established(plain());
    b.close();
    b.restart();
    b.inject(seg(ACK, 1, 2));
    assert_eq!(b.state(), State::FinWait2);
    b.restart();
    assert_eq!(briefs(&b.inject(seg(ACK | FIN, 1, 2))), [(ACK, 2, 2, 0)]);
    b.restart();
    b.wait(61 * S);
    assert!(b.engine.record(b.id).is_none());
}
