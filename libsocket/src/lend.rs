//! Lending the receive buffer: reading without the copy to the user.
#![allow(unsafe_code, reason = "gives out a slice of the shared receive buffer")]

use crate::recv::{Look, Unread};
use crate::socket::{Rx, Socket};
use shm::Buffer;
use std::io::{self, BufRead, Read};
use std::sync::MutexGuard;

/// The reading half of a stream, taken for oneself: [`BufRead`] straight from the receive buffer
/// that is shared with the transport.
///
/// Other readers of the same socket in this process wait until it is dropped (a thread that
/// reads otherwise while it holds one waits for ever). A process that shares the socket after a
/// `fork` must not read meanwhile: it would let the transport overwrite what was lent.
#[derive(Debug)]
pub struct Lender<'a> {
    socket: &'a Socket,
    /// Held whenever bytes are lent.
    rx: Option<MutexGuard<'a, Rx>>,
    lent: Unread,
}

impl<'a> Lender<'a> {
    pub(crate) fn new(socket: &'a Socket) -> Self {
        let rx = Some(socket.shared.lock_rx());
        Self {
            socket,
            rx,
            lent: Unread { head: 0, len: 0 },
        }
    }
}

impl BufRead for Lender<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let shared = &*self.socket.shared;
        if self.lent.len == 0 {
            // After an error the lock was let go; nothing is lent then.
            let rx = self.rx.take().unwrap_or_else(|| shared.lock_rx());
            let (rx, look) = self.socket.await_data(rx, false, true)?;
            self.rx = Some(rx);
            match look {
                Look::Data(unread) => self.lent = unread,
                Look::End | Look::Nothing => return Ok(&[]),
            }
        }
        let memory = shared.session.memory();
        let rings = memory.rings(shared.id.slot);
        let run = memory
            .piece(shared.id.slot, Buffer::Rx, &rings, self.lent.head)
            .map(|(at, len)| (at, len.min(self.lent.len)))
            .and_then(|(at, len)| Some((memory.mapping().pointer(at, len)?, len)));
        let Some((start, len)) = run else {
            return Err(shared.session.fault());
        };
        // SAFETY: `pointer` checked that the bytes are inside the mapping, which lives as long as
        // the session, thus as `self.socket`. They are published and not yet released, so by the
        // layout's contract the transport does not write them; in this process only the holder
        // of the lock, which is us until `self` is next borrowed mutably, releases them. (A
        // transport that breaks the contract can tear these bytes, as any writer of a mapped
        // file can, and nothing else.)
        Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    fn consume(&mut self, amount: usize) {
        let amount = amount.min(self.lent.len);
        if amount == 0 {
            return;
        }
        let Some(rx) = &mut self.rx else { return };
        let shared = &*self.socket.shared;
        shared.release(rx, self.lent, amount);
        shared.drop_pri(self.socket);
        if amount == self.lent.len {
            shared.settle(self.socket, false);
        }
        self.lent.head = self.lent.head.wrapping_add(amount as u64);
        self.lent.len -= amount;
    }
}

impl Read for Lender<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = {
            let lent = self.fill_buf()?;
            let len = lent.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..len), lent.get(..len)) {
                to.copy_from_slice(from);
            }
            len
        };
        self.consume(len);
        Ok(len)
    }
}
