//! Starting a daemon: this executable again, with its end of the descriptor channel as fd 3 and
//! nothing else inherited.
//!
//! Daemons are put into a process group of their own, so that an interrupt typed at a supervisor
//! in the foreground is the supervisor's alone, and they are not told to die with it: a
//! supervisor that dies takes nothing down.
#![allow(unsafe_code, reason = "pidfd_open has no wrapper in nix")]

use crate::config::Pin;
use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The descriptor channel's number in a daemon.
const CHANNEL_FD: i32 = 3;

/// The executable that runs: also right when the file was replaced since.
#[must_use]
pub fn this_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// A started child: its process id, and a descriptor that is readable when it has ended.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an exit status.
    Status(i32),
    /// By a signal.
    Signal(Signal),
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

impl Child {
    /// Starts `executable` as a daemon called `name` whose control server is `control`.
    pub(super) fn start(
        executable: &Path,
        name: &str,
        control: &str,
        channel: &OwnedFd,
    ) -> anyhow::Result<Self> {
        let arguments = [&format!("strata: {name}"), "__worker", "--control", control]
            .map(|argument| CString::new(argument.as_bytes()));
        let arguments: Vec<CString> = arguments.into_iter().collect::<Result<_, _>>()?;
        let environment: Vec<CString> = std::env::vars_os()
            .filter_map(|(key, value)| {
                CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok()
            })
            .collect();
        let mut files = PosixSpawnFileActions::init()?;
        let null = File::open("/dev/null")?;
        files.add_dup2(null.as_raw_fd(), 0)?;
        // What daemons print is for the log; the supervisor's own output is somebody's pipe.
        files.add_dup2(2, 1)?;
        files.add_dup2(channel.as_raw_fd(), CHANNEL_FD)?;
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETPGROUP)?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        let pid = posix_spawn(executable, &files, &attributes, &arguments, &environment)
            .with_context(|| format!("cannot start {} as {name}", executable.display()))?;
        // The child cannot be reaped by anybody else, so its number is its own until we do.
        let pidfd = pidfd_open(pid).context("pidfd_open")?;
        Ok(Self { pid, pidfd })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Kills it; what is dead stays dead.
    pub(super) fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// How it ended, if it has; it is reaped then, and must not be asked again.
    pub(super) fn reap(&self) -> Option<Ended> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, status)) => Some(Ended::Status(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::Signal(signal)),
            _ => None,
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let raw = i32::try_from(nix::errno::Errno::result(raw)?).unwrap_or(-1);
    // SAFETY: the kernel made the descriptor just now (close-on-exec), and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The cores a daemon may run on; `None` leaves it to the kernel.
pub(super) fn placement(pin: Pin) -> anyhow::Result<Option<CpuSet>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let core = match pin {
        Pin::Off => return Ok(None),
        Pin::Auto => (0..CpuSet::count())
            .rev()
            .find(|core| allowed.is_set(*core).unwrap_or(false))
            .context("no core is allowed")?,
        Pin::Core(core) => {
            let core = usize::try_from(core)?;
            if !allowed.is_set(core).unwrap_or(false) {
                anyhow::bail!(
                    "[cpu] pin = {core}: this process may not run on core {core}; \
                     write \"auto\", or a core that `taskset -p $$` shows"
                );
            }
            core
        }
    };
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(Some(set))
}

/// Pins `child`; threads that it starts later inherit it.
pub(super) fn pin(child: &Child, cores: &CpuSet) -> nix::Result<()> {
    sched_setaffinity(child.pid, cores)
}
