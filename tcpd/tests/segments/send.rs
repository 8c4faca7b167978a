//! Sending: Nagle and cork (RFC 9293 3.7.4), silly windows (3.8.6.2.1), zero windows (3.8.6.1),
//! large units, PSH, urgent data.

use crate::bench::*;
use abi::session::SockOpt;
use tcpd::engine::{Config, Notice};

// RFC 9293 3.7.4: a second small segment waits for the first one's acknowledgement.
#[test]
fn nagle() {
    let mut b = Bench::established(plain());
    assert_eq!(briefs(&b.write(100)), [(ACK | PSH, 1, 1, 100)]);
    assert!(b.write(100).is_empty());
    // Full segments go (Minshall: only the small rest waits).
    assert_eq!(briefs(&b.write(1_500)), [(ACK, 101, 1, 1_460)]);
    assert_eq!(
        briefs(&b.inject(seg(ACK, 1, 101))),
        [(ACK | PSH, 1_561, 1, 140)]
    );
}

#[test]
fn nodelay() {
    let mut b = Bench::established(plain());
    b.set(SockOpt::NoDelay(true));
    assert_eq!(b.write(100).len(), 1);
    assert_eq!(b.write(100).len(), 1);
}

// Setting it lets go what waits.
#[test]
fn nodelay_pushes() {
    let mut b = Bench::established(plain());
    b.write(100);
    assert!(b.write(50).is_empty());
    b.set(SockOpt::NoDelay(true));
    assert_eq!(briefs(&b.output()), [(ACK | PSH, 101, 1, 50)]);
}

// tcp(7): a cork holds partial segments for at most 200 ms.
#[test]
fn cork() {
    let mut b = Bench::established(plain());
    b.set(SockOpt::Cork(true));
    assert!(b.write(100).is_empty());
    let sent = b.wait(250 * MS);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1.len), (200 * MS, 100));
    b.inject(seg(ACK, 1, 101));
    assert_eq!(briefs(&b.write(1_470)), [(ACK, 101, 1, 1_460)]);
    b.set(SockOpt::Cork(false));
    assert_eq!(briefs(&b.output()), [(ACK | PSH, 1_561, 1, 10)]);
}

// A FIN takes the rest along.
#[test]
fn fin_flushes() {
    let mut b = Bench::established(plain());
    b.write(100);
    b.words.shut_wr = true;
    assert_eq!(briefs(&b.write(50)), [(ACK | PSH | FIN, 101, 1, 50)]);
}

// Large units, in whole segments, over a path so short that bursts do not matter; RFC 6928: ten
// segments at first.
#[test]
fn large_units() {
    let mut b = Bench::new(Config {
        max_gso: 65_000,
        ..plain()
    });
    b.connect();
    let reply = b.syn_ack();
    b.now += 100_000;
    b.inject(reply);
    let out = b.write(60_000);
    assert_eq!(briefs(&out), [(ACK, 1, 1, 14_600)]);
    assert_eq!(out[0].gso_size, 1_460);
    let out = b.inject(seg(ACK, 1, 14_601));
    // Slow start doubles.
    assert_eq!(out[0].len, 29_200);
    assert_eq!(b.news().last(), Some(&Notice::Acked(b.id)));
    assert_eq!(b.tcb().acked_upto(), 14_600);
}

// A unit is a burst: over a long path it is what about a millisecond sends, two segments at the
// least, and it does not wait for more (`strata compare` found queues of ten frames overrun).
#[test]
fn units_are_no_bursts_on_a_long_path() {
    let mut b = Bench::established(Config {
        max_gso: 65_000,
        ..plain()
    });
    let lens: Vec<u32> = b.write(60_000).iter().map(|s| s.len).collect();
    assert_eq!(lens, [2_920; 5]);
    b.now += 100 * MS;
    // What one acknowledgement sets free leaves at once.
    let lens: Vec<u32> = b.inject(seg(ACK, 1, 2_921)).iter().map(|s| s.len).collect();
    assert_eq!(lens, [2_920; 2]);
}

// Options take their part of each segment.
#[test]
fn timestamps_make_segments_smaller() {
    let mut b = Bench::established(Config {
        timestamps: true,
        ..plain()
    });
    assert_eq!(b.write(5_000)[0].len, 1_448);
}

// RFC 9293 3.8.6.2.1.
#[test]
fn no_silly_segments() {
    let mut b = Bench::new(plain());
    b.connect();
    let s = b.syn_ack().window(4_000);
    b.inject(s);
    let out = b.write(10_000);
    // Two full ones; the remaining 1,080 bytes are less than half of what was ever offered.
    assert_eq!(briefs(&out), [(ACK, 1, 1, 1_460), (ACK, 1_461, 1, 1_460)]);
    let out = b.inject(seg(ACK, 1, 2_921).window(1_000));
    assert!(out.is_empty());
    // The override timer, as nothing is in flight.
    let sent = b.wait(S);
    assert_eq!(sent[0].1.brief(), (ACK, 2_921, 1, 1_000));
}

