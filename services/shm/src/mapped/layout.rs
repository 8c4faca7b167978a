//! How a pool's memory is divided: sizes and offsets; see the picture in [`crate::pool`].

use crate::error::ShmError;
use abi::skbuff::HEADROOM;

/// Where the ownership words begin.
pub(crate) const WORDS_OFFSET: usize = 4096;
/// From one descriptor to the next.
pub(crate) const DESC_STRIDE: usize = 192;

/// How many slots of which sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLayout {
    /// Slots of the small class.
    pub small_slots: u32,
    /// Bytes of a small slot's buffer, headroom included.
    pub small_size: u32,
    /// Slots of the large class.
    pub large_slots: u32,
    /// Bytes of a large slot's buffer, headroom included.
    pub large_size: u32,
}

impl PoolLayout {
    /// For what a device receives: a frame each, or super-frames (small head, large rest).
    pub const RECEIVE: Self = Self {
        small_slots: 1024,
        small_size: 2048,
        large_slots: 128,
        large_size: 69_632,
    };
    /// For what tcpd sends: headers, and payload of small sends.
    pub const HEADERS: Self = Self {
        small_slots: 2048,
        small_size: 2048,
        large_slots: 16,
        large_size: 69_632,
    };
    /// For datagrams.
    pub const DATAGRAMS: Self = Self {
        small_slots: 1024,
        small_size: 2048,
        large_slots: 64,
        large_size: 69_632,
    };

    /// Slots of both classes.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.small_slots + self.large_slots
    }

    pub(crate) const fn desc_offset(&self) -> usize {
        WORDS_OFFSET + (self.slots() as usize * 8).next_multiple_of(64)
    }

    pub(crate) const fn buffers_offset(&self) -> usize {
        (self.desc_offset() + self.slots() as usize * DESC_STRIDE).next_multiple_of(4096)
    }

    /// Bytes of the whole pool.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.buffers_offset()
            + self.small_slots as usize * self.small_size as usize
            + self.large_slots as usize * self.large_size as usize
    }

    pub(crate) fn check(&self) -> Result<(), ShmError> {
        let fits = |n: u32| n > HEADROOM && n <= 1 << 20 && n.is_multiple_of(64);
        if self.small_slots > 1 << 20 || self.large_slots > 1 << 20 || self.slots() == 0 {
            return Err(ShmError::BadLayout("number of slots of a pool"));
        }
        if !fits(self.small_size) || !fits(self.large_size) {
            return Err(ShmError::BadLayout("size of a pool's slots"));
        }
        Ok(())
    }
}

/// The two classes of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeClass {
    /// One frame.
    Small,
    /// A super-frame.
    Large,
}
