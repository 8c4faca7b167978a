//! Receiving: acknowledgements (RFC 9293 3.8.6.3, RFC 5681 4), windows (3.8.6.2.2), SACK
//! (RFC 2018, RFC 2883), urgent data (RFC 6093).

use crate::bench::*;
use tcpd::engine::{Config, Notice};

/// An established connection whose first acknowledgements at once are used up.
fn settled(config: Config) -> (Bench, u32) {
    let mut b = Bench::established(config);
    let mut seq = 1;
    // Sixteen, of which the handshake's was one.
    for _ in 0..15 {
        assert_eq!(b.inject(seg(ACK, seq, 1).len(10)).len(), 1);
        seq += 10;
    }
    b.read(150);
    b.news();
    (b, seq)
}

// RFC 9293 3.8.6.3 (SHLD-18, MUST-58).
#[test]
fn delayed_acknowledgement() {
    let (mut b, seq) = settled(plain());
    assert!(b.inject(seg(ACK, seq, 1).len(10)).is_empty());
    assert_eq!(b.news(), [Notice::Received(b.id)]);
    let sent = b.wait(500 * MS);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].0, sent[0].1.brief()),
        (40 * MS, (ACK, 1, seq + 10, 0))
    );
}

// RFC 9293 3.8.6.3 (MUST-59): at least every second full segment.
#[test]
fn every_second_segment() {
    let (mut b, seq) = settled(plain());
    assert!(b.inject(seg(ACK, seq, 1).len(MSS)).is_empty());
    let out = b.inject(seg(ACK, seq + MSS, 1).len(MSS));
    assert_eq!(briefs(&out), [(ACK, 1, seq + 2 * MSS, 0)]);
}

// Merged segments count as what they were; a batch makes one acknowledgement.
#[test]
fn merged_segments_and_batches() {
    let (mut b, seq) = settled(plain());
    let mut big = seg(ACK, seq, 1).len(10 * MSS);
    big.gso_size = 1460;
    b.feed(big);
    b.feed(seg(ACK, seq + 10 * MSS, 1).len(MSS));
    assert_eq!(briefs(&b.output()), [(ACK, 1, seq + 11 * MSS, 0)]);
}

// An answer carries the acknowledgement.
#[test]
fn piggyback() {
    let (mut b, seq) = settled(plain());
    b.inject(seg(ACK, seq, 1).len(10));
    assert_eq!(briefs(&b.write(5)), [(ACK | PSH, 1, seq + 10, 5)]);
    assert!(b.wait(100 * MS).is_empty());
}

// RFC 5681 4.2; RFC 2018 4: the latest range first.
#[test]
fn out_of_order() {
    let mut b = Bench::established(with_sack());
    let out = b.inject(seg(ACK, 101, 1).len(100));
    assert_eq!(out[0].brief(), (ACK, 1, 1, 0));
    assert_eq!(out[0].sack, [(101, 201)]);
    let out = b.inject(seg(ACK, 401, 1).len(100));
    assert_eq!(out[0].sack, [(401, 501), (101, 201)]);
    let out = b.inject(seg(ACK, 201, 1).len(100));
    assert_eq!(out[0].sack, [(101, 301), (401, 501)]);
    assert_eq!(b.placed.ranges, [(100, 100), (400, 100), (200, 100)]);
    assert_eq!(b.tcb().received_upto(), 0);
    // The gap is filled.
    let out = b.inject(seg(ACK, 1, 1).len(100));
    assert_eq!((out[0].ack, &out[0].sack[..]), (301, &[(401, 501)][..]));
    assert_eq!(b.tcb().received_upto(), 300);
    // A successor knows the ranges.
    b.restart();
    let out = b.inject(seg(ACK, 301, 1).len(100));
    assert_eq!((out[0].ack, out[0].sack.len()), (501, 0));
}

// RFC 2883 4.
#[test]
fn duplicates_are_reported() {
    let mut b = Bench::established(with_sack());
    b.inject(seg(ACK, 1, 1).len(100));
    let out = b.inject(seg(ACK, 1, 1).len(100));
    assert_eq!((out[0].ack, &out[0].sack[..]), (101, &[(1, 101)][..]));
    b.inject(seg(ACK, 201, 1).len(100));
    let out = b.inject(seg(ACK, 201, 1).len(50));
    assert_eq!(out[0].sack, [(201, 251), (201, 301)]);
    let out = b.inject(seg(ACK, 101, 1).len(100));
    assert_eq!((out[0].ack, out[0].sack.len()), (301, 0));
}

