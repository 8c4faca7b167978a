//! Loss: RFC 5681 3.2, RFC 6582, RFC 6675, RFC 6298, RFC 8985 7.

use crate::bench::*;
use tcpd::engine::recovery::Phase;

/// Ten segments in flight, the first is `1..1461`.
fn flight(config: tcpd::engine::Config) -> Bench {
    let mut b = Bench::established(config);
    assert_eq!(b.write(40_000).len(), 10);
    b.now += 50 * MS;
    b
}

fn at(segment: u32) -> u32 {
    1 + segment * MSS
}

fn retransmitted(out: &[Sent]) -> Vec<(u32, u32)> {
    out.iter()
        .filter(|s| s.seq < at(10))
        .map(|s| (s.seq, s.len))
        .collect()
}

// RFC 5681 3.2: the third duplicate acknowledgement; RFC 3042: the first two let new data out.
#[test]
fn fast_retransmit_without_sack() {
    let mut b = flight(plain());
    assert_eq!(retransmitted(&b.inject(seg(ACK, 1, 1))), []);
    assert_eq!(retransmitted(&b.inject(seg(ACK, 1, 1))), []);
    let out = b.inject(seg(ACK, 1, 1));
    assert_eq!(retransmitted(&out), [(1, MSS)]);
    assert_eq!(b.tcb().recovery.phase(), Phase::Recovery);
    // RFC 6582 3.2: a partial acknowledgement shows the next hole at once.
    let out = b.inject(seg(ACK, 1, at(3)));
    assert_eq!(retransmitted(&out), [(at(3), MSS)]);
    // A full one ends it.
    b.inject(seg(ACK, 1, b.tcb().flight() as u32 + at(3)));
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
    assert!(b.tcb().cc.cwnd <= 8 * MSS);
}

// RFC 5681 2: with data, or another window, it is no duplicate acknowledgement.
#[test]
fn not_a_duplicate() {
    let mut b = flight(plain());
    for i in 0..5 {
        b.inject(seg(ACK, 1, 1).window(60_000 + i));
    }
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
    for i in 0..5 {
        b.inject(seg(ACK, 1 + i * 10, 1).len(10));
    }
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
}

// RFC 6675 5: holes are filled in order, and nothing else is sent again.
#[test]
fn sack_recovery() {
    let mut b = flight(with_sack());
    assert_eq!(
        retransmitted(&b.inject(seg(ACK, 1, 1).sack(&[(at(1), at(2))]))),
        []
    );
    b.inject(seg(ACK, 1, 1).sack(&[(at(1), at(3))]));
    let out = b.inject(seg(ACK, 1, 1).sack(&[(at(5), at(6)), (at(1), at(3))]));
    assert_eq!(retransmitted(&out), [(1, MSS)]);
    let mut again = vec![];
    for end in 7..=10 {
        let out = b.inject(seg(ACK, 1, 1).sack(&[(at(5), at(end)), (at(1), at(3))]));
        again.extend(retransmitted(&out));
    }
    assert_eq!(again, [(at(3), MSS), (at(4), MSS)]);
    // RFC 6937: about half as much is sent as arrives.
    assert!(b.tcb().counters.retrans == 3);
}

// A merged acknowledgement shows everything at once.
#[test]
fn one_sack_block_is_enough() {
    let mut b = flight(with_sack());
    let out = b.inject(seg(ACK, 1, 1).sack(&[(at(1), at(10))]));
    assert_eq!(retransmitted(&out), [(1, MSS)]);
}

// Blocks that cannot be are ignored.
#[test]
fn impossible_blocks() {
    let mut b = flight(with_sack());
    for block in [(at(3), at(2)), (at(5), at(40)), (at(20), at(30)), (0, 0)] {
        b.inject(seg(ACK, 1, 1).sack(&[block]));
    }
    assert!(b.tcb().sacked.is_empty());
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
}

