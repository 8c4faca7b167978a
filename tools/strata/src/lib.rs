//! Strata's supervisor, configuration and command line.
//!
//! ```text
//!   strata.toml -> config -> topology -> plumbing -> supervisor -> daemons (this executable)
//!                                                        ^
//!                                  admin socket <- commands (status, restart, ...)
//! ```

pub mod admin;
pub mod bench;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod demo;
pub mod http;
mod keeper;
pub mod lab;
pub mod link;
pub mod netns;
pub mod orphans;
pub mod policy;
pub mod quarantine;
pub mod rundir;
pub mod supervisor;
pub mod topology;

use clap::Parser;
use std::path::Path;
use std::process::ExitCode;

/// The whole program: what `strata` does with this process's arguments.
///
/// A daemon is this executable started by the supervisor as `strata __worker --control NAME`;
/// people never call it so, and it is looked at before the command line is.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).take(3).collect();
    if let [worker, flag, control] = arguments.as_slice()
        && worker == "__worker"
        && flag == "--control"
    {
        return match supervisor::run_worker(&control.to_string_lossy()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("strata: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if let [keeper, base, name] = arguments.as_slice()
        && keeper == "__keeper"
    {
        return match supervisor::run_keeper(Path::new(base), &name.to_string_lossy()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("strata: keeper: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    commands::execute(&cli::Cli::parse())
}
