//! Urgent data (`MSG_OOB`), as Linux gives it: one byte out of band, and a mark in the stream.
//!
//! ```text
//!   RX_URGENT   mark: position of the urgent byte, plus 1      transport, before RX_TAIL
//!   RX_OOB      the last mark whose byte is in the buffer      transport
//!   RX_LOST     an earlier mark whose byte is nobody's          transport
//!   OOB_TAKEN   the last mark whose byte was taken             whoever reads
//! ```
//!
//! A mark counts while `RX_HEAD` has not passed its byte. Reading stops in front of it. Then,
//! unless the socket keeps urgent data in line, the next read goes on behind the byte, which is
//! had by [`Socket::recv_oob`] alone. One deviation from Linux: a read that finds nothing but
//! the urgent byte leaves it where it is, where Linux drops it; the descriptor may be readable
//! for `EPOLLPRI`'s sake alone, and who reads then should not lose it.
//!
//! (One that was taken is passed by the next read, as in Linux.)
//!
//! `EPOLLPRI` is an out-of-band byte in the shadow fd. The kernel drops that together with the
//! tokens behind it when a token is taken; then the transport is asked to show it again
//! (`RX_PRI`).

use crate::error::os;
use crate::recv::Unread;
use crate::shadow::Token;
use crate::socket::{Shared, Socket};
use abi::session::{SocketState, control, event, shut};
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;

impl Shared {
    fn is_oob_inline(&self) -> bool {
        self.load(control::EVENTS) & event::OOB_INLINE != 0
    }

    /// The mark that counts for a reader at `head`.
    fn mark(&self, head: u64) -> Option<u64> {
        Some(self.load_long(control::RX_URGENT)).filter(|&mark| mark > head)
    }

    /// What a read may take of the bytes between `RX_HEAD` and `RX_TAIL`: up to the urgent byte,
    /// or from behind it.
    pub(crate) fn up_to_mark(&self, mut unread: Unread) -> Unread {
        if self.load_long(control::RX_URGENT) == 0 || unread.len == 0 {
            return unread;
        }
        if !self.is_oob_inline() {
            let behind = unread.head.wrapping_add(1);
            let taken = self.load_long(control::OOB_TAKEN);
            let lost = self.load_long(control::RX_LOST);
            if self.mark(unread.head) == Some(behind) || taken == behind || lost == behind {
                unread = Unread {
                    head: behind,
                    len: unread.len - 1,
                };
            }
        }
        let Some(mark) = self.mark(unread.head) else {
            return unread;
        };
        match usize::try_from(mark - 1 - unread.head) {
            Ok(distance) if distance > 0 => Unread {
                len: unread.len.min(distance),
                ..unread
            },
            _ => unread,
        }
    }

    /// A read found nothing behind an urgent byte at `RX_HEAD` that was taken already (visible
    /// data would begin at `behind`): it is passed. Called with the reading half locked.
    pub(crate) fn pass_spent_byte(&self, behind: u64) {
        if let Some(head) = self.long(control::RX_HEAD)
            && head.load(Ordering::Relaxed).wrapping_add(1) == behind
            && [control::OOB_TAKEN, control::RX_LOST]
                .iter()
                .any(|&spent| self.load_long(spent) == behind)
        {
            head.store(behind, Ordering::Release);
            let _ = self.session.memory().mark_dirty(self.id.slot);
        }
    }

    /// Whether the next byte is the urgent one.
    pub(crate) fn is_at_mark(&self) -> bool {
        let head = self.load_long(control::RX_HEAD);
        self.mark(head) == Some(head.wrapping_add(1))
    }

    /// An urgent byte waits to be taken out of band.
    fn has_oob(&self) -> bool {
        let mark = self.load_long(control::RX_OOB);
        mark != 0
            && !self.is_oob_inline()
            && self.load_long(control::OOB_TAKEN) != mark
            && self.mark(self.load_long(control::RX_HEAD)) == Some(mark)
    }

    /// Reading may have passed the urgent byte: `EPOLLPRI` goes.
    pub(crate) fn drop_pri(&self, socket: &Socket) {
        if self.load(control::RX_PRI) == 0 {
            return;
        }
        let mark = self.load_long(control::RX_OOB);
        if self.mark(self.load_long(control::RX_HEAD)) != Some(mark) {
            self.clear_pri(socket);
        }
    }

