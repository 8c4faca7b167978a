//! The atomics of this crate: the standard library's, or in models loom's, which can die.

#[cfg(feature = "loom")]
pub mod model;

#[cfg(feature = "loom")]
pub use model::{AtomicU32, AtomicU64, compiler_fence, fence};
pub use std::sync::atomic::Ordering;
#[cfg(not(feature = "loom"))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, compiler_fence, fence};
