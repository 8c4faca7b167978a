//! The process that is started to be the supervisor: ends with who started it.

use super::running::remove;
use crate::supervisor::raise_descriptor_limit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Environment variable that makes an executable which links this crate behave as `strata`: how a
/// test's executable starts the supervisor and the daemons from itself.
pub const AS_STRATA: &str = "STRATA_EXECUTABLE_ROLE";

/// Value of [`AS_STRATA`] in a lab's own supervisor, whose standard input is its lifeline. Its
/// children inherit the variable.
pub(super) const SUPERVISOR: &str = "supervisor";

/// Behaves as `strata` if this process was started to be that. An executable that starts a
/// [`Lab`](super::Lab) calls it first thing in `main` and ends with what it answers.
#[must_use]
pub fn become_strata_if_asked() -> Option<ExitCode> {
    let role = std::env::var_os(AS_STRATA)?;
    if role == SUPERVISOR && command(std::env::args_os()).is_some_and(|command| command == "up") {
        stop_with_parent();
    }
    let code = crate::main();
    if PARENT_GONE.load(Ordering::Relaxed) {
        // The parent was killed, or is about to do the same.
        remove(
            std::env::var_os("STRATA_RUN_DIR")
                .map(PathBuf::from)
                .as_deref(),
        );
    }
    Some(code)
}

/// The command in a command line as [`Lab::strata`](super::Lab::strata) makes it.
fn command(arguments: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut arguments = arguments.skip(1);
    match arguments.next() {
        Some(name) if name == "--name" => arguments.nth(1),
        first => first,
    }
}

/// Set in a supervisor whose lab has ended.
static PARENT_GONE: AtomicBool = AtomicBool::new(false);

/// Ends this supervisor in good order when its standard input does.
fn stop_with_parent() {
    let watch = || {
        let mut nothing = [0];
        while !matches!(std::io::stdin().read(&mut nothing), Ok(0) | Err(_)) {}
        PARENT_GONE.store(true, Ordering::Relaxed);
        let _ = kill(Pid::this(), Signal::SIGTERM);
    };
    // Before there is a second thread, as in a supervisor without a lab.
    raise_descriptor_limit();
    // Without the thread it is left to whoever ends us by hand.
    let _ = thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(watch);
}
