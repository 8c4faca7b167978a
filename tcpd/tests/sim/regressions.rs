//! What once failed, by name: the bug, and the seed that found it.

use crate::campaign::run;
use crate::peers::Manners;
use crate::plan::{Far, Plan, SECOND};

/// A reordered segment acknowledged more, but its sequence number was older than that of the last
/// window update: the old window at the new place reached beyond what the peer had offered.
#[test]
fn an_older_segment_that_acknowledges_more_updates_the_window() {
    run("regression", &Plan::random(1_037));
    run("regression", &Plan::random(3_005).with_kills([0.3, 0.2]));
}

/// The SYN,ACK of a simultaneous open: its window was scaled.
#[test]
fn the_window_of_a_simultaneous_open_is_not_scaled() {
    for seed in [4_251_975_680, 4_286_578_688] {
        let plan = Plan::random(seed);
        run(
            "regression",
            &Plan {
                simultaneous: true,
                connections: 1,
                ..plan
            },
        );
    }
}

/// An orphan with data left, and a peer that answers every probe and never opens its window.
#[test]
fn an_orphan_does_not_wait_for_a_window_for_ever() {
    let mut plan = Plan::random(8_010);
    plan.far = Far::Model(Manners::ZeroForever, false);
    plan.connections = 1;
    plan.apps.exchange = false;
    plan.apps.bytes = 50_000;
    plan.apps.patience = 1_500 * SECOND;
    let time = run("regression", &plan);
    assert!(time < 3_600 * SECOND, "it took {} s", time / SECOND);
}

/// A path of 582 bytes that does not say so, and a segment of 941: smaller than the first size that
/// is tried when a black hole is suspected, so that nothing was tried.
#[test]
fn a_black_hole_for_segments_that_are_not_full_is_found() {
    run("regression", &Plan::random(6_414).with_small_mtu());
}
