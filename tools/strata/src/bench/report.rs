//! The result: conditions, and a row for each kind of work.

use super::Arguments;
use super::load::BLOCK;
use super::rounds::{Outcome, Work};
use super::sides::{Side, compete, congestion};
use crate::commands::table;
use crate::lab::{Lab, LabDevice};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::net::TcpListener;
use std::thread::available_parallelism;

/// Everything that was measured, and under which conditions.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    device: &'static str,
    offload: bool,
    kernel: String,
    kernel_congestion: String,
    stack_congestion: String,
    cores: usize,
    pinned: bool,
    write_bytes: usize,
    pub(super) rows: Vec<Row>,
}

/// One figure of one kind of work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    what: String,
    unit: &'static str,
    higher_is_better: bool,
    /// Medians of the rounds.
    stack: f64,
    kernel: f64,
    /// Stack by kernel, of each pair of rounds.
    ratios: Vec<f64>,
    ratio: f64,
    /// Processor time of everybody and of all but the peer, medians; see `cpu_unit`.
    stack_cpu: f64,
    stack_cpu_own: f64,
    kernel_cpu: f64,
    cpu_unit: &'static str,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Row {
    /// The rows of a kind of work: two for latency, else one.
    pub(super) fn of(work: Work, pairs: &[[Outcome; 2]]) -> Vec<Self> {
        let rate = |o: &Outcome| o.arrived as f64 / o.time.as_secs_f64().max(1e-9);
        let quantile = |q: f64| {
            move |o: &Outcome| {
                let times: Option<&Histogram<u64>> = o.latency.as_ref();
                times.map_or(0.0, |h| h.value_at_quantile(q) as f64 / 1e3)
            }
        };
        let row = |suffix: &str, unit, higher, value: &dyn Fn(&Outcome) -> f64, per, cpu_unit| {
            Self::new(
                format!("{work}{suffix}"),
                unit,
                higher,
                pairs,
                value,
                per,
                cpu_unit,
            )
        };
        match work {
            Work::Upload(_) | Work::Download(_) => {
                let gbit = |o: &Outcome| rate(o) * 8e-9;
                vec![row("", "Gbit/s", true, &gbit, 1e9, "s/GB")]
            }
            Work::PingPong => vec![
                row(", p50", "us", false, &quantile(0.5), 1e-6, "us each"),
                row(", p99", "us", false, &quantile(0.99), 1e-6, "us each"),
            ],
            Work::DatagramsOut | Work::DatagramsIn => {
                let thousands = |o: &Outcome| rate(o) / 1e3;
                vec![row("", "k/s", true, &thousands, 1e-6, "us each")]
            }
        }
    }

    /// `per`: processor seconds for one thing that arrived are multiplied with it (bulk: a
    /// gigabyte of them; others: into microseconds, by division).
    fn new(
        what: String,
        unit: &'static str,
        higher_is_better: bool,
        pairs: &[[Outcome; 2]],
        value: &dyn Fn(&Outcome) -> f64,
        per: f64,
        cpu_unit: &'static str,
    ) -> Self {
        let scale = if per >= 1.0 { per } else { 1.0 / per };
        let cost = |seconds: f64, o: &Outcome| seconds * scale / (o.arrived.max(1) as f64);
        let all = |o: &Outcome| cost(o.cpu.all.as_secs_f64(), o);
        let own = |o: &Outcome| cost(o.cpu.own.as_secs_f64(), o);
        let stack = |f: &dyn Fn(&Outcome) -> f64| median(pairs.iter().map(|[s, _]| f(s)));
        let kernel = |f: &dyn Fn(&Outcome) -> f64| median(pairs.iter().map(|[_, k]| f(k)));
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|[s, k]| value(s) / value(k).max(1e-9))
            .collect();
        Self {
            what,
            unit,
            higher_is_better,
            stack: stack(value),
            kernel: kernel(value),
            ratio: median(ratios.iter().copied()),
            ratios,
            stack_cpu: stack(&all),
            stack_cpu_own: stack(&own),
            kernel_cpu: kernel(&all),
            cpu_unit,
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
    if n % 2 == 1 {
        at(n / 2)
    } else {
        (at(n / 2) + at((n / 2).saturating_sub(1))) / 2.0
    }
}

