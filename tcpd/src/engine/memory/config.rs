//! Limits of memory. The defaults are Linux's in spirit; sizes are bytes of payload, where
//! Linux counts its overhead too, so that half of a `tcp_rmem` is window.

use super::record::RING_BASE;
use crate::engine::config::SECOND;
use abi::Nanos;

/// Bounds of the sum of all buffers (Linux: `tcp_mem`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Below it, pressure ends.
    pub low: u64,
    /// Above it there is pressure: no buffer grows, windows are small, and pages that hold nothing
    /// go.
    pub pressure: u64,
    /// Above it nothing is taken that need not be: no new connections, nothing out of
    /// order, and no orphan that makes no progress.
    pub high: u64,
}

impl Limits {
    /// Linux's shares of `ram` bytes: about 4.7, 6.2 and 9.4 %.
    #[must_use]
    pub const fn of_ram(ram: u64) -> Self {
        Self::around(ram / 16)
    }

    /// In Linux's proportion (`tcp_init_mem`) around where pressure begins, in bytes.
    #[must_use]
    pub const fn around(pressure: u64) -> Self {
        Self {
            low: pressure / 4 * 3,
            pressure,
            high: pressure / 4 * 6,
        }
    }
}

/// Parameters of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Receive buffer: least, at the start, and most that it grows to by itself.
    pub rmem: [u32; 3],
    /// Send buffer, likewise.
    pub wmem: [u32; 3],
    /// Bytes of each ring that every socket has for itself, a power of two: [`RING_BASE`] where
    /// memory is a session's. At least what a SYN may offer (64 KiB), where receive buffers are that
    /// large from the beginning or are set by applications.
    pub base: u32,
    /// All sockets together.
    pub limits: Limits,
    /// Most that the sockets of one session may grow to together.
    pub session: u64,
    /// How long a socket is idle before its pages are given back; 0: never.
    pub idle: Nanos,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let limits = Limits::of_ram(8 << 30);
        Self {
            rmem: [4_096, 131_072, 8 << 20],
            wmem: [4_096, 131_072, 8 << 20],
            base: RING_BASE,
            limits,
            session: limits.pressure / 2,
            idle: 10 * SECOND,
        }
    }
}

impl MemoryConfig {
    /// Buffers as large as their capacity from the beginning, which never grow: for shells whose
    /// memory is no ring of a session's.
    #[must_use]
    pub fn fixed() -> Self {
        let most = abi::session::RING_MOST;
        Self {
            rmem: [4_096, most, most],
            wmem: [4_096, most, most],
            base: most,
            ..Self::default()
        }
    }
}
