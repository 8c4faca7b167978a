//! A row of the table: pairs of transfers over one kind of link, one way.

use super::cells::{Cell, Way};
use super::transfer::{self, Outcome, Plan};
use super::world::{Host, World};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::thread;
use std::time::Duration;

/// Mbit/s that all transfers together may take, so that the processor is not the bottleneck.
const BUDGET: f64 = 100.0;
/// Pairs agree when their greatest ratio is at most so many times their least.
const AGREED: f64 = 1.1;
/// So many times the pairs asked for are the most, where they do not agree.
const MOST: u64 = 4;

/// What was measured of a cell, one way.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) cell: Cell,
    pub(super) way: Way,
    /// The stack's and the kernel's, of the same seed.
    pub(super) pairs: Vec<[Outcome; 2]>,
}

/// A row in figures.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    link: String,
    ours: String,
    stack_mbps: Spread,
    kernel_mbps: Spread,
    ratio: Spread,
    pairs: usize,
}

/// Least, middle and greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
        let n = values.len();
        Self {
            min: at(0),
            median: f64::midpoint(at(n.saturating_sub(1) / 2), at(n / 2)),
            max: at(n.saturating_sub(1)),
        }
    }
}

impl Row {
    /// Measures: as many pairs at once as do not hinder each other, else one after the other. Those
    /// at once are the noisier and cost nothing: twice as many. While the pairs' ratios disagree
    /// there are more, if `more`, up to [`MOST`] times as many: where a few timeouts decide, two
    /// pairs say nothing. It counts how far apart they are, never how large: no ratio is favoured.
    pub(super) fn measure(
        world: &World,
        cell: &Cell,
        way: Way,
        pairs: u64,
        time: Duration,
        more: bool,
    ) -> Result<Self> {
        let at_once = cell.at_once(BUDGET);
        let plan = |host: Host, seed: u64| Plan {
            host,
            way,
            cell: *cell,
            path: transfer::path(world, cell, way, seed),
            seed,
            time,
            sampling: None,
            heals: true,
        };
        let mut row = Self {
            cell: *cell,
            way,
            pairs: Vec::new(),
        };
        let step = if at_once > 1 && more {
            pairs * 2
        } else {
            pairs
        };
        let rounds = if more { MOST } else { 1 };
        for round in 0..rounds {
            let seeds: Vec<u64> = (1 + round * step..=(round + 1) * step).collect();
            for chunk in seeds.chunks(at_once) {
                if let [seed] = *chunk {
                    let stack = transfer::run(world, &plan(Host::Stack, seed));
                    let stack = stack.context("the stack's")?;
                    let kernel = transfer::run(world, &plan(Host::Kernel, seed));
                    row.pairs.push([stack, kernel.context("the kernel's")?]);
                } else {
                    let plans = chunk
                        .iter()
                        .map(|seed| [plan(Host::Stack, *seed), plan(Host::Kernel, *seed)]);
                    row.pairs.extend(together(world, plans.collect())?);
                }
            }
            let ratio = row.ratio();
            if ratio.max <= ratio.min * AGREED {
                break;
            }
        }
        Ok(row)
    }

    /// Ours by the kernel's, of each pair.
    pub(super) fn ratio(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|[s, k]| s.mbps / k.mbps.max(1e-9)))
    }

    pub(super) fn mbps(&self, which: usize) -> Spread {
        Spread::of(
            self.pairs
                .iter()
                .filter_map(|p| p.get(which))
                .map(|o| o.mbps),
        )
    }

    /// For programs.
    pub(super) fn told(&self) -> Told {
        Told {
            link: self.cell.to_string(),
            ours: self.way.to_string(),
            stack_mbps: self.mbps(0),
            kernel_mbps: self.mbps(1),
            ratio: self.ratio(),
            pairs: self.pairs.len(),
        }
    }

    /// For the terminal.
    pub(super) fn line(&self) -> String {
        let (ratio, ours, theirs) = (self.ratio(), self.mbps(0), self.mbps(1));
        let told = |which: usize| {
            let outcomes = self.pairs.iter().filter_map(|pair| pair.get(which));
            let (mut resent, mut rto, mut lost, mut overflow) = (0, 0, 0, 0);
            for o in outcomes {
                resent += o.info.retransmitted;
                rto += u32::from(o.info.timeouts);
                lost += o.traffic.faults.lost;
                overflow += o.traffic.faults.overflow;
            }
            format!("resent {resent} rto {rto} lost {lost}+{overflow}")
        };
        format!(
            "{:45} {:8} {:7.2} {:7.2}  ratio {:.2} ({:.2} to {:.2})  {} | {}",
            self.cell.to_string(),
            self.way.to_string(),
            ours.median,
            theirs.median,
            ratio.median,
            ratio.min,
            ratio.max,
            told(0),
            told(1)
        )
    }
}

/// Carries out pairs of plans at the same time.
fn together(world: &World, plans: Vec<[Plan; 2]>) -> Result<Vec<[Outcome; 2]>> {
    thread::scope(|scope| {
        let jobs: Vec<_> = plans
            .into_iter()
            .map(|pair| pair.map(|plan| scope.spawn(move || transfer::run(world, &plan))))
            .collect();
        let mut done = Vec::new();
        for pair in jobs {
            let [stack, kernel] = pair.map(|job| {
                let result = job.join().map_err(|_| anyhow!("a transfer panicked"));
                result.and_then(|outcome| outcome)
            });
            done.push([
                stack.context("the stack's")?,
                kernel.context("the kernel's")?,
            ]);
        }
        Ok(done)
    })
}
