//! Types that cross a process boundary, and the version of their layout.
//!
//! Everything here is either plain old data with a fixed `repr(C)` layout (it lives in shared
//! memory) or a `serde` type (it travels in a message). The crate has no logic beyond
//! validation, and depends on no other crate of the workspace.
//!
//! Changing any layout below means raising [`LAYOUT_VERSION`]: a daemon of another version is
//! refused at start, unharmed, instead of misreading what its predecessor left.

#![forbid(unsafe_code)]

pub mod codec;
pub mod config;
pub mod control;
pub mod endpoint;
pub mod handle;
pub mod ids;
pub mod plumbing;
pub mod session;
pub mod skbuff;
pub mod suspect;

pub use endpoint::Endpoint;
pub use handle::Handle;
pub use ids::{DevIndex, LinkId, PoolId, RegionId, ServiceId};

/// Version of every shared-memory layout and message of this crate.
pub const LAYOUT_VERSION: u32 = 9;

/// Nanoseconds of `CLOCK_MONOTONIC`, the one clock of the whole constellation.
///
/// It is the kernel's and not a process's, so deadlines stay valid across a daemon's restart.
pub type Nanos = u64;
