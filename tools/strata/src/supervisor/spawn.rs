//! Starting a daemon: this executable again, with its end of the descriptor channel as fd 3 and
//! nothing else inherited.
//!
//! Daemons are put into a process group of their own, so that an interrupt typed at a supervisor
//! in the foreground is the supervisor's alone, and they are not told to die with it: a
//! supervisor that dies takes nothing down.
#![allow(
    unsafe_code,
    reason = "pidfd_open and pidfd_send_signal have no wrapper in nix"
)]

use crate::config::Pin;
use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::process::setpriority_process;
use std::ffi::CString;
use std::fs::{self, File};
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
    /// A child of this process; its number cannot be another's before we reap it.
    ours: bool,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an exit status.
    Status(i32),
    /// By a signal.
    Signal(Signal),
    /// As a child of somebody else, and nobody can tell how.
    Unseen,
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "{signal}"),
            Self::Unseen => f.write_str("it ended"),
        }
    }
}

impl Child {
    /// Starts `executable` with these arguments, the first of which is its name, and `channel` as
    /// descriptor 3.
    pub(super) fn start(
        executable: &Path,
        arguments: &[&str],
        channel: &OwnedFd,
    ) -> anyhow::Result<Self> {
        let name = arguments.first().copied().unwrap_or_default();
        let arguments: Vec<CString> = arguments
            .iter()
            .map(|argument| CString::new(argument.as_bytes()))
            .collect::<Result<_, _>>()?;
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
            .with_context(|| format!("cannot start {} as `{name}`", executable.display()))?;
        // The child cannot be reaped by anybody else, so its number is its own until we do.
        let pidfd = pidfd_open(pid).context("pidfd_open")?;
        Ok(Self {
            pid,
            pidfd,
            ours: true,
        })
    }

    /// A process that another supervisor has started.
    ///
    /// # Errors
    /// When it is no process's descriptor, or the process is gone.
    pub(super) fn adopt(pidfd: OwnedFd) -> anyhow::Result<Self> {
        // The number behind the descriptor (proc_pid_fdinfo(5)); -1 once it is reaped.
        let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let text = fs::read_to_string(path)?;
        let pid = text
            .lines()
            .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
            .filter(|pid| *pid > 1)
            .context("it has ended")?;
        let pid = Pid::from_raw(pid);
        Ok(Self {
            pid,
            pidfd,
            ours: false,
        })
    }

    /// The process that listened where `socket` has connected to.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn of_peer(socket: &impl AsFd) -> anyhow::Result<Self> {
        Self::by_id(Pid::from_raw(
            getsockopt(&socket.as_fd(), PeerCredentials)?.pid(),
        ))
    }

    /// Some process.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn by_id(pid: Pid) -> anyhow::Result<Self> {
        let pidfd = pidfd_open(pid).context("pidfd_open")?;
        Ok(Self {
            pid,
            pidfd,
            ours: false,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Kills it; what is dead stays dead.
    pub(super) fn kill(&self) {
        let _ = pidfd_kill(&self.pidfd);
    }

    /// How it ended, if it has; it is reaped then, and must not be asked again.
    pub(super) fn reap(&self) -> Option<Ended> {
        if !self.ours {
            // Whoever is its parent now hears how; the descriptor tells that.
            let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            let count = poll(&mut ended, PollTimeout::ZERO).unwrap_or(0);
            return (count > 0).then(|| self.end_unseen());
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, status)) => Some(Ended::Status(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::Signal(signal)),
            _ => None,
        }
    }
}

impl Child {
    /// How a child of somebody else ended: as its parent has not heard yet by proc(5), else by
    /// what the kernel kept for its descriptors (`PIDFD_GET_INFO`, Linux 6.15 and later). Its
    /// parent may hear in between, so the descriptor is asked before as well.
    fn end_unseen(&self) -> Ended {
        let status = kept_status(&self.pidfd)
            .or_else(|| zombie_status(self.pid))
            .or_else(|| kept_status(&self.pidfd));
        status.map_or(Ended::Unseen, Ended::of_status)
    }
}

