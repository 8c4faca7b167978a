//! Killing a layer in the middle of a transfer.

use crate::lab::Lab;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// What both sides of a running transfer look at.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes moved so far.
    pub(super) moved: AtomicU64,
    /// Nothing will be moved any more.
    pub(super) over: AtomicBool,
}

/// A death in a transfer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fault {
    pub(super) layer: &'static str,
    /// The process that was killed, and its successor.
    pub(super) killed: u32,
    pub(super) successor: u32,
    /// Bytes that had been moved.
    pub(super) at_bytes: u64,
    /// Until the successor was ready.
    pub(super) back_after_ms: f64,
}

/// Kills `layer` as soon as `threshold` bytes have moved, and waits for its successor.
pub(super) fn kill(
    lab: &Lab,
    layer: &'static str,
    threshold: u64,
    progress: &Progress,
    told: impl Fn(&str),
) -> Result<Fault> {
    while progress.moved.load(Ordering::Relaxed) < threshold {
        if progress.over.load(Ordering::Relaxed) {
            bail!("the transfer was over before {layer} could be killed");
        }
        sleep(Duration::from_micros(200));
    }
    let killed = lab.signal(layer, Signal::SIGKILL)?;
    let at_bytes = progress.moved.load(Ordering::Relaxed);
    told(&format!("{layer} {killed} killed"));
    let back = lab.wait_replaced(layer, killed)?;
    let successor = lab.layer(layer)?.pid.context("the successor is gone")?;
    told(&format!("{layer} {killed} killed, {successor} goes on"));
    Ok(Fault {
        layer,
        killed,
        successor,
        at_bytes,
        back_after_ms: back.as_secs_f64() * 1e3,
    })
}
