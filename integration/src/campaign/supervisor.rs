//! What befalls the supervisor. A daemon brings panic, busy loop and memory limit upon itself at
//! crash points that it passes all the time; those of the supervisor are passed only when something
//! happens to others. For it these faults would be nothing else than what is here, seen from outside: an end by its own doing (`SIGABRT`, as of an allocation that fails;
//! a panic of its main thread is one with another exit status), and no answer any more (`SIGSTOP`;
//! a busy loop takes a core besides).

use super::RECOVERY;
use crate::mix::Mix;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::lab::Lab;

/// Milliseconds for which it hangs: shorter and longer than a daemon may.
const HANGS_MS: core::ops::Range<u64> = 50..1200;

/// Ends it by `signal`; [`Lab::adopt`] starts another.
pub(super) fn end(lab: &Lab, pid: u32, signal: Signal) -> Result<()> {
    if signal != Signal::SIGKILL {
        send(pid, signal)?;
        let begin = Instant::now();
        while !is_over(pid) {
            if begin.elapsed() > RECOVERY {
                bail!("the supervisor survives {signal}");
            }
            sleep(Duration::from_micros(200));
        }
    }
    // Waits for it as well.
    lab.kill_supervisor()
}

/// Stops it for some time, in which what is connected goes on (a new socket is told of when its
/// descriptor is stored, which the supervisor's channel takes for a while); then it wakes, or is
/// killed and succeeded.
pub(super) fn hang(lab: &Lab, pid: u32, mix: &Mix, random: &mut fastrand::Rng) -> Result<()> {
    send(pid, Signal::SIGSTOP)?;
    let time = Duration::from_millis(random.u64(HANGS_MS));
    sleep(time);
    let goes_on = mix.wait_connected(2, RECOVERY);
    if random.bool() {
        send(pid, Signal::SIGCONT)?;
    } else {
        lab.kill_supervisor()?;
        lab.adopt()?;
    }
    goes_on.context("while the supervisor hangs")
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    kill(pid, signal).with_context(|| format!("{signal} to the supervisor"))
}

/// Whether there is no such process, or one that nobody has waited for.
fn is_over(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_none_or(|state| state.starts_with(['Z', 'X']))
}
