//! SIGTERM means drain; the terminal's signals are the supervisor's business.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// SIGTERM as a descriptor.
#[derive(Debug)]
pub(crate) struct Signals {
    term: UnixStream,
}

impl Signals {
    /// Installs the handlers.
    pub(crate) fn install() -> std::io::Result<Self> {
        let (term, write) = UnixStream::pair()?;
        term.set_nonblocking(true)?;
        pipe::register(SIGTERM, write)?;
        // Ctrl-C reaches the whole process group, but it is the supervisor that decides what
        // ends. A flag nobody reads is how signal-hook says "ignore".
        for signal in [SIGINT, SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        Ok(Self { term })
    }

    /// For epoll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.term.as_fd()
    }

    /// Whether SIGTERM came since the last call.
    pub(crate) fn terminated(&mut self) -> bool {
        let mut bytes = [0; 16];
        matches!(self.term.read(&mut bytes), Ok(n) if n > 0)
    }
}
