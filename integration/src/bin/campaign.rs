//! `cargo campaign --seed N --kills K`: faults of every kind against every process under traffic.

use anyhow::{Context, Result};
use clap::Parser;
use integration::campaign::{Plan, Report, run};
use integration::mix::become_crowd_if_asked;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use strata::lab::become_strata_if_asked;
use strata::netns;

/// Kill, hang and wreck the layers of a constellation under traffic, and say what became of it.
#[derive(Debug, Parser)]
#[command(name = "cargo campaign", max_term_width = 100)]
struct Arguments {
    /// Order and moments of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// SIGKILLs for each layer; the other faults are in proportion
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Idle connections beside the traffic
    #[arg(long, default_value_t = 20)]
    idle: usize,
    /// Write the table (FILE.md) and a picture (FILE.svg)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = become_strata_if_asked().or_else(become_crowd_if_asked) {
        return code;
    }
    let arguments = Arguments::parse();
    // Before there are threads.
    if let Err(error) = netns::enter_private() {
        eprintln!("cannot run here: {error:#}");
        return ExitCode::from(2);
    }
    match campaign(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn campaign(arguments: &Arguments) -> Result<bool> {
    let plan = Plan {
        seed: arguments.seed,
        kills: arguments.kills,
        idle: arguments.idle,
    };
    let begin = Instant::now();
    let report = run(&plan, |done, all, report| {
        if done % 100 == 0 || done == all {
            let bad = report.failures().len();
            eprintln!(
                "{done} of {all} faults, {bad} rounds with failures, {} s",
                begin.elapsed().as_secs()
            );
        }
    })?;
    println!("{}", report.markdown());
    for failure in report.failures() {
        println!("FAILED: {failure}\n");
    }
    if let Some(path) = &arguments.out {
        write(path, &report)?;
    }
    Ok(report.is_good())
}

fn write(path: &std::path::Path, report: &Report) -> Result<()> {
    let files = [("md", report.markdown()), ("svg", report.svg()?)];
    for (extension, text) in files {
        let path = path.with_extension(extension);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
