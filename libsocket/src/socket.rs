//! The core: one socket, with the calls that BSD sockets have. The faces (`std::net`'s shapes
//! here, the C calls elsewhere) are thin over it.

use crate::closing::Closing;
use crate::error::os;
use crate::session::Session;
use crate::shadow::Shadow;
use crate::wait::Deadline;
use abi::session::{Answer, Op, SocketId, SocketKind, SocketState, control, event, shut};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A socket of a constellation: a descriptor, and what this process knows of it.
///
/// All calls take `&self` and may be made from several threads. Dropping it closes the
/// descriptor; the socket itself is closed with the last copy of the descriptor, in whatever
/// process that is. A stream with a linger time (`SO_LINGER`) waits then.
#[derive(Debug)]
pub struct Socket {
    // In this order they are dropped: the descriptor is closed, then that is waited for.
    pub(crate) shared: Arc<Shared>,
    pub(crate) shadow: Shadow,
    closing: Closing,
}

/// What all copies of a socket in this process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) session: Arc<Session>,
    pub(crate) id: SocketId,
    pub(crate) kind: SocketKind,
    pub(crate) v6: bool,
    /// Peer and own address of an accepted connection, which came with it.
    pub(crate) accepted: OnceLock<(SocketAddr, SocketAddr)>,
    /// The reading half; held while bytes are copied, not while waiting.
    rx: Mutex<Rx>,
    /// The writing half, likewise.
    tx: Mutex<()>,
    /// `ERROR_SEQ` of the last error that was taken.
    noted: AtomicU32,
    /// Timeouts in nanoseconds, 0 for none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

/// The reader's own notes.
#[derive(Debug, Default)]
pub(crate) struct Rx {
    /// Bytes taken since the transport was last told.
    pub(crate) unannounced: u64,
}

impl Shared {
    pub(crate) fn new(session: &Arc<Session>, id: SocketId, kind: SocketKind, v6: bool) -> Self {
        Self {
            session: Arc::clone(session),
            id,
            kind,
            v6,
            accepted: OnceLock::new(),
            rx: Mutex::default(),
            tx: Mutex::default(),
            noted: AtomicU32::new(0),
            read_timeout: AtomicU64::new(0),
            write_timeout: AtomicU64::new(0),
        }
    }

    /// The word at `offset` of the control block; slots are checked when sockets are made.
    pub(crate) fn word(&self, offset: usize) -> Option<&AtomicU32> {
        self.session.memory().u32(self.id.slot, offset)
    }

    /// The long word at `offset` of the control block.
    pub(crate) fn long(&self, offset: usize) -> Option<&AtomicU64> {
        self.session.memory().u64(self.id.slot, offset)
    }

