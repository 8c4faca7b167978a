//! Many seeds, on all cores; and what is said when one fails.
//!
//! `SIM_SEED=n` runs that seed alone, with the whole trace. `SIM_LONG=n` runs n times as many.
//! `SIM_TRACE=1` has the whole trace of whatever fails in the report, and with a seed that of a run
//! that succeeds. `SIM_REDUCE=1` looks which of a failing plan's features are needed for it to fail.

use crate::plan::{FEATURES, Plan};
use crate::world::World;
use abi::Nanos;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

thread_local! {
    /// Panics of this thread are expected and not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: Cell<Option<String>> = const { Cell::new(None) };
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Panics of runs are kept for the report.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                LAST.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs a plan: how long it took in virtual time, or what went wrong, and the world as it was.
fn attempt(plan: &Plan, full_trace: bool) -> Result<Nanos, (String, Option<Box<World>>)> {
    hook();
    QUIET.set(true);
    let mut world = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.insert(Box::new(World::new(plan, full_trace))).run()
    }));
    QUIET.set(false);
    outcome.map_err(|_| (LAST.take().unwrap_or_default(), world))
}

/// The whole trace of a run that succeeds.
fn show(plan: &Plan) {
    let mut world = World::new(plan, true);
    world.run();
    eprintln!("{}\n{}", world.trace.text(), world.state());
}

/// Runs one plan, which must succeed.
pub(crate) fn run(name: &str, plan: &Plan) -> Nanos {
    let full = number("SIM_SEED").is_some();
    match attempt(plan, full) {
        Ok(time) => {
            if full && number("SIM_TRACE").is_some() {
                show(plan);
            }
            time
        }
        Err((what, world)) => {
            let report = report(name, plan, &what, world.as_deref());
            panic!("{report}");
        }
    }
}

fn report(name: &str, plan: &Plan, what: &str, world: Option<&World>) -> String {
    let mut text = format!("seed {} of {name}: {what}\n\n{plan:?}\n\n", plan.seed);
    if let Some(world) = world {
        text += &format!("{}\n{}", world.trace.text(), world.state());
    }
    if number("SIM_REDUCE").is_some() {
        text += &reduce(plan);
    }
    let seed = plan.seed;
    text + &format!(
        "\nagain, with the whole trace: SIM_SEED={seed} cargo test -p tcpd --test sim {name}\n\
         which parts of the plan matter: the same with SIM_REDUCE=1\n"
    )
}

/// Takes features out of a failing plan as long as it goes on failing.
fn reduce(plan: &Plan) -> String {
    let mut plan = plan.clone();
    let mut needed = Vec::new();
    for &(name, remove) in FEATURES {
        let mut simpler = plan.clone();
        remove(&mut simpler);
        if format!("{simpler:?}") == format!("{plan:?}") {
            continue;
        }
        if attempt(&simpler, false).is_err() {
            plan = simpler;
        } else {
            needed.push(name);
        }
    }
    let mut text = format!("\nneeded: {}\n{plan:?}\n", needed.join(", "));
    if let Err((what, Some(world))) = attempt(&plan, false) {
        text += &format!("{what}\n{}\n{}", world.trace.text(), world.state());
    }
    text
}

/// Runs the plans of a range of seeds. `SIM_SEED` and `SIM_LONG` change which; in the long form
/// all failures are counted and the first ones told.
pub(crate) fn seeds(name: &str, range: core::ops::Range<u64>, draw: impl Fn(u64) -> Plan + Sync) {
    if let Some(seed) = number("SIM_SEED") {
        run(name, &draw(seed));
        return;
    }
    let times = number("SIM_LONG").unwrap_or(1).max(1);
    let more = range.end..range.start + (range.end - range.start) * times;
    // The long form goes on beyond the short one's seeds, in a space of its own.
    let all: Vec<u64> = range.chain(more.map(|seed| seed << 20)).collect();
    let full = number("SIM_TRACE").is_some();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..if times > 1 { cores } else { 1 } {
            scope.spawn(|| {
                while let Some(&seed) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let plan = draw(seed);
                    if let Err((what, world)) = attempt(&plan, full) {
                        let report = report(name, &plan, &what, world.as_deref());
                        failed.lock().unwrap().push((seed, what, report));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    if times > 1 {
        eprintln!("{name}: {} seeds, {} failed", all.len(), failed.len());
    }
    let Some((_, _, report)) = failed.first() else {
        return;
    };
    let mut others = String::new();
    for (seed, what, _) in &failed {
        others += &format!("seed {seed}: {}\n", what.replace('\n', " "));
    }
    panic!(
        "{report}\n{} of {} failed:\n{others}",
        failed.len(),
        all.len()
    );
}
