//! What a lab leaves to clean up, and the cleaning: in good order if the supervisor answers, by
//! force if it does not.

use crate::admin::{Answer, Request, call};
use crate::orphans;
use crate::rundir::RunDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What has to be cleaned up.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) dir: PathBuf,
    pub(super) rundir: RunDir,
    pub(super) supervisor: Mutex<Option<Child>>,
}

static ALL: Mutex<Vec<Weak<Running>>> = Mutex::new(Vec::new());

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes down every constellation that this process has started: for signal handling threads.
pub fn stop_all() {
    let all: Vec<_> = lock(&ALL).drain(..).collect();
    for running in all.iter().filter_map(Weak::upgrade) {
        running.stop();
    }
}

/// Takes a lab's directory away, and no other.
pub(super) fn remove(dir: Option<&Path>) {
    let is_lab = |dir: &&Path| {
        let name = dir.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX))
    };
    if let Some(dir) = dir.filter(is_lab)
        && !keep()
    {
        let _ = fs::remove_dir_all(dir);
    }
}

/// How the names of labs' directories begin.
pub(super) const PREFIX: &str = "strata-lab-";

/// Whether to keep the directory with configuration and log, for a look at what went wrong.
pub(super) fn keep() -> bool {
    std::env::var_os("STRATA_KEEP_LAB").is_some()
}

/// Whether there is a process of that number that has not ended.
pub(super) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

impl Running {
    /// Nothing yet, in this directory; [`stop_all`] knows it.
    pub(super) fn new(dir: PathBuf, rundir: RunDir) -> Arc<Self> {
        let running = Arc::new(Self {
            dir,
            rundir,
            supervisor: Mutex::new(None),
        });
        let mut all = lock(&ALL);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&running));
        running
    }

    /// Takes everything down, once.
    pub(super) fn stop(&self) {
        let mut supervisor = lock(&self.supervisor);
        if let Some(child) = supervisor.take() {
            self.end(child);
        }
        remove(Some(&self.dir));
    }

    /// In good order if the supervisor answers, by force if it does not.
    fn end(&self, mut supervisor: Child) {
        let pids: Vec<u32> = match call(&self.rundir, &Request::Status) {
            Ok(Answer::Status(status)) => status.daemons.iter().filter_map(|d| d.pid).collect(),
            _ => Vec::new(),
        };
        // Also when it cannot be asked yet, or no more: the end of its standard input.
        let asked = call(&self.rundir, &Request::Down).is_ok();
        drop(supervisor.stdin.take());
        let patience = Duration::from_secs(if asked { 5 } else { 2 });
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if matches!(supervisor.try_wait(), Ok(Some(_))) {
                break;
            }
            sleep(Duration::from_millis(2));
        }
        let _ = supervisor.kill();
        let _ = supervisor.wait();
        for pid in pids.into_iter().filter(|pid| is_alive(*pid)) {
            let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        // One that hangs could not say whom it has started.
        orphans::end(&orphans::find(&self.rundir));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
