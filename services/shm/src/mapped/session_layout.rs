//! Sizes of a session memory, and where its parts begin.

use crate::error::ShmError;
use abi::session::{CONTROL_OFFSET, CONTROL_SIZE, MAX_SOCKETS, MAX_WINDOWS, RING_MOST};

/// Sizes of a session memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLayout {
    /// Sockets.
    pub sockets: u32,
    /// Most that a send buffer can grow to, a power of two of at least a page.
    pub tx_capacity: u32,
    /// Most that a receive buffer can grow to, likewise.
    pub rx_capacity: u32,
    /// What each socket has of both for itself, likewise; the rest lies in windows.
    pub base: u32,
    /// Windows: sockets that can have more than their base at the same time.
    pub windows: u32,
}

impl SessionLayout {
    /// Buffers that do not grow: each socket has all of its own.
    #[must_use]
    pub const fn fixed(sockets: u32, tx_capacity: u32, rx_capacity: u32) -> Self {
        let base = if tx_capacity > rx_capacity {
            tx_capacity
        } else {
            rx_capacity
        };
        Self {
            sockets,
            tx_capacity,
            rx_capacity,
            base,
            windows: 0,
        }
    }

    /// Bytes of a send buffer that each socket has for itself.
    #[must_use]
    pub const fn tx_base(&self) -> u32 {
        min(self.base, self.tx_capacity)
    }

    /// Bytes of a receive buffer that each socket has for itself.
    #[must_use]
    pub const fn rx_base(&self) -> u32 {
        min(self.base, self.rx_capacity)
    }

    /// Bytes of one window: what a send and a receive buffer have beyond the base.
    #[must_use]
    pub const fn window_size(&self) -> usize {
        (self.tx_capacity - self.tx_base()) as usize + (self.rx_capacity - self.rx_base()) as usize
    }

    pub(crate) const fn buffers_offset(&self) -> usize {
        (CONTROL_OFFSET + self.sockets as usize * CONTROL_SIZE).next_multiple_of(4096)
    }

    pub(crate) const fn windows_offset(&self) -> usize {
        self.buffers_offset()
            + self.sockets as usize * (self.tx_base() as usize + self.rx_base() as usize)
    }

    /// Bytes of the memfd (sparse).
    #[must_use]
    pub const fn size(&self) -> usize {
        self.windows_offset() + self.windows as usize * self.window_size()
    }

    pub(crate) fn check(&self) -> Result<(), ShmError> {
        let fits = |c: u32| c.is_power_of_two() && (4096..=RING_MOST).contains(&c);
        if self.sockets == 0 || self.sockets > MAX_SOCKETS || self.windows > MAX_WINDOWS {
            return Err(ShmError::BadLayout("number of sockets of a session"));
        }
        if !fits(self.tx_capacity) || !fits(self.rx_capacity) || !fits(self.base) {
            return Err(ShmError::BadLayout("buffer sizes of a session"));
        }
        Ok(())
    }
}

const fn min(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}
