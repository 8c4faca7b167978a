//! Errors: errno values as `std::io::Error`, and what went wrong in reaching a constellation.

use std::io;
use std::path::PathBuf;

/// A constellation could not be reached, or broke its side of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Nobody listens at the transport's socket.
    #[error("no constellation at {}: {source} (is it up? `strata up`)", path.display())]
    NotRunning {
        /// Where its socket was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory belongs to somebody else.
    #[error("{} belongs to another user, and is not trusted", path.display())]
    NotTrusted {
        /// The directory.
        path: PathBuf,
    },
    /// The constellation's name cannot be one.
    #[error("`{0}` cannot be a constellation's name: letters, digits, `-`, `_` and `.` only")]
    BadName(String),
    /// The supervisor and the transport are gone, so that nobody will answer.
    #[error("the constellation at {} has gone away", path.display())]
    Gone {
        /// Its directory.
        path: PathBuf,
    },
    /// The transport speaks another version, or nonsense.
    #[error("the transport at {} broke the protocol: {what}", path.display())]
    Protocol {
        /// Its socket.
        path: PathBuf,
        /// What it did.
        what: &'static str,
    },
}

impl StackError {
    /// The errno that a BSD call would give for it.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotRunning { source, .. } => match source.raw_os_error() {
                Some(code @ (libc::EACCES | libc::EPERM | libc::EMFILE | libc::ENFILE)) => code,
                _ => libc::ENETDOWN,
            },
            Self::NotTrusted { .. } => libc::EACCES,
            Self::BadName(_) => libc::EINVAL,
            Self::Gone { .. } => libc::ENETDOWN,
            Self::Protocol { .. } => libc::EPROTO,
        }
    }
}

impl From<StackError> for io::Error {
    fn from(error: StackError) -> Self {
        let kind = os(error.errno()).kind();
        Self::new(kind, error)
    }
}

/// The error of an errno.
pub(crate) fn os(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// The errno of an error of this library, for callers that speak C.
#[must_use]
pub fn errno(error: &io::Error) -> i32 {
    if let Some(code) = error.raw_os_error() {
        return code;
    }
    if let Some(stack) = error.get_ref().and_then(|e| e.downcast_ref::<StackError>()) {
        return stack.errno();
    }
    match error.kind() {
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::WouldBlock => libc::EAGAIN,
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        io::ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
        _ => libc::EIO,
    }
}

/// A system call's failure.
pub(crate) fn system(errno: nix::errno::Errno) -> io::Error {
    errno.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_constellation_is_a_network_that_is_down() {
        let e = StackError::NotRunning {
            path: "/x".into(),
            source: os(libc::ENOENT),
        };
        let e = io::Error::from(e);
        assert_eq!(errno(&e), libc::ENETDOWN);
        assert!(e.to_string().contains("strata up"));
        assert_eq!(errno(&os(libc::ECONNREFUSED)), libc::ECONNREFUSED);
    }
}
