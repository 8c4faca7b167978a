//! A session: this process's connection to one transport, and the memory of its sockets.
//!
//! Requests are answered one at a time. Both ends of the request socket outlive a transport (the
//! supervisor keeps the far one), and a transport takes a request off the socket only after it
//! answered, so all that a restart can do is to answer twice: replies to earlier numbers are
//! dropped, with their descriptors.
//!
//! A child of `fork` shares the session of the sockets it inherited. Threads exclude each other
//! by a mutex, processes by a record lock on the memory's descriptor, which the kernel releases
//! when its holder dies. Sockets that a child makes itself go to a session of its own.

use crate::error::{StackError, os, system};
use crate::fdpass;
use abi::codec;
use abi::session::{Answer, Op, Reply, Request, header};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use shm::SessionMemory;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often a session is opened again that was cut off.
const OPEN_TRIES: u32 = 16;

/// A session with one transport.
pub(crate) struct Session {
    path: PathBuf,
    /// The process that opened it.
    pid: u32,
    requests: OwnedFd,
    memfd: OwnedFd,
    bell: OwnedFd,
    memory: SessionMemory,
    /// The reply buffer; its lock is also the lock on the request socket.
    reply: Mutex<Vec<u8>>,
    gone: AtomicBool,
    full: AtomicBool,
    faults: AtomicU64,
}

impl Session {
    /// Connects to the transport that listens at `path` and maps the session memory.
    ///
    /// A transport that dies between accepting us and storing our socket takes it along. Where
    /// somebody still listens, its successor is tried.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::open_once(path) {
                Err(error) if is_gone(&error) && tries < OPEN_TRIES => {}
                result => return result,
            }
        }
    }

    fn open_once(path: &Path) -> io::Result<Self> {
        let requests = dial(path)?;
        let protocol = |what| StackError::Protocol {
            path: path.to_owned(),
            what,
        };
        let mut buffer = vec![0; codec::MAX_MESSAGE];
        let hello = Request {
            id: 1,
            op: Op::Hello {
                version: abi::LAYOUT_VERSION,
            },
        };
        let (answer, fds) = exchange(&requests, path, &hello, &mut buffer)?;
        let Answer::Session { .. } = answer else {
            return Err(protocol("wrong answer to Hello").into());
        };
        let Ok([memfd, bell]) = <[OwnedFd; 2]>::try_from(fds) else {
            // With room for descriptors, it did not send them; without, the kernel dropped them.
            return Err(os(libc::EMFILE));
        };
        let memory =
            SessionMemory::attach(&memfd).map_err(|_| protocol("unusable session memory"))?;
        let session = Self {
            path: path.to_owned(),
            pid: std::process::id(),
            requests,
            memfd,
            bell,
            memory,
            reply: Mutex::new(buffer),
            gone: AtomicBool::new(false),
            full: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        };
        if let Some(last) = session.memory.mapping().u64_at(header::LAST_REQUEST) {
            last.store(1, Ordering::Relaxed);
        }
        Ok(session)
    }

    /// The sockets' memory.
    pub(crate) fn memory(&self) -> &SessionMemory {
        &self.memory
    }

    /// Whether new sockets of the process `pid` may be made in it.
    pub(crate) fn is_usable(&self, pid: u32) -> bool {
        self.pid == pid && !self.gone.load(Ordering::Relaxed)
    }

    /// Whether the process `pid` has no use for it but through sockets that it inherited.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether the last attempt found no free slot, and none was freed since.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Notes whether there are free slots, as far as is known.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Counts an impossible value in the transport's words.
    pub(crate) fn fault(&self) -> io::Error {
        self.faults.fetch_add(1, Ordering::Relaxed);
        os(libc::EPROTO)
    }

    /// Impossible values seen so far.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Says that a socket's words changed, and wakes the transport if it sleeps.
    pub(crate) fn ring(&self, slot: u32) {
        if self.memory.mark_dirty(slot) {
            self.wake();
        }
    }

    /// Writes the doorbell.
    pub(crate) fn wake(&self) {
        // Full (EAGAIN) means that a wake-up is pending already.
        let _ = nix::unistd::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Asks the transport and waits for its answer, across restarts of it.
    pub(crate) fn request(&self, op: Op) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let mut buffer = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        let _processes = ProcessLock::take(&self.memfd)?;
        let word = self.memory.mapping().u64_at(header::LAST_REQUEST);
        let last = word.ok_or_else(|| os(libc::EIO))?;
        let id = last.load(Ordering::Relaxed).wrapping_add(1);
        // Before sending: who dies in between leaves a number out; the other way round, the next
        // request would get the answer to this one.
        last.store(id, Ordering::Relaxed);
        let result = exchange(&self.requests, &self.path, &Request { id, op }, &mut buffer);
        if let Err(error) = &result
            && error.get_ref().is_some_and(|e| e.is::<StackError>())
        {
            self.gone.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Session");
        out.field("path", &self.path)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// Sends `request` and takes the reply of its number.
fn exchange(
    socket: &OwnedFd,
    path: &Path,
    request: &Request,
    buffer: &mut [u8],
) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let gone = || StackError::Gone {
        path: path.parent().unwrap_or(path).to_owned(),
    };
    let protocol = |what| StackError::Protocol {
        path: path.to_owned(),
        what,
    };
    let bytes = codec::encode(request).map_err(|_| os(libc::EINVAL))?;
    loop {
        match send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Err(gone().into()),
        }
    }
    loop {
        let message = match fdpass::receive(socket.as_fd(), buffer, 0) {
            Ok(message) => message,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(gone().into()),
        };
        if message.len == 0 {
            return Err(gone().into());
        }
        let reply: Reply = buffer
            .get(..message.len)
            .and_then(|bytes| codec::decode(bytes).ok())
            .ok_or_else(|| protocol("malformed reply"))?;
        if reply.id < request.id {
            continue;
        }
        if reply.id > request.id {
            return Err(protocol("reply to a request that was never made").into());
        }
        let answer = reply.result.map_err(os)?;
        if message.lost_fds {
            return Err(os(libc::EMFILE));
        }
        return Ok((answer, message.fds));
    }
}

fn is_gone(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<StackError>());
    matches!(inner, Some(StackError::Gone { .. }))
}

fn dial(path: &Path) -> io::Result<OwnedFd> {
    let requests = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(system)?;
    let address = UnixAddr::new(path).map_err(system)?;
    loop {
        match connect(requests.as_raw_fd(), &address) {
            Ok(()) => return Ok(requests),
            // A Unix socket's connect that was interrupted did not happen.
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => {
                let source = system(e);
                return Err(StackError::NotRunning {
                    path: path.to_owned(),
                    source,
                }
                .into());
            }
        }
    }
}

/// Keeps other processes that inherited the session off its request socket.
struct ProcessLock<'a>(&'a OwnedFd);

impl<'a> ProcessLock<'a> {
    fn take(memfd: &'a OwnedFd) -> io::Result<Self> {
        loop {
            match fcntl(memfd, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK))) {
                Ok(_) => return Ok(Self(memfd)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(system(e)),
            }
        }
    }
}

impl Drop for ProcessLock<'_> {
    fn drop(&mut self) {
        let _ = fcntl(self.0, FcntlArg::F_SETLK(&whole(libc::F_UNLCK)));
    }
}

fn whole(kind: i32) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or(0),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
