//! The engine on a virtual clock: against itself and against smoltcp's TCP, over links that lose,
//! duplicate, reorder, delay and limit, with either engine killed and restored from its committed
//! records at random points. Every byte is compared, every run has to end, invariants are checked
//! at every commit. A failure names its seed: `SIM_SEED=n cargo test -p tcpd --test sim` runs
//! that one alone.

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

mod app;
mod goodput;
mod host;
mod invariants;
mod link;
mod smol;
mod world;

use link::Impairment;
use world::{Plan, World};

/// Seeds to run: one from the environment (`SIM_SEED`), or the range, `SIM_LONG` times as many.
fn seeds(range: core::ops::Range<u64>) -> Vec<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("SIM_SEED") {
        return vec![seed];
    }
    let times = number("SIM_LONG").unwrap_or(1);
    let more = range.end..range.start + (range.end - range.start) * times;
    // The long form goes on beyond the short one's seeds, in a space of its own.
    range.chain(more.map(|seed| seed << 20)).collect()
}

fn run(plan: &Plan) {
    let seed = plan.seed;
    let outcome = std::panic::catch_unwind(|| World::new(plan).run());
    if let Err(panic) = outcome {
        eprintln!("failed: {plan:#?}\nagain with SIM_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn clean_link() {
    for seed in seeds(0..20) {
        run(&Plan {
            impairment: Impairment::none(),
            ..Plan::random(seed)
        });
    }
}

#[test]
fn impaired_links() {
    for seed in seeds(1_000..1_150) {
        run(&Plan::random(seed));
    }
}

#[test]
fn killed_and_restored() {
    for seed in seeds(2_000..2_150) {
        run(&Plan {
            kill: [0.02, 0.02],
            ..Plan::random(seed)
        });
    }
}

#[test]
fn killed_often_on_a_clean_link() {
    for seed in seeds(3_000..3_040) {
        run(&Plan {
            kill: [0.2, 0.1],
            impairment: Impairment::none(),
            ..Plan::random(seed)
        });
    }
}

#[test]
fn simultaneous_opens() {
    for seed in seeds(4_000..4_040) {
        run(&Plan {
            simultaneous: true,
            connections: 1,
            ..Plan::random(seed)
        });
    }
}

#[test]
fn many_connections_at_once() {
    for seed in seeds(5_000..5_004) {
        run(&Plan {
            connections: 60,
            bytes: 5_000,
            kill: [0.01, 0.01],
            ..Plan::random(seed)
        });
    }
}

#[test]
fn without_options() {
    for seed in seeds(6_000..6_040) {
        run(&Plan {
            options: false,
            kill: [0.01, 0.0],
            ..Plan::random(seed)
        });
    }
}

#[test]
fn against_smoltcp() {
    for seed in seeds(7_000..7_060) {
        smol::run(seed);
    }
}
