use super::*;

const MSS: u32 = 1_000;
const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;

/// A sender that fills its window over a path of `rtt`, acknowledged every second segment.
struct Flow {
    cc: Congestion,
    now: Nanos,
    rtt: Nanos,
}

impl Flow {
    fn new(segments: u32, rtt: Nanos) -> Self {
        let mut cc = Congestion::default();
        cc.choose(super::super::Algorithm::Cubic);
        cc.cwnd = segments * MSS;
        cc.ssthresh = cc.cwnd;
        cc.cwnd_limited = 1;
        Self {
            cc,
            now: SECOND,
            rtt,
        }
    }

    fn ack(&mut self, acked: u32, may_grow: bool) {
        let event = AckEvent {
            now: self.now,
            acked,
            rtt: Some(self.rtt),
            srtt: self.rtt,
            mss: MSS,
            in_flight: self.cc.cwnd,
            una: 1,
            nxt: 1,
            may_grow,
        };
        Cubic.on_ack(&mut self.cc, &event);
    }

    /// For `time`, whole windows.
    fn run(&mut self, time: Nanos) {
        let end = self.now + time;
        while self.now < end {
            let acks = (self.cc.cwnd / (2 * MSS)).max(1);
            for _ in 0..acks {
                self.ack(2 * MSS, true);
                self.now += self.rtt / u64::from(acks);
            }
        }
    }

    fn lose(&mut self) {
        let cwnd = self.cc.cwnd;
        self.cc.ssthresh = Cubic.on_loss(&mut self.cc, self.now, cwnd, MSS);
        self.cc.cwnd = self.cc.ssthresh;
        Cubic.on_recovered(&mut self.cc, self.now);
    }

    fn segments(&self) -> f64 {
        f64::from(self.cc.cwnd) / f64::from(MSS)
    }
}

// RFC 9438 4.2, 4.4, 4.5: the window follows W_cubic(t).
#[test]
fn the_window_follows_the_curve() {
    let mut f = Flow::new(2_000, 100 * MS);
    f.lose();
    assert!((f.segments() - 1_400.0).abs() < 1.0);
    let k = (600.0f64 / 0.4).cbrt();
    let start = f.now;
    for _ in 0..30 {
        f.run(SECOND / 2);
        let t = (f.now - start) as f64 / 1e9;
        let expect = 0.4 * (t - k).powi(3) + 2_000.0;
        let got = f.segments();
        assert!((got / expect - 1.0).abs() < 0.01, "{t}: {got} {expect}");
    }
    // Past K the window is larger than it ever was.
    assert!(f.segments() > 2_000.0);
}

// RFC 9438 4.3: on short paths CUBIC is no slower than NewReno with the same decrease.
#[test]
fn the_friendly_region_is_as_fast_as_newreno() {
    let rtt = 5 * MS;
    let mut f = Flow::new(40, rtt);
    f.lose();
    let rounds = 15;
    f.run(rounds * rtt);
    let expect = 28.0 + 9.0 / 17.0 * rounds as f64;
    assert!((f.segments() - expect).abs() < 1.0, "{}", f.segments());
    // From the old window on one segment for each round (alpha is 1).
    let mut f = Flow::new(40, rtt);
    f.lose();
    f.run(30 * rtt);
    let from = f.segments();
    assert!(from > 40.0);
    f.run(10 * rtt);
    let grown = f.segments() - from;
    assert!((8.0..=11.0).contains(&grown), "{grown}");
}

// RFC 9438 4.7.
#[test]
fn fast_convergence_gives_room() {
    let mut f = Flow::new(1_000, 50 * MS);
    f.lose();
    assert_eq!(area(&mut f.cc).curve.w_max, 1_000_000);
    // Lost again at 700 before it got to 1000.
    f.lose();
    assert_eq!(area(&mut f.cc).curve.w_max, 595_000);
    assert_eq!(f.cc.cwnd, 490_000);
}

// RFC 9438 4.8.
#[test]
fn after_a_timeout_the_curve_begins_flat() {
    let mut f = Flow::new(1_000, 50 * MS);
    f.cc.ssthresh = Cubic.on_loss(&mut f.cc, f.now, 1_000_000, MSS);
    Cubic.on_timeout(&mut f.cc, f.now);
    f.cc.cwnd = MSS;
    assert_eq!(f.cc.ssthresh, 700_000);
    while f.cc.in_slow_start() {
        f.ack(2 * MSS, true);
    }
    f.run(100 * MS);
    let curve = area(&mut f.cc).curve;
    assert_eq!(curve.k, 0);
    assert!((700_000..703_000).contains(&curve.w_max));
}

// RFC 9438 4.9.
#[test]
fn a_spurious_loss_leaves_no_trace() {
    let mut f = Flow::new(1_000, 50 * MS);
    f.lose();
    f.run(2 * SECOND);
    let (cwnd, before) = (f.cc.cwnd, area(&mut f.cc).curve);
    f.cc.ssthresh = Cubic.on_loss(&mut f.cc, f.now, cwnd, MSS);
    Cubic.on_timeout(&mut f.cc, f.now);
    f.now += 300 * MS;
    Cubic.on_undo(&mut f.cc, f.now);
    f.cc.cwnd = cwnd;
    let after = area(&mut f.cc).curve;
    assert_eq!((after.w_max, after.k), (before.w_max, before.k));
    let t = |c: &Curve| c.updated_at - c.epoch;
    assert_eq!(t(&after), t(&before));
}

// RFC 9438 5.8 and 4.2: neither idle time nor time in which the window is not used moves along
// the curve.
#[test]
fn unused_time_does_not_count() {
    let mut f = Flow::new(1_000, 50 * MS);
    f.lose();
    f.run(SECOND);
    let cwnd = f.cc.cwnd;
    f.now += 60 * SECOND;
    Cubic.on_idle(&mut f.cc, f.now);
    f.ack(2 * MSS, true);
    assert!(f.cc.cwnd < cwnd + 4 * MSS, "{} {cwnd}", f.cc.cwnd);
    for _ in 0..200 {
        f.now += 100 * MS;
        f.ack(2 * MSS, false);
    }
    f.ack(2 * MSS, true);
    assert!(f.cc.cwnd < cwnd + 8 * MSS);
}

// RFC 9438 4.6: a window that was not filled is not the measure, nor is what happened to be left
// of a burst.
#[test]
fn the_reduction_is_from_what_was_used() {
    let mut f = Flow::new(1_000, 50 * MS);
    f.cc.cwnd_limited = 0;
    f.cc.max_in_flight = 100 * MSS;
    assert_eq!(Cubic.on_loss(&mut f.cc, f.now, 5 * MSS, MSS), 70 * MSS);
}

// RFC 3465: what is acknowledged counts, not how often.
#[test]
fn many_small_acknowledgements_are_worth_no_more() {
    let run = |piece: u32| {
        let mut f = Flow::new(100, 20 * MS);
        f.lose();
        for _ in 0..200 {
            let mut left = f.cc.cwnd;
            while left > 0 {
                let acked = piece.min(left);
                f.ack(acked, true);
                left -= acked;
            }
            f.now += f.rtt;
        }
        f64::from(f.cc.cwnd)
    };
    let (whole, tiny) = (run(64_000), run(100));
    assert!((tiny / whole - 1.0).abs() < 0.05, "{tiny} {whole}");
}
