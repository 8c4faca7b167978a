//! What an engine holds at the moment: for tests that nothing leaks and that a peer's tricks cost
//! a bounded amount, and for whoever wonders where memory went.

use super::Engine;

/// Numbers of things held. An engine without sockets holds none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Sockets.
    pub records: usize,
    /// Entries of the table of connections.
    pub flows: usize,
    /// Ports in use.
    pub ports: usize,
    /// Entries of the timer heap, those that have become stale included.
    pub heap: usize,
    /// Connections waiting for output.
    pub queued: usize,
    /// Entries of the list of TIME_WAITs that can be ended early, stale ones included.
    pub time_wait: usize,
}

impl Engine {
    /// What it holds.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            records: self.slots.iter().flatten().count(),
            flows: self.demux.len(),
            ports: self.ports.len(),
            heap: self.heap.len(),
            queued: self.queue.len(),
            time_wait: self.time_wait.len(),
        }
    }
}
