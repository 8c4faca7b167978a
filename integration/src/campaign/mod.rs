//! A campaign: faults of every kind against every process, thousands of them, under the mix; and
//! what became of each.

mod fault;
mod leaks;
mod picture;
mod report;
mod round;
mod scribble;
mod supervisor;

pub use fault::{Fault, Kind, Target, schedule};
pub use leaks::Baseline;
pub use report::Report;
pub use scribble::Memory;

use anyhow::Result;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Faults under one mix; then its streams end, every byte is compared, what leaked is looked for,
/// and a new constellation begins.
const ROUND: usize = 60;

/// Every so many rounds of a mixed campaign have another constellation as peer.
const MIXED: usize = 6;

/// Who is at the other end of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The Linux kernel.
    Kernel,
    /// Another constellation, which is faulted as well, one time in three.
    Constellation,
}

impl Peer {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Constellation => "constellation",
        }
    }
}

/// What a campaign is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the order of faults and their moments.
    pub seed: u64,
    /// `SIGKILL`s for each daemon; the other faults are in proportion.
    pub kills: usize,
    /// Idle connections beside the traffic.
    pub idle: usize,
    /// The peer; none: mostly the kernel, now and then a constellation.
    pub peer: Option<Peer>,
    /// Congestion control of the kernel where it is the other end.
    pub congestion: String,
    /// Which of how many parts of the campaign, from 0: each has other rounds.
    pub part: (usize, usize),
    /// Only faults whose description begins so: `SIGKILL of tcpd`, `random word`.
    pub only: String,
    /// When to end although it is not over.
    pub until: Option<Instant>,
    /// Set: end after the fault in hand.
    pub stop: Arc<AtomicBool>,
}

impl Plan {
    /// Whether it is to end before its time.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.until.is_some_and(|end| Instant::now() >= end)
    }

    fn peer(&self, round: usize) -> Peer {
        let mixed = if round % MIXED == MIXED - 1 {
            Peer::Constellation
        } else {
            Peer::Kernel
        };
        self.peer.unwrap_or(mixed)
    }
}

/// Runs it; `tell` is told after each fault: how many, of how many, and the report so far.
///
/// # Errors
/// When no constellation can be started. What goes wrong afterwards is part of the report.
pub fn run(plan: &Plan, mut tell: impl FnMut(usize, usize, &Report)) -> Result<Report> {
    let (part, parts) = plan.part;
    let rounds: Vec<_> = select(plan)
        .into_iter()
        .enumerate()
        .filter(|(number, _)| number % parts.max(1) == part)
        .collect();
    let all = rounds.iter().map(|(_, faults)| faults.len()).sum();
    let mut random = fastrand::Rng::with_seed(plan.seed ^ part as u64);
    let mut report = Report::new(plan);
    let mut done = 0;
    for (number, faults) in rounds {
        let mut left = &*faults;
        while !left.is_empty() && !plan.is_over() {
            let world = round::World {
                plan,
                peer: plan.peer(number),
            };
            let before = done;
            let ended = world.run(left, &mut random, &mut report, |report| {
                done += 1;
                tell(done, all, report);
            });
            if let Err(error) = ended {
                report.wrong(format!("{error:#}"));
            }
            // A round of scribbles ends with the first connection that is lost; others whenever
            // something went wrong, and what was left of them is left out.
            let is_scribbles = faults.iter().any(|fault| fault.kind == Kind::Scribble);
            let step = if is_scribbles {
                (done - before).max(1)
            } else {
                left.len()
            };
            left = left.get(step..).unwrap_or_default();
        }
    }
    if done < all {
        report.interrupted(all);
    }
    Ok(report)
}

/// The rounds of the faults that are asked for. What a choice leaves of many rounds is put together
/// into few: a round begins with thousands of connections.
fn select(plan: &Plan) -> Vec<Vec<Fault>> {
    let rounds = schedule(plan.seed, plan.kills, ROUND);
    if plan.only.is_empty() {
        return rounds;
    }
    let chosen = rounds.into_iter().map(|mut faults| {
        faults.retain(|fault| fault.to_string().starts_with(&plan.only));
        faults
    });
    // Rounds of scribbles are for themselves.
    let is_scribbles = |faults: &Vec<Fault>| faults.iter().any(|f| f.kind == Kind::Scribble);
    let (scribbles, others): (Vec<_>, Vec<_>) = chosen
        .filter(|faults| !faults.is_empty())
        .partition(is_scribbles);
    let others = others.concat();
    let mut rounds: Vec<_> = others.chunks(ROUND).map(<[_]>::to_vec).collect();
    rounds.extend(scribbles);
    rounds
}

/// How long everything may take to go on after a fault.
const RECOVERY: Duration = Duration::from_secs(30);
