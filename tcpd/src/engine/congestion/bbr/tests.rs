use super::model::Model;
use super::*;
use crate::engine::congestion::Algorithm;
use crate::engine::congestion::bbr::model::{AckPhase, NO_BOUND};
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
    app_limited: bool,
    cwnd_limited: bool,
    /// In flight after the acknowledgement, if not an eighth.
    left: Option<u32>,
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
            app_limited: false,
            cwnd_limited: false,
            left: None,
        }
    }

    fn model(&mut self) -> Model {
        *model(&mut self.cc)
    }

    fn state(&mut self) -> State {
        self.model().state()
    }

    /// A window's flight, acknowledged at once. `rate`: what the path makes of it; `lost`: bytes
    /// of it that are gone.
    fn round(&mut self, rate: u64, phase: Phase, lost: u32) -> bool {
        let prior = self.delivered;
        let window = u64::from(self.cc.cwnd);
        let rate = rate.min(window * 1_000_000_000 / self.rtt);
        let rate = rate.min(self.cc.pacing_rate.max(RATE / 100));
        let acked = bytes_in(rate, self.rtt);
        self.now += self.rtt;
        self.delivered += acked;
        let in_flight = u32::try_from(acked).unwrap() + lost;
        let sample = Sample {
            now: self.now,
            rate: RateSample {
                rate,
                prior_delivered: Some(prior),
                app_limited: self.app_limited,
                delivered: self.delivered,
                in_flight,
                lost: u64::from(lost),
            },
            acked: u32::try_from(acked).unwrap(),
            lost,
            in_flight: (self.cc.cwnd, self.left.unwrap_or(in_flight / 8)),
            rtt: Some(self.rtt),
            srtt: self.rtt,
            mss: MSS,
            phase,
            cwnd_limited: self.cwnd_limited,
            sack: true,
        };
        Bbr.on_sample(&mut self.cc, &sample)
    }

    fn lose(&mut self, len: u32, in_flight: u32, lost: u32) {
        let loss = Loss {
            len,
            in_flight,
            lost,
            app_limited: false,
            apart: true,
        };
        Bbr.on_lost(&mut self.cc, self.now, &loss);
    }

    fn run_to(&mut self, state: State) {
        for _ in 0..1_000 {
            if self.state() == state {
                return;
            }
            self.round(RATE, Phase::Open, 0);
        }
        panic!("never in {state:?}");
    }
}

// Draft 5.3.1.2: each round twice as much, until three rounds bring nothing; then it drains.
#[test]
fn startup_ends_when_the_rate_does_not_grow() {
    let mut f = Flow::new();
    let mut rounds = 0;
    while f.state() == State::Startup {
        f.round(RATE, Phase::Open, 0);
        rounds += 1;
        assert!(rounds < 25);
    }
    assert!((8..=14).contains(&rounds), "{rounds}");
    assert_eq!(f.model().inflight_longterm, NO_BOUND);
    f.run_to(State::Cruise);
    assert!(f.model().max_bw() >= RATE * 98 / 100);
}

// Draft 5.3.1.2: an application that is slower than the path ends no Startup.
#[test]
fn an_application_that_is_slow_does_not_end_startup() {
    let mut f = Flow::new();
    f.app_limited = true;
    for _ in 0..50 {
        f.round(RATE, Phase::Open, 0);
    }
    assert_eq!(f.state(), State::Startup);
}

// Draft 5.3.1.3: six ranges and more than two percent of a round, in recovery; and taken back if
// it was a mistake (5.5.11.2).
#[test]
fn startup_ends_with_losses() {
    let mut f = Flow::new();
    for _ in 0..4 {
        f.round(RATE, Phase::Open, 0);
    }
    let cwnd = f.cc.cwnd;
    Bbr.on_loss(&mut f.cc, f.now, cwnd, MSS);
    for n in 1..=5 {
        f.lose(8 * MSS, cwnd, n * 8 * MSS);
    }
    f.round(RATE, Phase::Recovery, 40 * MSS);
    assert_eq!(f.state(), State::Startup, "five are not six");
    for n in 1..=6 {
        f.lose(8 * MSS, cwnd, n * 8 * MSS);
    }
    f.round(RATE, Phase::Recovery, 48 * MSS);
    assert_ne!(f.state(), State::Startup);
    let m = f.model();
    assert!(m.has(flag::FULL_BW_REACHED));
    assert!((10 * MSS..NO_BOUND).contains(&m.inflight_longterm));
    Bbr.on_undo(&mut f.cc, f.now);
    assert_eq!(f.state(), State::Startup);
    assert_eq!(f.model().inflight_longterm, NO_BOUND);
    assert!(!f.model().has(flag::FULL_BW_REACHED));
}