    fn clear_pri(&self, socket: &Socket) {
        socket.shadow.take_oob();
        if let Some(word) = self.word(control::RX_PRI) {
            word.store(0, Ordering::SeqCst);
        }
        if self.has_oob() {
            // Another one came meanwhile, and its byte may be what was taken.
            self.session.ring(self.id.slot);
        }
    }

    /// After a token was taken: if the kernel dropped the byte that shows `EPOLLPRI` with it, the
    /// transport has to show it again.
    pub(crate) fn keep_pri(&self, socket: &Socket, token: Token) {
        if token == Token::Taken && self.has_oob() && !socket.shadow.has_oob() {
            if let Some(word) = self.word(control::RX_PRI) {
                word.store(0, Ordering::SeqCst);
            }
            self.session.ring(self.id.slot);
        }
    }
}

impl Socket {
    /// Receives the urgent byte (`MSG_OOB`); with `peek` it stays. `None` at the end of the
    /// stream. Never waits.
    ///
    /// # Errors
    /// As `recv(2)` with `MSG_OOB`: `EINVAL` when there is none, it was taken or passed, or
    /// urgent data stays in line; `EAGAIN` when it is announced and not here yet.
    pub fn recv_oob(&self, peek: bool) -> io::Result<Option<u8>> {
        let shared = &*self.shared;
        if shared.is_stale() {
            return Err(os(libc::ECONNRESET));
        }
        // No other reader may pass the mark meanwhile.
        let _rx = shared.lock_rx();
        let head = shared.load_long(control::RX_HEAD);
        let mark = shared
            .mark(head)
            .filter(|&mark| !shared.is_oob_inline() && shared.load_long(control::OOB_TAKEN) != mark)
            .ok_or_else(|| os(libc::EINVAL))?;
        // Before the byte: who sees the end has seen whether it came.
        let ended = shared.load(control::EVENTS) & (event::PEER_FIN | event::RESET) != 0;
        if shared.load_long(control::RX_OOB) != mark {
            return if ended || shared.is_shut(shut::RD) {
                Ok(None)
            } else if shared.state() == SocketState::Connected {
                Err(os(libc::EAGAIN))
            } else {
                Err(os(libc::ENOTCONN))
            };
        }
        if mark - head > u64::from(shared.session.memory().layout().rx_capacity) {
            return Err(shared.session.fault());
        }
        let mut byte = [0];
        if !shared.copy_rx(mark - 1, &mut byte) {
            return Err(shared.session.fault());
        }
        if !peek {
            // The one before, if reading has come to it: the transport may have heard of the next
            // before it heard how far reading is, and OOB_TAKEN is about to forget it.
            shared.pass_spent_byte(head.wrapping_add(1));
            if let Some(word) = shared.long(control::OOB_TAKEN) {
                word.store(mark, Ordering::Release);
            }
            shared.clear_pri(self);
        }
        let [byte] = byte;
        Ok(Some(byte))
    }

    /// Whether reading has come to the mark of urgent data (`sockatmark(3)`, `SIOCATMARK`).
    ///
    /// # Errors
    /// When the transport does not know the socket any more.
    pub fn at_mark(&self) -> io::Result<bool> {
        if self.shared.is_stale() {
            return Err(os(libc::ECONNRESET));
        }
        Ok(self.shared.is_at_mark())
    }

    /// Sends `bytes`, the last of which is urgent (`MSG_OOB`); otherwise as
    /// [`Socket::send_vectored`]. The peer is told where the urgent byte is as soon as anything
    /// leaves. An urgent byte that an earlier call sent and that has not arrived becomes
    /// ordinary data.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn send_oob(&self, bytes: &[u8], dont_wait: bool) -> io::Result<usize> {
        let Some((_, ordinary)) = bytes.split_last() else {
            return Ok(0);
        };
        let mut sent = 0;
        if !ordinary.is_empty() {
            sent = self.send_vectored(&[IoSlice::new(ordinary)], dont_wait)?;
            if sent < ordinary.len() {
                return Ok(sent);
            }
        }
        let last = bytes.get(sent..).unwrap_or_default();
        match self.send_marked(last, dont_wait) {
            Ok(n) => Ok(sent + n),
            Err(error) if sent == 0 => Err(error),
            Err(_) => Ok(sent),
        }
    }
}