impl Report {
    pub(super) fn new(lab: &Lab, kernel: &Side, arguments: &Arguments) -> Result<Self> {
        let probe = TcpListener::bind((kernel.peer, 0)).context("the peer cannot listen")?;
        compete(&probe);
        let name = nix::sys::utsname::uname()?;
        Ok(Self {
            device: match lab.device() {
                LabDevice::Tap => "tap",
                LabDevice::Packet => "packet",
            },
            offload: !arguments.no_offload,
            kernel: name.release().to_string_lossy().into_owned(),
            kernel_congestion: congestion(&probe),
            stack_congestion: abi::config::TcpConfig::default().congestion,
            cores: available_parallelism().map_or(1, usize::from),
            pinned: arguments.pin,
            write_bytes: BLOCK,
            rows: Vec::new(),
        })
    }

    /// The conditions, in words.
    pub(super) fn conditions(&self) -> String {
        let device = match self.device {
            "tap" => "TAP",
            _ => "AF_PACKET on veth (no TAP can be made here)",
        };
        let offload = if self.offload { "" } else { ", no offloads" };
        let pinned = if self.pinned {
            "application on the daemons' core, peer on another, on both sides"
        } else {
            "application and peer not pinned"
        };
        format!(
            "stack   libsocket, tcpd ({}), ipd, netdevd over {device}{offload}; all daemons on one core\n\
             kernel  Linux {}, {}, two namespaces over veth, segmentation offload on\n\
             both    MTU 1500, writes of {} KiB, the same peer; {} cores; {pinned}\n\n",
            self.stack_congestion,
            self.kernel,
            self.kernel_congestion,
            self.write_bytes / 1024,
            self.cores,
        )
    }

    /// The rows as a table.
    pub(super) fn render(&self) -> String {
        let columns = [
            "what",
            "unit",
            "stack",
            "kernel",
            "ratio",
            "from",
            "to",
            "cpu stack",
            "its own",
            "cpu kernel",
            "per",
        ];
        let rows: Vec<_> = self.rows.iter().map(cells).collect();
        format!(
            "{}\n\
             ratio: stack by kernel, median of {} pairs of rounds, and its range; for times, lower \
             is better.\n\
             cpu: processor time of both ends together; its own: daemons and application, without \
             the peer.",
            table::render(&columns, &rows),
            self.rows.first().map_or(0, |row| row.ratios.len()),
        )
    }
}

fn cells(row: &Row) -> Vec<String> {
    let number = |x: f64| match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    };
    let low = row.ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = row.ratios.iter().copied().fold(0.0, f64::max);
    vec![
        row.what.clone(),
        row.unit.to_owned(),
        number(row.stack),
        number(row.kernel),
        number(row.ratio),
        number(low),
        number(high),
        number(row.stack_cpu),
        number(row.stack_cpu_own),
        number(row.kernel_cpu),
        row.cpu_unit.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::cpu::Times;
    use super::*;
    use core::time::Duration;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(core::iter::empty()), 0.0);
    }

    #[test]
    fn a_row_compares_pair_by_pair() {
        let outcome = |arrived: u64, cpu: u64| Outcome {
            arrived,
            time: Duration::from_secs(1),
            cpu: Times {
                all: Duration::from_secs(cpu),
                own: Duration::from_secs(cpu) / 2,
            },
            latency: None,
        };
        let pairs = [
            [outcome(1_000_000_000, 1), outcome(2_000_000_000, 1)],
            [outcome(2_000_000_000, 1), outcome(8_000_000_000, 1)],
        ];
        let rows = Row::of(Work::Upload(1), &pairs);
        let [row] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        assert_eq!(row.ratios, [0.5, 0.25]);
        assert_eq!((row.ratio, row.stack, row.kernel), (0.375, 12.0, 40.0));
        assert_eq!((row.stack_cpu, row.stack_cpu_own), (0.75, 0.375));
        let rows = Row::of(
            Work::DatagramsOut,
            &[[outcome(1_000_000, 1), outcome(500_000, 1)]],
        );
        assert_eq!(
            (rows[0].stack, rows[0].stack_cpu, rows[0].ratio),
            (1000.0, 1.0, 2.0)
        );
    }
}
