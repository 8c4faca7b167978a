//! The memory of a host's sockets, and payload in the hand of the engine.

use crate::app::{Memory, pieces};
use abi::session::{Ring, Rings};
use core::ops::Range;
use std::collections::BTreeMap;
use tcpd::engine::{Buffers, ConnId, Payload, SocketRef};

/// All sockets' memory, by slot.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    pub(crate) sockets: BTreeMap<u32, Memory>,
    pub(crate) next_slot: u32,
    /// Sizes: send and receive.
    pub(crate) capacity: (usize, usize),
}

impl Memories {
    pub(crate) fn make(&mut self) -> SocketRef {
        self.next_slot += 1;
        let memory = Memory {
            tx: vec![0; self.capacity.0],
            rx: vec![0; self.capacity.1],
        };
        self.sockets.insert(self.next_slot, memory);
        SocketRef {
            region: 1 << 24,
            slot: self.next_slot,
        }
    }
}

impl Buffers for Memories {
    fn place(
        &mut self,
        owner: SocketRef,
        rings: &Rings,
        position: u64,
        payload: &dyn Payload,
        offset: usize,
        len: usize,
    ) -> bool {
        let Some(memory) = self.sockets.get_mut(&owner.slot) else {
            return false;
        };
        let mut offset = offset;
        for (_, at, len) in pieces(&rings.rx, position, len as u64) {
            assert!(payload.copy_to(offset, &mut memory.rx[at..at + len]));
            offset += len;
        }
        true
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        Some(self.make())
    }
}

/// Writes over everything in a buffer but the places of the positions `held`.
pub(crate) fn spoil(memory: &mut [u8], ring: &Ring, held: Range<u64>) {
    let mut free = vec![true; memory.len()];
    for (_, at, len) in pieces(ring, held.start, held.end - held.start) {
        free[at..at + len].fill(false);
    }
    for (byte, free) in memory.iter_mut().zip(free) {
        if free {
            *byte = 0xdb;
        }
    }
}
