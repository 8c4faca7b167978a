//! `strata bench`: the same work through the stack and through the kernel's own, in one run.
//!
//! ```text
//!   stack    application on libsocket - tcpd - ipd - netdevd - TAP  - kernel - peer
//!   kernel   application on std::net  - kernel (namespace B)   - veth - kernel - peer
//! ```
//!
//! Absolute figures drift from minute to minute, so both take turns in short rounds, and what
//! counts is the ratio of each pair of rounds; the median of those is printed. The peer is the
//! same code on the same kernel both times.

mod cpu;
mod load;
mod report;
mod rounds;
mod sides;

use crate::demo::{clean_up_on_signals, wait_if_interrupted};
use crate::lab::{Lab, LabConfig};
use crate::netns;
use anyhow::{Context, Result};
use clap::Args;
use cpu::Placement;
use report::{Report, Row};
use rounds::{Outcome, Work};
use sides::{Side, kernel_side, stack_side};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `strata bench`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Measure each row for so many seconds on either side
    #[arg(long, default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Parallel connections in the bulk rows
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub streams: u16,
    /// Keep the application on the core of the stack's processes and the peer on another
    #[arg(long)]
    pub pin: bool,
    /// Leave nothing to the stack's device: complete checksums, frames no longer than the MTU
    #[arg(long)]
    pub no_offload: bool,
}

/// Length of one side's turn.
const ROUND: Duration = Duration::from_millis(500);

/// `strata bench`. Call it before the process has a second thread.
///
/// # Errors
/// What could not be set up, or the row that failed.
pub fn run(json: bool, arguments: &Arguments) -> Result<ExitCode> {
    netns::enter_private().context("the benchmark needs a namespace")?;
    clean_up_on_signals()?;
    match measure(json, arguments) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            wait_if_interrupted();
            Err(error)
        }
    }
}

fn measure(json: bool, arguments: &Arguments) -> Result<()> {
    let lab = Lab::start(&LabConfig {
        offload: !arguments.no_offload,
        ..LabConfig::default()
    })
    .context("the constellation could not be started")?;
    let placement = Arc::new(Placement::new(arguments.pin)?);
    let kernel = kernel_side().context("cannot make the kernel's own pair")?;
    let stack = stack_side(&lab)?;
    let mut report = Report::new(&lab, &kernel, arguments)?;
    if !json {
        print!("{}", report.conditions());
    }
    let pairs = (arguments.seconds * 2).max(1);
    for work in Work::all(usize::from(arguments.streams)) {
        for row in compare(work, pairs, [&stack, &kernel], &placement)
            .with_context(|| format!("{work}{}", crate::demo::log_tail(&lab)))?
        {
            report.rows.push(row);
        }
    }
    drop(stack);
    lab.stop()?;
    if json {
        return crate::commands::table::print_json(&report);
    }
    println!("{}", report.render());
    Ok(())
}

/// Both sides in turn, `pairs` times.
fn compare(
    work: Work,
    pairs: u32,
    sides: [&Side; 2],
    placement: &Arc<Placement>,
) -> Result<Vec<Row>> {
    let mut outcomes: Vec<[Outcome; 2]> = Vec::new();
    for pair in 1..=pairs {
        let [stack, kernel] = sides;
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{work}: {pair} of {pairs} ");
        }
        let stack = rounds::run(work, stack, placement, ROUND).context("through the stack")?;
        let kernel = rounds::run(work, kernel, placement, ROUND).context("through the kernel")?;
        outcomes.push([stack, kernel]);
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    Ok(Row::of(work, &outcomes))
}