// RFC 6298 5.4 to 5.6; RFC 5681 3.1: one segment, half the flight as threshold.
#[test]
fn timeout() {
    let mut b = flight(plain());
    let sent = b.wait(10 * S);
    let times: Vec<u64> = sent.iter().map(|(t, _)| t / (100 * MS)).collect();
    // 300 ms after the flight (100 ms, and the floor of 200), then twice that, …
    assert_eq!(times, [2, 8, 20, 44, 92]);
    assert!(sent.iter().all(|(_, s)| s.brief() == (ACK, 1, 1, MSS)));
    assert_eq!(b.tcb().cc.cwnd, MSS);
    assert_eq!(b.tcb().cc.ssthresh, 5 * MSS);
    // Slow start again, from what is missing.
    let out = b.inject(seg(ACK, 1, at(1)));
    assert_eq!(retransmitted(&out), [(at(1), MSS), (at(2), MSS)]);
}

// RFC 2018 8: after a timeout what was selectively acknowledged is still believed, unless the
// peer's behaviour shows that it forgot.
#[test]
fn timeout_with_sack_skips_what_arrived() {
    let mut b = flight(with_sack());
    b.inject(seg(ACK, 1, 1).sack(&[(at(1), at(2))]));
    b.wait(2 * S);
    let out = b.inject(seg(ACK, 1, at(2)));
    assert_eq!(retransmitted(&out).first(), Some(&(at(2), MSS)));
}

// RFC 8985 7.2, 7.3: two round-trip times after the flight, before any timeout, the last segment
// is sent again, if there is nothing new.
#[test]
fn tail_probe() {
    let mut b = Bench::established(with_sack());
    assert_eq!(b.write(u64::from(10 * MSS)).len(), 10);
    let sent = b.wait(280 * MS);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0 / MS, 202);
    assert_eq!(sent[0].1.brief().1, at(9));
    // Its answer shows that everything below is lost: it left long before.
    b.now += 50 * MS;
    let out = b.inject(seg(ACK, 1, 1).sack(&[(at(9), at(10))]));
    assert_eq!(retransmitted(&out).first(), Some(&(1, MSS)));
    assert_eq!(b.tcb().recovery.phase(), Phase::Recovery);
    assert_eq!(b.tcb().recovery.reordering, 0);
    assert_eq!(b.tcb().counters.timeouts, 0);
}

// RFC 8985 7.3: new data is the better probe, whatever the congestion window says.
#[test]
fn tail_probe_with_new_data() {
    let mut b = flight(with_sack());
    let sent = b.wait(230 * MS);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.brief().1, at(10));
    // RFC 8985 7.1: one probe only; then the timeout, which counts from the probe.
    assert_eq!(b.wait(200 * MS).len(), 0);
    assert_eq!(b.wait(200 * MS).len(), 1);
    assert_eq!(b.tcb().counters.timeouts, 1);
}

// RFC 6675 has no answer to the loss of a retransmission but the timeout; what was sent after it
// and arrives shows it earlier.
#[test]
fn lost_retransmission() {
    let mut b = flight(with_sack());
    let out = b.inject(seg(ACK, 1, 1).sack(&[(at(1), at(10))]));
    assert_eq!(retransmitted(&out), [(1, MSS)]);
    let mut end = 10 + (out.len() as u32 - 1);
    let mut again = vec![];
    for _ in 0..20 {
        b.now += 50 * MS;
        let out = b.inject(seg(ACK, 1, 1).sack(&[(at(1), at(end))]));
        again.extend(retransmitted(&out));
        end = b.tcb().flight() as u32 / MSS;
    }
    assert_eq!(again.first(), Some(&(1, MSS)));
}

// RFC 6298 3 (Karn): the acknowledgement of a retransmission is no measurement.
#[test]
fn no_measurement_of_retransmissions() {
    let mut b = Bench::established(plain());
    let before = b.tcb().rtt.samples;
    b.write(100);
    b.wait(400 * MS);
    b.inject(seg(ACK, 1, 101));
    assert_eq!(b.tcb().rtt.samples, before);
    b.write(100);
    b.now += 70 * MS;
    b.inject(seg(ACK, 1, 201));
    assert_eq!(b.tcb().rtt.latest, 70 * MS);
}

// A successor probes for what may not have left.
#[test]
fn restart_in_flight() {
    let mut b = flight(with_sack());
    b.restart();
    let sent = b.wait(150 * MS);
    assert_eq!(sent[0].1.seq, at(9));
}

