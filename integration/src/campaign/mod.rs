//! A campaign: faults of every kind against every process, thousands of them, under the mix; and
//! what became of each.

mod fault;
mod leaks;
mod picture;
mod report;

pub use fault::{Fault, Kind, Target, schedule};
pub use report::Report;

use crate::mix::{Amounts, Mix};
use anyhow::{Context, Result, bail};
use fault::Injector;
use std::time::{Duration, Instant};
use strata::admin::DaemonState;
use strata::lab::{Lab, LabConfig};

/// Faults under one mix; then its streams end, every byte is compared, what leaked is looked for,
/// and a new constellation begins.
const ROUND: usize = 60;

/// How long everything may take to go on after a fault.
const RECOVERY: Duration = Duration::from_secs(30);

/// What a campaign is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of the order of faults and their moments.
    pub seed: u64,
    /// `SIGKILL`s for each daemon; the other faults are in proportion.
    pub kills: usize,
    /// Idle connections beside the traffic.
    pub idle: usize,
}

/// Runs it; `tell` is told after each fault.
///
/// # Errors
/// When no constellation can be started. What goes wrong afterwards is part of the report.
pub fn run(plan: &Plan, mut tell: impl FnMut(usize, usize, &Report)) -> Result<Report> {
    let faults = schedule(plan.seed, plan.kills);
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut report = Report::new(plan);
    let mut done = 0;
    for round in faults.chunks(ROUND) {
        if let Err(error) = run_round(plan, round, &mut random, &mut report, |report| {
            done += 1;
            tell(done, faults.len(), report);
        }) {
            report.wrong(format!("{error:#}"));
        }
    }
    Ok(report)
}

fn run_round(
    plan: &Plan,
    faults: &[Fault],
    random: &mut fastrand::Rng,
    report: &mut Report,
    mut tell: impl FnMut(&Report),
) -> Result<()> {
    let injector = Injector::new()?;
    let lab = Lab::start(&LabConfig {
        environment: injector.environment(),
        // Deaths come faster here than any machine's; and what is closed is to be gone soon.
        extra: "[restart]\nat-once = 100000\ngive-up = 0\n[tcp]\ntime-wait = \"1s\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let before = leaks::Baseline::of(&lab)?;
    let amounts = Amounts {
        idle: plan.idle,
        ..Amounts::default()
    };
    let mix = Mix::start(&lab, &amounts)?;
    mix.wait_progress(3, RECOVERY)?;
    let mut failed = None;
    for &fault in faults {
        // At an arbitrary moment of the traffic; and a gap of its own.
        std::thread::sleep(Duration::from_micros(random.u64(5_000..30_000)));
        mix.silence().take();
        let begin = Instant::now();
        let recovered = injector
            .inject(&lab, fault, random)
            .and_then(|()| settle(&lab, &mix));
        let gap = mix.silence().take();
        report.note(fault, gap.min(begin.elapsed()), recovered.is_ok());
        tell(report);
        if let Err(error) = recovered {
            failed = Some(error.context(fault.to_string()));
            break;
        }
    }
    let ended = mix.finish();
    match (failed, ended) {
        (None, Ok(_)) => {}
        (failed, ended) => {
            let texts = [failed, ended.err()].into_iter().flatten();
            let text: Vec<_> = texts.map(|error| format!("{error:#}")).collect();
            let places = text.iter().map(|text| text.lines().count()).sum();
            report.broke(places);
            bail!("{}\n{}", text.join("\n"), lab.log());
        }
    }
    if let Err(error) = before.compare(&lab) {
        report.leaked(format!("{error:#}"));
    }
    Ok(())
}

/// Waits until every layer runs and everything goes on.
fn settle(lab: &Lab, mix: &Mix) -> Result<()> {
    let begin = Instant::now();
    loop {
        let status = lab.status().context("the supervisor")?;
        let all = status.daemons.iter();
        if status.keeper.is_some() && all.clone().all(|d| d.state == DaemonState::Running) {
            break;
        }
        if begin.elapsed() > RECOVERY {
            bail!("not every layer is back");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    mix.wait_progress(2, RECOVERY)?;
    mix.check_levels(RECOVERY)
}
