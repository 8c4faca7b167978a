//! `strata`: the command line, the supervisor and every daemon in one executable.
//!
//! A daemon is this executable started by the supervisor as `strata __worker --control NAME`;
//! people never call it so, and it is looked at before the command line is.

use clap::Parser;
use std::process::ExitCode;
use strata::cli::Cli;
use strata::{commands, supervisor};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).take(3).collect();
    if let [worker, flag, control] = arguments.as_slice()
        && worker == "__worker"
        && flag == "--control"
    {
        return match supervisor::run_worker(control) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("strata: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    commands::execute(&Cli::parse())
}
