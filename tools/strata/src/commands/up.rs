//! `strata up`: checks the configuration, starts the supervisor, waits until all is ready.

use super::{Usage, status};
use crate::admin::Status;
use crate::cli::{Cli, Up};
use crate::config::diagnostic::render_warning;
use crate::config::{Config, DEFAULT_NAME};
use crate::rundir::RunDir;
use crate::supervisor::{self, Options, this_executable};
use anyhow::Context;
use nix::unistd::{dup2_stdout, setsid};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tracing_subscriber::EnvFilter;

/// What the supervisor tells `strata up` over its standard output, once.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    Ready(Status),
    /// Why, and whether the log says more.
    Failed(String, bool),
}

/// Lines of the log that are shown when the start fails.
const LOG_TAIL: usize = 12;

/// `strata up`.
pub(super) fn up(cli: &Cli, arguments: &Up) -> anyhow::Result<()> {
    let (path, config) = configuration(arguments, true)?;
    let rundir = rundir(cli, &config)?;
    if arguments.check {
        println!("{}: good", path.display());
        return Ok(());
    }
    if arguments.foreground {
        return foreground(cli, arguments, config, rundir);
    }
    rundir.create()?;
    let log = File::options()
        .append(true)
        .create(true)
        .open(rundir.log_file())
        .with_context(|| format!("cannot open {}", rundir.log_file().display()))?;
    let output = Command::new(this_executable())
        .args(["__supervise", "--name", rundir.name(), "--config"])
        .arg(fs::canonicalize(&path).unwrap_or(path))
        .args(arguments.replace.then_some("--replace"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start the supervisor")?
        .stdout
        .context("no pipe from the supervisor")?;
    match serde_json::from_reader(output) {
        Ok(Told::Ready(status)) => {
            if cli.json {
                return super::table::print_json(&status);
            }
            print!("{}", status::render(&status));
            Ok(())
        }
        Ok(Told::Failed(why, false)) => Err(anyhow::anyhow!(why)),
        Ok(Told::Failed(why, true)) => Err(failure(&rundir, &why)),
        Err(_) => Err(failure(&rundir, "the supervisor died at its start")),
    }
}

/// The supervisor that `strata up` starts: its standard output is the pipe to tell over, its
/// standard error the log.
pub(super) fn supervise(cli: &Cli, arguments: &Up) -> anyhow::Result<()> {
    // What the shell had open is not ours to keep: somebody may wait for its end.
    runtime::close_above(libc::STDERR_FILENO);
    // Its own session: no terminal's signals. (It fails only for who has one already.)
    let _ = setsid();
    log_to_stderr();
    let mut told = false;
    let mut tell = |message: &Told| {
        if !core::mem::replace(&mut told, true) {
            let mut out = std::io::stdout();
            let _ = serde_json::to_writer(&mut out, message);
            let _ = out.flush();
            // Closes the pipe, which lets `strata up` go.
            if let Ok(null) = File::options().write(true).open("/dev/null") {
                let _ = dup2_stdout(null);
            }
        }
    };
    let result = start(cli, arguments, &mut |result| match result {
        Ok(status) => tell(&Told::Ready(status.clone())),
        Err(why) => tell(&Told::Failed(why.to_owned(), true)),
    });
    if let Err(error) = &result {
        tell(&Told::Failed(format!("{error:#}"), false));
    }
    result
}

fn start(cli: &Cli, arguments: &Up, on_ready: supervisor::OnReady<'_>) -> anyhow::Result<()> {
    let (_, config) = configuration(arguments, false)?;
    let rundir = rundir(cli, &config)?;
    let _ = std::env::set_current_dir("/");
    let options = Options {
        rundir,
        config,
        executable: this_executable(),
        replace: arguments.replace,
    };
    supervisor::run(options, on_ready)
}

fn foreground(cli: &Cli, arguments: &Up, config: Config, rundir: RunDir) -> anyhow::Result<()> {
    log_to_stderr();
    let options = Options {
        rundir,
        config,
        executable: this_executable(),
        replace: arguments.replace,
    };
    supervisor::run(options, &mut |result| {
        if let Ok(status) = result {
            if cli.json {
                let _ = super::table::print_json(status);
            } else {
                print!("{}", status::render(status));
            }
        }
    })
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("STRATA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

/// Reads and checks the configuration; warnings go to standard error if they are wanted.
fn configuration(arguments: &Up, warn: bool) -> anyhow::Result<(PathBuf, Config)> {
    let path = match &arguments.config {
        Some(path) => path.clone(),
        None => ["strata.toml", "/etc/strata/strata.toml"]
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or_else(|| {
                Usage(
                    "no strata.toml here and none in /etc/strata; name one with --config, \
                     or write one: `strata example > strata.toml`"
                        .to_owned(),
                )
            })?,
    };
    let text = fs::read_to_string(&path)
        .map_err(|error| Usage(format!("cannot read {}: {error}", path.display())))?;
    let (config, warnings) =
        Config::parse(&path, &text).map_err(|error| Usage(error.to_string()))?;
    if warn {
        for warning in &warnings {
            eprintln!("{}", render_warning(&path, &text, warning));
        }
    }
    Ok((path, config))
}

fn rundir(cli: &Cli, config: &Config) -> anyhow::Result<RunDir> {
    let name = cli.name.as_deref().or(config.name.as_deref());
    RunDir::of(name.unwrap_or(DEFAULT_NAME)).map_err(|error| Usage(format!("{error:#}")).into())
}

/// Why the start failed, with the end of the log.
fn failure(rundir: &RunDir, why: &str) -> anyhow::Error {
    let log = rundir.log_file();
    let tail = tail(&log);
    anyhow::anyhow!("{why}\nthe end of {}:\n{tail}", log.display())
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL);
    let shown = lines.iter().skip(from);
    shown.map(|line| format!("  {line}\n")).collect()
}
