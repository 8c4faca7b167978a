//! A constellation, as an application sees it.

use crate::error::{StackError, os};
use crate::paths;
use crate::session::Session;
use crate::socket::Socket;
use abi::session::SocketKind;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A handle to a constellation. Cheap to clone; clones share their sessions.
///
/// Nothing is opened until the first socket is made. A process that forks may go on using the
/// handle in the child, which then opens sessions of its own.
#[derive(Debug, Clone)]
pub struct Stack(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    tcp: Sessions,
    udp: Sessions,
}

/// The sessions with one transport; more than one when an application has many sockets.
#[derive(Debug)]
struct Sessions {
    path: PathBuf,
    /// Held only to look and to push, never across a system call.
    list: Mutex<Vec<Arc<Session>>>,
}

impl Stack {
    /// The constellation whose directory is `dir`, such as `/run/strata/default`.
    #[must_use]
    pub fn open(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref().to_owned();
        let sessions = |socket: &str| Sessions {
            path: dir.join(socket),
            list: Mutex::new(Vec::new()),
        };
        let (tcp, udp) = (sessions("tcpd.sock"), sessions("udpd.sock"));
        Self(Arc::new(Inner { dir, tcp, udp }))
    }

    /// The constellation of this name: this user's, or else the system's.
    ///
    /// # Errors
    /// When the name cannot be one, or somebody else made its directory in `/tmp`.
    pub fn named(name: &str) -> io::Result<Self> {
        if !paths::check_name(name) {
            return Err(StackError::BadName(name.to_owned()).into());
        }
        let dir = paths::find(name);
        if !paths::is_trusted(&dir) {
            return Err(StackError::NotTrusted { path: dir }.into());
        }
        Ok(Self::open(dir))
    }

    /// The constellation that `STRATA_NAME` names when this is first called, else `default`; used
    /// by sockets for which none is given.
    ///
    /// # Errors
    /// As [`Stack::named`].
    pub fn default_stack() -> io::Result<Self> {
        static DEFAULT: OnceLock<Stack> = OnceLock::new();
        if let Some(stack) = DEFAULT.get() {
            return Ok(stack.clone());
        }
        let name = std::env::var("STRATA_NAME").unwrap_or_default();
        let name = if name.is_empty() {
            paths::DEFAULT_NAME
        } else {
            &name
        };
        let stack = Self::named(name)?;
        Ok(DEFAULT.get_or_init(|| stack).clone())
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Makes a socket, blocking, close-on-exec.
    ///
    /// # Errors
    /// When the constellation cannot be reached or has no room, or `EMFILE`.
    pub fn socket(&self, v6: bool, kind: SocketKind) -> io::Result<Socket> {
        match kind {
            SocketKind::Stream => &self.0.tcp,
            SocketKind::Datagram | SocketKind::Ping | SocketKind::Raw(_) => &self.0.udp,
        }
        .socket(v6, kind)
    }

    /// Impossible values that the transports' words held, over all sessions of this process.
    #[must_use]
    pub fn peer_faults(&self) -> u64 {
        [&self.0.tcp, &self.0.udp]
            .into_iter()
            .flat_map(Sessions::snapshot)
            .map(|s| s.faults())
            .sum()
    }
}

impl Sessions {
    fn snapshot(&self) -> Vec<Arc<Session>> {
        self.list
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn socket(&self, v6: bool, kind: SocketKind) -> io::Result<Socket> {
        // A transport that restarted kept its sessions; one that is new (the constellation was
        // taken down and up again) knows none of ours. Then a session fails as gone, and the
        // next one is tried, at last a new one.
        let pid = std::process::id();
        let mut sessions = self.snapshot();
        sessions.retain(|s| s.is_usable(pid) && !s.is_full());
        for session in sessions.iter().rev() {
            match Socket::create(session, v6, kind) {
                Err(error) if is_full(&error) => session.set_full(true),
                Err(_) if session.is_gone() => {}
                result => return result,
            }
        }
        let session = Arc::new(Session::open(&self.path)?);
        let socket = Socket::create(&session, v6, kind)?;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|s| !s.is_gone());
        list.push(session);
        Ok(socket)
    }
}

/// The session has no free slot (or the transport none, which a new session will find too).
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOBUFS | libc::ENFILE | libc::ENOSPC)
    )
}

/// An address family that the address types of this library can say.
pub(crate) fn want_family(v6: bool, address: std::net::IpAddr) -> io::Result<()> {
    if address.is_ipv6() == v6 {
        Ok(())
    } else {
        Err(os(libc::EAFNOSUPPORT))
    }
}
