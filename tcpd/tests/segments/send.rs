//! Sending: Nagle and cork (RFC 9293 3.7.4), silly windows (3.8.6.2.1), zero windows (3.8.6.1),
//! large units, PSH, urgent data.

use crate::bench::*;

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
