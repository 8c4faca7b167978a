//! Which port an outgoing connection gets (RFC 6056 3.3.4, algorithm 4).
//!
//! ```text
//!   port = first + (hash of the ends + counter of the destination's class) mod number of ports
//! ```
//!
//! The hash makes the sequence of ports unknown to strangers and another for each destination;
//! the counters, one for a class of destinations, keep a port from being used again soon without
//! telling one destination how many connections others get. They are volatile: each begins at a
//! place that depends on the time, so a successor does not repeat its predecessor's ports (and
//! if it did, a peer in TIME_WAIT would take the SYN by its sequence number).

use super::Engine;
use super::calls;
use super::demux::Flow;
use super::isn;
use super::ports::Claim;
use abi::{Endpoint, Nanos};
use std::collections::HashMap;

/// Classes of destinations (RFC 6056's `TABLE_LENGTH`).
const CLASSES: u32 = 256;

/// The counters that were used.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<u32, u32>);

impl Counters {
    /// The next value for a class.
    fn next(&mut self, class: u32, now: Nanos) -> u32 {
        let counter = self.0.entry(class % CLASSES).or_insert((now >> 10) as u32);
        *counter = counter.wrapping_add(1);
        *counter
    }
}

impl Engine {
    /// A port that nobody has, for [`Engine::bind`].
    pub(super) fn free_port(&mut self, now: Nanos, claim: &Claim) -> Option<u16> {
        self.search_port(now, &claim.local, &Endpoint::NONE, |engine, port| {
            engine.ports.is_unused(port)
        })
    }

    /// A port for a connection from `local` to `remote`: one that is free, or else one whose
    /// connection to there is in TIME_WAIT and may be succeeded (RFC 6191).
    pub(super) fn ephemeral_port(
        &mut self,
        now: Nanos,
        local: Endpoint,
        remote: Endpoint,
    ) -> Option<u16> {
        let flow = |port| Flow {
            local: Endpoint { port, ..local },
            remote,
        };
        self.search_port(now, &local, &remote, |engine, port| {
            engine.ports.is_shareable(port) && !engine.demux.contains(&flow(port))
        })
        .or_else(|| {
            self.search_port(now, &local, &remote, |engine, port| {
                engine.ports.is_shareable(port)
                    && engine
                        .demux
                        .peek(&flow(port))
                        .and_then(|id| engine.record(id))
                        .is_some_and(|tcb| calls::is_reusable(tcb, now))
            })
        })
    }

    fn search_port(
        &mut self,
        now: Nanos,
        local: &Endpoint,
        remote: &Endpoint,
        suits: impl Fn(&Self, u16) -> bool,
    ) -> Option<u16> {
        let (first, last) = self.config.ephemeral;
        let count = u32::from(last.checked_sub(first)?) + 1;
        let offset = isn::port_offset(&self.config.secret, local, remote);
        let class = isn::port_class(&self.config.secret, local, remote);
        for _ in 0..count {
            let step = self.port_counters.next(class, now);
            let at = offset.wrapping_add(step) % count;
            let port = first.wrapping_add(u16::try_from(at).unwrap_or(0));
            if suits(self, port) {
                return Some(port);
            }
        }
        None
    }
}
