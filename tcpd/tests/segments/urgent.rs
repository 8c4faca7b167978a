//! Urgent data: RFC 9293 3.8.5, RFC 6093, and what Linux makes of it.

use crate::bench::*;
use tcpd::engine::{Config, Notice};

/// An announcement: `urgent` counts from `seq`.
fn urg(seq: u32, len: u32, urgent: u16) -> Seg {
    Seg {
        urgent,
        ..seg(ACK | URG, seq, 1).len(len)
    }
}

fn mark(b: &Bench) -> (Option<u64>, bool) {
    (b.tcb().urgent_upto(), b.tcb().urgent_is_here())
}

// RFC 9293 3.10.7.4, sixth: the pointer may come before the data; the byte is there when it is.
#[test]
fn announced_before_it_comes() {
    let mut b = Bench::established(plain());
    b.inject(urg(1, 0, 8));
    assert_eq!(mark(&b), (Some(8), false));
    assert_eq!(b.news(), [Notice::Connected(b.id), Notice::Urgent(b.id)]);
    b.inject(urg(1, 7, 8));
    assert_eq!(mark(&b), (Some(8), false));
    b.news();
    b.inject(urg(8, 10, 1));
    assert_eq!(mark(&b), (Some(8), true));
    assert!(b.news().contains(&Notice::Urgent(b.id)));
}

// As Linux: the urgent byte can be had although data before it is missing.
#[test]
fn the_byte_comes_out_of_order() {
    let mut b = Bench::established(plain());
    b.inject(urg(101, 5, 5));
    assert_eq!(mark(&b), (Some(105), true));
    assert_eq!(b.tcb().received_upto(), 0);
}

// RFC 9293 3.8.5: "if it is already past": old pointers, and ones that go back, say nothing; a
// later one replaces an earlier one that was not read yet.
#[test]
fn old_and_new_announcements() {
    let mut b = Bench::established(plain());
    b.inject(seg(ACK, 1, 1).len(20));
    b.inject(urg(11, 0, 5));
    assert_eq!(mark(&b).0, None);
    b.inject(urg(21, 10, 10));
    assert_eq!(mark(&b), (Some(30), true));
    b.inject(urg(31, 0, 20));
    assert_eq!(mark(&b), (Some(50), false));
    b.inject(urg(31, 0, 15));
    assert_eq!(mark(&b), (Some(50), false));
    // Without the bit the pointer means nothing; with it, zero says nothing.
    b.inject(Seg {
        urgent: 99,
        ..seg(ACK, 31, 1)
    });
    b.inject(urg(31, 0, 0));
    assert_eq!(mark(&b).0, Some(50));
}

// RFC 9293 3.8.5: urgent data at and beyond the edge of the window, and while it is zero.
#[test]
fn beyond_the_window() {
    let mut b = Bench::sized(plain(), 4096);
    b.handshake();
    let edge = 1 + 4096;
    b.inject(seg(ACK, 1, 1).len(4095));
    // The last byte of the window is the urgent one.
    b.inject(urg(4096, 1, 1));
    assert_eq!(mark(&b), (Some(4096), true));
    // The window is shut; the pointer of an empty segment at its edge counts.
    b.inject(urg(edge, 0, 3));
    assert_eq!(mark(&b), (Some(4099), false));
    // Data is not taken, and so the byte is not there.
    b.inject(urg(edge, 3, 3));
    assert_eq!(mark(&b), (Some(4099), false));
    b.read(4096);
    b.inject(urg(edge, 3, 3));
    assert_eq!(mark(&b), (Some(4099), true));
}

// A restart keeps the mark, and whether the byte is there.
#[test]
fn it_survives_a_restart() {
    let mut b = Bench::established(plain());
    b.inject(urg(1, 5, 5));
    b.restart();
    assert_eq!(mark(&b), (Some(5), true));
    b.words.urgent = 20;
    b.words.written = 20;
    b.show();
    b.restart();
    let out = b.output();
    assert!(out.is_empty() || out[0].flags.contains(URG));
    assert_eq!(b.tcb().snd_up - b.tcb().snd_una, 20);
}

// RFC 9293 3.8.5: every segment in front of the urgent byte says where it is; RFC 6093 3.1: the
// pointer shows behind it.
#[test]
fn each_segment_tells() {
    let mut b = Bench::established(Config {
        max_gso: 64_000,
        ..plain()
    });
    b.words.urgent = 4_000;
    let out = b.write(6_000);
    // No merged ones: the pointer counts from each one's beginning.
    let told: Vec<_> = out
        .iter()
        .map(|s| (s.seq, s.flags.contains(URG), s.urgent, s.gso_size))
        .collect();
    assert_eq!(
        told,
        [
            (1, true, 4_000, 0),
            (1461, true, 2_540, 0),
            (2921, true, 1_080, 0),
            (4381, false, 0, 0),
            (5841, false, 0, 0)
        ]
    );
    // Sent again, it tells again.
    let out = b.wait(1_500 * MS);
    assert!(out[0].1.flags.contains(URG));
    assert_eq!((out[0].1.seq, out[0].1.urgent), (1, 4_000));
}

// RFC 9293 3.8.5: "even if the window is zero". At once by an acknowledgement, and by probes.
#[test]
fn into_a_zero_window() {
    let mut b = Bench::established(plain());
    b.inject(seg(ACK, 1, 1).window(0));
    b.words.urgent = 10;
    let out = b.write(10);
    assert_eq!(out.len(), 1);
    assert_eq!(
        (out[0].len, out[0].flags, out[0].urgent),
        (0, ACK | URG, 10)
    );
    let probes = b.wait(S);
    assert!(
        probes
            .iter()
            .any(|(_, s)| s.seq == 1 && s.len == 0 && s.flags.contains(URG) && s.urgent == 10)
    );
    let out = b.inject(seg(ACK, 1, 1).window(100));
    assert_eq!((out[0].len, out[0].urgent), (10, 10));
}

// A pointer that does not fit 16 bits: the farthest there is while it lies beyond everything
// sent, and the true one as soon as it can be said.
#[test]
fn farther_than_the_pointer_reaches() {
    let mut b = Bench::sized(plain(), 1 << 18);
    b.handshake();
    b.words.urgent = 100_000;
    let out = b.write(100_000);
    assert!(
        out.iter()
            .all(|s| s.flags.contains(URG) && s.urgent == 0xffff)
    );
    let mut acked = 1;
    let mut near = vec![];
    while b.tcb().acked_upto() < 100_000 && b.tcb().flight() > 0 {
        acked += b.tcb().flight() as u32;
        b.now += 10 * MS;
        near.extend(b.inject(seg(ACK, 1, acked)));
    }
    let last = near.last().unwrap();
    assert_eq!(last.seq + u32::from(last.urgent), 100_001);
    for s in &near {
        let up = s.seq + u32::from(s.urgent);
        assert!(up == 100_001 || s.urgent == 0xffff, "{s:?}");
    }
}

// RFC 6093 5: a later mark replaces an earlier one; one that is acknowledged is over.
#[test]
fn marks_of_the_application() {
    let mut b = Bench::established(plain());
    b.words.urgent = 5;
    assert_eq!(b.write(5)[0].urgent, 5);
    b.words.urgent = 9;
    assert_eq!(b.write(4)[0].urgent, 4);
    b.inject(seg(ACK, 1, 10));
    let out = b.write(5);
    assert!(!out[0].flags.contains(URG));
}