// Half of the largest window is worth a segment.
#[test]
fn half_the_window_is_enough() {
    let mut b = Bench::new(plain());
    b.connect();
    let s = b.syn_ack().window(1_000);
    b.inject(s);
    assert_eq!(b.write(10_000)[0].len, 1_000);
    assert_eq!(b.inject(seg(ACK, 1, 1_001).window(500))[0].len, 500);
}

// RFC 9293 3.8.6.1: probes at growing intervals, for as long as the peer answers.
#[test]
fn zero_window() {
    let mut b = Bench::established(plain());
    b.write(1_000);
    assert!(b.inject(seg(ACK, 1, 1_001).window(0)).is_empty());
    assert!(b.write(5_000).is_empty());
    let mut gaps = vec![];
    for _ in 0..8 {
        let start = b.now;
        let at = loop {
            let sent = b.wait(MS);
            if let Some((_, s)) = sent.first() {
                assert_eq!(s.brief(), (ACK, 1_000, 1, 0));
                break b.now;
            }
        };
        gaps.push((at - start) / (100 * MS));
        assert!(b.inject(seg(ACK, 1, 1_001).window(0)).is_empty());
    }
    assert!(gaps.windows(2).all(|w| w[0] <= w[1]), "{gaps:?}");
    assert!(gaps[7] > 4 * gaps[0], "{gaps:?}");
    let out = b.inject(seg(ACK, 1, 1_001).window(3_000));
    assert_eq!(out[0].brief(), (ACK, 1_001, 1, 1_460));
    assert_eq!(b.tcb().counters.persist_probes, 0);
}

// A peer whose window stays closed is not given up while it answers; a silent one is.
#[test]
fn zero_window_of_a_dead_peer() {
    let mut b = Bench::established(plain());
    b.write(1_000);
    b.inject(seg(ACK, 1, 1_001).window(0));
    b.write(10);
    b.news();
    b.wait(2_000 * S);
    assert_eq!(b.news(), [Notice::Reset(b.id)]);
}

// RFC 9293 3.10.7.4: an older segment does not change the window.
#[test]
fn window_of_an_old_segment() {
    let mut b = Bench::established(plain());
    b.inject(seg(ACK, 1, 1).len(10).window(5_000));
    b.inject(seg(ACK, 11, 1).len(10).window(6_000));
    b.inject(seg(ACK, 1, 1).len(10).window(100));
    assert_eq!(b.tcb().snd_wnd, 6_000);
}

// RFC 6093: the pointer shows behind the last urgent byte.
#[test]
fn urgent() {
    let mut b = Bench::established(plain());
    b.write(100);
    b.words.urgent = 150;
    let out = b.write(50);
    assert_eq!(out[0].brief(), (ACK | PSH | URG, 101, 1, 50));
    assert_eq!(out[0].urgent, 50);
    b.inject(seg(ACK, 1, 151));
    assert_eq!(b.write(10)[0].flags, ACK | PSH);
}

// The budget bounds a batch; the rest comes with the next.
#[test]
fn budget() {
    let mut b = Bench::established(plain());
    b.words.written = 10_000;
    b.show();
    assert!(b.engine.output(b.now, 3));
    let mut actions = Default::default();
    b.engine.drain(&mut actions);
    assert_eq!(actions.segments.len(), 3);
    assert_eq!(b.output().len(), 4);
}

// RFC 5681 4.1: after an idle time of more than a timeout the window restarts.
#[test]
fn idle_restart() {
    let mut b = Bench::established(plain());
    let mut acked = 1;
    for _ in 0..3 {
        let out = b.write(40_000);
        let sent: u32 = out.iter().map(|s| s.len).sum();
        acked += sent;
        b.now += 10 * MS;
        let out = b.inject(seg(ACK, 1, acked));
        acked += out.iter().map(|s| s.len).sum::<u32>();
        b.inject(seg(ACK, 1, acked));
        while b.tcb().flight() > 0 {
            acked = 1 + b.tcb().acked_upto() as u32 + b.tcb().flight() as u32;
            b.inject(seg(ACK, 1, acked));
        }
    }
    assert!(b.tcb().cc.cwnd > 20_000);
    b.wait(10 * S);
    let out = b.write(40_000);
    assert_eq!(out.iter().map(|s| s.len).sum::<u32>(), 14_600);
}
