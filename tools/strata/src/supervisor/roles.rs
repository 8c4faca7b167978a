//! Which crate does the work of which role: the one place that names them all.

use abi::config::{Role, StackConfig};
use runtime::Boot;

/// Bytes of committed state that a daemon of this role needs.
pub(super) fn state_size(role: Role, stack: &StackConfig) -> usize {
    let _ = (role, stack);
    0
}

/// A worker's whole life: called in a process that a supervisor started, with the name of its
/// control server.
///
/// # Errors
/// What ended it; after a drain it ends well.
pub fn run_worker(control: &str) -> anyhow::Result<()> {
    let boot = Boot::from_args(control)?;
    let role = boot.role();
    anyhow::bail!("no {} in this build", role.name())
}
