//! Congestion control over a bottleneck, in virtual time: how much of the link a flow gets, how
//! long it makes the queue, how flows share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test: whatever fails shall fail loudly"
)]

mod path;

use path::{Link, MBIT_100, MS, Path, SECOND};
use tcpd::engine::congestion::Algorithm::{self, Bbr, Cubic, NewReno};

/// Payload that the link carries at the most, of what headers leave.
const USEFUL: f64 = 1448.0 / 1514.0;

fn link(rate: u64, rtt: u64, queue_bdp: f64, loss: f64) -> Link {
    let rtt = rtt * MS;
    let bdp = rate as f64 * rtt as f64 / SECOND as f64;
    Link {
        rate,
        queue: (bdp * queue_bdp) as u64,
        rtt,
        loss,
    }
}

/// Share of the link that one flow gets in `time`.
fn share(algorithm: Algorithm, link: Link, time: u64, seed: u64) -> f64 {
    let mut path = Path::new(link, &[algorithm], seed);
    path.run(time);
    let worst = path.worst_queue() / MS;
    let possible = link.rate as f64 * USEFUL * (time as f64 / SECOND as f64);
    let got = path.outcome(0).bytes as f64 / possible;
    eprintln!(
        "{algorithm:?} {} Mbit/s, {} ms, queue {} kB, loss {}: {got:.3}; dropped {}, timeouts {}, retrans {}, worst {} ms",
        link.rate / 125_000,
        link.rtt / MS,
        link.queue / 1_000,
        link.loss,
        path.dropped,
        path.tcb(0).counters.timeouts,
        path.tcb(0).counters.retrans,
        worst,
    );
    got
}

/// Jain's index of what flows get in `time`, after a while; and the share of the link.
fn fairness(flows: &[Algorithm], link: Link, settle: u64, time: u64) -> (f64, Vec<f64>) {
    let mut path = Path::new(link, flows, 5);
    path.run(settle);
    let before: Vec<u64> = (0..flows.len()).map(|n| path.outcome(n).bytes).collect();
    path.run(time);
    let possible = link.rate as f64 * USEFUL * (time as f64 / SECOND as f64);
    let got: Vec<f64> = (0..flows.len())
        .map(|n| (path.outcome(n).bytes - before[n]) as f64 / possible)
        .collect();
    let sum: f64 = got.iter().sum();
    let squares: f64 = got.iter().map(|x| x * x).sum();
    let jain = sum * sum / (flows.len() as f64 * squares);
    eprintln!("{flows:?}: {got:.3?}, Jain {jain:.3}");
    (jain, got)
}

#[test]
fn cubic_fills_links() {
    for (rate, rtt) in [(MBIT_100, 10), (MBIT_100, 50), (10 * MBIT_100, 20)] {
        let got = share(Cubic, link(rate, rtt, 1.0, 0.0), 5 * SECOND, 1);
        assert!(got > 0.9, "{got}");
    }
}

#[test]
fn two_cubics_share() {
    let (jain, got) = fairness(
        &[Cubic, Cubic],
        link(MBIT_100, 20, 1.0, 0.0),
        5 * SECOND,
        20 * SECOND,
    );
    assert!(jain > 0.9, "{jain}");
    assert!(got.iter().sum::<f64>() > 0.9);
}

#[test]
fn cubic_leaves_room_for_newreno() {
    let (jain, got) = fairness(
        &[Cubic, NewReno],
        link(MBIT_100 / 2, 20, 1.0, 0.0),
        5 * SECOND,
        20 * SECOND,
    );
    assert!(jain > 0.7, "{jain}");
    assert!(got.iter().sum::<f64>() > 0.9);
}

#[test]
fn bbr_fills_links_with_little_queue() {
    for (rate, rtt) in [(MBIT_100, 10), (MBIT_100, 50)] {
        let link = link(rate, rtt, 5.0, 0.0);
        let mut path = Path::new(link, &[Bbr], 1);
        path.run(3 * SECOND);
        path.worst_queue();
        let before = path.outcome(0).bytes;
        path.run(5 * SECOND);
        let got = (path.outcome(0).bytes - before) as f64 / (link.rate as f64 * USEFUL * 5.0);
        let queue = path.worst_queue();
        eprintln!(
            "bbr {rtt} ms: {got:.3} of the link, queue {} ms",
            queue / MS
        );
        assert!((0.9..=1.01).contains(&got), "{got}");
        assert!(queue < 2 * link.rtt, "{queue}");
    }
}

// Chance losses are no congestion: what a loss-based window would give away.
#[test]
fn bbr_bears_random_loss() {
    for rtt in [10, 50] {
        for seed in 3..6 {
            let got = share(Bbr, link(MBIT_100, rtt, 1.0, 0.01), 20 * SECOND, seed);
            assert!(got > 0.9, "{got}");
        }
    }
}

#[test]
fn two_bbrs_share() {
    let (jain, got) = fairness(
        &[Bbr, Bbr],
        link(MBIT_100, 20, 2.0, 0.0),
        12 * SECOND,
        20 * SECOND,
    );
    assert!(jain > 0.9, "{jain}");
    assert!(got.iter().sum::<f64>() > 0.9);
}

// The window, and the model behind it, are in the record.
#[test]
fn a_killed_sender_goes_on_as_fast() {
    for algorithm in [Cubic, Bbr, NewReno] {
        let link = link(MBIT_100, 20, 1.0, 0.0);
        let mut path = Path::new(link, &[algorithm], 2);
        path.run(3 * SECOND);
        let before = path.tcb(0).cc;
        path.kill(0);
        let after = path.tcb(0).cc;
        assert_eq!(
            (before.cwnd, before.ssthresh, before.area),
            (after.cwnd, after.ssthresh, after.area)
        );
        assert_eq!(before.pacing_rate, after.pacing_rate);
        let bytes = path.outcome(0).bytes;
        path.run(2 * SECOND);
        let got = (path.outcome(0).bytes - bytes) as f64 / (link.rate as f64 * USEFUL * 2.0);
        eprintln!("{algorithm:?} killed: {got:.3}");
        assert!(got > 0.85, "{algorithm:?} {got}");
    }
}
