//! The state memory: the engine's records in a table that outlives the process.

use crate::engine::{Counter, Engine, StateRecord, records};
use abi::Nanos;
use shm::{RecordLayout, RecordTable, ShmError};
use std::os::fd::AsFd;
use zerocopy::{FromZeros, IntoBytes};

/// Kind and version of the records.
const KIND: u64 = u64::from_le_bytes(*b"IPD-ST01");
const RECORD_LEN: u32 = 48;
const _: () = assert!(size_of::<StateRecord>() == RECORD_LEN as usize);

/// The table's layout.
pub(super) const LAYOUT: RecordLayout = RecordLayout {
    count: records::COUNT,
    len: RECORD_LEN,
    kind: KIND,
};

/// The attached table.
#[derive(Debug)]
pub(super) struct State(RecordTable);

impl State {
    /// Attaches what a predecessor left, or fresh memory.
    pub(super) fn attach(fd: &impl AsFd) -> Result<Self, ShmError> {
        RecordTable::attach(fd, LAYOUT).map(Self)
    }

    /// Gives the engine all that is still good. What is not is reset, and it alone.
    pub(super) fn restore(&self, engine: &mut Engine, now: Nanos) {
        for index in self.0.written() {
            let mut record = StateRecord::new_zeroed();
            match self.0.load(index, record.as_mut_bytes()) {
                Ok(false) => {}
                Ok(true) if engine.restore(index, &record, now) => {}
                Ok(true) => self.0.clear(index),
                Err(_) => {
                    engine.counters.bump(Counter::StateCorrupt);
                    self.0.clear(index);
                }
            }
        }
    }

    /// Writes what changed.
    pub(super) fn commit(&self, engine: &mut Engine) {
        engine.commit(|index, record| match record {
            Some(record) => self.0.commit(index, record.as_bytes()),
            None => self.0.clear(index),
        });
    }
}
