//! The durable table of sessions.
//!
//! It lives in a memfd of this crate's own, stored with the supervisor under a key that no
//! session has, so that the transports' state layouts need not know of it.
//!
//! A session's region number is `generation << 10 | index`: the index finds the session without
//! a search, the generation keeps a number from coming back while packets of an ended session
//! may still be under way.

use crate::error::SessionError;
use abi::plumbing::{StoreClass, StoreKey};
use abi::{RegionId, ServiceId};
use shm::{RecordLayout, RecordTable, SessionLayout, records};
use std::os::fd::OwnedFd;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const INDEX_BITS: u32 = 10;

/// Sessions a transport serves at the same time.
pub const MAX_SESSIONS: usize = 1 << INDEX_BITS;

/// Where the table itself is stored.
pub(crate) const TABLE_KEY: StoreKey = StoreKey {
    class: StoreClass::SessionMemory,
    id: 0,
    incarnation: 0,
};

const LAYOUT: RecordLayout = RecordLayout {
    count: 1 << INDEX_BITS,
    len: 48,
    kind: u64::from_le_bytes(*b"SESSION2"),
};

/// What is durable of a session.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct SessionRecord {
    /// One of [`phase`].
    pub(crate) phase: u32,
    /// Uses of this index so far.
    pub(crate) generation: u32,
    pub(crate) sockets: u32,
    pub(crate) tx_capacity: u32,
    pub(crate) rx_capacity: u32,
    /// The last `Socket` request that was answered with a slot, and which one.
    pub(crate) socket_slot: u32,
    pub(crate) socket_request: u64,
    pub(crate) socket_incarnation: u32,
    pub(crate) base: u32,
    pub(crate) windows: u32,
    pub(crate) reserved: u32,
}

const _: () = assert!(size_of::<SessionRecord>() == 48);

/// How far a session is.
pub(crate) mod phase {
    /// The index is free.
    pub(crate) const FREE: u32 = 0;
    /// Connected; `Hello` has not been answered.
    pub(crate) const CONNECTED: u32 = 1;
    /// It has its memory.
    pub(crate) const LIVE: u32 = 2;
}

impl SessionRecord {
    pub(crate) fn layout(&self) -> SessionLayout {
        SessionLayout {
            sockets: self.sockets,
            tx_capacity: self.tx_capacity,
            rx_capacity: self.rx_capacity,
            base: self.base,
            windows: self.windows,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct State {
    table: RecordTable,
}

impl State {
    /// Makes a new one; store the descriptor under [`TABLE_KEY`].
    pub(crate) fn create() -> Result<(Self, OwnedFd), SessionError> {
        let fd = records::create("strata-sessions", LAYOUT)?;
        Ok((Self::attach(&fd)?, fd))
    }

    pub(crate) fn attach(fd: &OwnedFd) -> Result<Self, SessionError> {
        Ok(Self {
            table: RecordTable::attach(fd, LAYOUT)?,
        })
    }

    /// A record; one that is corrupt reads as a free one with its generation lost, so a higher
    /// one is taken from `stored`, the generations seen in stored keys.
    pub(crate) fn load(&self, index: usize) -> SessionRecord {
        let mut record = SessionRecord::default();
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        match self.table.load(index, record.as_mut_bytes()) {
            Ok(true) => record,
            _ => SessionRecord::default(),
        }
    }

    pub(crate) fn commit(&self, index: usize, record: &SessionRecord) {
        self.table
            .commit(u32::try_from(index).unwrap_or(u32::MAX), record.as_bytes());
    }
}

/// The region of the `generation`th session at `index`.
pub(crate) fn region(me: ServiceId, index: usize, generation: u32) -> RegionId {
    let index = u32::try_from(index & (MAX_SESSIONS - 1)).unwrap_or(0);
    RegionId::of_session(me, generation << INDEX_BITS | index)
}

/// The index in a region number.
pub(crate) fn index(region: RegionId) -> usize {
    region.0 as usize & (MAX_SESSIONS - 1)
}

/// The generation after `generation`: 14 bits, never 0.
pub(crate) fn next_generation(generation: u32) -> u32 {
    match generation.wrapping_add(1) & 0x3fff {
        0 => 1,
        g => g,
    }
}
