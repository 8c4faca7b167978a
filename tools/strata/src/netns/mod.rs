//! A network namespace of our own: where the demonstration, the benchmarks and the tests run,
//! so that no frame of theirs can reach a real network.
//!
//! Root makes a network namespace directly; anybody else makes a user namespace first and is
//! root inside it. The namespace belongs to the process and is gone with its last member.

mod ethtool;
mod netlink;
mod thread;
mod veth;

pub use ethtool::no_offload;
pub use thread::Namespace;
pub use veth::{create_veth, create_veth_into, set_address, set_mtu, set_up};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::path::Path;

/// How the namespace was made, which decides what can be done in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// By root.
    Root,
    /// By an ordinary user, inside a user namespace.
    User,
}

/// Moves this process into a fresh network namespace with its loopback interface up.
///
/// Call it first thing in `main`: a process with several threads cannot enter a user namespace.
///
/// # Errors
/// When the machine forbids it; the text says what to do.
pub fn enter_private() -> Result<Privilege> {
    let privilege = match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => Privilege::Root,
        Err(Errno::EPERM) => {
            enter_user_namespace()?;
            Privilege::User
        }
        Err(error) => bail!("cannot make a network namespace: {error}"),
    };
    set_up("lo").context("cannot bring up the loopback interface of the new namespace")?;
    Ok(privilege)
}

fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        bail!(
            "cannot make a user namespace ({error}): run as root, or have an administrator allow it \
             (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or \
             kernel.apparmor_restrict_unprivileged_userns)"
        );
    }
    // user_namespaces(7): a group map may be written only once setgroups is off.
    fs::write("/proc/self/setgroups", "deny").context("cannot write /proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot write the user map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot write the group map")
}

/// Whether a TAP device can be made here: needs `/dev/net/tun` to be there and writable.
#[must_use]
pub fn tap_available() -> bool {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new("/dev/net/tun"))
        .is_ok()
}
