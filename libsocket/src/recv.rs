//! Waiting for data, and receiving from a stream. The order of looks at the words is explained in `shadow`.

use crate::error::os;
use crate::shadow::Token;
use crate::socket::{Rx, Shared, Socket};
use crate::wait::{Deadline, wait};
use abi::session::{SocketKind, SocketState, control, event, shut};
use nix::poll::PollFlags;
use shm::Buffer;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::{Ordering, fence};

/// Tries at a token that is about to come: some tens of microseconds, in which its writer may get
/// the core.
const COMING: usize = 64;

/// What the receive buffer holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unread {
    /// Position of the first byte.
    pub(crate) head: u64,
    /// Bytes from there on, at most the buffer's capacity.
    pub(crate) len: usize,
}

/// How a look at the receive buffer ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    /// There are bytes.
    Data(Unread),
    /// There will be none any more.
    End,
    /// There are none yet.
    Nothing,
}

impl Shared {
    /// Looks at the buffer once.
    fn look(&self) -> io::Result<Look> {
        if self.is_stale() {
            return Err(os(libc::ECONNRESET));
        }
        if self.kind != SocketKind::Stream {
            // An error concerns an earlier datagram, and is told before those that came since.
            self.check_error()?;
        }
        // Before the position: who sees the end has seen all data in front of it.
        let (events, state) = (self.load(control::EVENTS), self.state());
        let unread = self.unread()?;
        if unread.len > 0 {
            return Ok(Look::Data(unread));
        }
        self.pass_spent_byte(unread.head);
        self.check_error()?;
        if events & (event::PEER_FIN | event::RESET) != 0 || self.is_shut(shut::RD) {
            return Ok(Look::End);
        }
        if self.kind != SocketKind::Stream {
            return Ok(Look::Nothing);
        }
        match state {
            SocketState::Connected | SocketState::Connecting => Ok(Look::Nothing),
            SocketState::Idle | SocketState::Listening => Err(os(libc::ENOTCONN)),
            SocketState::Closed | SocketState::Free => Ok(Look::End),
        }
    }

    /// The unread bytes as far as one read may take them, after validating the transport's
    /// position.
    pub(crate) fn unread(&self) -> io::Result<Unread> {
        let tail = self.load_long(control::RX_TAIL);
        let head = self
            .long(control::RX_HEAD)
            .map_or(0, |w| w.load(Ordering::Relaxed));
        let len = tail.wrapping_sub(head);
        if len > u64::from(self.session.memory().layout().rx_capacity) {
            return Err(self.session.fault());
        }
        // After the tail: the transport shows a mark before it shows the byte.
        Ok(self.up_to_mark(Unread {
            head,
            len: usize::try_from(len).unwrap_or(0),
        }))
    }

    /// Bytes that the transport can put into the receive buffer while `head` is the first in use.
    fn rx_limit(&self, head: u64) -> u64 {
        let memory = self.session.memory();
        if self.kind != SocketKind::Stream {
            return memory.layout().rx_capacity.into();
        }
        let ring = memory.rings(self.id.slot).rx;
        let most = ring.limit(head).saturating_sub(head);
        match self.load(control::RX_LIMIT) {
            0 => most,
            limit => most.min(limit.into()),
        }
    }

    /// Gives `taken` bytes back to the transport.
    pub(crate) fn release(&self, rx: &mut Rx, unread: Unread, taken: usize) {
        let Some(head) = self.long(control::RX_HEAD) else {
            return;
        };
        // Release: our copying is over before the transport writes there again.
        head.store(unread.head.wrapping_add(taken as u64), Ordering::Release);
        rx.unannounced = rx.unannounced.saturating_add(taken as u64);
        // The mark lets the transport find the space when it looks for another reason. It is
        // woken for it only when the peer may be waiting for a larger window: the peer was told
        // of all space up to the last announcement, so it can stall only after a whole buffer
        // from there, and a reader that drains that passes a quarter of it.
        let limit = self.rx_limit(unread.head);
        let asleep = self.session.memory().mark_dirty(self.id.slot);
        if rx.unannounced >= limit / 4 {
            rx.unannounced = 0;
            if asleep {
                self.session.wake();
            }
        }
    }

    /// The buffer was drained: the descriptor should stop being readable, unless there is more
    /// or the end came. Answers whether there is more data; then the caller either takes it too
    /// (`goes_on`), or says nothing that sounds like "that was all".
    pub(crate) fn settle(&self, socket: &Socket, goes_on: bool) -> bool {
        let more = || self.unread().is_ok_and(|unread| unread.len > 0);
        let over = || {
            self.load(control::EVENTS) & (event::PEER_FIN | event::RESET) != 0
                || self.pending_error().is_some()
        };
        if more() {
            return true;
        }
        if over() {
            return false;
        }
        // Whatever the word says: a transport may have written its byte after we had taken the
        // data that it tells of.
        let taken = self.take_coming_token(socket) == Token::Taken;
        let more = more();
        if taken && more && !goes_on && self.load(control::RX_TOKEN) == 0 {
            // Data came in between, and the transport kept quiet because of the token that we
            // took: it has to say it again.
            self.session.ring(self.id.slot);
        }
        more
    }

    /// Takes the token also when its byte is not there yet: a transport marks it first, and who
    /// looks without being told may be between the two. (One that died there is not waited for.)
    fn take_coming_token(&self, socket: &Socket) -> Token {
        for _ in 0..COMING {
            match self.take_token(socket) {
                Token::None if self.load(control::RX_TOKEN) != 0 => std::thread::yield_now(),
                token => return token,
            }
        }
        Token::None
    }

