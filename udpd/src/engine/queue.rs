//! Datagram records in a buffer: where the next one goes, and what the next one is.
//!
//! ```text
//!      head                                       tail
//!   ----|  header 64 | payload | pad |  ...       |--- ... | filler: only `len` = SKIP |
//! ```
//!
//! A record lies in one piece and starts at a multiple of 16. What the application wrote into
//! the send buffer is as from a wire.

use abi::session::{DATAGRAM_ALIGN, DATAGRAM_SKIP, DatagramHeader};
use shm::PeerFault;

/// Bytes of a record's header.
pub const HEADER: u64 = 64;

const _: () = assert!(size_of::<DatagramHeader>() == 64);

/// Positions of one buffer: bytes since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queue {
    /// Taken so far.
    pub head: u64,
    /// Written so far.
    pub tail: u64,
}

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset in the buffer of a filler to write first.
    pub filler: Option<u64>,
    /// Offset in the buffer of the record.
    pub at: u64,
    /// The tail after it.
    pub tail: u64,
}

/// What is next in a send buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Empty,
    /// A datagram.
    Record {
        /// Its header, as the application wrote it.
        header: DatagramHeader,
        /// Offset in the buffer of the payload, `header.len` bytes.
        at: u64,
        /// The head after it.
        head: u64,
    },
}

/// Bytes that a payload takes with its header and padding.
#[must_use]
pub fn record_size(len: u64) -> u64 {
    (HEADER + len).next_multiple_of(DATAGRAM_ALIGN as u64)
}

impl Queue {
    /// Bytes in it.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// Where a payload of `len` bytes goes in a buffer of `capacity` (a power of two) of which
    /// `limit` bytes may be used; none when it is full. An empty queue takes whatever fits the
    /// buffer, so that a small limit cannot stop everything.
    #[must_use]
    pub fn place(&self, len: u64, capacity: u64, limit: u64) -> Option<Place> {
        let size = record_size(len);
        let offset = self.tail & (capacity - 1);
        let filler = if offset + size > capacity {
            capacity - offset
        } else {
            0
        };
        let used = self.used() + filler + size;
        if used > capacity || (used > limit && self.used() > 0) {
            return None;
        }
        Some(Place {
            filler: (filler > 0).then_some(offset),
            at: (self.tail + filler) & (capacity - 1),
            tail: self.tail + filler + size,
        })
    }

    /// Reads what is next; `read` copies bytes at an offset in the buffer.
    ///
    /// # Errors
    /// [`PeerFault`] for what no library writes: the rest of the queue means nothing.
    pub fn next(
        &self,
        capacity: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> bool,
    ) -> Result<Next, PeerFault> {
        const BAD: PeerFault = PeerFault::Other("malformed datagram record");
        let align = DATAGRAM_ALIGN as u64;
        if !self.head.is_multiple_of(align) || !self.tail.is_multiple_of(align) {
            return Err(BAD);
        }
        let mut head = self.head;
        for _ in 0..2 {
            let left = self.tail.wrapping_sub(head);
            if left == 0 {
                return Ok(Next::Empty);
            }
            let at = head & (capacity - 1);
            let mut word = [0; 4];
            if !read(at, &mut word) {
                return Err(BAD);
            }
            if u32::from_ne_bytes(word) == DATAGRAM_SKIP {
                // Goes on at the buffer's start; there are no two of them in a row.
                let filler = capacity - at;
                if filler > left {
                    return Err(BAD);
                }
                head += filler;
                continue;
            }
            let mut bytes = [0; size_of::<DatagramHeader>()];
            if left < HEADER || at + HEADER > capacity || !read(at, &mut bytes) {
                return Err(BAD);
            }
            let header: DatagramHeader = zerocopy::transmute!(bytes);
            let size = record_size(header.len.into());
            if size > left || at + size > capacity {
                return Err(BAD);
            }
            return Ok(Next::Record {
                header,
                at: at + HEADER,
                head: head + size,
            });
        }
        Err(BAD)
    }
}