// Only what is new is placed.
#[test]
fn overlap_is_trimmed() {
    let mut b = Bench::established(plain());
    b.inject(seg(ACK, 1, 1).len(100));
    let out = b.inject(seg(ACK, 51, 1).len(100));
    assert_eq!(out[0].ack, 151);
    assert_eq!(b.placed.ranges, [(0, 100), (100, 50)]);
}

// RFC 9293 3.10.7.4, first: what does not fit the window is cut off.
#[test]
fn beyond_the_window() {
    let mut b = Bench::sized(plain(), 4_096);
    b.handshake();
    let out = b.inject(seg(ACK, 1, 1).len(5_000));
    assert_eq!((out[0].ack, out[0].window), (4_097, 0));
    assert_eq!(b.placed.ranges, [(0, 4_096)]);
    // Nothing fits; but an acknowledgement in it would count, and it is answered.
    let out = b.inject(seg(ACK, 4_097, 1).len(1));
    assert_eq!(out[0].brief(), (ACK, 1, 4_097, 0));
    assert_eq!(b.placed.ranges.len(), 1);
}

// RFC 9293 3.8.6.2.2: the window opens by a segment or half the buffer, not by bytes.
#[test]
fn no_silly_window() {
    let mut b = Bench::sized(plain(), 4_096);
    b.handshake();
    b.inject(seg(ACK, 1, 1).len(4_096));
    assert!(b.read(100).is_empty());
    assert!(b.read(1_000).is_empty());
    let out = b.read(500);
    assert_eq!((out[0].brief(), out[0].window), ((ACK, 1, 4_097, 0), 1_600));
    assert!(b.read(100).is_empty());
}

// RFC 7323 2.4: the window's edge does not move back for rounding while there is room.
#[test]
fn scaled_edges_do_not_move_back() {
    let config = Config {
        window_scaling: true,
        ..plain()
    };
    let mut b = Bench::sized(config, 1 << 20);
    b.handshake();
    let scale = b.tcb().negotiated.rcv_scale;
    assert_eq!(scale, 5);
    let mut seq = 1;
    let mut edge = 0u64;
    for len in [1u32, 7, 100, 1_460, 33, 31, 32, 999] {
        let out = b.inject(seg(ACK, seq, 1).len(len));
        seq += len;
        let ack = out.last().unwrap();
        let new = u64::from(ack.ack) + (u64::from(ack.window) << scale);
        assert!(new + 32 > edge, "{new} {edge}");
        edge = edge.max(new);
        b.read(u64::from(len));
    }
}

// No memory for payload: as if lost.
#[test]
fn refused_payload_is_not_acknowledged() {
    let mut b = Bench::established(plain());
    b.placed.refuse = true;
    assert!(b.inject(seg(ACK, 1, 1).len(10)).is_empty());
    assert_eq!(b.tcb().received_upto(), 0);
    b.placed.refuse = false;
    assert_eq!(b.inject(seg(ACK, 1, 1).len(10))[0].ack, 11);
}

// RFC 6093 3: the pointer shows behind the urgent data; the bytes stay in the stream.
#[test]
fn urgent_data() {
    let mut b = Bench::established(plain());
    b.news();
    let mut s = seg(ACK | URG, 1, 1).len(10);
    s.urgent = 5;
    b.inject(s);
    assert!(b.news().contains(&Notice::Urgent(b.id)));
    assert_eq!(b.tcb().urgent_upto(), Some(5));
    assert_eq!(b.tcb().received_upto(), 10);
}

// RFC 9293 3.10.7.4, eighth: a FIN ahead of missing data takes effect when that has come.
#[test]
fn fin_out_of_order() {
    let mut b = Bench::established(plain());
    b.news();
    assert_eq!(b.inject(seg(ACK | FIN, 101, 1).len(50))[0].ack, 1);
    assert_eq!(b.news(), []);
    assert_eq!(b.inject(seg(ACK, 1, 1).len(100))[0].ack, 152);
    assert_eq!(b.news(), [Notice::Received(b.id), Notice::PeerFin(b.id)]);
    assert_eq!(b.tcb().received_upto(), 150);
    // And its duplicate is answered.
    assert_eq!(b.inject(seg(ACK | FIN, 101, 1).len(50))[0].ack, 152);
}

// A successor that does not know whether its acknowledgement left sends it.
#[test]
fn owed_acknowledgement_survives() {
    let (mut b, seq) = settled(plain());
    assert!(b.inject(seg(ACK, seq, 1).len(10)).is_empty());
    assert_eq!(briefs(&b.restart()), [(ACK, 1, seq + 10, 0)]);
}
