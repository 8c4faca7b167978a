//! Words of shared memory that something wrote over: what is lost is found again.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("buffers_whose_owners_were_scribbled_over_come_back", owners);
    trials.add("who_starts_again_is_told_what_was_scribbled_over", told);
}

const PAGE: u64 = 4096;

/// Memories whose name begins so, through the supervisor's descriptors.
pub(crate) fn memories(lab: &Lab, prefix: &str) -> Result<Vec<File>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", lab.status()?.pid))? {
        let path = entry?.path();
        let name = fs::read_link(&path).unwrap_or_default();
        if name
            .to_string_lossy()
            .starts_with(&format!("/memfd:{prefix}"))
        {
            found.push(File::options().read(true).write(true).open(path)?);
        }
    }
    ensure!(!found.is_empty(), "no memory {prefix}");
    Ok(found)
}

/// Slots in use of all pools, but what a netdevd holds ready.
pub(crate) fn used(lab: &Lab) -> Result<u32> {
    let status = lab.status()?;
    let used = status.daemons.iter().map(|d| {
        let ready = if d.name.starts_with("netdevd") { 2 } else { 0 };
        d.pool_used.saturating_sub(ready)
    });
    Ok(used.sum())
}

fn owners() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        extra: "[restart]\nlost-buffers = \"1s\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    let pids =
        |lab: &Lab| -> Result<Vec<_>> { Ok(lab.status()?.daemons.iter().map(|d| d.pid).collect()) };
    let before = pids(&lab)?;
    let pools = memories(&lab, "strata-pool-")?;
    let mut random = fastrand::Rng::with_seed(3);
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, 64 << 20, Writes::BIG));
    for round in 0..100 {
        for pool in &pools {
            let slot = random.u64(0..64);
            let owner = random.choice([1, 2, 3, 4, 9, 63, 200]).unwrap_or(9);
            let word = random.u64(2..1000) << 35 | owner;
            pool.write_all_at(&word.to_le_bytes(), PAGE + 8 * slot)?;
        }
        if round == 50 {
            // While nothing else was going on, too.
            thread::sleep(Duration::from_millis(300));
        }
        thread::sleep(Duration::from_millis(2));
    }
    // It may be this very connection that is hit.
    let _ = transfer.join();
    ensure!(used(&lab)? > 0, "nothing was lost: the trial tries nothing");
    let begin = Instant::now();
    while used(&lab)? > 0 {
        ensure!(
            begin.elapsed() < Duration::from_secs(10),
            "{} buffers are lost:\n{}",
            used(&lab)?,
            lab.log()
        );
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(pids(&lab)? == before, "somebody died:\n{}", lab.log());
    let (theirs, ours) = connect(&lab, &stack, false)?;
    both_ways(ours, theirs, 4 << 20, Writes::MIXED).context("afterwards")?;
    Ok(())
}

/// What neighbours tell ipd (protocols, what the device is) is written over, and ipd, which had
/// read it, dies: its successor is told at once, and not when somebody happens to look.
fn told() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for link in memories(&lab, "strata-link-")? {
        for at in [64, 68, 128, 136, 192, 200] {
            link.write_all_at(&[0xa5; 4], at)?;
        }
    }
    let old = lab.signal("ipd", Signal::SIGKILL)?;
    lab.wait_replaced("ipd", old)?;
    let begin = Instant::now();
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        both_ways(ours, theirs, 1 << 20, Writes::MIXED)?;
    }
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(4), "only after {took:?}");
    Ok(())
}
