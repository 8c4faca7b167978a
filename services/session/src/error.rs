//! What can go wrong on the transport's own side.

/// The session layer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Shared memory could not be made or attached.
    #[error("session memory: {0}")]
    Memory(#[from] shm::ShmError),
    /// The session or socket does not exist (any more).
    #[error("no such socket")]
    NoSuchSocket,
    /// All slots of the session, or all sessions, are in use.
    #[error("no free slot")]
    Full,
}

impl SessionError {
    pub(crate) fn system(what: &'static str) -> impl Fn(nix::Error) -> Self {
        move |e| Self::System {
            what,
            source: e.into(),
        }
    }

    /// The errno an application is told.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::System { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::Memory(_) => libc::ENOMEM,
            Self::NoSuchSocket => libc::EBADF,
            Self::Full => libc::ENFILE,
        }
    }
}