fn stamped() -> (Bench, u32, u32) {
    let mut b = Bench::established(tcpd::engine::Config {
        timestamps: true,
        ..with_sack()
    });
    let out = b.write(40_000);
    let stamp = out[0].options.timestamps.unwrap().tsval;
    b.now += 50 * MS;
    (b, stamp, out[0].len)
}

// RFC 3522, RFC 4015: the original arrived, so it was reordering and not loss.
#[test]
fn fast_retransmit_is_taken_back() {
    let (mut b, stamp, mss) = stamped();
    let cwnd = b.tcb().cc.cwnd;
    let sack = [(1 + mss, 1 + 6 * mss)];
    let out = b.inject(seg(ACK, 1, 1).sack(&sack).stamp(2, stamp));
    assert_eq!(out[0].seq, 1);
    assert_eq!(b.tcb().recovery.phase(), Phase::Recovery);
    b.now += MS;
    b.inject(seg(ACK, 1, 1 + 6 * mss).stamp(2, stamp));
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
    assert!(b.tcb().cc.cwnd >= cwnd);
    // So much is expected from now on.
    assert_eq!(b.tcb().recovery.threshold(), 7);
}

// The retransmission arrived: it was loss.
#[test]
fn fast_retransmit_stands() {
    let (mut b, stamp, mss) = stamped();
    let sack = [(1 + mss, 1 + 6 * mss)];
    let out = b.inject(seg(ACK, 1, 1).sack(&sack).stamp(2, stamp));
    let again = out[0].options.timestamps.unwrap().tsval;
    b.now += MS;
    b.inject(seg(ACK, 1, 1 + 6 * mss).stamp(2, again));
    assert_eq!(b.tcb().recovery.phase(), Phase::Recovery);
    assert_eq!(b.tcb().recovery.reordering, 0);
}

// A delay spike: the timeout was not needed, and nothing else is sent again.
#[test]
fn timeout_is_taken_back() {
    let (mut b, stamp, mss) = stamped();
    let cwnd = b.tcb().cc.cwnd;
    b.wait(2 * S);
    assert_eq!(b.tcb().recovery.phase(), Phase::Loss);
    let out = b.inject(seg(ACK, 1, 1 + mss).stamp(2, stamp));
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
    assert!(b.tcb().cc.cwnd >= cwnd);
    assert!(out.iter().all(|s| s.seq > 10 * mss));
}

/// A recovery: of ten segments the first is lost, its retransmission arrives.
fn recovery(b: &mut Bench) {
    let una = 1 + b.tcb().acked_upto() as u32;
    b.write(u64::from(10 * MSS));
    b.now += 100 * MS;
    let nxt = una + b.tcb().flight() as u32;
    b.inject(seg(ACK, 1, una).sack(&[(una + MSS, nxt)]));
    // A small window has less than three segments above the hole: time has to pass.
    b.wait(60 * MS);
    assert_eq!(b.tcb().recovery.phase(), Phase::Recovery);
    // Whatever the window holds back still goes, and is acknowledged.
    while b.tcb().flight() > 0 {
        b.now += 40 * MS;
        let nxt = 1 + b.tcb().acked_upto() as u32 + b.tcb().flight() as u32;
        b.inject(seg(ACK, 1, nxt));
    }
    assert_eq!(b.tcb().recovery.phase(), Phase::Open);
}

// RFC 8985 6.2 step 4: a D-SACK widens the window for reordering, and sixteen recoveries without
// one make it narrow again.
#[test]
fn the_reordering_window_is_wide_for_sixteen_recoveries() {
    let mut b = Bench::established(with_sack());
    recovery(&mut b);
    let una = 1 + b.tcb().acked_upto() as u32;
    // The retransmission was not needed after all.
    b.inject(seg(ACK, 1, una).sack(&[(una - 10 * MSS, una - 9 * MSS)]));
    let rack = |b: &Bench| (b.tcb().recovery.rack.mult, b.tcb().recovery.rack.persist);
    assert_eq!(rack(&b), (2, 16));
    for left in (1..16).rev() {
        recovery(&mut b);
        assert_eq!(rack(&b), (2, left));
    }
    recovery(&mut b);
    assert_eq!(rack(&b), (1, 0));
}
