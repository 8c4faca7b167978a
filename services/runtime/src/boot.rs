//! How a daemon gets from `exec` to its first turn.
//!
//! ```text
//!   supervisor                                     daemon
//!   spawn (fd 3, server name) ------------------->
//!                    <------------- Handshake, Hello { pid, layout }
//!   Configure ----------------------------------->
//!   fd 3: Plumbing..., Restored..., Start ------->  attach, sweep, restore
//!                    <------------- Ready
//! ```
#![allow(
    unsafe_code,
    reason = "takes over the inherited descriptor 3 and closes what is above it"
)]

use crate::channel::FdChannel;
use crate::control::Control;
use crate::logging;
use abi::config::{DaemonConfig, Role};
use abi::control::ToDaemon;
use anyhow::{Context as _, bail};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// The number under which a daemon inherits its end of the descriptor channel.
pub const CHANNEL_FD: RawFd = 3;

/// Descriptors that a process's table has room for from the start, at 8 bytes each.
const DESCRIPTORS: u64 = 16_384;

/// How long to wait for the supervisor once it has begun.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that knows who it is and has nothing attached yet.
#[derive(Debug)]
pub struct Boot {
    pub(crate) config: DaemonConfig,
    pub(crate) control: Control,
    pub(crate) channel: Arc<FdChannel>,
}

impl Boot {
    /// Takes over descriptor 3, connects to the control server of that name, as the supervisor's
    /// command line says, and waits for the configuration: for as long as this process is not
    /// needed. None when the supervisor has gone, which then never will. Call once, first thing in
    /// `main`.
    ///
    /// # Errors
    /// When not started by a supervisor.
    pub fn from_args(control: &str) -> anyhow::Result<Option<Self>> {
        let channel = inherited_channel()?;
        Self::connect(control, channel)
    }

    /// As [`Boot::from_args`] with the channel handed in.
    ///
    /// # Errors
    /// As there.
    pub fn connect(control: &str, channel: OwnedFd) -> anyhow::Result<Option<Self>> {
        let channel = Arc::new(FdChannel::new(channel).context("descriptor channel")?);
        let control = Control::connect(control)?;
        match control.recv() {
            Some(ToDaemon::Configure(config)) => Ok(Some(Self {
                config: *config,
                control,
                channel,
            })),
            Some(other) => bail!("expected the configuration first, got {other:?}"),
            None => Ok(None),
        }
    }

    /// What the supervisor wants this process to be.
    #[must_use]
    pub fn role(&self) -> Role {
        self.config.role
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &DaemonConfig {
        &self.config
    }
}

/// Takes over descriptor 3, the end of the descriptor channel that this process was started with,
/// and sets up logging. Call once, first thing in `main`.
///
/// # Errors
/// When not started by a supervisor.
pub fn inherited_channel() -> anyhow::Result<OwnedFd> {
    close_above(CHANNEL_FD);
    logging::init();
    // SAFETY: borrowed for this one query only, which is harmless on a number not open.
    let probe = unsafe { BorrowedFd::borrow_raw(CHANNEL_FD) };
    fcntl(probe, FcntlArg::F_GETFD)
        .context("descriptor 3 is not open: a worker is started by `strata up`, not by hand")?;
    widen_descriptor_table();
    // SAFETY: descriptor 3 is inherited for us; nothing in this process has taken it before main.
    Ok(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) })
}

/// Has the kernel make the table of descriptors as large as thousands of connections need. Later,
/// with a second thread, each doubling would wait for a grace period of RCU
/// (`expand_fdtable` in Linux's fs/file.c), ten milliseconds or more, and who succeeds a dead
/// process gets all its descriptors at once.
///
/// Call while the process has one thread.
pub fn widen_descriptor_table() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let last = limit.min(DESCRIPTORS).saturating_sub(1);
    let Ok(last) = RawFd::try_from(last) else {
        return;
    };
    // Any descriptor will do; this one is open in every Rust program.
    if let Ok(copy) = fcntl(std::io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(last)) {
        // SAFETY: `fcntl` made it just now, and nobody else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(copy) });
    }
}

/// Closes every descriptor above `last` that this process has inherited. ipc-channel accepts its
/// connections without close-on-exec, so a daemon that is started in that moment has another one's
/// connection; and a shell may hand on what it has open, locks and pipes that somebody waits for.
///
/// Call first thing in `main`, while this process has opened nothing above `last` itself.
pub fn close_above(last: RawFd) {
    let (from, to) = (last.unsigned_abs() + 1, u32::MAX);
    // SAFETY: whoever calls this owns no descriptor above `last`, as the documentation asks. It
    // may fail on kernels without the call: then a descriptor stays open until this process ends,
    // no more.
    let _ = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, from, to, 0u32) };
}
