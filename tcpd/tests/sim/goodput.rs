//! How fast, in virtual time: a bulk transfer must come near what the link or, under random
//! loss, the square-root law of congestion avoidance (Mathis et al. 1997) allows.

use crate::link::Impairment;
use crate::world::{Plan, World};
use abi::Nanos;

/// Bytes a second of a one-way bulk transfer over the link.
fn goodput(impairment: Impairment, bytes: u64, seed: u64) -> f64 {
    let plan = Plan {
        seed,
        impairment,
        connections: 1,
        bytes,
        buffers: (1 << 20, 1 << 20),
        kill: [0.0, 0.0],
        simultaneous: false,
        options: true,
        max_gso: 65_000,
        budget: 1_000,
        slow: 0.0,
        bulk: true,
        app_pause: 100_000,
    };
    let time: Nanos = World::new(&plan).run();
    bytes as f64 / (time as f64 / 1e9)
}

fn link(delay_ms: u64, rate: u64, queue: u64, loss: f64, reorder: f64) -> Impairment {
    Impairment {
        loss,
        duplicate: 0.0,
        reorder,
        delay: delay_ms * 1_000_000,
        jitter: 0,
        rate,
        queue,
    }
}

#[test]
fn a_link_is_filled() {
    for (delay, rate, queue) in [(1, 12_500_000, 100_000), (10, 12_500_000, 300_000)] {
        let got = goodput(link(delay, rate, queue, 0.0, 0.0), 10_000_000, 1);
        let share = got / rate as f64;
        eprintln!("{delay} ms, {rate} B/s: {share:.2} of the rate");
        assert!(share > 0.8, "{share}");
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
                link(delay, 50_000_000, 10_000_000, loss, 0.0),
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
    let got = goodput(link(5, rate, 400_000, 0.0, 0.02), 10_000_000, 3);
    let share = got / rate as f64;
    eprintln!("2 % reordered: {share:.2} of the rate");
    assert!(share > 0.5, "{share}");
}
