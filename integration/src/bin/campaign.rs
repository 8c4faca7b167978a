//! `cargo campaign --seed N --kills K`: faults of every kind against every process under traffic.

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use integration::campaign::{Peer, Plan, Report, run};
use integration::mix::become_crowd_if_asked;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
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
    /// Who is at the other end of the connections
    #[arg(long, value_enum, default_value_t = PeerArgument::Mixed)]
    peer: PeerArgument,
    /// Congestion control of the kernel where it is the other end, as in
    /// `tcp_available_congestion_control` [default: cubic where a namespace may have it, else reno]
    ///
    /// It says how soon the kernel's own transfers go on after a fault; with BBR they are silent
    /// for tens of milliseconds without any.
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Only one part of several, which together are the whole: `2/3`
    #[arg(long, value_name = "PART/PARTS", default_value = "1/1", value_parser = part)]
    part: (usize, usize),
    /// Only faults whose description begins so: `SIGKILL of tcpd`, `random word`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// End after so many minutes, over or not
    #[arg(long)]
    minutes: Option<u64>,
    /// Write the table (FILE.md) and a picture (FILE.svg), now and then and at the end
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PeerArgument {
    /// The Linux kernel
    Kernel,
    /// Another constellation, faulted as well
    Constellation,
    /// The kernel, now and then a constellation
    Mixed,
}

fn part(text: &str) -> Result<(usize, usize)> {
    let (part, parts) = text.split_once('/').context("PART/PARTS, as in 2/3")?;
    let (part, parts): (usize, usize) = (part.parse()?, parts.parse()?);
    if !(1..=parts).contains(&part) {
        bail!("there is no part {part} of {parts}");
    }
    Ok((part - 1, parts))
}

/// The kernel's congestion control for new connections of this network namespace.
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Time between two tables.
const WRITE_EVERY: Duration = Duration::from_secs(20);

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
    let begin = Instant::now();
    // Of this process's own network namespace, in which the kernel's ends are.
    if let Some(name) = &arguments.congestion {
        fs::write(CONGESTION, name)
            .with_context(|| format!("the kernel does not take --congestion {name}"))?;
    } else {
        // Linux's own default and its last resort; the table says which it is.
        let mut defaults = ["cubic", "reno"].into_iter();
        let _ = defaults.find(|name| fs::write(CONGESTION, name).is_ok());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let plan = Plan {
        seed: arguments.seed,
        kills: arguments.kills,
        idle: arguments.idle,
        peer: match arguments.peer {
            PeerArgument::Kernel => Some(Peer::Kernel),
            PeerArgument::Constellation => Some(Peer::Constellation),
            PeerArgument::Mixed => None,
        },
        congestion: fs::read_to_string(CONGESTION)?.trim().to_owned(),
        part: arguments.part,
        only: arguments.only.clone(),
        until: arguments
            .minutes
            .map(|minutes| begin + Duration::from_secs(60 * minutes)),
        stop,
    };
    let mut written = Instant::now();
    let report = run(&plan, |done, all, report| {
        if done % 100 == 0 || done == all {
            let bad = report.failures().len();
            eprintln!(
                "{done} of {all} faults, {bad} rounds with failures, {} s",
                begin.elapsed().as_secs()
            );
        }
        if let Some(path) = &arguments.out
            && written.elapsed() > WRITE_EVERY
        {
            written = Instant::now();
            if let Err(error) = write(path, report) {
                eprintln!("{error:#}");
            }
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
