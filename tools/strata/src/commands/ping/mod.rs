//! `strata ping`: echo requests over the stack, told as iputils' ping tells them.

mod statistics;

use super::{rundir, table};
use crate::cli::{Cli, Ping};
use abi::Nanos;
use anyhow::Context;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use libsocket::{Echo, PingSocket, Stack};
use runtime::clock;
use statistics::{Statistics, milliseconds};
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests that are remembered, for replies that come late.
const REMEMBERED: usize = 4096;

/// `strata ping HOST`.
pub(super) fn ping(cli: &Cli, arguments: &Ping) -> anyhow::Result<ExitCode> {
    let stack = Stack::open(rundir(cli)?.path());
    let socket = stack
        .ping(arguments.host.is_ipv6())
        .context("cannot make a ping socket")?;
    // Only a connected socket is told that its host cannot be reached. (It may still be pinged
    // where that is refused, for a broadcast address say.)
    let _ = socket.socket().connect(SocketAddr::new(arguments.host, 0));
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))?;
    let (host, size) = (arguments.host, arguments.size);
    if !cli.json {
        let all = u32::from(size) + if host.is_ipv6() { 48 } else { 28 };
        println!("PING {host} ({host}) {size}({all}) bytes of data.");
    }
    let mut run = Run {
        socket,
        host,
        payload: (0..size).map(|n| n.to_le_bytes()[0]).collect(),
        interval: arguments.interval.0,
        timeout: arguments.timeout.0,
        count: arguments.count,
        silent: arguments.quiet || cli.json,
        interrupted,
        sent: BTreeMap::new(),
        statistics: Statistics::default(),
    };
    run.go()?;
    let statistics = run.statistics;
    if cli.json {
        table::print_json(&statistics.summary(host))?;
    } else {
        print!("\n{}", statistics.render(host));
    }
    // As iputils: 1 when nothing came back.
    Ok(ExitCode::from(u8::from(statistics.received == 0)))
}

/// A ping under way.
struct Run {
    socket: PingSocket,
    host: IpAddr,
    payload: Vec<u8>,
    interval: Duration,
    timeout: Duration,
    count: Option<u32>,
    silent: bool,
    interrupted: Arc<AtomicBool>,
    /// When each request was sent, and whether it has been answered.
    sent: BTreeMap<u64, (Nanos, bool)>,
    statistics: Statistics,
}

impl Run {
    fn go(&mut self) -> io::Result<()> {
        let begin = clock::now();
        let interval = nanos(self.interval);
        let mut next = begin;
        loop {
            let all_sent = self
                .count
                .is_some_and(|count| self.statistics.transmitted >= u64::from(count));
            if self.interrupted.load(Ordering::Relaxed) || all_sent {
                break;
            }
            self.send()?;
            next = next.saturating_add(interval).max(clock::now());
            let last = self
                .count
                .is_some_and(|count| self.statistics.transmitted >= u64::from(count));
            if !last {
                self.receive_until(next, false)?;
            }
        }
        if !self.interrupted.load(Ordering::Relaxed) {
            self.receive_until(clock::now().saturating_add(nanos(self.timeout)), true)?;
        }
        self.statistics.elapsed = clock::now().saturating_sub(begin);
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        self.statistics.transmitted += 1;
        let number = self.statistics.transmitted;
        self.sent.insert(number, (clock::now(), false));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_first();
        }
        match self.socket.send_to(seq(number), &self.payload, self.host) {
            Ok(()) => Ok(()),
            Err(error) if is_about_the_network(&error) => {
                self.failed(number, &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Receives until `end`, or until everything is answered if `all` is enough.
    fn receive_until(&mut self, end: Nanos, all: bool) -> io::Result<()> {
        let mut into = vec![0; self.payload.len()];
        loop {
            let now = clock::now();
            let answered = self.statistics.received + self.statistics.errors;
            if now >= end
                || self.interrupted.load(Ordering::Relaxed)
                || all && answered >= self.statistics.transmitted
            {
                return Ok(());
            }
            // Not longer than an interrupt may wait.
            let wait = Duration::from_nanos(end - now).min(Duration::from_millis(100));
            self.socket
                .set_read_timeout(Some(wait.max(Duration::from_micros(1))))?;
            match self.socket.recv_from(&mut into) {
                Ok(echo) => self.received(&echo, &into),
                Err(error) if is_about_the_network(&error) => {
                    self.failed(self.statistics.transmitted, &error);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    fn received(&mut self, echo: &Echo, payload: &[u8]) {
        let latest = self.statistics.transmitted;
        // The newest request with these 16 bits.
        let back = u64::from(seq(latest).wrapping_sub(echo.seq));
        let Some(number) = latest.checked_sub(back).filter(|number| *number > 0) else {
            return;
        };
        let Some((sent, answered)) = self.sent.get_mut(&number) else {
            return;
        };
        let duplicate = core::mem::replace(answered, true);
        let sent = *sent;
        let came = if echo.stamp > sent {
            echo.stamp
        } else {
            clock::now()
        };
        let rtt = came.saturating_sub(sent);
        let damaged = payload.get(..echo.len) != self.payload.get(..echo.full_len);
        if duplicate {
            self.statistics.duplicates += 1;
        } else {
            self.statistics.received += 1;
            self.statistics.rtts.push(rtt);
        }
        if !self.silent {
            println!(
                "{} bytes from {}: icmp_seq={number} ttl={} time={} ms{}{}",
                echo.full_len + 8,
                echo.from,
                echo.ttl,
                milliseconds(rtt),
                if duplicate { " (DUP!)" } else { "" },
                if damaged { " (wrong data)" } else { "" }
            );
        }
    }

    fn failed(&mut self, number: u64, error: &io::Error) {
        self.statistics.errors += 1;
        if !self.silent {
            let what = match error.raw_os_error() {
                Some(libc::EHOSTUNREACH) => "Destination Host Unreachable".to_owned(),
                Some(libc::ENETUNREACH) => "Destination Net Unreachable".to_owned(),
                _ => error.to_string(),
            };
            println!("icmp_seq={number} {what}");
        }
    }
}

/// Whether an error is about the way to the host, and the next request may fare better.
fn is_about_the_network(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ECONNREFUSED
                | libc::EHOSTDOWN
                | libc::ENOBUFS
                | libc::EMSGSIZE
        )
    )
}

fn seq(number: u64) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
