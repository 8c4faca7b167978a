//! The durable table: one record a socket, written at commit, read by the successor.

use crate::engine::{ConnId, TCB_LAYOUT, Tcb};
use abi::config::StackConfig;
use shm::{Recent, RecordLayout, RecordTable, ShmError, recent};
use std::os::fd::AsFd;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record holds beside the engine's part.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Record {
    /// The engine's.
    pub(super) tcb: Tcb,
    /// Which use of its session slot the socket is.
    pub(super) incarnation: u32,
    /// Zero.
    pub(super) reserved: u32,
}

/// Bytes of a record.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion below bounds it"
)]
const LEN: u32 = size_of::<Record>() as u32;
const _: () = assert!(size_of::<Record>() <= 3080);

/// Kind and version of the records.
pub(super) const KIND: u64 =
    u64::from_le_bytes(*b"TCB\0\0\0\0\0") | (TCB_LAYOUT as u64) << 32 | (LEN as u64) << 48;

fn layout(stack: &StackConfig) -> RecordLayout {
    RecordLayout {
        count: stack.tcp.max_sockets,
        len: LEN,
        kind: KIND,
    }
}

/// Where in the state memfd it is said which records were committed last.
fn recent_at(stack: &StackConfig) -> usize {
    layout(stack).size().next_multiple_of(recent::SIZE)
}

/// Bytes of the state memfd.
pub(super) fn state_size(stack: &StackConfig) -> usize {
    recent_at(stack) + recent::SIZE
}

/// The table.
#[derive(Debug)]
pub(super) struct Records {
    table: RecordTable,
    /// None in memory that an older build had made.
    recent: Option<Recent>,
}

/// A record that could not be read: its connection is reset alone.
#[derive(Debug)]
pub(super) struct Corrupt {
    /// Whether what it was one commit before was loaded instead: whom to tell.
    pub(super) before: bool,
}

impl Records {
    /// Attaches to the table in `state`.
    pub(super) fn attach(state: &impl AsFd, stack: &StackConfig) -> Result<Self, ShmError> {
        Ok(Self {
            table: RecordTable::attach(state, layout(stack))?,
            recent: Recent::attach(state, recent_at(stack), stack.tcp.max_sockets).ok(),
        })
    }

    /// Writes or (none) frees a record.
    pub(super) fn commit(&mut self, id: ConnId, tcb: Option<&Tcb>, incarnation: u32) {
        match tcb {
            Some(tcb) => {
                if let Some(recent) = &mut self.recent {
                    recent.note(id.0);
                }
                let record = Record {
                    tcb: *tcb,
                    incarnation,
                    reserved: 0,
                };
                self.table.commit(id.0, record.as_bytes());
            }
            None => self.table.clear(id.0),
        }
    }

    /// The records in use: those first that were committed last. Some may come twice.
    pub(super) fn in_use(&self) -> (Vec<ConnId>, Vec<ConnId>) {
        let recent = self.recent.iter().flat_map(Recent::latest);
        (
            recent.map(ConnId).collect(),
            self.table.in_use().map(ConnId).collect(),
        )
    }

    /// Loads a record; none when it is free. One that is corrupt, or says the impossible, is freed.
    pub(super) fn load(&self, id: ConnId, into: &mut Record) -> Option<Result<(), Corrupt>> {
        match self.table.load(id.0, into.as_mut_bytes()) {
            Ok(false) => None,
            Ok(true) if into.tcb.is_valid() => Some(Ok(())),
            _ => {
                let readable = self.table.load_older(id.0, into.as_mut_bytes());
                self.table.clear(id.0);
                Some(Err(Corrupt {
                    before: readable && into.tcb.is_valid(),
                }))
            }
        }
    }
}
