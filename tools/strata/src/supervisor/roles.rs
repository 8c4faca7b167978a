//! Which crate does the work of which role: the one place that names them all.

use crate::rundir::RunDir;
use abi::config::{Role, StackConfig};
use anyhow::Context;
use runtime::{Boot, Service};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

/// Bytes of committed state that a daemon of this role needs.
pub(super) fn state_size(role: Role, stack: &StackConfig) -> usize {
    match role {
        Role::Netdevd { .. } => netdevd::Netdevd::state_size(stack),
        Role::Ipd => ipd::Ipd::state_size(stack),
        Role::Tcpd => tcpd::Tcpd::state_size(stack),
        Role::Udpd => udpd::Udpd::state_size(stack),
    }
}

/// Which layouts of shared memory and state each role of this build knows, by the role's name: a
/// build whose entry for a role is the same can take that role over.
#[must_use]
pub fn layouts() -> BTreeMap<&'static str, String> {
    fn layout<S: Service>() -> String {
        format!("{}/{:016x}", abi::LAYOUT_VERSION, S::STATE_KIND)
    }
    BTreeMap::from([
        ("netdevd", layout::<netdevd::Netdevd>()),
        ("ipd", layout::<ipd::Ipd>()),
        ("tcpd", layout::<tcpd::Tcpd>()),
        ("udpd", layout::<udpd::Udpd>()),
    ])
}

/// A worker's whole life: called in a process that a supervisor started, with the name of its
/// control server.
///
/// # Errors
/// What ended it; after a drain it ends well, and so does a spare that was never needed.
pub fn run_worker(control: &str) -> anyhow::Result<()> {
    // Until it is somebody.
    let _ = nix::sys::prctl::set_name(c"spare");
    let Some(boot) = Boot::from_args(control)? else {
        return Ok(());
    };
    let role = boot.role();
    // What `ps` and `top` show; the command line says the device as well.
    if let Ok(name) = CString::new(role.name()) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    match role {
        Role::Netdevd { .. } => netdevd::main(boot),
        Role::Ipd => ipd::main(boot),
        Role::Tcpd => tcpd::main(boot),
        Role::Udpd => udpd::main(boot),
    }
    .with_context(|| role.name())
}

/// A keeper's whole life: called in a process that a supervisor started, for the constellation
/// `name` whose directory is under `base`.
///
/// # Errors
/// What ended it.
pub(crate) fn run_keeper(base: &Path, name: &str) -> anyhow::Result<()> {
    let channel = runtime::inherited_channel()?;
    let _ = nix::sys::prctl::set_name(c"keeper");
    crate::keeper::main(RunDir::under(base.to_path_buf(), name)?, channel)
}
