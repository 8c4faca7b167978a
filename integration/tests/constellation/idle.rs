//! What connections cost that do nothing: memory of each process and processor time.
//!
//! `STRATA_IDLE=10000 cargo test --release -p integration --test constellation idle` tells it of
//! ten thousand, and `keepalive` instead of `idle` of as many that ask their peers once a second.

use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::mix::{Amounts, Mix};
use nix::sys::signal::Signal;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("idle_connections_are_cheap", idle);
    trials.add("keepalive_of_many_connections_is_cheap", keepalive);
}

/// What a process has used.
#[derive(Debug, Clone)]
struct Used {
    name: String,
    /// Resident memory in bytes, shared memory that it has touched included.
    memory: u64,
    /// Processor time of all its threads.
    cpu: Duration,
}

fn used(lab: &Lab) -> Result<Vec<Used>> {
    let status = lab.status()?;
    let mut processes = vec![("supervisor".to_owned(), status.pid)];
    processes.extend(status.keeper.map(|pid| ("keeper".to_owned(), pid)));
    for daemon in status.daemons {
        processes.push((daemon.name, daemon.pid.context("a layer is dead")?));
    }
    let used = |(name, pid): (String, u32)| -> Result<Used> {
        let number = |text: &str, field: usize| -> Result<u64> {
            let word = text.split_ascii_whitespace().nth(field);
            Ok(word.context("a field is missing")?.parse()?)
        };
        let pages = number(&fs::read_to_string(format!("/proc/{pid}/statm"))?, 1)?;
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu += Duration::from_nanos(number(&text, 0)?);
        }
        Ok(Used {
            name,
            memory: pages * 4096,
            cpu,
        })
    };
    processes.into_iter().map(used).collect()
}

fn count() -> Result<usize> {
    match std::env::var("STRATA_IDLE") {
        Ok(text) => text.parse().context("STRATA_IDLE"),
        Err(_) => Ok(2_000),
    }
}

/// Nothing but idle connections.
fn only_idle(count: usize) -> Amounts {
    Amounts {
        bulk: 0,
        requests: 0,
        idle: count,
        stuck: 0,
        churn: 0,
        datagrams: false,
        late: 0,
        ..Amounts::default()
    }
}

/// How often each connection asks whether its peer is there. The shortest that `TCP_KEEPIDLE` can
/// express; 75 seconds are usual.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Time that a probe and its answer may take of all layers together.
const EACH: Duration = Duration::from_micros(250);

/// Each asks once a second, the answers come, and none is given up; tcpd dies and they go on.
fn keepalive() -> Result<()> {
    let count = count()?;
    let lab = Lab::start(&LabConfig::default())?;
    let mix = Mix::start(
        &lab,
        &Amounts {
            keepalive_ms: u32::try_from(KEEPALIVE.as_millis())?,
            ..only_idle(count)
        },
    )?;
    sleep(KEEPALIVE);
    let measure = || -> Result<()> {
        let (begin, start) = (Instant::now(), used(&lab)?);
        let sent = lab.counter("tcpd", "tcp_out_segs")?;
        sleep(2 * KEEPALIVE);
        let sent = lab.counter("tcpd", "tcp_out_segs")? - sent;
        let (took, end) = (begin.elapsed(), used(&lab)?);
        let mut all = Duration::ZERO;
        for (from, to) in start.iter().zip(&end) {
            let cpu = to.cpu.saturating_sub(from.cpu);
            println!(
                "{:16} {:.2} % of a core",
                to.name,
                100.0 * cpu.as_secs_f64() / took.as_secs_f64()
            );
            all += cpu;
        }
        let due = count as f64 * took.as_secs_f64() / KEEPALIVE.as_secs_f64();
        let share = sent as f64 / due;
        let each = all / u32::try_from(sent.max(1))?;
        println!("{sent} probes, {share:.2} of those due, {each:?} for each with its answer");
        // A second after the last answer, so a little less often than once a second.
        ensure!((0.5..1.1).contains(&share), "{share} of the probes");
        ensure!(each < EACH, "{each:?} for each probe");
        Ok(())
    };
    measure()?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    sleep(KEEPALIVE);
    measure().context("after a kill")?;
    ensure!(lab.counter("tcpd", "aborted_on_timeout")? == 0);
    mix.finish()?;
    Ok(())
}

fn idle() -> Result<()> {
    let count = count()?;
    let lab = Lab::start(&LabConfig {
        // What is looked at now and then, all sockets among it, ten times as often as usual.
        extra: "[restart]\nlost-buffers = \"4s\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let before = used(&lab)?;
    let mix = Mix::start(&lab, &only_idle(count))?;
    sleep(Duration::from_secs(1));
    let (begin, start) = (Instant::now(), used(&lab)?);
    sleep(Duration::from_secs(3));
    let (took, end) = (begin.elapsed(), used(&lab)?);
    let mut each = 0;
    for ((first, from), to) in before.iter().zip(&start).zip(&end) {
        let memory = to.memory.saturating_sub(first.memory) / count as u64;
        let share = (to.cpu - from.cpu).as_secs_f64() / took.as_secs_f64();
        println!(
            "{:16} {memory:5} bytes for each of {count}, {:.2} % of a core",
            to.name,
            100.0 * share
        );
        each += memory;
        ensure!(share < 0.05, "{} is busy: {share}", to.name);
    }
    println!("all {each:17} bytes for each");
    ensure!(each < 16 << 10, "{each} bytes for each connection");
    mix.finish()?;
    Ok(())
}