// Draft 5.6.1: the gains of each state, less a percent.
#[test]
fn the_model_gives_window_and_pace() {
    let mut f = Flow::new();
    f.run_to(State::Cruise);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..400 {
        f.round(RATE, Phase::Open, 0);
        let m = f.model();
        let bdp = bytes_in(m.bw, RTT) as u32;
        assert!(f.cc.cwnd <= bdp * 9 / 4 + m.extra_acked() + 3 * 65_000);
        seen.insert(m.state, f.cc.pacing_rate * 100 / m.bw);
    }
    let want = [
        (State::Down, 88..90),
        (State::Cruise, 98..100),
        (State::Refill, 98..100),
        (State::Up, 123..125),
    ];
    for (state, range) in want {
        assert!(range.contains(&seen[&(state as u32)]), "{state:?} {seen:?}");
    }
}

// Draft 5.5.10.2: a probe that loses more than two percent went too high; the bound is what was
// in flight when losses crossed the threshold, and not below 0.7 of the product.
#[test]
fn a_probe_that_loses_sets_the_bound() {
    let mut f = Flow::new();
    f.run_to(State::Up);
    let bdp = bytes_in(RATE, RTT) as u32;
    Bbr.on_loss(&mut f.cc, f.now, bdp, MSS);
    f.lose(MSS, bdp, MSS);
    assert_eq!(f.state(), State::Up, "one segment is no two percent");
    // A unit of 40 segments, the last of `bdp`: 2 percent of what left before it are 7.2.
    f.lose(40 * MSS, bdp, 40 * MSS);
    assert_eq!(f.state(), State::Down);
    let m = f.model();
    let before = bdp - 40 * MSS;
    let allowed = before * 2 / 100 * 100 / 98;
    assert!(
        m.inflight_longterm.abs_diff(before + allowed) <= 1,
        "{}",
        m.inflight_longterm
    );
    assert!(m.has(flag::PREV_PROBE_TOO_HIGH));
    // It was a mistake: it probes again, without the bound.
    Bbr.on_undo(&mut f.cc, f.now);
    assert_eq!(f.state(), State::Refill);
    assert_eq!(f.model().inflight_longterm, NO_BOUND);
}

// Draft 5.3.3.4.2: the probe after one that went too high ends at the bound; if that was safe,
// another follows at once.
#[test]
fn the_next_probe_is_cautious() {
    let mut f = Flow::new();
    f.run_to(State::Up);
    let bdp = bytes_in(RATE, RTT) as u32;
    f.lose(40 * MSS, bdp, 40 * MSS);
    f.round(RATE, Phase::Open, 0);
    f.run_to(State::Up);
    assert!(f.model().has(flag::PREV_PROBE_TOO_HIGH));
    f.left = Some(2 * bdp);
    f.round(RATE, Phase::Open, 0);
    f.left = None;
    assert_eq!(f.state(), State::Down);
    assert!(f.model().has(flag::PREV_PROBE_PRECAUTIONARY));
    f.round(RATE, Phase::Open, 0);
    assert_eq!(f.state(), State::Refill);
}

// Draft 5.3.3.4.1: the bound grows by 1, 2, 4 ... segments a round while it is what limits.
#[test]
fn the_bound_grows_faster_and_faster() {
    let mut f = Flow::new();
    f.run_to(State::Up);
    f.cwnd_limited = true;
    model(&mut f.cc).inflight_longterm = 300 * MSS;
    model(&mut f.cc).set(flag::PREV_PROBE_TOO_HIGH, false);
    let mut growth = Vec::new();
    for _ in 0..6 {
        let before = f.model().inflight_longterm;
        model(&mut f.cc).cwnd = before;
        f.cc.cwnd = before;
        model(&mut f.cc).reset_full_bw(0);
        f.round(RATE / 2, Phase::Open, 0);
        assert_eq!(f.state(), State::Up);
        growth.push((f.model().inflight_longterm - before) / MSS);
    }
    assert!(growth.windows(2).all(|w| w[0] <= w[1]), "{growth:?}");
    assert!(growth[5] >= 8, "{growth:?}");
}

// Draft 5.5.10.3: while it does not probe, a round with losses lowers the short-term bounds to
// what was delivered, 0.7 at the least; the next Refill forgets them.
#[test]
fn losses_while_cruising_are_answered_for_a_cycle() {
    let mut f = Flow::new();
    f.run_to(State::Cruise);
    let max = f.model().max_bw();
    let cwnd = f.cc.cwnd;
    Bbr.on_loss(&mut f.cc, f.now, cwnd, MSS);
    // The first round still has what was delivered in the one before.
    for _ in 0..2 {
        f.lose(MSS, 0, MSS);
        f.round(RATE / 4, Phase::Recovery, MSS);
    }
    let m = f.model();
    assert!(
        (max * 69 / 100..max * 99 / 100).contains(&m.bw_shortterm),
        "{}",
        m.bw_shortterm
    );
    assert!(m.inflight_shortterm < NO_BOUND);
    assert_eq!(m.max_bw(), max);
    f.run_to(State::Refill);
    assert_eq!(f.model().bw_shortterm, u64::MAX);
    assert_eq!(f.model().inflight_shortterm, NO_BOUND);
}