    /// A1 to A3 of the token protocol.
    pub(crate) fn take_token(&self, socket: &Socket) -> Token {
        let token = socket.shadow.take_token();
        if token == Token::Taken
            && let Some(word) = self.word(control::RX_TOKEN)
        {
            word.store(0, Ordering::SeqCst);
        }
        self.keep_pri(socket, token);
        fence(Ordering::SeqCst);
        token
    }

    /// Looks at the buffer; if there is nothing, takes the token (`force`: whatever its word
    /// says) and looks again.
    pub(crate) fn look_well(&self, socket: &Socket, force: bool) -> io::Result<Look> {
        match self.look()? {
            Look::Nothing => {}
            seen => return Ok(seen),
        }
        if !force && self.load(control::RX_TOKEN) == 0 {
            return Ok(Look::Nothing);
        }
        let token = self.take_token(socket);
        match self.look()? {
            // The kernel says that nobody is there, and the words tell of no end.
            Look::Nothing if token == Token::End => Err(os(libc::ECONNRESET)),
            seen => Ok(seen),
        }
    }
}

impl Socket {
    /// Waits until there is something to receive or the end. The guard is let go while waiting
    /// if `yielding`; who lends keeps it.
    pub(crate) fn await_data<'a>(
        &'a self,
        mut rx: MutexGuard<'a, Rx>,
        yielding: bool,
        wait_at_all: bool,
    ) -> io::Result<(MutexGuard<'a, Rx>, Look)> {
        let mut deadline = Deadline::Never;
        let mut slept = false;
        loop {
            match self.shared.look_well(self, slept)? {
                Look::Nothing => {}
                seen => return Ok((rx, seen)),
            }
            if !slept {
                if !wait_at_all || self.shadow.is_nonblocking()? {
                    return match self.shared.look_well(self, true)? {
                        Look::Nothing => Err(os(libc::EAGAIN)),
                        seen => Ok((rx, seen)),
                    };
                }
                deadline = self.shared.read_deadline();
                slept = true;
            }
            if yielding {
                drop(rx);
                wait(self.as_fd(), PollFlags::POLLIN, &mut deadline)?;
                rx = self.shared.lock_rx();
            } else {
                wait(self.as_fd(), PollFlags::POLLIN, &mut deadline)?;
            }
        }
    }

    /// Receives from a stream into `bufs`; 0 is the end. With `peek`, the bytes stay; with
    /// `dont_wait`, `EAGAIN` instead of waiting.
    ///
    /// # Errors
    /// As `recvmsg(2)`; `EPROTO` when the transport's words are impossible.
    pub fn recv_vectored(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        peek: bool,
        dont_wait: bool,
    ) -> io::Result<usize> {
        if bufs.iter().all(|b| b.is_empty()) {
            return Ok(0);
        }
        let shared = &*self.shared;
        let (mut rx, look) = self.await_data(shared.lock_rx(), true, !dont_wait)?;
        let Look::Data(mut unread) = look else {
            return Ok(0);
        };
        let wanted: usize = bufs.iter().map(|b| b.len()).sum();
        let mut got = 0;
        loop {
            let len = unread.len.min(wanted - got);
            if !shared.copy_rx_into(unread.head, len, bufs, got) {
                return Err(shared.session.fault());
            }
            got += len;
            if peek {
                return Ok(got);
            }
            shared.release(&mut rx, unread, len);
            shared.drop_pri(self);
            // A short count says that the buffer is empty, and a program may wait for an edge
            // then (epoll(7)); so it must be, and the descriptor settled.
            let drained = len == unread.len;
            // A read stops in front of the urgent byte (as Linux).
            let goes_on = got < wanted && !shared.is_at_mark();
            if !drained || !shared.settle(self, goes_on) || !goes_on {
                return Ok(got);
            }
            let behind = unread.head.wrapping_add(len as u64);
            match shared.unread() {
                Ok(more) if more.head == behind => unread = more,
                Ok(_) => {
                    // The mark came in between; the token may be gone, and there is more.
                    shared.session.ring(shared.id.slot);
                    return Ok(got);
                }
                Err(_) => return Ok(got),
            }
        }
    }
}

impl Shared {
    /// Copies from the receive buffer at `position`.
    pub(crate) fn copy_rx(&self, position: u64, into: &mut [u8]) -> bool {
        let memory = self.session.memory();
        let rings = memory.rings(self.id.slot);
        let mut rest = into;
        memory.pieces(
            self.id.slot,
            Buffer::Rx,
            &rings,
            position,
            rest.len(),
            |at, len| {
                let Some((now, later)) = std::mem::take(&mut rest).split_at_mut_checked(len) else {
                    return false;
                };
                rest = later;
                memory.mapping().copy_out(at, now)
            },
        )
    }

    /// Copies `len` bytes at `position` into `bufs` from their byte `skip` on; they have room.
    pub(crate) fn copy_rx_into(
        &self,
        mut position: u64,
        mut len: usize,
        bufs: &mut [IoSliceMut<'_>],
        mut skip: usize,
    ) -> bool {
        for buf in bufs {
            let part = buf.len().saturating_sub(skip).min(len);
            if let Some(into) = buf.get_mut(skip..skip + part).filter(|_| part > 0) {
                if !self.copy_rx(position, into) {
                    return false;
                }
                position = position.wrapping_add(part as u64);
                len -= part;
            }
            skip = skip.saturating_sub(buf.len());
        }
        len == 0
    }
}
