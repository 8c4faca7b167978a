//! SPSC ring of handles between two neighbours.
//!
//! ```text
//!   0: head u32 (consumer writes)    64: tail u32 (producer writes)    128: slots u64 [capacity]
//! ```
//!
//! Indices count up and wrap at 2^32; the place is the index modulo the capacity, a power of
//! two. Each side keeps its own index and a copy of the other's, and looks at the shared word
//! only when the copy says full or empty. The own index in shared memory is what a restarted
//! process goes on from.
//!
//! What happens when a side dies:
//! - producer before the tail store: nothing is published, its slots are swept;
//! - producer after it: the consumer finds the handles; the bell is rung by the restart;
//! - consumer after claiming, before the head store: the successor meets handles whose slots
//!   were swept from its predecessor, or that it had handed on: stale, skipped. A few lost
//!   packets.

use crate::crash::{self, Point};
use crate::error::PeerFault;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Byte offset of the slots; head is at 0, tail at 64.
pub const SLOTS_OFFSET: usize = 128;

/// Bytes that a ring of `capacity` handles takes.
#[must_use]
pub const fn size(capacity: u32) -> usize {
    SLOTS_OFFSET + capacity as usize * 8
}

/// The shared words of a ring, wherever they live.
#[derive(Debug, Clone, Copy)]
pub struct RingWords<'a> {
    /// Next index to pop.
    pub head: &'a AtomicU32,
    /// Next index to push.
    pub tail: &'a AtomicU32,
    /// The handles; a power of two of them.
    pub slots: &'a [AtomicU64],
}

impl RingWords<'_> {
    #[inline]
    fn capacity(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(0)
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&AtomicU64> {
        self.slots
            .get((index & self.capacity().wrapping_sub(1)) as usize)
    }
}

/// The pushing side.
#[derive(Debug)]
pub struct Producer<'a> {
    words: RingWords<'a>,
    tail: u32,
    pushed: u32,
    head_seen: u32,
}

impl<'a> Producer<'a> {
    /// Takes up the producing side where a predecessor left it. An impossible pair of indices
    /// (scribbled) is repaired towards empty.
    #[must_use]
    pub fn attach(words: RingWords<'a>) -> Self {
        let tail = words.tail.load(Ordering::Relaxed);
        // Acquire: pairs with the consumer's Release of head.
        let head = words.head.load(Ordering::Acquire);
        let mut this = Self {
            words,
            tail,
            pushed: tail,
            head_seen: head,
        };
        if tail.wrapping_sub(head) > words.capacity() {
            this.tail = head;
            this.pushed = head;
            words.tail.store(head, Ordering::Release);
        }
        this
    }

    /// Free places, after looking at the consumer's head once.
    ///
    /// # Errors
    /// When the consumer's head is impossible; there is no room until the consumer has looked.
    #[inline]
    pub fn room(&mut self) -> Result<u32, PeerFault> {
        // Acquire: pairs with the consumer's Release of head: it is done with those places.
        let head = self.words.head.load(Ordering::Acquire);
        let used = self.pushed.wrapping_sub(head);
        if used > self.words.capacity() {
            // One of the two words was scribbled over. Ours is made right here, the consumer's
            // by the consumer when it finds nothing: after a look by each, both are.
            self.words.tail.store(self.tail, Ordering::Release);
            return Err(PeerFault::RingIndex {
                head,
                tail: self.pushed,
            });
        }
        self.head_seen = head;
        if used == self.words.capacity() && self.words.tail.load(Ordering::Relaxed) != self.tail {
            // Likewise: the consumer may believe in a scribbled tail that the ring is empty.
            self.words.tail.store(self.tail, Ordering::Release);
        }
        Ok(self.words.capacity() - used)
    }

    /// Writes a handle behind the last one without publishing it; false when full.
    #[inline]
    pub fn push(&mut self, handle: u64) -> bool {
        if self.pushed.wrapping_sub(self.head_seen) >= self.words.capacity()
            && !matches!(self.room(), Ok(n) if n > 0)
        {
            return false;
        }
        let Some(slot) = self.words.slot(self.pushed) else {
            return false;
        };
        slot.store(handle, Ordering::Relaxed);
        self.pushed = self.pushed.wrapping_add(1);
        crash::reach(Point::RingWritten);
        true
    }

