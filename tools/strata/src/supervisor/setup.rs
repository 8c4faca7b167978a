//! What the supervisor does before and after everything else: its lock, its limits, its signals.

use crate::orphans::{self, Orphan};
use crate::rundir::RunDir;
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a killed supervisor, or what it was about to start, may still hold its lock.
const DYING: Duration = Duration::from_millis(200);

/// Makes the constellation's directory and takes its lock, which ends with the process.
///
/// # Errors
/// When the directory cannot be made, or the name is taken.
pub(super) fn lock(rundir: &RunDir) -> anyhow::Result<Flock<File>> {
    rundir.create()?;
    let path = rundir.lock_file();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let begin = Instant::now();
    let locked = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((again, Errno::EWOULDBLOCK)) if begin.elapsed() < DYING => {
                file = again;
                sleep(Duration::from_millis(5));
            }
            other => break other,
        }
    };
    match locked {
        Ok(mut lock) => {
            let _ = lock.set_len(0);
            let ours = orphans::line("supervisor", Pid::this()).unwrap_or_default();
            let _ = lock.write_all(ours.as_bytes());
            Ok(lock)
        }
        Err((_, Errno::EWOULDBLOCK)) => {
            let name = rundir.name();
            let pid = holder(rundir).map_or_else(String::new, |h| format!(" {}", h.pid));
            bail!(
                "the name `{name}` is taken: that constellation runs already (supervisor{pid}); \
                 `strata down --name {name}` stops it, `--name OTHER` starts another, \
                 `--replace` takes its supervisor's place"
            );
        }
        Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The supervisor that has, or had, the lock, if it lives.
pub(super) fn holder(rundir: &RunDir) -> Option<Orphan> {
    let text = fs::read_to_string(rundir.lock_file()).ok()?;
    Orphan::parse(&text).filter(Orphan::lives)
}

/// The log is a new constellation's from here on; it is appended to.
pub(super) fn begin_log(rundir: &RunDir) {
    if let Ok(log) = File::options().write(true).open(rundir.log_file()) {
        let _ = log.set_len(0);
    }
}

/// Takes the directory away; the log stays if there may be something of interest in it, as does
/// what was quarantined.
pub(super) fn clean(rundir: &RunDir, keep_log: bool) {
    if !keep_log && !rundir.quarantine().exists() {
        rundir.remove();
        return;
    }
    for file in [
        rundir.admin_socket(),
        rundir.keeper_socket(),
        rundir.listener("tcpd"),
        rundir.listener("udpd"),
        rundir.daemons_file(),
        rundir.suspects_file(),
        rundir.lock_file(),
    ] {
        let _ = fs::remove_file(file);
    }
}

/// Descriptors that the supervisor needs for itself: plumbing, channels, clients.
const OWN_DESCRIPTORS: usize = 1000;

/// Every stored descriptor counts against the process's limit, so it is raised as far as it
/// goes (20,000 on some machines), and room is made for them while this process has one thread.
/// Answers how many can be stored.
pub(crate) fn raise_descriptor_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    runtime::widen_descriptor_table();
    usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(OWN_DESCRIPTORS)
}

/// SIGTERM and SIGINT as a descriptor; SIGHUP, of a terminal that went away, is ignored.
pub(super) fn signals() -> std::io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    pipe::register(SIGTERM, theirs.try_clone()?)?;
    pipe::register(SIGINT, theirs)?;
    let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, ignored)?;
    Ok(ours)
}

/// What tells this machine and network namespace from others.
pub(super) fn host_identity() -> Vec<u8> {
    let mut identity = fs::read("/etc/machine-id").unwrap_or_default();
    identity.extend(fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    if let Ok(namespace) = fs::metadata("/proc/self/ns/net") {
        identity.extend(namespace.ino().to_le_bytes());
    }
    identity
}
