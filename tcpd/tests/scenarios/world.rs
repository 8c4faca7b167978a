//! The engine with what a shell keeps beside it: committed records, receive memory, the clock.
//!
//! As in tcpd, only the records that a batch names are committed, and a successor is made from
//! those alone.

use crate::config::Setup;
use crate::invariants;
use std::collections::BTreeMap;
use tcpd::engine::{
    Actions, Buffers, ConnId, Engine, Notice, Payload, SegmentMeta, SegmentOut, SocketRef, Tcb,
};

struct Zeros;

impl Payload for Zeros {
    fn copy_to(&self, _: usize, to: &mut [u8]) -> bool {
        to.fill(0);
        true
    }
}

/// Receive memory that only notes what was placed.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// First position and the one behind the last, since they were last looked at.
    pub(crate) placed: Vec<(u64, u64)>,
    pub(crate) refuse: bool,
    next: u32,
}

impl Buffers for Memory {
    fn place(
        &mut self,
        _: SocketRef,
        _: &abi::session::Rings,
        at: u64,
        _: &dyn Payload,
        _: usize,
        len: usize,
    ) -> bool {
        if !self.refuse {
            self.placed.push((at, at + len as u64));
        }
        !self.refuse
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        self.next += 1;
        (!self.refuse).then_some(SocketRef {
            region: 2,
            slot: self.next,
        })
    }
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: u64,
    pub(crate) memory: Memory,
    /// Since they were last looked at.
    pub(crate) notices: Vec<Notice>,
    committed: BTreeMap<ConnId, Tcb>,
    actions: Actions,
}

/// When every scenario begins: timestamps and ports are not those of an all-zero clock.
pub(crate) const START: u64 = 10_000_000_000;

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self {
            engine: Engine::new(setup.engine.clone()),
            now: START,
            memory: Memory::default(),
            notices: vec![],
            committed: BTreeMap::new(),
            actions: Actions::default(),
        }
    }

    /// A segment arrives; the batch goes on.
    pub(crate) fn feed(&mut self, meta: &SegmentMeta<'_>) {
        self.engine
            .on_segment(self.now, meta, &Zeros, &mut self.memory);
    }

    /// Ends the batch: segments are made, records committed, the rest let out. Returns the
    /// segments.
    pub(crate) fn end_batch(&mut self) -> Result<Vec<SegmentOut>, String> {
        self.engine.on_timer(self.now);
        self.engine.output(self.now, 1_000);
        self.commit()
    }

    /// The records of the batch are committed.
    pub(crate) fn commit(&mut self) -> Result<Vec<SegmentOut>, String> {
        let mut actions = core::mem::take(&mut self.actions);
        self.engine.drain(&mut actions);
        for &id in &actions.dirty {
            match self.engine.record(id) {
                Some(record) => {
                    let before = self.committed.insert(id, *record);
                    invariants::record(record, before.as_ref())
                        .map_err(|why| format!("invariant broken, record {}: {why}", id.0))?;
                }
                None => drop(self.committed.remove(&id)),
            }
        }
        self.notices.extend_from_slice(&actions.notices);
        let segments = actions.segments.clone();
        self.actions = actions;
        invariants::engine(&self.engine, &self.committed)
            .map_err(|why| format!("invariant broken: {why}"))?;
        Ok(segments)
    }

    /// When something happens by itself, at the latest at `end`.
    pub(crate) fn next_event(&self, end: u64) -> Option<u64> {
        self.engine
            .next_deadline()
            .filter(|&at| at <= end)
            .map(|at| at.max(self.now))
    }

    /// Killed, and made again from what was committed.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        let config = self.engine.config().clone();
        let mut refused = vec![];
        let records = self.committed.iter().map(|(id, tcb)| (*id, *tcb));
        self.engine = Engine::restore(config, self.now, records, &mut refused);
        if refused.is_empty() {
            Ok(())
        } else {
            Err(format!("the successor refused the records {refused:?}"))
        }
    }
}
