//! From a segment's addresses to its connection.
//!
//! The table is keyed with the stack's secret, as peers choose three quarters of the key.

use super::ConnId;
use abi::Endpoint;
use core::hash::{BuildHasher, Hash, Hasher};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;

/// Both ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
}

impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.local.addr));
        state.write_u128(u128::from_ne_bytes(self.remote.addr));
        state.write_u64(
            u64::from(self.local.port)
                | u64::from(self.remote.port) << 16
                | u64::from(self.local.family) << 32
                | u64::from(self.remote.family) << 48,
        );
    }
}

/// SipHash 1-3 with the stack's secret.
#[derive(Debug, Clone)]
pub(crate) struct Keyed(pub(crate) [u8; 16]);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Demux {
    flows: HashMap<Flow, ConnId, Keyed>,
    /// The last hit: segments come in trains.
    last: Option<(Flow, ConnId)>,
}

impl Demux {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self {
            flows: HashMap::with_hasher(Keyed(secret)),
            last: None,
        }
    }

    /// The connection of `flow`.
    pub(crate) fn lookup(&mut self, flow: &Flow) -> Option<ConnId> {
        if let Some((last, id)) = &self.last
            && last == flow
        {
            return Some(*id);
        }
        let id = *self.flows.get(flow)?;
        self.last = Some((*flow, id));
        Some(id)
    }

    /// As [`Self::lookup`], without remembering it.
    pub(crate) fn peek(&self, flow: &Flow) -> Option<ConnId> {
        self.flows.get(flow).copied()
    }

    /// Whether `flow` is taken.
    pub(crate) fn contains(&self, flow: &Flow) -> bool {
        self.flows.contains_key(flow)
    }

    /// Connections in it.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Enters a connection; false if the flow is taken.
    pub(crate) fn insert(&mut self, flow: Flow, id: ConnId) -> bool {
        match self.flows.entry(flow) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(id);
                true
            }
        }
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, flow: &Flow) {
        self.flows.remove(flow);
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> Flow {
        Flow {
            local: Endpoint::new("10.0.0.1".parse().unwrap(), 80),
            remote: Endpoint::new("10.0.0.2".parse().unwrap(), port),
        }
    }

    #[test]
    fn a_flow_belongs_to_one_connection() {
        let mut d = Demux::new([7; 16]);
        assert!(d.insert(flow(1), ConnId(1)));
        assert!(!d.insert(flow(1), ConnId(2)));
        assert!(d.insert(flow(2), ConnId(2)));
        assert_eq!(d.lookup(&flow(1)), Some(ConnId(1)));
        d.remove(&flow(1));
        assert_eq!(d.lookup(&flow(1)), None);
        assert_eq!(d.lookup(&flow(2)), Some(ConnId(2)));
    }
}