// Draft 3.7: marks count as congestion.
#[test]
fn marks_are_answered() {
    let mut f = Flow::new();
    for _ in 0..4 {
        f.round(RATE, Phase::Open, 0);
    }
    let cwnd = f.cc.cwnd;
    Bbr.on_ecn(&mut f.cc, f.now, cwnd, MSS);
    f.round(RATE, Phase::Open, 0);
    assert_ne!(f.state(), State::Startup);
    let mut f = Flow::new();
    f.run_to(State::Up);
    Bbr.on_ecn(&mut f.cc, f.now, 400 * MSS, MSS);
    assert_eq!(f.state(), State::Down);
    assert!(f.model().inflight_longterm < NO_BOUND);
    let mut f = Flow::new();
    f.run_to(State::Cruise);
    Bbr.on_ecn(&mut f.cc, f.now, 400 * MSS, MSS);
    f.round(RATE, Phase::Open, 0);
    f.round(RATE, Phase::Open, 0);
    assert!(f.model().bw_shortterm <= f.model().max_bw());
}

// Draft 5.3.4: five seconds without a new minimum; half the product in flight, then back.
#[test]
fn the_round_trip_time_is_looked_for() {
    let mut f = Flow::new();
    f.run_to(State::Cruise);
    f.rtt = RTT + 5 * MS;
    let cwnd = f.cc.cwnd;
    let mut quiet = 0;
    for _ in 0..(5_300 / 25) {
        if f.round(RATE, Phase::Open, 0) {
            quiet += 1;
            assert!(f.cc.cwnd <= bytes_in(RATE, f.rtt) as u32 * 6 / 10);
        }
    }
    // 200 ms, and what it takes to get there.
    assert!((7..=10).contains(&quiet), "{quiet}");
    assert_eq!(f.state(), State::Cruise);
    assert!(f.cc.cwnd >= cwnd / 2);
    // The minimum itself is believed for ten seconds.
    assert_eq!(f.model().min_rtt, RTT);
    for _ in 0..(5_300 / 25) {
        f.round(RATE, Phase::Open, 0);
    }
    assert_eq!(f.model().min_rtt, RTT + 5 * MS);
}

// Draft 5.4.1: after a pause data leaves at the estimated rate, and the pause was as good as
// ProbeRtt.
#[test]
fn a_pause_does_not_cost_the_estimate() {
    let mut f = Flow::new();
    f.run_to(State::Up);
    assert!(f.cc.pacing_rate > RATE);
    f.now += 20_000 * MS;
    Bbr.on_idle(&mut f.cc, f.now);
    assert!((RATE * 97 / 100..=RATE).contains(&f.cc.pacing_rate));
    f.round(RATE, Phase::Open, 0);
    assert_ne!(f.state(), State::ProbeRtt);
    assert!(!f.model().has(flag::IDLE_RESTART));
}

// Draft 5.5.6: the filter holds this cycle and the one before.
#[test]
fn the_largest_rate_is_forgotten_after_two_cycles() {
    let mut f = Flow::new();
    f.run_to(State::Cruise);
    let mut cycles = 0;
    let mut last = State::Cruise;
    for _ in 0..1_000 {
        f.round(RATE / 2, Phase::Open, 0);
        let state = f.state();
        cycles += u32::from(state == State::Down && last != State::Down);
        last = state;
        if f.model().max_bw() <= RATE / 2 {
            break;
        }
    }
    assert!((1..=2).contains(&cycles), "{cycles}");
    assert!(!f.model().is_phase(AckPhase::ProbeFeedback));
}

// Draft 5.6.4.4: a timeout begins with one segment, and the window from before comes back.
#[test]
fn a_timeout_is_recovered_from() {
    let mut f = Flow::new();
    f.run_to(State::Cruise);
    let cwnd = f.cc.cwnd;
    Bbr.on_loss(&mut f.cc, f.now, cwnd, MSS);
    Bbr.on_timeout(&mut f.cc, f.now);
    f.cc.cwnd = MSS;
    f.round(RATE, Phase::Loss, 0);
    assert!(f.cc.cwnd < cwnd / 4);
    f.round(RATE, Phase::Open, 0);
    assert!(f.cc.cwnd >= cwnd * 7 / 10, "{} {cwnd}", f.cc.cwnd);
}