    pub(crate) fn load(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |w| w.load(Ordering::Acquire))
    }

    pub(crate) fn load_long(&self, offset: usize) -> u64 {
        self.long(offset).map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// The state; an unknown one is taken for closed.
    pub(crate) fn state(&self) -> SocketState {
        SocketState::from_word(self.load(control::STATE)).unwrap_or(SocketState::Closed)
    }

    /// The socket's slot has become another's: the transport gave this one up.
    pub(crate) fn is_stale(&self) -> bool {
        self.load(control::INCARNATION) != self.id.incarnation
    }

    /// The pending error's number and errno, if it was not taken yet.
    pub(crate) fn pending_error(&self) -> Option<(u32, i32)> {
        let seq = self.load(control::ERROR_SEQ);
        if seq == self.noted.load(Ordering::Relaxed) {
            return None;
        }
        match self.load(control::ERROR) {
            0 => None,
            errno => Some((seq, i32::try_from(errno).unwrap_or(libc::EPROTO))),
        }
    }

    /// Takes the pending error.
    pub(crate) fn take_error(&self) -> Option<i32> {
        let (seq, errno) = self.pending_error()?;
        (self.noted.swap(seq, Ordering::Relaxed) != seq).then_some(errno)
    }

    /// Fails with the pending error, if there is one, and takes it.
    pub(crate) fn check_error(&self) -> io::Result<()> {
        self.take_error().map_or(Ok(()), |errno| Err(os(errno)))
    }

    pub(crate) fn is_shut(&self, bit: u32) -> bool {
        self.load(control::SHUTDOWN) & bit != 0
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.load(control::EVENTS) & event::RESET != 0
    }

    pub(crate) fn lock_rx(&self) -> MutexGuard<'_, Rx> {
        self.rx.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_tx(&self) -> MutexGuard<'_, ()> {
        self.tx.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read_deadline(&self) -> Deadline {
        Deadline::from_nanos(self.read_timeout.load(Ordering::Relaxed))
    }

    pub(crate) fn write_deadline(&self) -> Deadline {
        Deadline::from_nanos(self.write_timeout.load(Ordering::Relaxed))
    }

    pub(crate) fn request(&self, op: Op) -> io::Result<Answer> {
        self.session.request(op).map(|(answer, _)| answer)
    }

    /// A request that is answered by nothing but success.
    pub(crate) fn order(&self, op: Op) -> io::Result<()> {
        match self.request(op)? {
            Answer::Done => Ok(()),
            _ => Err(self.session.fault()),
        }
    }

    fn address(&self, op: Op) -> io::Result<SocketAddr> {
        match self.request(op)? {
            Answer::Address(address) => Ok(address),
            _ => Err(self.session.fault()),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A transport that reset a connection has closed its end, and cannot see ours closed:
        // it is told by both shutdown bits that the slot may be used again.
        if !self.is_stale()
            && self.state() == SocketState::Closed
            && let Some(word) = self.word(control::SHUTDOWN)
        {
            word.fetch_or(shut::RD | shut::WR, Ordering::Release);
            let _ = self.session.memory().mark_dirty(self.id.slot);
        }
        self.session.set_full(false);
    }
}

impl Socket {
    /// Asks `session` for a new socket.
    pub(crate) fn create(session: &Arc<Session>, v6: bool, kind: SocketKind) -> io::Result<Self> {
        let (answer, mut fds) = session.request(Op::Socket { v6, kind })?;
        let Answer::Socket(id) = answer else {
            return Err(session.fault());
        };
        if id.slot >= session.memory().layout().sockets {
            return Err(session.fault());
        }
        // Without its descriptor the transport sees the last copy closed, and frees it.
        let fd = fds.pop().ok_or_else(|| os(libc::EMFILE))?;
        Ok(Self::new(
            Shared::new(session, id, kind, v6),
            Shadow::adopt(fd)?,
        ))
    }

    pub(crate) fn new(shared: Shared, shadow: Shadow) -> Self {
        let closing = Closing::new(&shared.session, shared.id, shared.kind);
        Self {
            shared: Arc::new(shared),
            shadow,
            closing,
        }
    }

    /// The kind it was made as.
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.shared.kind
    }

    /// Whether it is an IPv6 socket.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.shared.v6
    }

    /// A second descriptor of the same socket.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        let shadow = self.shadow.duplicate()?;
        let shared = Arc::clone(&self.shared);
        Ok(Self {
            closing: Closing::new(&shared.session, shared.id, shared.kind),
            shared,
            shadow,
        })
    }

    /// Binds to a local address (port 0: any free one).
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        self.shared.order(Op::Bind(self.shared.id, address))
    }

    /// Listens for connections, of which `backlog` may wait to be accepted.
    ///
    /// # Errors
    /// As `listen(2)`.
    pub fn listen(&self, backlog: u32) -> io::Result<()> {
        // A stray token would displace the accept messages, which have a fixed length.
        if self.shared.state() == SocketState::Idle {
            let _ = self.shadow.take_token();
        }
        self.shared.order(Op::Listen(self.shared.id, backlog))
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the transport does not know the socket any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.shared.accepted.get() {
            Some((_, local)) => Ok(*local),
            None => self.shared.address(Op::LocalAddr(self.shared.id)),
        }
    }

    /// The address it is connected to.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.shared.accepted.get() {
            Some((peer, _)) => Ok(*peer),
            None => self.shared.address(Op::PeerAddr(self.shared.id)),
        }
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let shared = &*self.shared;
        if shared.is_stale() || shared.state() != SocketState::Connected {
            return Err(os(libc::ENOTCONN));
        }
        let bits = match how {
            Shutdown::Read => shut::RD,
            Shutdown::Write => shut::WR,
            Shutdown::Both => shut::RD | shut::WR,
        };
        {
            // Not in the middle of another thread's send, whose bytes come before the FIN.
            let _tx = shared.lock_tx();
            if let Some(word) = shared.word(control::SHUTDOWN) {
                word.fetch_or(bits, Ordering::Release);
            }
        }
        if bits & shut::RD != 0 {
            self.shadow.shut_read();
        }
        shared.session.ring(shared.id.slot);
        Ok(())
    }

    /// The pending error (`SO_ERROR`), which is taken by asking.
    ///
    /// # Errors
    /// None; the form is std's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let shared = &*self.shared;
        if shared.is_stale() {
            return Ok(Some(os(libc::ECONNRESET)));
        }
        Ok(shared.take_error().map(os))
    }

    /// Whether calls return `WouldBlock` instead of waiting. The flag belongs to the descriptor
    /// and all its copies, and is the one that `fcntl` knows.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shadow.set_nonblocking(nonblocking)
    }

    /// How long a read may wait.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        timeout(&self.shared.read_timeout)
    }

    /// How long a write may wait.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        timeout(&self.shared.write_timeout)
    }

    /// Sets how long a read (or accept) may wait; `None` is for ever.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.shared.read_timeout, time)
    }

    /// Sets how long a write may wait; `None` is for ever.
    ///
    /// # Errors
    /// `EINVAL` for a time of zero.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.shared.write_timeout, time)
    }

    /// `TCP_INFO`, laid out as Linux does.
    ///
    /// # Errors
    /// When it is not a TCP socket.
    pub fn tcp_info(&self) -> io::Result<Vec<u8>> {
        match self.shared.request(Op::TcpInfo(self.shared.id))? {
            Answer::Bytes(bytes) => Ok(bytes),
            _ => Err(self.shared.session.fault()),
        }
    }
}

fn timeout(of: &AtomicU64) -> Option<Duration> {
    match of.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

fn set_timeout(of: &AtomicU64, time: Option<Duration>) -> io::Result<()> {
    let nanos = match time {
        None => 0,
        Some(time) if time.is_zero() => return Err(os(libc::EINVAL)),
        Some(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
    };
    of.store(nanos, Ordering::Relaxed);
    Ok(())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shadow.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.shadow.as_fd().as_raw_fd()
    }
}

impl IntoRawFd for Socket {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.closing.disarm();
        socket.shadow.into_fd()
    }
}