    /// Publishes everything pushed and answers how many that were. Ring the bell after it.
    #[inline]
    pub fn publish(&mut self) -> u32 {
        let n = self.pushed.wrapping_sub(self.tail);
        if n != 0 {
            // Release: pairs with the consumer's Acquire of tail; descriptors and buffers
            // written before are visible to who sees the new tail.
            self.words.tail.store(self.pushed, Ordering::Release);
            self.tail = self.pushed;
            crash::reach(Point::RingPublished);
        }
        n
    }

    /// The handles that are published and not consumed: what a sweep must spare.
    #[must_use]
    pub fn published(words: RingWords<'_>) -> Vec<u64> {
        let tail = words.tail.load(Ordering::Acquire);
        let head = words.head.load(Ordering::Acquire);
        let n = tail.wrapping_sub(head);
        if n > words.capacity() {
            return Vec::new();
        }
        (0..n)
            .filter_map(|i| words.slot(head.wrapping_add(i)))
            .map(|s| s.load(Ordering::Relaxed))
            .collect()
    }
}

/// The popping side.
#[derive(Debug)]
pub struct Consumer<'a> {
    words: RingWords<'a>,
    head: u32,
    freed: u32,
    tail_seen: u32,
}

impl<'a> Consumer<'a> {
    /// Takes up the consuming side where a predecessor left it. Should it have left an
    /// impossible index (scribbled), everything that the ring can hold is looked at again: what
    /// was claimed already is stale, and nothing that waits is overlooked.
    #[must_use]
    pub fn attach(words: RingWords<'a>) -> Self {
        let head = words.head.load(Ordering::Relaxed);
        let tail = words.tail.load(Ordering::Acquire);
        let capacity = words.capacity();
        if tail.wrapping_sub(head) > capacity {
            let head = tail.wrapping_sub(capacity);
            words.head.store(head, Ordering::Release);
            return Self {
                words,
                head,
                freed: head,
                tail_seen: head,
            };
        }
        Self {
            words,
            head,
            freed: head,
            tail_seen: head,
        }
    }

    /// How many handles wait.
    ///
    /// # Errors
    /// When the producer's tail is impossible. The ring counts as empty from there on: its
    /// contents are given up, so that later ones pass.
    #[inline]
    pub fn available(&mut self) -> Result<u32, PeerFault> {
        // Acquire: pairs with the producer's Release of tail.
        let tail = self.words.tail.load(Ordering::Acquire);
        let n = tail.wrapping_sub(self.head);
        if n > self.words.capacity() {
            let fault = PeerFault::RingIndex {
                head: self.head,
                tail,
            };
            self.head = tail;
            self.tail_seen = tail;
            self.advance();
            return Err(fault);
        }
        self.tail_seen = tail;
        if n == 0 && self.words.head.load(Ordering::Relaxed) != self.freed {
            // Scribbled over: the producer may see no room for ever, and we would never advance.
            self.words.head.store(self.freed, Ordering::Release);
        }
        Ok(n)
    }

    /// Whether nothing waits, by a look at shared memory.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.tail.load(Ordering::Acquire) == self.head
    }

    /// The next handle; claim its slot before [`Consumer::advance`]. Looks at shared memory only
    /// through [`Consumer::available`].
    #[inline]
    pub fn pop(&mut self) -> Option<u64> {
        if self.head == self.tail_seen {
            return None;
        }
        let handle = self.words.slot(self.head)?.load(Ordering::Relaxed);
        self.head = self.head.wrapping_add(1);
        Some(handle)
    }

    /// Gives the places of everything popped back to the producer.
    #[inline]
    pub fn advance(&mut self) {
        if self.freed != self.head {
            // Release: pairs with the producer's Acquire of head; our reads of the places are
            // over, and the slots are claimed.
            self.words.head.store(self.head, Ordering::Release);
            self.freed = self.head;
            crash::reach(Point::RingAdvanced);
        }
    }
}
