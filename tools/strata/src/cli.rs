//! The command line, in the habits of systemctl and iproute2.

use crate::config::units::{HumanDuration, HumanRate, Probability};
use clap::{Args, Parser, Subcommand, ValueHint};
use core::net::IpAddr;
use std::path::PathBuf;

/// A TCP/IP stack in which every layer is a process of its own.
#[derive(Debug, Parser)]
#[command(
    name = "strata",
    version,
    about,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong command line or configuration.\n\
                  `strata example > strata.toml && strata up` is a beginning."
)]
pub struct Cli {
    /// The constellation's name; several live side by side
    #[arg(
        short = 'n',
        long,
        global = true,
        env = "STRATA_NAME",
        value_name = "NAME"
    )]
    pub name: Option<String>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a constellation; returns when every layer is ready
    Up(Up),
    /// Stop a constellation
    Down,
    /// Show the layers, or what they know
    Status(StatusArgs),
    /// Restart a layer; connections do not notice
    Restart {
        /// tcpd, udpd, ipd, netdevd, netdevd@DEVICE, DEVICE, or all
        layer: String,
    },
    /// Replace a running layer by another build; connections do not notice
    Upgrade {
        /// tcpd, udpd, ipd, netdevd, netdevd@DEVICE, DEVICE, or all
        layer: String,
        /// The build: a `strata` executable
        #[arg(long, value_hint = ValueHint::ExecutablePath, value_name = "FILE")]
        exe: PathBuf,
    },
    /// Show the layers' counters
    #[command(visible_alias = "stats")]
    Counters {
        /// Only of this layer
        layer: Option<String>,
        /// Also those that are zero
        #[arg(long)]
        zero: bool,
    },
    /// Send ICMP echo requests to a host through the stack
    Ping(Ping),
    /// Download over HTTP through the stack
    Fetch(Fetch),
    /// Run a program on the stack (not there yet)
    Run {
        /// The program and its arguments
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "PROGRAM"
        )]
        program: Vec<String>,
    },
    /// Lose, delay or damage a device's frames on purpose; without options: stop doing so
    Impair(Impair),
    /// Trace packets through the layers
    Trace {
        /// Wait so long for packets
        #[arg(long, default_value = "1s", value_name = "TIME")]
        wait: HumanDuration,
        /// Stages to note in each layer
        #[arg(short = 'c', long, default_value_t = 16)]
        count: u32,
    },
    /// See the whole stack at work in a network namespace of its own
    Demo(crate::demo::Arguments),
    /// Compare the stack with the kernel's own, in one run
    Bench(crate::bench::Arguments),
    /// Compare TCP with the kernel's over impaired links, and write a page about it
    Compare(crate::compare::Arguments),
    /// Print a commented strata.toml
    Example,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all pages to a directory
    Man {
        /// Write strata.1, strata-up.1, … here
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Which layouts of memory this build knows
    #[command(name = "__layouts", hide = true)]
    Layouts,
    /// The supervisor behind `strata up`
    #[command(name = "__supervise", hide = true)]
    Supervise(Up),
}

/// Arguments of `strata up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// The configuration [default: strata.toml, then /etc/strata/strata.toml]
    #[arg(short, long, value_hint = ValueHint::FilePath, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Stay in the foreground, with the log on the terminal, until interrupted
    #[arg(short, long)]
    pub foreground: bool,
    /// Only check the configuration
    #[arg(long, conflicts_with = "foreground")]
    pub check: bool,
    /// Take the place of the supervisor that runs or hangs; connections do not notice
    #[arg(long, conflicts_with = "check")]
    pub replace: bool,
}

/// Arguments of `strata status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Every constellation of this user
    #[arg(long)]
    pub all: bool,
    /// The sockets of the transports
    #[arg(long)]
    pub sockets: bool,
    /// The neighbours (ARP)
    #[arg(long)]
    pub neighbours: bool,
    /// The routes
    #[arg(long)]
    pub routes: bool,
    /// The counters
    #[arg(long)]
    pub counters: bool,
}

/// Arguments of `strata ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// The host's address
    #[arg(value_name = "HOST")]
    pub host: IpAddr,
    /// Stop after so many requests [default: on interrupt]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Time between requests, in seconds or with a unit
    #[arg(short, long, default_value = "1", value_name = "TIME", value_parser = seconds)]
    pub interval: HumanDuration,
    /// Bytes of payload
    #[arg(short, long, default_value_t = 56, value_name = "BYTES",
          value_parser = clap::value_parser!(u16).range(..=65_000))]
    pub size: u16,
    /// Time to wait for the last reply, in seconds or with a unit
    #[arg(short = 'W', long, default_value = "1", value_name = "TIME", value_parser = seconds)]
    pub timeout: HumanDuration,
    /// Only the summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `strata fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// `http://ADDRESS[:PORT]/PATH`
    #[arg(value_hint = ValueHint::Url)]
    pub url: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_hint = ValueHint::FilePath, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print the SHA-256 of what was received, as sha256sum does
    #[arg(long)]
    pub sha256: bool,
    /// No progress bar
    #[arg(short, long)]
    pub quiet: bool,
    /// Give up when nothing is received for so long
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = seconds)]
    pub timeout: HumanDuration,
}

/// Arguments of `strata impair`; as `tc netem` names them.
#[derive(Debug, Args)]
pub struct Impair {
    /// The device
    pub device: String,
    /// Probability that a frame is lost (0.01 or 1%)
    #[arg(long)]
    pub loss: Option<Probability>,
    /// Frames that are lost in a row, on average
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    pub loss_burst: f64,
    /// Mark packets as congestion experienced, where their transport understands it, instead of
    /// losing them
    #[arg(long, requires = "loss")]
    pub ecn: bool,
    /// Probability that a frame is sent twice
    #[arg(long)]
    pub duplicate: Option<Probability>,
    /// Probability that a frame is held back behind later ones
    #[arg(long)]
    pub reorder: Option<Probability>,
    /// Probability that one bit of a frame is flipped
    #[arg(long)]
    pub corrupt: Option<Probability>,
    /// Delay of each frame
    #[arg(long, value_name = "TIME")]
    pub delay: Option<HumanDuration>,
    /// Random addition to the delay, up to this
    #[arg(long, value_name = "TIME")]
    pub jitter: Option<HumanDuration>,
    /// Rate limit (100mbit)
    #[arg(long)]
    pub rate: Option<HumanRate>,
    /// Frames that wait for the rate at the most, or without one are delayed at the most
    #[arg(long, default_value_t = 0)]
    pub queue: u32,
    /// Seed: the same one injects the same faults
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// A duration whose bare numbers are seconds, as ping has them.
fn seconds(text: &str) -> Result<HumanDuration, String> {
    match text.parse::<f64>() {
        Ok(_) => format!("{text}s").parse(),
        Err(_) => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use core::time::Duration;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bare_numbers_are_seconds_where_ping_has_them() {
        assert_eq!(seconds("0.2").unwrap().0, Duration::from_millis(200));
        assert_eq!(seconds("20ms").unwrap().0, Duration::from_millis(20));
        assert!(seconds("soon").is_err());
    }
}
