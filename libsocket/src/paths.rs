//! Where a constellation's sockets are. The supervisor and every application ask here, so that
//! they agree.

use nix::unistd::geteuid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The constellation that is meant when none is named.
pub const DEFAULT_NAME: &str = "default";

/// Where root's constellations are.
const SYSTEM: &str = "/run/strata";

/// Checks a constellation's name, which becomes a directory's: 1 to 32 letters, digits, `-`,
/// `_`, `.`, and neither `-` nor `.` first.
#[must_use]
pub fn check_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The directory of the constellation `name` of this user: under `$STRATA_RUN_DIR` if that is
/// set, else `/run/strata` (root), `$XDG_RUNTIME_DIR/strata`, or `/tmp/strata-UID`. Nothing is
/// made or looked at; see [`check_name`] for what a name may be.
#[must_use]
pub fn run_dir(name: &str) -> PathBuf {
    base().join(name)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn base() -> PathBuf {
    if let Some(given) = variable("STRATA_RUN_DIR") {
        return given;
    }
    let uid = geteuid();
    // In a user namespace of an ordinary user, "root" may not write to the real root's /run.
    if uid.is_root() && fs::metadata("/run").is_ok_and(|run| run.uid() == 0) {
        return PathBuf::from(SYSTEM);
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("strata"),
        None => PathBuf::from(format!("/tmp/strata-{uid}")),
    }
}

/// Where an application looks for `name`: the user's own constellation, or else the system's of
/// that name, if there is one.
pub(crate) fn find(name: &str) -> PathBuf {
    let own = run_dir(name);
    let system = Path::new(SYSTEM).join(name);
    if !own.is_dir() && system.is_dir() {
        system
    } else {
        own
    }
}

/// Whether the directory is this user's or root's: in `/tmp` anybody could have made it, to be
/// given our traffic. (A directory that is not there is nobody's trap.)
pub(crate) fn is_trusted(dir: &Path) -> bool {
    fs::metadata(dir).map_or(true, |m| m.uid() == 0 || m.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "a/b",
            "a b",
            "ä",
            &"n".repeat(33),
        ] {
            assert!(!check_name(bad), "{bad}");
        }
        for good in ["default", "lab-1", "a.b_c", "7"] {
            assert!(check_name(good), "{good}");
        }
    }

    #[test]
    fn a_name_is_the_last_component() {
        assert!(run_dir("lab").ends_with("lab"));
    }
}
