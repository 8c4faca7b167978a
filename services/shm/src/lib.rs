//! Memory that processes share: pools of packet buffers, rings of handles, doorbells, committed
//! records, vital signs and session memory. Almost all unsafe code of the stack is here.
//!
//! ```text
//!   mapping    a sealed memfd, mapped; checked access to its words and bytes
//!     owner    the ownership word of a slot: allocate, transfer, free
//!     slots    many of them: claiming a packet of two slots, sweeping
//!     pool     slots = ownership word + descriptor + buffer, in one mapping
//!     skbuff   a claimed slot: private, validated copy of its descriptor
//!     ring     SPSC ring of handles      link   a pair of rings and their registrations
//!     doorbell masked doorbell           bell   it, in a memfd with an eventfd
//!     record   two-copy checksummed      records  a table of them in a memfd
//!     recent   which of them were committed last
//!     dirty    bitmap of changed sockets session  the memory that has it
//!     vitals   progress, crash note, trace, counters of a daemon
//!     crash    where tests have a daemon die
//!     arena    the pools and regions that one process has attached
//! ```
//!
//! Whatever another process may have written is loaded once and validated; what cannot be is a
//! [`PeerFault`], counted by the caller and never followed.
//!
//! The algorithms (`owner`, `slots`, `lost`, `ring`, `doorbell`, `record`, `dirty`) know nothing of
//! memfds and run under loom too (feature `loom`), where an actor can die at any step; see
//! `tests/loom_*.rs`. What is in `mapped` gives them their words.

pub mod crash;
pub mod dirty;
pub mod doorbell;
pub mod error;
pub mod lost;
pub mod owner;
pub mod record;
pub mod ring;
pub mod slots;
pub mod sync;

#[cfg(not(feature = "loom"))]
mod mapped {
    pub(crate) mod allocator;
    pub mod arena;
    pub mod bell;
    pub(crate) mod header;
    pub(crate) mod layout;
    pub mod link;
    pub mod mapping;
    pub mod pool;
    pub mod recent;
    pub mod records;
    pub mod session;
    pub(crate) mod session_layout;
    pub mod skbuff;
    pub mod sweep;
    pub(crate) mod validate;
    pub mod vitals;
}

pub use error::{PeerFault, ShmError};
#[cfg(not(feature = "loom"))]
pub use mapped::{
    allocator::Allocator,
    arena::{self, Arena},
    bell::{self, Bell},
    link::{self, Link, Side},
    mapping::{self, Mapping},
    pool::{self, Pool, PoolLayout, SizeClass},
    recent::{self, Recent},
    records::{self, RecordLayout, RecordTable},
    session::{self, Buffer, SessionMemory},
    session_layout::SessionLayout,
    skbuff::{self, SkBuff},
    sweep,
    vitals::{self, Vitals},
};