impl Ended {
    /// From what wait(2) stores.
    fn of_status(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            return Self::Status(libc::WEXITSTATUS(status));
        }
        Signal::try_from(libc::WTERMSIG(status)).map_or(Self::Unseen, Self::Signal)
    }
}

/// The status of a process that its parent has waited for.
fn kept_status(pidfd: &OwnedFd) -> Option<i32> {
    // SAFETY: plain old data, for which zeros are a value.
    let mut info: libc::pidfd_info = unsafe { core::mem::zeroed() };
    info.mask = libc::PIDFD_INFO_EXIT.into();
    // SAFETY: the descriptor is open, and the kernel writes as much as the request's number says
    // the structure has.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    let is_known = result == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    is_known.then_some(info.exit_code)
}

/// The status of a process that its parent has not waited for: proc(5)'s `stat`, the last field.
/// Its number cannot be another's as long as it is a zombie, and another one is none.
fn zombie_status(pid: Pid) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace();
    if fields.next() != Some("Z") {
        return None;
    }
    fields.next_back()?.parse().ok()
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn pidfd_kill(pidfd: &OwnedFd) -> nix::Result<()> {
    let none = core::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; without a siginfo the call reads no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            none,
            0,
        )
    };
    nix::errno::Errno::result(result).map(drop)
}

fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let raw = i32::try_from(nix::errno::Errno::result(raw)?).unwrap_or(-1);
    // SAFETY: the kernel made the descriptor just now (close-on-exec), and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The core that daemons work on; `None` leaves it to the kernel.
pub(super) fn placement(pin: Pin) -> anyhow::Result<Option<u32>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let is_allowed = |core: u32| {
        let core = usize::try_from(core).unwrap_or(usize::MAX);
        allowed.is_set(core).unwrap_or(false)
    };
    match pin {
        Pin::Off => Ok(None),
        Pin::Auto => {
            let all = 0..u32::try_from(CpuSet::count())?;
            let last = all.rev().find(|core| is_allowed(*core));
            Ok(Some(last.context("no core is allowed")?))
        }
        Pin::Core(core) => {
            if !is_allowed(core) {
                anyhow::bail!(
                    "[cpu] pin = {core}: this process may not run on core {core}; \
                     write \"auto\", or a core that `taskset -p $$` shows"
                );
            }
            Ok(Some(core))
        }
    }
}

/// Sets the priority of this process, which its children inherit.
pub(super) fn prioritize(nice: i32) {
    if let Err(error) = setpriority_process(None, nice) {
        tracing::debug!(nice, %error, "the priority stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// As one that another supervisor has started, whose parent waits for it or does not.
    fn seen_by_a_stranger(script: &str, waits: bool) -> Ended {
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let adopted = Child::adopt(pidfd_open(pid).unwrap()).unwrap();
        if waits {
            child.wait().unwrap();
        }
        let ended = loop {
            if let Some(ended) = adopted.reap() {
                break ended;
            }
            std::thread::yield_now();
        };
        let _ = child.wait();
        ended
    }

    #[test]
    fn how_an_adopted_process_ended_is_heard() {
        // It lives until it is adopted.
        let abort = "sleep 0.05; kill -ABRT $$";
        assert_eq!(
            seen_by_a_stranger(abort, false),
            Ended::Signal(Signal::SIGABRT)
        );
        assert_eq!(
            seen_by_a_stranger("sleep 0.05; exit 3", false),
            Ended::Status(3)
        );
        // Kernels before 6.15 keep nothing.
        let heard = seen_by_a_stranger(abort, true);
        assert!(
            [Ended::Signal(Signal::SIGABRT), Ended::Unseen].contains(&heard),
            "{heard:?}"
        );
    }
}
