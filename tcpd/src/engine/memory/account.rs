//! The sums: what all sockets, and those of each session, can have touched.
//!
//! A ring keeps its pages once it has been walked through, so a socket is charged for as many as
//! its positions have passed since its pages were last given back, up to the rings' sizes. The
//! charge is exact but for pages whose giving back failed.

use super::config::Limits;
use crate::engine::conn::Conn;
use crate::engine::{Engine, SocketRef};
use std::collections::{HashMap, VecDeque};

/// Pages.
pub(super) const PAGE: u64 = 4096;

/// Bytes of pages that a ring of `span` has touched between two positions.
pub(super) fn pages(span: u64, from: u64, to: u64) -> u64 {
    to.saturating_sub(from)
        .min(span)
        .next_multiple_of(PAGE)
        .min(span)
}

/// The sums, to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Bytes charged.
    pub bytes: u64,
    /// Whether there is pressure.
    pub pressure: bool,
    /// Times that pressure began.
    pub pressures: u64,
    /// Growth that was refused.
    pub refused: u64,
    /// Times that a socket's pages were given back, all of them or those that held nothing.
    pub trimmed: u64,
}

/// The account of an engine.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(super) total: u64,
    sessions: HashMap<u32, u64>,
    pub(super) shown: MemoryUse,
    /// Sockets that have pages, with generation and time, in the order in which they were listed.
    pub(super) listed: VecDeque<super::idle::Listed>,
    /// Sockets that wait for a window.
    pub(super) wanting: Vec<crate::engine::ConnId>,
}

impl Account {
    fn change(&mut self, region: u32, from: u64, to: u64, limits: &Limits) {
        self.total = self.total - from.min(self.total) + to;
        let sum = self.sessions.entry(region).or_insert(0);
        *sum = *sum - from.min(*sum) + to;
        if *sum == 0 {
            self.sessions.remove(&region);
        }
        if self.total > limits.pressure && !self.shown.pressure {
            self.shown.pressure = true;
            self.shown.pressures += 1;
        } else if self.total < limits.low {
            self.shown.pressure = false;
        }
        self.shown.bytes = self.total;
    }

    /// Whether a socket of `region` may have `more` bytes.
    pub(super) fn allows(&self, region: u32, more: u64, limits: &Limits, session: u64) -> bool {
        let own = self.sessions.get(&region).copied().unwrap_or(0);
        !self.shown.pressure && self.total + more <= limits.pressure && own + more <= session
    }

    pub(super) fn pressure(&self) -> bool {
        self.shown.pressure
    }

    pub(crate) fn is_exhausted(&self, limits: &Limits) -> bool {
        self.total >= limits.high
    }
}

impl Conn {
    fn charge(&self) -> u64 {
        let (tx, rx) = self.charges();
        tx + rx
    }

    /// Of the send and of the receive buffer.
    pub(super) fn charges(&self) -> (u64, u64) {
        let tcb = &self.tcb;
        if tcb.owner == SocketRef::NONE {
            return (0, 0);
        }
        let (tx, rx) = self.rt.memory.trimmed;
        let rings = &tcb.memory.rings;
        (
            pages(rings.tx.span(), tx, tcb.written),
            pages(rings.rx.span(), rx, tcb.placed_upto()),
        )
    }

    /// Its pages are given back.
    pub(super) fn note_trimmed(&mut self) {
        self.rt.memory.trimmed = (self.tcb.written, self.tcb.placed_upto());
    }

    /// Brings the account up to date.
    pub(in crate::engine) fn settle_charge(&mut self, account: &mut Account, limits: &Limits) {
        let charge = self.charge();
        let memory = &mut self.rt.memory;
        if charge != memory.charged {
            if self.tcb.owner != SocketRef::NONE {
                memory.region = self.tcb.owner.region;
            }
            account.change(memory.region, memory.charged, charge, limits);
            memory.charged = charge;
        }
        memory.exhausted = account.is_exhausted(limits);
    }
}

impl Engine {
    /// What all buffers can have touched, and what came of it.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        self.account.shown
    }

    /// A socket's charge in bytes.
    #[must_use]
    pub fn charge(&self, id: crate::engine::ConnId) -> u64 {
        self.conn(id).map_or(0, Conn::charge)
    }
}
