//! Processor time, and where threads run.

use anyhow::{Context, Result};
use core::time::Duration;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Pid, gettid};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Cores for the application and for the peer; none: wherever the kernel likes.
#[derive(Debug)]
pub(super) struct Placement {
    application: Option<CpuSet>,
    peer: Option<CpuSet>,
}

impl Placement {
    /// With `pin`, the application is put where the supervisor puts its daemons, on the last
    /// core, and the peer on the first.
    pub(super) fn new(pin: bool) -> Result<Self> {
        if !pin {
            return Ok(Self {
                application: None,
                peer: None,
            });
        }
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let usable = |core: &usize| allowed.is_set(*core).unwrap_or(false);
        let only = |core: Option<usize>| -> Result<Option<CpuSet>> {
            let mut set = CpuSet::new();
            set.set(core.context("no core is allowed")?)?;
            Ok(Some(set))
        };
        Ok(Self {
            application: only((0..CpuSet::count()).rev().find(usable))?,
            peer: only((0..CpuSet::count()).find(usable))?,
        })
    }

    /// Puts the calling thread where the application belongs.
    pub(super) fn application(&self) {
        place(self.application.as_ref());
    }

    /// Puts the calling thread where the peer belongs.
    pub(super) fn peer(&self) {
        place(self.peer.as_ref());
    }
}

fn place(cores: Option<&CpuSet>) {
    if let Some(cores) = cores {
        // A core that was just allowed; where it is not any more, the kernel decides.
        let _ = sched_setaffinity(Pid::from_raw(0), cores);
    }
}

/// The threads that are the application, of all threads of this process.
#[derive(Debug, Default)]
pub(super) struct Application(Mutex<Vec<i32>>);

impl Application {
    /// Counts the calling thread in.
    pub(super) fn enrol(&self) {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(gettid().as_raw());
    }

    fn time(&self) -> Duration {
        let threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |tid: &i32| on_cpu(Path::new(&format!("/proc/self/task/{tid}/schedstat")));
        threads.iter().map(of).sum()
    }
}

/// Processor time so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// Of everybody.
    pub(super) all: Duration,
    /// Of daemons and application: of all but the peer.
    pub(super) own: Duration,
}

impl Times {
    /// Now. What the kernel does for a socket counts for the thread during whose turn it does so.
    pub(super) fn now(daemons: &[u32], application: &Application) -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let seconds = |t: nix::sys::time::TimeVal| {
            Duration::new(
                u64::try_from(t.tv_sec()).unwrap_or(0),
                u32::try_from(t.tv_usec()).unwrap_or(0) * 1000,
            )
        };
        let ours = seconds(usage.user_time()) + seconds(usage.system_time());
        let daemons: Duration = daemons.iter().map(|pid| process(*pid)).sum();
        Ok(Self {
            all: ours + daemons,
            own: application.time() + daemons,
        })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            own: self.own.saturating_sub(before.own),
        }
    }
}

/// Time of all threads of a process; nothing for one that is gone.
fn process(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let times = tasks
        .flatten()
        .map(|task| on_cpu(&task.path().join("schedstat")));
    times.sum()
}

/// The first number of a `schedstat` file: nanoseconds on a processor.
fn on_cpu(schedstat: &Path) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    let nanos = text
        .split_ascii_whitespace()
        .next()
        .and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_of_an_enrolled_thread_is_seen() {
        let application = Application::default();
        application.enrol();
        let before = Times::now(&[], &application).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {}
        let spent = Times::now(&[], &application).unwrap().since(before);
        assert!(spent.own > Duration::from_millis(3), "{spent:?}");
        assert!(process(std::process::id()) > Duration::from_millis(3));
    }
}
