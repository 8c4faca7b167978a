//! Memory that processes share: pools of packet buffers, rings of handles, doorbells, committed
//! records, vital signs and session memory. Almost all unsafe code of the stack is here.
//!
//! ```text
//!   mapping    a sealed memfd, mapped; checked access to its words and bytes
//!     owner    the ownership word of a slot: allocate, transfer, free, sweep
//!     pool     slots = ownership word + descriptor + buffer, in one mapping
//!     skbuff   a claimed slot: private, validated copy of its descriptor
//!     ring     SPSC ring of handles      link   a pair of rings and their registrations
//!     bell     masked doorbell           record two-copy checksummed records
//!     vitals   progress, crash note, trace, counters of a daemon
//!     arena    the pools and regions that one process has attached
//! ```
//!
//! Whatever another process may have written is loaded once and validated; what cannot be is a
//! [`PeerFault`], counted by the caller and never followed.

pub mod error;
pub mod owner;
pub mod record;
pub mod ring;
pub mod sync;

#[cfg(not(feature = "loom"))]
mod mapped {
    pub mod arena;
    pub mod bell;
    pub mod link;
    pub mod mapping;
    pub mod pool;
    pub mod records;
    pub mod session;
    pub mod skbuff;
    pub mod sweep;
    pub mod vitals;
}

pub use error::{PeerFault, ShmError};
#[cfg(not(feature = "loom"))]
pub use mapped::{
    arena::{self, Arena},
    bell::{self, Bell},
    link::{self, Link, Side},
    mapping::{self, Mapping},
    pool::{self, Allocator, Pool, PoolLayout, SizeClass},
    records::{self, RecordLayout, RecordTable},
    session::{self, SessionLayout, SessionMemory},
    skbuff::{self, SkBuff},
    sweep,
    vitals::{self, Vitals},
};
