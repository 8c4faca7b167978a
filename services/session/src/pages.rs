//! Where buffers lie, and giving their pages back to the system.
//!
//! A ring that once was full keeps its pages until they are punched out. That is done for sockets
//! that are freed, and for those that have been idle for long, never while data is in a buffer.

use crate::SocketRef;
use crate::session::Session;
use crate::sessions::Sessions;
use crate::words::Words;
use abi::session::Rings;
use nix::fcntl::{FallocateFlags, fallocate};
use std::os::fd::AsFd;

/// Buffers that were used further than this give their pages back when the socket is freed.
const KEEP_PAGES: u64 = 128 * 1024;

/// The positions of a socket whose buffers the transport's record says are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty {
    /// Bytes the application has written, all of them acknowledged.
    pub tx_tail: u64,
    /// Whether the receive buffer is empty too, holes included.
    pub rx: bool,
}

impl Sessions {
    /// Publishes where a socket's buffers lie, from its committed record.
    pub fn set_rings(&mut self, socket: SocketRef, rings: &Rings) {
        let Some(session) = self.session_mut(socket.region) else {
            return;
        };
        if let Some(words) = session.words(socket.slot) {
            words.set_rings(rings);
        }
        session.slots.adopt_window(socket.slot, rings.window);
    }

    /// A window for a socket whose buffers outgrow its own part of the memory, to be recorded
    /// before it is used. It is given back with the socket. None when there is none left, or the
    /// socket has one.
    pub fn take_window(&mut self, socket: SocketRef) -> Option<u32> {
        self.session_mut(socket.region)?
            .slots
            .take_window(socket.slot)
    }

    /// Gives the pages of empty buffers back. The send buffer's stay when the application may be
    /// writing there just now. Answers how many bytes of buffers were punched out, whether or not
    /// they had pages.
    pub fn trim(&mut self, socket: SocketRef, rings: &Rings, empty: Empty) -> u64 {
        let Some(session) = self.session(socket.region) else {
            return 0;
        };
        let Some(words) = session.words(socket.slot) else {
            return 0;
        };
        let mut freed = 0;
        if empty.rx {
            // Only the transport writes there, and readers have taken everything.
            freed += session.punch_rx(socket.slot, rings);
        }
        if words.begin_trim() {
            if words.tx_tail() == empty.tx_tail {
                freed += session.punch_tx(socket.slot, rings);
            }
            words.end_trim();
            self.writable(socket);
        }
        freed
    }
}

impl Session {
    /// Punches out the buffers of a slot that used much of them.
    pub(crate) fn give_pages_back(&self, slot: u32) {
        let Some(attached) = &self.attached else {
            return;
        };
        let memory = &attached.memory;
        if Words::new(memory, slot).reach() < KEEP_PAGES {
            return;
        }
        let layout = memory.layout();
        let both = layout.tx_base() as usize + layout.rx_base() as usize;
        if let Some(at) = memory.tx_offset(slot) {
            self.punch(at, both);
        }
    }

    /// Punches out a window that its socket has let go of.
    pub(crate) fn punch_window(&self, window: u32) {
        if let Some(memory) = self.memory()
            && let Some(at) = memory.window_offset(window)
        {
            self.punch(at, memory.layout().window_size());
        }
    }

    fn punch_tx(&self, slot: u32, rings: &Rings) -> u64 {
        let Some(memory) = self.memory() else {
            return 0;
        };
        let layout = memory.layout();
        let base = layout.tx_base() as usize;
        let beyond = usize::try_from(rings.tx.span())
            .unwrap_or(0)
            .saturating_sub(base);
        let own = memory.tx_offset(slot).map_or(0, |at| self.punch(at, base));
        let more = memory
            .window_offset(rings.window)
            .map_or(0, |at| self.punch(at, beyond));
        own + more
    }

    fn punch_rx(&self, slot: u32, rings: &Rings) -> u64 {
        let Some(memory) = self.memory() else {
            return 0;
        };
        let layout = memory.layout();
        let base = layout.rx_base() as usize;
        let skip = (layout.tx_capacity - layout.tx_base()) as usize;
        let beyond = usize::try_from(rings.rx.span())
            .unwrap_or(0)
            .saturating_sub(base);
        let own = memory.rx_offset(slot).map_or(0, |at| self.punch(at, base));
        let more = memory
            .window_offset(rings.window)
            .map_or(0, |at| self.punch(at + skip, beyond));
        own + more
    }

    fn punch(&self, at: usize, len: usize) -> u64 {
        let (Some(attached), Ok(from), Ok(bytes)) =
            (&self.attached, i64::try_from(at), i64::try_from(len))
        else {
            return 0;
        };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if len > 0 && fallocate(attached.fd.as_fd(), flags, from, bytes).is_ok() {
            len as u64
        } else {
            0
        }
    }
}
