//! The engine on a virtual clock: against itself, against smoltcp's TCP and against peers with bad
//! manners, over links that lose, duplicate, reorder, delay and limit, through middleboxes that
//! meddle, with either engine killed and restored from its committed records at random points.
//!
//! Every byte is compared, every run has to end and to leave nothing behind, invariants are
//! checked at every commit ([`invariants`]) and on the wire ([`wiretap`]). A failure prints its
//! seed, its plan, the last packets and the records; see [`campaign`] for how to repeat it.
//!
//! ```text
//!   seed -> plan -> world:   host 0 (engine)             host 1 (engine, smoltcp, model)
//!                              app  script                 app  script
//!                                \-> middlebox -> link ----->/
//!                                 \<---- link <- middlebox -/
//! ```

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
mod campaign;
mod goodput;
mod host;
mod invariants;
mod link;
mod mangle;
mod memory;
mod middlebox;
mod packet;
mod peers;
mod plan;
mod regressions;
mod script;
mod trace;
mod wiretap;
mod world;

use campaign::seeds;
use fastrand::Rng;
use link::Impairment;
use peers::Manners;
use plan::{Far, Plan, SECOND};

/// The plan without impairments.
fn clean(plan: Plan) -> Plan {
    Plan {
        paths: [Impairment::none(), Impairment::none()],
        ..plan
    }
}

#[test]
fn clean_link() {
    seeds("clean_link", 0..20, |seed| clean(Plan::random(seed)));
}

#[test]
fn bulk_on_a_clean_link() {
    seeds("bulk_on_a_clean_link", 500..510, |seed| {
        let mut plan = clean(Plan::random(seed));
        plan.apps.bulk = true;
        plan.apps.slow = 0.0;
        plan.apps.exchange = false;
        plan.apps.options = false;
        plan.connections = 1;
        plan
    });
}

#[test]
fn impaired_links() {
    seeds("impaired_links", 1_000..1_060, Plan::random);
}

#[test]
fn troubled_links() {
    seeds("troubled_links", 1_500..1_560, |seed| {
        Plan::random(seed).with_trouble()
    });
}

#[test]
fn killed_and_restored() {
    seeds("killed_and_restored", 2_000..2_060, |seed| {
        Plan::random(seed).with_trouble().with_kills([0.02, 0.02])
    });
}

#[test]
fn killed_often_on_a_clean_link() {
    seeds("killed_often", 3_000..3_030, |seed| {
        clean(Plan::random(seed)).with_kills([0.3, 0.2])
    });
}

#[test]
fn simultaneous_opens() {
    seeds("simultaneous_opens", 4_000..4_030, |seed| Plan {
        simultaneous: true,
        connections: 1,
        ..Plan::random(seed)
    });
}

/// RFC 9293 3.5, with what else links do, and deaths at either end.
#[test]
fn simultaneous_opens_in_trouble() {
    seeds("simultaneous_opens_in_trouble", 4_500..4_530, |seed| {
        let kill = [0.0, 0.05][(seed % 2) as usize];
        let plan = Plan::random(seed).with_trouble().with_icmp();
        Plan {
            simultaneous: true,
            connections: 1,
            ..plan.with_kills([kill, kill])
        }
    });
}

/// RFC 5927, RFC 1122 4.2.3.9: errors that are true end no connection, and forged ones nothing.
#[test]
fn icmp_errors() {
    seeds("icmp_errors", 8_500..8_540, |seed| {
        let kill = [0.0, 0.02][(seed % 2) as usize];
        Plan::random(seed).with_icmp().with_kills([kill, kill])
    });
}

/// RFC 7413.
#[test]
fn fast_open() {
    seeds("fast_open", 9_000..9_040, |seed| {
        let kill = [0.0, 0.02][(seed % 2) as usize];
        Plan::random(seed).with_fast_open().with_kills([kill, kill])
    });
}

#[test]
fn many_connections_at_once() {
    seeds("many_connections_at_once", 5_000..5_003, |seed| {
        let mut plan = Plan::random(seed).with_kills([0.01, 0.01]);
        plan.connections = 60;
        plan.apps.bytes = plan.apps.bytes.min(5_000);
        for path in &mut plan.paths {
            path.rate = path.rate.max(125_000);
        }
        plan
    });
}

#[test]
fn middleboxes() {
    seeds("middleboxes", 6_000..6_060, |seed| {
        let kill = [0.0, 0.01][(seed % 2) as usize];
        Plan::random(seed)
            .with_middleboxes()
            .with_kills([kill, kill])
    });
}

#[test]
fn rude_applications() {
    seeds("rude_applications", 6_500..6_540, |seed| {
        let kill = [0.0, 0.02][(seed % 2) as usize];
        let mut plan = Plan::random(seed).with_kills([kill, kill]);
        plan.apps.rude = true;
        plan.apps.patience = 1_800 * SECOND;
        plan
    });
}

