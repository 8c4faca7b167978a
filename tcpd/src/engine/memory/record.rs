//! The part of a socket's memory that its record keeps.

use crate::engine::seq::{DATA_OFFSET, Offset, of_stream, stream_position};
use crate::engine::sockopt::SockOpts;
use crate::engine::tcb::Tcb;
use abi::session::{Ring, Rings};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a ring at the beginning (or less, where the capacity is): the part of the session
/// memory that every socket has for itself.
pub const RING_BASE: u32 = 1 << 17;

/// Bits of [`MemoryRecord::locks`].
pub mod lock {
    /// The application has set the receive buffer's size (`SO_RCVBUF`).
    pub const RCV: u32 = 1;
    /// The application has set the send buffer's size (`SO_SNDBUF`).
    pub const SND: u32 = 2;
}

/// Where the buffers lie, and what bounds the window. 48 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRecord {
    /// Rings and window of the session memory.
    pub rings: Rings,
    /// Most that is offered to the peer while memory is short, and not more than [`RING_BASE`] is
    /// to be written then; 0: what the buffers have.
    pub rcv_clamp: u32,
    /// See [`lock`].
    pub locks: u32,
}

impl MemoryRecord {
    /// Of a new socket with these options, whose rings begin with `base` bytes or the capacity.
    #[must_use]
    pub const fn new(opts: &SockOpts, base: u32) -> Self {
        Self {
            rings: Rings {
                tx: Ring::new(min(opts.snd_capacity, base)),
                rx: Ring::new(min(opts.rcv_capacity, base)),
                window: 0,
                reserved: 0,
            },
            rcv_clamp: 0,
            locks: 0,
        }
    }

    /// Whether a size was set by the application.
    #[must_use]
    pub const fn is_locked(&self, lock: u32) -> bool {
        self.locks & lock != 0
    }

    /// Whether it can be a record's.
    #[must_use]
    pub fn is_valid(&self, opts: &SockOpts) -> bool {
        self.rings.tx.is_valid(opts.snd_capacity) && self.rings.rx.is_valid(opts.rcv_capacity)
    }
}

const fn min(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

impl Tcb {
    /// First send position that the application must not write now.
    #[must_use]
    pub fn write_limit(&self) -> u64 {
        self.memory.rings.tx.limit(self.acked_upto())
    }

    /// Bytes that may be in the send buffer now.
    #[must_use]
    pub fn send_room(&self) -> u64 {
        let ring = self.write_limit() - self.acked_upto();
        ring.min(self.send_buffer().into())
    }

    /// Size of the send buffer: while memory is short, not more than the part that every socket
    /// has. What was written before still counts, and no write that the ring allows is a fault.
    #[must_use]
    pub fn send_buffer(&self) -> u32 {
        match self.memory.rcv_clamp {
            0 => self.opts.snd_buf,
            _ => self.opts.snd_buf.min(RING_BASE),
        }
    }

    /// Highest edge that may be offered to the peer. It can fall when memory is short; what was
    /// offered before ([`Tcb::rcv_adv`]) still counts.
    #[must_use]
    pub fn rcv_limit(&self) -> Offset {
        let ring = self.memory.rings.rx.limit(self.consumed);
        let buffer = self.consumed.saturating_add(self.opts.rcv_buf.into());
        let edge = of_stream(ring.min(buffer));
        match self.memory.rcv_clamp {
            0 => edge,
            clamp => edge.min(self.rcv_nxt.max(DATA_OFFSET) + u64::from(clamp)),
        }
    }

    /// Neither buffer holds anything: the application has everything, and so has the peer.
    #[must_use]
    pub fn buffers_are_empty(&self) -> bool {
        self.written == self.acked_upto() && self.unread() == 0 && self.reassembly.is_empty()
    }

    /// Receive position behind everything that may have been placed.
    #[must_use]
    pub fn placed_upto(&self) -> u64 {
        if self.reassembly.is_empty() {
            self.received_upto()
        } else {
            stream_position(self.rcv_adv)
        }
    }
}
