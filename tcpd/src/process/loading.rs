//! The start with many connections: those that were at work last are served while the others are
//! still being read.
//!
//! ```text
//!   start        the records committed last
//!   each turn    some of the others, until there are none
//!   then         what waited: requests, new applications, packets of unknown connections
//! ```
//!
//! Until all are there nothing new begins: no number, port or slot is given to anybody, as it
//! might belong to a record that was not read yet. A packet is taken only when it concerns a
//! connection that is here ([`Engine::is_at_home`](crate::engine::Engine::is_at_home)), others
//! wait.

use super::records::{Corrupt, Record};
use super::{Tcpd, counters, quarantine};
use crate::engine::ConnId;
use abi::skbuff::kind;
use abi::suspect::Suspect;
use abi::{Endpoint, Nanos};
use runtime::Plumbing;
use shm::SkBuff;
use shm::crash::{self, Point};
use std::collections::VecDeque;
use wire::tcp::Repr;
use zerocopy::FromZeros;

/// Records that are read before anybody is served, at the most, and in each turn from then on: half
/// a millisecond's work, and a quarter of one. Those that were at work last come first in both.
/// Small in debug builds, so that the tests, which have few connections, see it in parts.
const FIRST: usize = if cfg!(debug_assertions) { 4 } else { 128 };
const EACH: usize = if cfg!(debug_assertions) { 2 } else { 64 };
/// Packets that wait, and bytes of them, at the most: a quarter of what a device has to receive
/// into, so that those who are served find room. What does not fit is lost, and comes again.
const WAITING: usize = if cfg!(debug_assertions) { 64 } else { 256 };
const WAITING_BYTES: usize = 2 << 20;

/// What is not there yet.
#[derive(Debug)]
pub(super) struct Loading {
    /// Records, the next one last.
    rest: Vec<ConnId>,
    /// Whether a record was met already, by number.
    met: Vec<bool>,
    /// Those that were at work last are read.
    is_first: bool,
    /// What is not to be worked on.
    quarantine: Vec<Suspect>,
    /// Packets of connections that are not here, or will be new.
    waiting: VecDeque<SkBuff>,
    waiting_bytes: usize,
    /// For a record that is being read.
    record: Box<Record>,
}

impl Loading {
    pub(super) fn new((recent, mut all): (Vec<ConnId>, Vec<ConnId>), held: &[Suspect]) -> Self {
        let count = all.last().map_or(0, |id| id.0 as usize + 1);
        all.reverse();
        all.extend(recent.into_iter().rev());
        Self {
            rest: all,
            met: vec![false; count],
            is_first: true,
            quarantine: held.to_vec(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            record: Box::new(Record::new_zeroed()),
        }
    }

    /// The next record to look at.
    fn next(&mut self) -> Option<ConnId> {
        while let Some(id) = self.rest.pop() {
            if self.meet(id) {
                return Some(id);
            }
        }
        None
    }

    /// Whether the record is met for the first time.
    fn meet(&mut self, id: ConnId) -> bool {
        let met = self.met.get_mut(id.0 as usize);
        met.is_some_and(|met| !std::mem::replace(met, true))
    }
}

impl Tcpd {
    /// At the start: those that were at work last.
    pub(super) fn load_first(&mut self, plumbing: &mut Plumbing, now: Nanos) {
        self.load_some(FIRST, plumbing, now);
        if let Some(loading) = &mut self.loading {
            loading.is_first = false;
        }
    }

    /// Each turn: some more; answers how many.
    pub(super) fn load_more(&mut self, plumbing: &mut Plumbing, now: Nanos) -> usize {
        self.load_some(EACH, plumbing, now)
    }

    /// All that are left, for who has to know them all.
    pub(super) fn load_rest(&mut self, plumbing: &mut Plumbing, now: Nanos) {
        self.load_some(usize::MAX, plumbing, now);
    }

    fn load_some(&mut self, count: usize, plumbing: &mut Plumbing, now: Nanos) -> usize {
        let Some(mut loading) = self.loading.take() else {
            return 0;
        };
        let mut done = 0;
        while done < count {
            let Some(id) = loading.next() else {
                self.all_loaded(loading, plumbing);
                return done.max(1);
            };
            self.load(id, true, &mut loading, plumbing, now);
            done += 1;
        }
        self.loading = Some(loading);
        crash::reach(Point::HalfLoaded);
        done
    }

    /// Takes a record up, its listener's first (`with_parent`).
    fn load(
        &mut self,
        id: ConnId,
        with_parent: bool,
        loading: &mut Loading,
        plumbing: &mut Plumbing,
        now: Nanos,
    ) {
        let Some(loaded) = self.records.load(id, &mut loading.record) else {
            return;
        };
        if let Err(Corrupt { before }) = loaded {
            tracing::error!(id = id.0, "a connection's record is corrupt; it is reset");
            plumbing.count(counters::CORRUPT, 1);
            if before {
                self.end_unknown(id, &loading.record, plumbing);
            }
            return;
        }
        if quarantine::holds(&loading.quarantine, id, &loading.record.tcb) {
            self.bury(id, &loading.record, plumbing);
            return;
        }
        // A child counts at its listener, which has no parent itself.
        if with_parent
            && let Some(parent) = loading.record.tcb.parent()
            && loading.meet(parent)
        {
            let child = *loading.record;
            self.load(parent, false, loading, plumbing, now);
            *loading.record = child;
        }
        let record = &loading.record;
        if self.engine.adopt(now, id, &record.tcb) {
            self.adopt(id, record.incarnation, loading.is_first, plumbing, now);
            plumbing.count(counters::RESTORED, 1);
        } else {
            tracing::error!(
                id = id.0,
                "a connection's record makes no sense; it is dropped"
            );
            self.records.commit(id, None, 0);
        }
    }

    fn all_loaded(&mut self, loading: Loading, plumbing: &mut Plumbing) {
        self.engine.complete();
        self.sessions.finish_restore(&mut plumbing.store);
        self.waited = loading.waiting;
    }

    /// Whether a packet has to wait until all connections are here.
    pub(super) fn must_wait(&self, skb: &SkBuff) -> bool {
        if self.loading.is_none() {
            return false;
        }
        let desc = skb.desc();
        match desc.kind {
            kind::PACKET => {
                let end = |addr, port| {
                    let raw = Endpoint {
                        addr,
                        family: desc.family,
                        port,
                    };
                    raw.ip().map(|ip| Endpoint::new(ip, port))
                };
                // What is no segment need not wait to be counted as that.
                Repr::parse(skb.linear()).is_ok_and(|(repr, _)| {
                    let local = end(desc.dst, repr.dst_port);
                    let remote = end(desc.src, repr.src_port);
                    local
                        .zip(remote)
                        .is_some_and(|(local, remote)| !self.engine.is_at_home(local, remote))
                })
            }
            kind::ICMP_ERROR => true,
            _ => false,
        }
    }

    /// A packet waits; false when too many do.
    pub(super) fn wait(&mut self, skb: SkBuff) -> bool {
        match &mut self.loading {
            Some(loading)
                if loading.waiting.len() < WAITING
                    && loading.waiting_bytes + skb.len() <= WAITING_BYTES =>
            {
                loading.waiting_bytes += skb.len();
                loading.waiting.push_back(skb);
                true
            }
            _ => false,
        }
    }
}
