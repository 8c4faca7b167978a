//! `strata compare`: TCP of the stack and of the kernel over the same bad links, in one run.
//!
//! ```text
//!   cells     which links, which way
//!   world     who takes part: the stack, a kernel, the kernel that is the peer of both
//!   transfer  one connection over one path, compared byte by byte, measured
//!   table     pairs of transfers and their ratios
//!   fair      one of ours and one of the kernel's through one bottleneck
//!   page, plot  what is written about it
//! ```
//!
//! Both meet the same model of the link with the same seeds ([`crate::link`]), and the peer is
//! the same kernel. What counts is the ratio within a pair of transfers.

mod cells;
mod fair;
mod info;
mod page;
mod plot;
mod stream;
mod table;
mod transfer;
mod world;

use crate::demo::{clean_up_on_signals, log_tail, wait_if_interrupted};
use crate::netns;
use anyhow::{Context, Result, bail};
use cells::{Cell, Way};
use clap::{Args, ValueHint};
use page::Results;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use table::Row;
use transfer::{Outcome, Plan};
use world::{Host, World};

/// Arguments of `strata compare`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// A few cells, about a minute, and an error when ours is far below the kernel's in one
    #[arg(long, conflicts_with_all = ["page", "only"])]
    pub short: bool,
    /// Only the cells whose name contains this, shared bottlenecks too
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Seconds of a transfer
    #[arg(long, default_value_t = 6, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Pairs of transfers in each cell; twice as many where they can go at once, and up to four
    /// times as many while their ratios differ by more than a tenth
    #[arg(long, default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=64))]
    pub pairs: u64,
    /// Seconds of a transfer through a shared bottleneck; 0 for none
    #[arg(long, default_value_t = 40, value_name = "N",
          value_parser = clap::value_parser!(u64).range(..=600))]
    pub shared: u64,
    /// Congestion control of every socket
    #[arg(long, default_value = "cubic", value_name = "NAME")]
    pub congestion: String,
    /// Write RESULTS.md and results/*.svg in this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub page: Option<PathBuf>,
}

impl Arguments {
    fn wants(&self, cell: &Cell) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|text| cell.to_string().contains(text.as_str()))
    }
}

/// Below this, a cell of the short form fails: what no noise explains.
const FLOOR: f64 = 0.5;
/// The same of a short queue. The kernel answers within the link's own thread; our processes have
/// to be scheduled, and on a busy machine their acknowledgements come in bunches, which make the
/// sender overrun such a queue (seen: 0.15 and 1.00 within a minute at a load of 14).
const FLOOR_OF_SHORT_QUEUE: f64 = 0.05;
/// Seconds of a transfer of the short form, and pairs, which go at once.
const SHORT: (u64, u64) = (4, 2);
/// Between two points of a curve.
const SAMPLING: Duration = Duration::from_millis(20);

/// `strata compare`. Call it before the process has a second thread.
///
/// # Errors
/// What could not be set up, or the transfer that failed.
pub fn run(json: bool, arguments: &Arguments) -> Result<ExitCode> {
    netns::enter_private().context("the comparison needs a namespace")?;
    clean_up_on_signals()?;
    match compare(json, arguments) {
        Ok(code) => Ok(code),
        Err(error) => {
            wait_if_interrupted();
            Err(error)
        }
    }
}

fn compare(json: bool, arguments: &Arguments) -> Result<ExitCode> {
    let world = World::new(&arguments.congestion)?;
    let rows = goodput(&world, arguments, json)?;
    let mut shares = Vec::new();
    let shared: Vec<Cell> = Cell::shared()
        .into_iter()
        .filter(|cell| arguments.wants(cell))
        .collect();
    if !arguments.short && arguments.shared > 0 {
        let time = Duration::from_secs(arguments.shared);
        shares = fair::measure(&world, &shared, arguments.pairs, time, |share| {
            if !json {
                println!("{}", share.line());
            }
        })
        .with_context(|| format!("sharing{}", log_tail(&world.lab)))?;
    }
    if let Some(directory) = &arguments.page {
        let mut curves = Vec::new();
        for cell in Cell::curves() {
            curves.push((cell, curve(&world, cell, arguments.seconds)?));
        }
        let results = Results {
            congestion: &arguments.congestion,
            seconds: arguments.seconds,
            rows: &rows,
            fair_seconds: arguments.shared,
            shares: &shares,
            curves: &curves,
        };
        page::write(directory, &results)?;
    }
    world.link.stop()?;
    world.lab.stop()?;
    if json {
        let told: Vec<_> = rows.iter().map(Row::told).collect();
        crate::commands::table::print_json(&told)?;
    }
    let low = rows.iter().find(|row| {
        let floor = match row.cell.queue {
            Some(_) => FLOOR_OF_SHORT_QUEUE,
            None => FLOOR,
        };
        row.ratio().median < floor
    });
    if let Some(row) = low.filter(|_| arguments.short) {
        bail!("far below the kernel: {}", row.line());
    }
    Ok(ExitCode::SUCCESS)
}

fn goodput(world: &World, arguments: &Arguments, json: bool) -> Result<Vec<Row>> {
    let (cells, seconds, pairs) = if arguments.short {
        (Cell::short(), SHORT.0, SHORT.1)
    } else {
        (Cell::all(), arguments.seconds, arguments.pairs)
    };
    let time = Duration::from_secs(seconds);
    let mut rows = Vec::new();
    for cell in cells.iter().filter(|cell| arguments.wants(cell)) {
        for way in [Way::Sends, Way::Receives] {
            let row = Row::measure(world, cell, way, pairs, time, !arguments.short)
                .with_context(|| format!("{cell}, ours {way}{}", log_tail(&world.lab)))?;
            if !json {
                println!("{}", row.line());
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

/// A pair of transfers that is looked at often.
fn curve(world: &World, cell: Cell, seconds: u64) -> Result<[Outcome; 2]> {
    let one = |host: Host| {
        let plan = Plan {
            host,
            way: page::CURVES,
            cell,
            path: transfer::path(world, &cell, page::CURVES, 1),
            seed: 1,
            time: Duration::from_secs(seconds),
            sampling: Some(SAMPLING),
            heals: true,
        };
        transfer::run(world, &plan).with_context(|| format!("a curve of {cell}"))
    };
    Ok([one(Host::Stack)?, one(Host::Kernel)?])
}
