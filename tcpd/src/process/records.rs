//! The durable table: one record a socket, written at commit, read by the successor.

use crate::engine::{ConnId, TCB_LAYOUT, Tcb};
use abi::config::StackConfig;
use shm::{RecordLayout, RecordTable, ShmError};
use std::os::fd::AsFd;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

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

/// Bytes of the state memfd.
pub(super) fn state_size(stack: &StackConfig) -> usize {
    layout(stack).size()
}

/// The table.
#[derive(Debug)]
pub(super) struct Records {
    table: RecordTable,
}

/// A record that could not be read: its connection is reset alone.
#[derive(Debug)]
pub(super) struct Corrupt {
    /// What it was one commit before, if that can be told: whom to tell.
    pub(super) before: Option<Box<Record>>,
}

impl Records {
    /// Attaches to the table in `state`.
    pub(super) fn attach(state: &impl AsFd, stack: &StackConfig) -> Result<Self, ShmError> {
        Ok(Self {
            table: RecordTable::attach(state, layout(stack))?,
        })
    }

    /// Writes or (none) frees a record.
    pub(super) fn commit(&self, id: ConnId, tcb: Option<&Tcb>, incarnation: u32) {
        match tcb {
            Some(tcb) => {
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

    /// Shows each record in use. One that is corrupt, or says the impossible, is freed.
    pub(super) fn load(&self, mut each: impl FnMut(ConnId, Result<&Record, Corrupt>)) {
        let mut record = Record::new_zeroed();
        for index in self.table.written() {
            match self.table.load(index, record.as_mut_bytes()) {
                Ok(false) => {}
                Ok(true) if record.tcb.is_valid() => each(ConnId(index), Ok(&record)),
                _ => {
                    let readable = self.table.load_older(index, record.as_mut_bytes());
                    let before = (readable && record.tcb.is_valid()).then(|| Box::new(record));
                    self.table.clear(index);
                    each(ConnId(index), Err(Corrupt { before }));
                }
            }
        }
    }
}
