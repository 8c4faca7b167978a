//! What can be wrong with shared memory: with ours (an error), or with what a peer wrote.

use abi::{Handle, PoolId, RegionId};

/// A peer wrote something impossible. The value was not used; count it and go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Ring indices further apart than the ring is long.
    #[error("ring indices are impossible: head {head}, tail {tail}")]
    RingIndex {
        /// Consumer's index.
        head: u32,
        /// Producer's index.
        tail: u32,
    },
    /// A handle of a pool that is not attached here.
    #[error("handle of unknown pool {0:?}")]
    UnknownPool(PoolId),
    /// A slot number past the pool's end.
    #[error("handle of impossible slot: {0:?}")]
    BadSlot(Handle),
    /// The slot is not the peer's in that generation: stale or forged. After a consumer's
    /// restart this is also what is left of packets that its predecessor had claimed.
    #[error("stale or forged handle {0:?}")]
    Stale(Handle),
    /// A descriptor whose offsets or fragments do not fit.
    #[error("malformed descriptor of {0:?}")]
    Descriptor(Handle),
    /// A fragment in a region that is not attached here.
    #[error("fragment in unknown region {0:?}")]
    UnknownRegion(RegionId),
    /// A position in session memory that is impossible.
    #[error("impossible position {position} (from {from} to {to})")]
    Position {
        /// What was read.
        position: u64,
        /// Lowest possible.
        from: u64,
        /// Highest possible.
        to: u64,
    },
    /// Anything else with a name.
    #[error("{0}")]
    Other(&'static str),
}

/// Shared memory could not be made or attached.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The descriptor's seals are missing, so its owner could shrink it under us.
    #[error("memfd is not sealed against resizing")]
    NotSealed,
    /// Too small for what it should hold.
    #[error("memfd has {have} bytes, {want} are needed")]
    TooSmall {
        /// Its size.
        have: usize,
        /// What the layout needs.
        want: usize,
    },
    /// Magic or version differ.
    #[error("{what} has layout {found:#x}, expected {expected:#x}")]
    Layout {
        /// Which structure.
        what: &'static str,
        /// What it says.
        found: u64,
        /// What this build reads.
        expected: u64,
    },
    /// Sizes that do not fit the structure.
    #[error("impossible layout: {0}")]
    BadLayout(&'static str),
}
