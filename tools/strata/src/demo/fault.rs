//! Killing layers in the middle of a transfer.

use super::transfer::Transfer;
use crate::lab::Lab;
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What both sides of a running transfer look at.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes moved so far.
    pub(super) moved: AtomicU64,
    /// Nothing will be moved any more.
    pub(super) over: AtomicBool,
    /// Longest silence of the receiver since the last fault, in microseconds, where the receiver
    /// is ours.
    pub(super) silence_us: AtomicU64,
    /// Faults that have begun.
    begun: AtomicU64,
    /// No fault will follow.
    killed_all: AtomicBool,
}

impl Progress {
    /// `bytes` of `plan` more have moved. A transfer that is too quick waits for the fault that is
    /// due, so that each happens in the middle; whether it had to.
    pub(super) fn moved(&self, bytes: usize, plan: &Transfer) -> bool {
        let moved = self.moved.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let faults = plan.victims.len() as u64;
        let due = (moved / part(plan)).min(faults);
        let mut waited = false;
        while self.begun.load(Ordering::Relaxed) < due && !self.killed_all.load(Ordering::Relaxed) {
            waited = true;
            sleep(POLL);
        }
        waited
    }
}

/// Bytes between two faults.
fn part(plan: &Transfer) -> u64 {
    (plan.bytes / (plan.victims.len() as u64 + 1)).max(1)
}

const POLL: Duration = Duration::from_micros(200);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// A layer.
    Layer(&'static str),
    /// All layers at once.
    Layers,
    /// The supervisor; another adopts what runs.
    Supervisor,
}

impl Victim {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Layer(layer) => layer,
            Self::Layers => "every layer",
            Self::Supervisor => "supervisor",
        }
    }
}

/// A death in a transfer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fault {
    pub(super) victim: &'static str,
    /// Bytes that had been moved.
    pub(super) at_bytes: u64,
    /// Until the successor was ready.
    pub(super) back_after_ms: f64,
    /// Longest silence of the receiver from then to the next fault, if it is ours.
    pub(super) silence_ms: Option<f64>,
}

/// How long a fault is watched before the next.
const WATCH: Duration = Duration::from_millis(25);

/// Kills the victims of `plan` one after the other, in even parts of the transfer.
pub(super) fn kill_all(
    lab: &Lab,
    plan: &Transfer,
    progress: &Progress,
    told: impl Fn(&str),
) -> Result<Vec<Fault>> {
    let result = kill_each(lab, plan, progress, told);
    progress.killed_all.store(true, Ordering::Relaxed);
    result
}

fn kill_each(
    lab: &Lab,
    plan: &Transfer,
    progress: &Progress,
    told: impl Fn(&str),
) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for (victim, number) in plan.victims.iter().zip(1..) {
        while progress.moved.load(Ordering::Relaxed) < part(plan) * number {
            if progress.over.load(Ordering::Relaxed) {
                bail!(
                    "the transfer was over before {} could be killed",
                    victim.name()
                );
            }
            sleep(POLL);
        }
        told(&format!("{} killed", victim.name()));
        progress.silence_us.store(0, Ordering::Relaxed);
        let at_bytes = progress.moved.load(Ordering::Relaxed);
        progress.begun.store(number, Ordering::Relaxed);
        let begin = Instant::now();
        kill(lab, *victim)?;
        let back = begin.elapsed();
        told(&format!("{} killed, and back", victim.name()));
        sleep(WATCH);
        let silence = progress.silence_us.load(Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        faults.push(Fault {
            victim: victim.name(),
            at_bytes,
            back_after_ms: back.as_secs_f64() * 1e3,
            silence_ms: (silence > 0).then_some(silence as f64 / 1e3),
        });
    }
    Ok(faults)
}

/// Kills, and waits for the successors.
fn kill(lab: &Lab, victim: Victim) -> Result<()> {
    match victim {
        Victim::Layer(layer) => {
            let killed = lab.signal(layer, Signal::SIGKILL)?;
            lab.wait_replaced(layer, killed)?;
        }
        Victim::Layers => {
            let layers = ["netdevd", "ipd", "tcpd", "udpd"];
            let killed = layers.map(|layer| (layer, lab.signal(layer, Signal::SIGKILL)));
            for (layer, pid) in killed {
                lab.wait_replaced(layer, pid?)?;
            }
        }
        Victim::Supervisor => {
            lab.kill_supervisor()?;
            lab.adopt()?;
        }
    }
    Ok(())
}
