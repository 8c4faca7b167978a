//! How fast, in virtual time: a bulk transfer must come near what the link or, under random
//! loss, the square-root law of congestion avoidance (Mathis et al. 1997) allows.

use crate::campaign;
use crate::link::{Impairment, Loss};
use crate::plan::{AppPlan, Far, HostPlan, Plan};
use tcpd::engine::congestion::Algorithm;

/// Bytes a second of a one-way bulk transfer over the link.
fn goodput(
    name: &str,
    congestion: Algorithm,
    impairment: &Impairment,
    bytes: u64,
    seed: u64,
) -> f64 {
    let host = HostPlan {
        kill: 0.0,
        max_gso: 65_000,
        gro: false,
        buffers: (1 << 20, 1 << 20),
        timestamps: true,
        sack: true,
        scaling: true,
        budget: 1_000,
        ecn: abi::config::EcnMode::Passive,
        mtu_probing: abi::config::MtuProbing::Blackhole,
        congestion,
        syn_backlog: 1_024,
        fast_open: false,
        pressure: 0,
    };
    let plan = Plan {
        seed,
        far: Far::Engine,
        v6: false,
        paths: [impairment.clone(), impairment.clone()],
        boxes: Default::default(),
        hosts: [host, host],
        apps: AppPlan {
            bytes,
            bulk: true,
            exchange: false,
            rude: false,
            slow: 0.0,
            pause: 100_000,
            options: false,
            patience: 0,
        },
        connections: 1,
        rounds: 1,
        simultaneous: false,
        wraps: false,
    };
    bytes as f64 / (campaign::run(name, &plan) as f64 / 1e9)
}

fn link(delay_ms: u64, rate: u64, queue: u64, loss: f64, reorder: f64) -> Impairment {
    Impairment {
        loss: if loss == 0.0 {
            Loss::None
        } else {
            Loss::Random(loss)
        },
        reorder,
        delay: delay_ms * 1_000_000,
        rate,
        queue,
        ..Impairment::none()
    }
}

#[test]
fn a_link_is_filled() {
    for (delay, rate, queue) in [(1, 12_500_000, 100_000), (10, 12_500_000, 300_000)] {
        for congestion in [Algorithm::NewReno, Algorithm::Cubic] {
            let link = link(delay, rate, queue, 0.0, 0.0);
            let runs = (1..=5).map(|seed| goodput("a_link", congestion, &link, 10_000_000, seed));
            let got = runs.sum::<f64>() / 5.0;
            let share = got / rate as f64;
            eprintln!("{congestion:?}, {delay} ms, {rate} B/s: {share:.2} of the rate");
            assert!(share > 0.8, "{share}");
        }
    }
}

#[test]
fn random_loss_follows_the_square_root_law() {
    for (delay, loss) in [(5, 0.001), (5, 0.01), (20, 0.01), (5, 0.03)] {
        let rtt = 2e-3 * delay as f64;
        let law = 1448.0 / rtt * (1.5f64 / loss).sqrt();
        let mut sum = 0.0;
        for seed in 0..5 {
            sum += goodput(
                "random_loss",
                Algorithm::NewReno,
                &link(delay, 50_000_000, 10_000_000, loss, 0.0),
                (law * 8.0) as u64,
                seed,
            );
        }
        let share = sum / 5.0 / law;
        eprintln!("{delay} ms, loss {loss}: {share:.2} of the law");
        assert!(share > 0.7, "{share}");
    }
}

#[test]
fn reordering_is_not_taken_for_loss() {
    let rate = 12_500_000;
    let got = goodput(
        "reordering",
        Algorithm::Cubic,
        &link(5, rate, 400_000, 0.0, 0.02),
        10_000_000,
        3,
    );
    let share = got / rate as f64;
    eprintln!("2 % reordered: {share:.2} of the rate");
    assert!(share > 0.5, "{share}");
}
