use super::*;
use crate::engine::congestion::Algorithm;
use crate::engine::rate::{RateSample, bytes_in};

const MSS: u32 = 1_000;
const MS: Nanos = 1_000_000;
const RTT: Nanos = 20 * MS;
/// 20 MB/s.
const RATE: u64 = 20_000_000;

/// A path that delivers what is in flight at most at `RATE`: a round for each step.
struct Flow {
    cc: Congestion,
    now: Nanos,
    delivered: u64,
    rtt: Nanos,
}

impl Flow {
    fn new() -> Self {
        let mut cc = Congestion::default();
        cc.start(MSS, 10);
        cc.choose(Algorithm::Bbr);
        Self {
            cc,
            now: 1_000 * MS,
            delivered: 1,
            rtt: RTT,
        }
    }

    fn model(&mut self) -> Model {
        *model(&mut self.cc)
    }

    /// A window's flight, acknowledged at once. `rate`: what the path makes of it.
    fn round(&mut self, rate: u64, phase: Phase, lost: u32) -> bool {
        let prior = self.delivered;
        let window = u64::from(self.cc.cwnd);
        let rate = rate.min(window * 1_000_000_000 / self.rtt);
        let acked = bytes_in(rate, self.rtt);
        self.now += self.rtt;
        self.delivered += acked;
        let sample = Sample {
            now: self.now,
            rate: RateSample {
                rate,
                prior_delivered: Some(prior),
                app_limited: false,
                delivered: self.delivered,
            },
            acked: u32::try_from(acked).unwrap(),
            lost,
            in_flight: (self.cc.cwnd, self.cc.cwnd / 8),
            rtt: Some(self.rtt),
            srtt: self.rtt,
            mss: MSS,
            phase,
        };
        Bbr.on_sample(&mut self.cc, &sample)
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            self.round(RATE, Phase::Open, 0);
        }
        assert_eq!(self.model().mode(), Mode::ProbeBw);
    }
}

// Draft 4.3.2: each round twice as much, until three rounds bring nothing.
#[test]
fn startup_ends_when_the_rate_does_not_grow() {
    let mut f = Flow::new();
    let mut rounds = 0;
    while !f.model().has(flag::FULL) {
        f.round(RATE, Phase::Open, 0);
        rounds += 1;
        assert!(rounds < 20);
    }
    // log2(400,000 / 10,000) rounds, and three more.
    assert!((8..=10).contains(&rounds), "{rounds}");
    assert!(f.cc.pacing_rate < RATE, "draining");
}

// Draft 4.2.3.2, 4.2.1: twice the product, and the pace around the estimate.
#[test]
fn the_model_gives_window_and_pace() {
    let mut f = Flow::new();
    f.settle();
    let bdp = bytes_in(RATE, RTT) as u32;
    assert!((2 * bdp..4 * bdp).contains(&f.cc.cwnd), "{}", f.cc.cwnd);
    let mut paces = std::collections::BTreeSet::new();
    for _ in 0..32 {
        f.round(RATE, Phase::Open, 0);
        paces.insert(f.cc.pacing_rate * 100 / RATE);
    }
    // 1.25, 0.75 and 1, less a percent.
    assert!(paces.iter().all(|p| [123, 74, 99].contains(p)), "{paces:?}");
    assert!(paces.contains(&123) && paces.contains(&99), "{paces:?}");
}

// Draft 4.3.5: ten seconds without a new minimum.
#[test]
fn the_round_trip_time_is_looked_for() {
    let mut f = Flow::new();
    f.settle();
    f.rtt = RTT + 5 * MS;
    let cwnd = f.cc.cwnd;
    let mut quiet = 0;
    for _ in 0..(10_500 / 25) {
        if f.round(RATE, Phase::Open, 0) {
            quiet += 1;
            assert!(f.cc.cwnd <= 4 * MSS);
        }
    }
    // 200 ms, and what it takes to get there.
    assert!((7..=10).contains(&quiet), "{quiet}");
    assert_eq!(f.model().mode(), Mode::ProbeBw);
    assert_eq!(f.model().min_rtt, RTT + 5 * MS);
    assert!(f.cc.cwnd >= cwnd / 2);
}

// Draft 4.2.3.4: one round of conservation, then as before; a timeout begins with one segment.
#[test]
fn losses_leave_the_model_alone() {
    let mut f = Flow::new();
    f.settle();
    let (cwnd, rate) = (f.cc.cwnd, f.model().bw.max());
    Bbr.on_loss(&mut f.cc, f.now, cwnd, MSS);
    f.round(RATE, Phase::Recovery, 50 * MSS);
    assert!(f.cc.cwnd < cwnd);
    f.round(RATE, Phase::Open, 0);
    assert!(f.cc.cwnd >= cwnd * 9 / 10);
    assert_eq!(f.model().bw.max(), rate);
    Bbr.on_loss(&mut f.cc, f.now, cwnd, MSS);
    Bbr.on_timeout(&mut f.cc, f.now);
    f.cc.cwnd = MSS;
    f.round(RATE, Phase::Loss, 0);
    assert!(f.cc.cwnd < cwnd / 4);
    f.round(RATE, Phase::Open, 0);
    assert!(f.cc.cwnd >= cwnd * 9 / 10);
}
