//! `strata demo`: the whole stack at work, in a network namespace of its own, with the Linux
//! kernel as the peer.
//!
//! ```text
//!   this process                                    the constellation
//!   ├ HTTP server, UDP and ICMP on the kernel's     netdevd - ipd - tcpd, udpd
//!   │     sockets  10.77.0.1 <---- TAP or veth ---->  10.77.0.2
//!   └ the application, on libsocket  <------ session memory, shadow fds ------^
//! ```
//!
//! Each step prints what it measured; the first that fails ends the demonstration with exit
//! status 1 and the end of the supervisor's log. Nothing is left behind in any case.

pub mod bytes;
mod capture;
mod datagrams;
mod echo;
mod fault;
mod path;
mod screen;
pub mod server;
mod story;
mod summary;
mod transfer;
mod who;

use crate::config::units::Probability;
use crate::lab::{self, Lab};
use crate::netns;
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Arguments of `strata demo`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// MiB to download, and to upload, each time [default: 256; 16 with --capture]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub size: Option<u64>,
    /// Leave nothing to the device: complete checksums, frames no longer than the MTU
    #[arg(long)]
    pub no_offload: bool,
    /// Write what passes the kernel's interface to a pcapng file; implies --no-offload
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub capture: Option<PathBuf>,
    /// Lose so many frames on purpose, each way (0.01 or 1%)
    #[arg(long, value_name = "PROBABILITY")]
    pub loss: Option<Probability>,
    /// Kill nobody
    #[arg(long)]
    pub no_faults: bool,
}

impl Arguments {
    /// Bytes of each transfer.
    fn bytes(&self) -> u64 {
        let default = if self.capture.is_some() { 16 } else { 256 };
        self.size.unwrap_or(default) << 20
    }
}

/// Set when a signal ends us: errors from then on are its consequences.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// `strata demo`. Call it before the process has a second thread.
///
/// # Errors
/// The step that failed, why, and the end of the supervisor's log.
pub fn run(json: bool, arguments: &Arguments) -> Result<ExitCode> {
    let privilege = netns::enter_private().context("the demonstration needs a namespace")?;
    clean_up_on_signals()?;
    match story::tell(json, arguments, privilege) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            wait_if_interrupted();
            Err(error)
        }
    }
}

/// Lines of the log that are shown after a failure.
const LOG_TAIL: usize = 15;

/// The end of the supervisor's log, as part of an error's text.
pub(crate) fn log_tail(lab: &Lab) -> String {
    let log = lab.log();
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL);
    let shown = lines.iter().skip(from);
    let tail: String = shown.map(|line| format!("\n  {line}")).collect();
    format!("\nthe end of the supervisor's log:{tail}")
}

/// On an interrupt everything is taken down before the process ends.
pub(crate) fn clean_up_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                INTERRUPTED.store(true, Ordering::Relaxed);
                lab::stop_all();
                // As a shell says it.
                std::process::exit(128 + signal);
            }
        })?;
    Ok(())
}

/// Does not return once a signal ends us, so that its consequences are not told as failures.
pub(crate) fn wait_if_interrupted() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        thread::park();
    }
}
