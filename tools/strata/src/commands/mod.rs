//! What each command does. A command prints its result to standard output, what a person should
//! know besides to standard error, and its failure is an error in words.

mod counters;
mod docs;
pub mod fetch;
mod impair;
pub mod ping;
mod status;
pub mod table;
mod trace;
mod up;
mod upgrade;

use crate::admin::{Answer, CallError, Request, call};
use crate::cli::{Cli, Command};
use crate::config::DEFAULT_NAME;
use crate::orphans;
use crate::rundir::RunDir;
use std::process::ExitCode;

/// The command line or the configuration is wrong: exit status 2, and a message already in full.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Does what the command line says.
#[must_use]
pub fn execute(cli: &Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            let code = match error.downcast_ref::<Usage>() {
                Some(_) => 2,
                None => 1,
            };
            let text = format!("{error:#}");
            // Configuration errors begin with the file's name, as a compiler's do.
            if text.contains(": error: ") {
                eprintln!("{text}");
            } else {
                eprintln!("strata: {text}");
            }
            ExitCode::from(code)
        }
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match &cli.command {
        Command::Up(up) => up::up(cli, up).map(done),
        Command::Supervise(up) => up::supervise(cli, up).map(done),
        Command::Down => down(cli).map(done),
        Command::Status(arguments) => status::status(cli, arguments).map(done),
        Command::Restart { layer } => restart(cli, layer).map(done),
        Command::Upgrade { layer, exe } => upgrade::upgrade(cli, layer, exe).map(done),
        Command::Layouts => table::print_json(&crate::supervisor::layouts()).map(done),
        Command::Counters { layer, zero } => {
            counters::counters(cli, layer.as_deref(), *zero).map(done)
        }
        Command::Ping(arguments) => ping::ping(cli, arguments),
        Command::Fetch(arguments) => fetch::fetch(cli, arguments).map(done),
        Command::Run { .. } => Err(Usage(
            "`strata run` is not there yet: it will put unmodified programs on the stack; \
             until then use libsocket, or `strata fetch` and `strata ping`"
                .to_owned(),
        )
        .into()),
        Command::Impair(arguments) => impair::impair(cli, arguments).map(done),
        Command::Trace { wait, count } => trace::trace(cli, wait.0, *count).map(done),
        Command::Demo(arguments) => crate::demo::run(cli.json, arguments),
        Command::Bench(arguments) => crate::bench::run(cli.json, arguments),
        Command::Compare(arguments) => crate::compare::run(cli.json, arguments),
        Command::Example => {
            print!("{}", include_str!("../../../strata.example.toml"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => docs::completions(*shell).map(done),
        Command::Man { dir } => docs::man(dir.as_deref()).map(done),
    }
}

/// The directory of the constellation that is meant.
fn rundir(cli: &Cli) -> anyhow::Result<RunDir> {
    let name = cli.name.as_deref().unwrap_or(DEFAULT_NAME);
    RunDir::of(name).map_err(|error| Usage(format!("{error:#}")).into())
}

/// Asks the supervisor of the constellation that is meant.
fn ask(cli: &Cli, request: &Request) -> anyhow::Result<Answer> {
    Ok(call(&rundir(cli)?, request)?)
}

fn down(cli: &Cli) -> anyhow::Result<()> {
    let rundir = rundir(cli)?;
    match call(&rundir, &Request::Down) {
        Ok(_) => {}
        Err(error @ CallError::NotRunning { .. }) => {
            // Without a supervisor there may still be daemons.
            let orphans = orphans::find(&rundir);
            if orphans.is_empty() {
                return Err(error.into());
            }
            orphans::end(&orphans);
            rundir.remove();
            println!(
                "ended {} processes whose supervisor had died",
                orphans.len()
            );
        }
        Err(error) => return Err(error.into()),
    }
    // Answered when the daemons are gone; the directory goes right after.
    for _ in 0..200 {
        if !rundir.admin_socket().exists() {
            break;
        }
        std::thread::sleep(core::time::Duration::from_millis(5));
    }
    Ok(())
}

fn restart(cli: &Cli, layer: &str) -> anyhow::Result<()> {
    let layer = layer.to_owned();
    if let Answer::Done(text) = ask(cli, &Request::Restart { layer })? {
        println!("{text}");
    }
    Ok(())
}
