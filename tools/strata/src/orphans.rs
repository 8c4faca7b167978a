//! Daemons whose supervisor died: they run on, so that no connection is lost, and are found
//! again through the list that the supervisor keeps in its directory.
//!
//! A process is named by its id and its start time, since ids are used again.

use crate::rundir::RunDir;
use core::time::Duration;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::thread::sleep;
use std::time::Instant;

/// How long a daemon may take to finish before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// A daemon without supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is called.
    pub name: String,
    /// Its process id.
    pub pid: Pid,
    started: u64,
}

/// Notes the daemons that live now, by name and process id. A list that cannot be written is
/// not worth failing for: it matters only when the supervisor is killed.
pub(crate) fn record<'a>(rundir: &RunDir, daemons: impl Iterator<Item = (&'a str, Pid)>) {
    let text: String = daemons.filter_map(|(name, pid)| line(name, pid)).collect();
    let path = rundir.daemons_file();
    let fresh = path.with_extension("new");
    if fs::write(&fresh, text).is_ok() {
        let _ = fs::rename(&fresh, &path);
    }
}

/// The daemons of `rundir` that still live. Ask only when no supervisor does.
#[must_use]
pub fn find(rundir: &RunDir) -> Vec<Orphan> {
    let text = fs::read_to_string(rundir.daemons_file()).unwrap_or_default();
    text.lines()
        .filter_map(Orphan::parse)
        .filter(Orphan::lives)
        .collect()
}

/// How a process that lives is named in a file.
pub(crate) fn line(name: &str, pid: Pid) -> Option<String> {
    Some(format!("{name} {pid} {}\n", start_time(pid)?))
}

/// Lets `orphans` finish, and kills those that do not.
pub fn end(orphans: &[Orphan]) {
    let signal = |signal| {
        for orphan in orphans.iter().filter(|orphan| orphan.lives()) {
            let _ = kill(orphan.pid, signal);
        }
    };
    signal(Signal::SIGTERM);
    let begin = Instant::now();
    while orphans.iter().any(Orphan::lives) && begin.elapsed() < GRACE {
        sleep(Duration::from_millis(5));
    }
    signal(Signal::SIGKILL);
}

impl Orphan {
    /// What [`line`] has written.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.trim().split(' ');
        Some(Self {
            name: fields.next()?.to_owned(),
            pid: Pid::from_raw(fields.next()?.parse().ok().filter(|pid| *pid > 1)?),
            started: fields.next()?.parse().ok()?,
        })
    }

    pub(crate) fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// When a process was started, in ticks since boot (proc(5): the 22nd field); none when it is
/// dead or a zombie.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold spaces; what follows its bracket is the third.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let orphan = Orphan {
            name: "x".to_owned(),
            pid,
            started: start_time(pid).unwrap(),
        };
        assert!(orphan.lives());
        let other = Orphan {
            started: orphan.started - 1,
            ..orphan.clone()
        };
        assert!(!other.lives());
        end(&[other]);
        assert!(orphan.lives());
        end(core::slice::from_ref(&orphan));
        assert!(!orphan.lives());
        child.wait().unwrap();
    }
}
