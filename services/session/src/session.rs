//! One application process's session.

use crate::SocketRef;
use crate::slots::{Slot, Slots, Use};
use crate::state::SessionRecord;
use crate::stock::Stock;
use crate::words::Words;
use abi::RegionId;
use abi::plumbing::{StoreClass, StoreKey};
use shm::SessionMemory;
use std::os::fd::OwnedFd;

/// The mapped memory, and its descriptor (for a repeated `Hello`).
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) memory: SessionMemory,
    pub(crate) fd: OwnedFd,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) region: RegionId,
    pub(crate) record: SessionRecord,
    /// The request socket; none when the application is gone (its children may still hold
    /// shadow fds).
    pub(crate) request: Option<OwnedFd>,
    pub(crate) attached: Option<Attached>,
    pub(crate) slots: Slots,
    /// Pairs made ahead.
    pub(crate) stock: Stock,
    /// Masked: looked at every turn.
    pub(crate) active: bool,
    /// A call of this turn is not released yet.
    pub(crate) calling: bool,
    /// Every socket from this slot on is still to count as dirty once (after a restart).
    pub(crate) replay: Option<u32>,
}

impl Session {
    pub(crate) fn new(region: RegionId, record: SessionRecord, request: Option<OwnedFd>) -> Self {
        Self {
            region,
            record,
            request,
            attached: None,
            slots: Slots::new(record.sockets, record.windows),
            stock: Stock::default(),
            active: false,
            calling: false,
            replay: None,
        }
    }

    pub(crate) fn memory(&self) -> Option<&SessionMemory> {
        self.attached.as_ref().map(|a| &a.memory)
    }

    pub(crate) fn words(&self, slot: u32) -> Option<Words<'_>> {
        self.memory().map(|m| Words::new(m, slot))
    }

    pub(crate) fn used(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot).filter(|s| s.state == Use::Used)
    }

    pub(crate) fn used_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot).filter(|s| s.state == Use::Used)
    }

    pub(crate) fn socket(&self, slot: u32) -> SocketRef {
        SocketRef {
            region: self.region,
            slot,
        }
    }

    pub(crate) fn memory_key(region: RegionId) -> StoreKey {
        StoreKey {
            class: StoreClass::SessionMemory,
            id: region.0.into(),
            incarnation: 0,
        }
    }

    pub(crate) fn request_key(region: RegionId) -> StoreKey {
        StoreKey {
            class: StoreClass::SessionSocket,
            id: region.0.into(),
            incarnation: 0,
        }
    }

    pub(crate) fn shadow_key(region: RegionId, slot: u32, incarnation: u32) -> StoreKey {
        StoreKey {
            class: StoreClass::Shadow,
            id: u64::from(region.0) << 32 | u64::from(slot),
            incarnation,
        }
    }
}
