//! What the loop hands a service on every call.

use crate::{Plumbing, Poller, clock};
use abi::{Handle, Nanos};

/// The time of this turn and the plumbing.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time, taken once a turn.
    pub now: Nanos,
    /// Pools, links, bell, store.
    pub plumbing: &'a mut Plumbing,
}

impl Context<'_> {
    /// Adds `n` to the service's counter `index` (see [`Service::COUNTERS`](crate::Service)).
    pub fn count(&self, index: usize, n: u64) {
        self.plumbing.count(index, n);
    }

    /// The set of descriptors that the loop waits for; events reach `Service::on_fd`.
    #[must_use]
    pub fn epoll(&self) -> &Poller {
        &self.plumbing.poller
    }

    /// Traces a stage of a packet's path ([`shm::vitals::stage`]) if somebody asked for it; one
    /// load otherwise. A packet has one number on its whole way ([`Handle::packet`]).
    pub fn trace(&self, stage: u32, handle: Handle, len: usize, detail: u64) {
        let vitals = &self.plumbing.vitals;
        if vitals.tracing() {
            vitals.trace(clock::now(), stage, Handle(handle.packet()), len, detail);
        }
    }
}