/// The same ports again, with what is left over of earlier connections still about.
#[test]
fn ports_used_again() {
    seeds("ports_used_again", 6_800..6_830, |seed| {
        let mut plan = Plan::random(seed);
        plan.rounds = 3;
        plan.apps.bytes = plan.apps.bytes.min(20_000);
        for meddling in &mut plan.boxes {
            meddling.replay = 0.2;
            meddling.replay_delay = 20 * SECOND;
            meddling.duplicate_syn = 0.3;
        }
        plan
    });
}

#[test]
fn against_smoltcp() {
    seeds("against_smoltcp", 7_000..7_060, |seed| {
        let mut plan = Plan::random(seed).with_kills([[0.0, 0.03][(seed % 2) as usize], 0.0]);
        plan.far = Far::Smoltcp(seed % 4 < 2);
        plan.connections = 1;
        plan.apps.exchange = false;
        plan.apps.bytes = plan.apps.bytes.min(200_000);
        // smoltcp's recovery is slow: keep runs short.
        for path in &mut plan.paths {
            if let link::Loss::Random(p) = &mut path.loss {
                *p = p.min(0.03);
            }
        }
        plan
    });
}

/// smoltcp over bursts, damage, outages, changing MTUs and through middleboxes. It does not look
/// for the path's MTU itself.
#[test]
fn against_smoltcp_in_trouble() {
    seeds("against_smoltcp_in_trouble", 7_500..7_530, |seed| {
        let mut plan = Plan::random(seed).with_trouble().with_middleboxes();
        plan = plan.with_kills([[0.0, 0.03][(seed % 2) as usize], 0.0]);
        plan.far = Far::Smoltcp(seed % 4 < 2);
        plan.connections = 1;
        plan.apps.exchange = false;
        plan.apps.bytes = plan.apps.bytes.min(50_000);
        plan.with_full_mtu_back()
    });
}

#[test]
fn against_smoltcp_through_mangling() {
    seeds("against_smoltcp_through_mangling", 7_700..7_730, |seed| {
        let mut plan = Plan::random(seed).with_mangling();
        plan.far = Far::Smoltcp(seed % 4 < 2);
        plan.connections = 1;
        plan.apps.exchange = false;
        plan.apps.bytes = plan.apps.bytes.min(50_000);
        // smoltcp takes no segment with an option that is malformed.
        plan.boxes[0].mangling.malformed = 0.0;
        plan
    });
}

/// Garbled timestamps, foreign options, moved sequence numbers.
#[test]
fn mangling_middleboxes() {
    seeds("mangling_middleboxes", 6_200..6_240, |seed| {
        let kill = [0.0, 0.02][(seed % 2) as usize];
        let plan = Plan::random(seed).with_mangling();
        plan.with_kills([kill, kill])
    });
}

/// All that links and middleboxes do, together.
#[test]
fn everything_at_once() {
    seeds("everything_at_once", 6_300..6_330, |seed| {
        let kill = [0.0, 0.02][(seed % 2) as usize];
        let plan = Plan::random(seed).with_trouble().with_middleboxes();
        let mut plan = plan.with_mangling().with_kills([kill, kill]);
        plan.apps.bytes = plan.apps.bytes.min(20_000);
        plan
    });
}

/// RFC 1191, RFC 4821: down to 576 bytes, reported or not.
#[test]
fn small_mtus() {
    seeds("small_mtus", 6_400..6_430, |seed| {
        let kill = [0.0, 0.02][(seed % 2) as usize];
        Plan::random(seed).with_small_mtu().with_kills([kill, kill])
    });
}

#[test]
fn against_bad_manners_in_trouble() {
    seeds("against_bad_manners_in_trouble", 8_200..8_242, |seed| {
        let mut rng = Rng::with_seed(seed);
        let manners = Manners::random(&mut rng);
        let opens = manners.must_open() || rng.bool();
        let mut plan = Plan::random(seed).with_trouble().with_middleboxes();
        plan.far = Far::Model(manners, opens);
        plan.connections = 1;
        plan.apps.exchange = false;
        plan.apps.bytes = plan.apps.bytes.min(20_000);
        plan.hosts[0].kill = [0.0, 0.02][rng.usize(..2)];
        if !manners.delivers() {
            plan.apps.patience = 1_500 * SECOND;
        }
        plan.with_full_mtu_back()
    });
}

#[test]
fn against_bad_manners() {
    seeds("against_bad_manners", 8_000..8_084, |seed| {
        let mut rng = Rng::with_seed(seed);
        let manners = Manners::random(&mut rng);
        let opens = manners.must_open() || rng.bool();
        let mut plan = Plan::random(seed);
        plan.far = Far::Model(manners, opens);
        plan.connections = 1;
        plan.apps.exchange = false;
        plan.apps.bytes = plan.apps.bytes.min(60_000);
        plan.hosts[0].kill = [0.0, 0.02][rng.usize(..2)];
        if !manners.delivers() {
            plan.apps.patience = 1_500 * SECOND;
        }
        plan
    });
}
