//! `strata ping`: echo requests over the stack, told as iputils' ping tells them.

use super::{rundir, table};
use crate::cli::{Cli, Ping};
use abi::Nanos;
use anyhow::Context;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use libsocket::{Echo, PingSocket, Stack};
use runtime::clock;
use serde::Serialize;
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

/// As iputils: three digits that matter.
fn milliseconds(time: Nanos) -> String {
    let us = time / 1000;
    match us {
        0..1000 => format!("0.{us:03}"),
        1000..10_000 => format!("{}.{:02}", us / 1000, us % 1000 / 10),
        10_000..100_000 => format!("{}.{}", us / 1000, us % 1000 / 100),
        _ => (us / 1000).to_string(),
    }
}

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Statistics {
    transmitted: u64,
    received: u64,
    duplicates: u64,
    errors: u64,
    elapsed: Nanos,
    rtts: Vec<Nanos>,
}

/// The same for programs; times in milliseconds.
#[derive(Debug, Serialize)]
struct Summary {
    host: IpAddr,
    transmitted: u64,
    received: u64,
    duplicates: u64,
    errors: u64,
    time_ms: u64,
    rtt_min_ms: Option<f64>,
    rtt_avg_ms: Option<f64>,
    rtt_max_ms: Option<f64>,
    rtt_mdev_ms: Option<f64>,
}

#[allow(clippy::cast_precision_loss, reason = "round trip times for people")]
impl Statistics {
    /// Smallest, mean, largest and mean deviation (the root of the mean square about the mean,
    /// as iputils has it), in milliseconds.
    fn rtt(&self) -> Option<[f64; 4]> {
        let ms: Vec<f64> = self.rtts.iter().map(|ns| *ns as f64 / 1e6).collect();
        let n = ms.len() as f64;
        let min = ms.iter().copied().reduce(f64::min)?;
        let max = ms.iter().copied().reduce(f64::max)?;
        let mean = ms.iter().sum::<f64>() / n;
        let variance = ms.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
        Some([min, mean, max, variance.sqrt()])
    }

    fn loss_percent(&self) -> f64 {
        let lost = self.transmitted.saturating_sub(self.received);
        100.0 * lost as f64 / self.transmitted.max(1) as f64
    }

    fn render(&self, host: IpAddr) -> String {
        let mut text = format!("--- {host} ping statistics ---\n");
        text += &format!(
            "{} packets transmitted, {} received, ",
            self.transmitted, self.received
        );
        if self.duplicates > 0 {
            text += &format!("+{} duplicates, ", self.duplicates);
        }
        if self.errors > 0 {
            text += &format!("+{} errors, ", self.errors);
        }
        let loss = (self.loss_percent() * 1e4).round() / 1e4;
        let time = self.elapsed / 1_000_000;
        text += &format!("{loss}% packet loss, time {time}ms\n");
        if let Some([min, avg, max, mdev]) = self.rtt() {
            text += &format!("rtt min/avg/max/mdev = {min:.3}/{avg:.3}/{max:.3}/{mdev:.3} ms\n");
        }
        text
    }

    fn summary(&self, host: IpAddr) -> Summary {
        let rtt = self.rtt();
        Summary {
            host,
            transmitted: self.transmitted,
            received: self.received,
            duplicates: self.duplicates,
            errors: self.errors,
            time_ms: self.elapsed / 1_000_000,
            rtt_min_ms: rtt.map(|[min, ..]| min),
            rtt_avg_ms: rtt.map(|[_, avg, ..]| avg),
            rtt_max_ms: rtt.map(|[_, _, max, _]| max),
            rtt_mdev_ms: rtt.map(|[.., mdev]| mdev),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_read_like_pings() {
        let statistics = Statistics {
            transmitted: 3,
            received: 2,
            duplicates: 1,
            errors: 1,
            elapsed: 2_004_000_000,
            rtts: vec![40_000, 60_000],
        };
        let host = IpAddr::from([10, 77, 0, 1]);
        insta::assert_snapshot!(statistics.render(host));
        let nothing = Statistics {
            transmitted: 1,
            ..Statistics::default()
        };
        assert!(
            nothing
                .render(host)
                .contains("1 packets transmitted, 0 received, 100% packet loss")
        );
    }

    #[test]
    fn times_have_three_digits() {
        let said = [41_000, 1_234_000, 12_340_000, 123_400_000].map(milliseconds);
        assert_eq!(said, ["0.041", "1.23", "12.3", "123"]);
    }
}
