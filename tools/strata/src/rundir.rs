//! Where a constellation's sockets and log are: `/run/strata/NAME`, or an ordinary user's
//! `$XDG_RUNTIME_DIR/strata/NAME`, or `/tmp/strata-UID/NAME` (see [`libsocket::run_dir`]).

use anyhow::{Context, bail};
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The directory of one constellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    base: PathBuf,
    name: String,
}

/// Checks a constellation's name: it becomes a directory's.
///
/// # Errors
/// Why it cannot be one.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 32 {
        return Err(format!("`{name}` is not 1 to 32 bytes long"));
    }
    if name.starts_with('.') || name.starts_with('-') {
        return Err(format!("`{name}` begins with `.` or `-`"));
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return Err(format!(
            "`{name}` has characters beside letters, digits, `-`, `_`, `.`"
        ));
    }
    Ok(())
}

/// The directory under which this user's constellations are: where libsocket looks for them.
fn base() -> PathBuf {
    let mut dir = libsocket::run_dir(crate::config::DEFAULT_NAME);
    dir.pop();
    dir
}

impl RunDir {
    /// The directory of the constellation `name`; nothing is made.
    ///
    /// # Errors
    /// When the name cannot be a directory's.
    pub fn of(name: &str) -> anyhow::Result<Self> {
        check_name(name).map_err(|why| anyhow::anyhow!("constellation name {why}"))?;
        Ok(Self {
            base: base(),
            name: name.to_owned(),
        })
    }

    /// The directory of the constellation `name` under another base; nothing is made.
    ///
    /// # Errors
    /// When the name cannot be a directory's.
    pub fn under(base: PathBuf, name: &str) -> anyhow::Result<Self> {
        check_name(name).map_err(|why| anyhow::anyhow!("constellation name {why}"))?;
        Ok(Self {
            base,
            name: name.to_owned(),
        })
    }

    /// Names of the constellations that have a directory here.
    #[must_use]
    pub fn names() -> Vec<String> {
        let Ok(entries) = fs::read_dir(base()) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| check_name(name).is_ok())
            .collect();
        names.sort();
        names
    }

    /// Makes the directory; nobody else may write to it or have made it.
    ///
    /// # Errors
    /// When it cannot be made, or is somebody else's.
    pub fn create(&self) -> anyhow::Result<()> {
        let private = !geteuid().is_root();
        make_directory(&self.base, private)?;
        make_directory(&self.path(), private)
    }

    /// The constellation's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    /// Where the supervisor takes requests.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path().join("supervisor.sock")
    }

    /// Where the keeper waits for a new supervisor.
    #[must_use]
    pub fn keeper_socket(&self) -> PathBuf {
        self.path().join("keeper.sock")
    }

    /// Where applications reach a transport.
    #[must_use]
    pub fn listener(&self, transport: &str) -> PathBuf {
        self.path().join(format!("{transport}.sock"))
    }

    /// Held by the running supervisor.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.path().join("lock")
    }

    /// The daemons that live, for when the supervisor does not.
    #[must_use]
    pub fn daemons_file(&self) -> PathBuf {
        self.path().join("daemons")
    }

    /// Where what is quarantined is saved.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.path().join("quarantine")
    }

    /// Who is to blame for crashes, for the next supervisor.
    #[must_use]
    pub fn suspects_file(&self) -> PathBuf {
        self.path().join("suspects")
    }

    /// What supervisor and daemons say.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Takes the directory away, at the very end.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(self.path());
        // The base goes with the last constellation; it stays while others live.
        let _ = fs::remove_dir(&self.base);
    }
}

fn make_directory(path: &Path, private: bool) -> anyhow::Result<()> {
    let mode = if private { 0o700 } else { 0o755 };
    match DirBuilder::new().mode(mode).recursive(false).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make {}", path.display()));
        }
    }
    // What was there before may be another user's, put there to have our sockets.
    let found =
        fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    if !found.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    if found.uid() != geteuid().as_raw() {
        bail!(
            "{} belongs to user {}; remove it, or set XDG_RUNTIME_DIR to a directory of yours",
            path.display(),
            found.uid()
        );
    }
    if found.permissions().mode() & 0o022 != 0 {
        bail!(
            "{0} is writable by others; run `chmod go-w {0}`",
            path.display()
        );
    }
    Ok(())
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
            ".hidden",
            "-x",
            "a/b",
            "a b",
            "ä",
            &"n".repeat(33),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["default", "lab-1", "a.b_c", "7"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
