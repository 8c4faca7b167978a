//! Who holds which port.
//!
//! Sockets that an application bound (or that listen) are listed; connections on ephemeral ports
//! and children of listeners are only counted. Rules are Linux's: two sockets conflict on a port
//! if their addresses overlap, unless both have `SO_REUSEPORT`, or both have `SO_REUSEADDR` and
//! none of them listens.

use super::ConnId;
use abi::Endpoint;
use abi::endpoint::{FAMILY_V4, FAMILY_V6};
use std::collections::HashMap;

/// The claim of a socket on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: ConnId,
    /// Address (may be a wildcard) and port.
    pub(crate) local: Endpoint,
    pub(crate) v6_only: bool,
    pub(crate) reuse_addr: bool,
    pub(crate) reuse_port: bool,
    pub(crate) listening: bool,
}

#[derive(Debug, Default)]
struct Holders {
    bound: Vec<Claim>,
    /// Connections on the port that are not listed.
    users: u32,
}

/// All ports.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    ports: HashMap<u16, Holders>,
}

/// Whether an address is the wildcard.
pub(crate) fn is_wildcard(endpoint: &Endpoint) -> bool {
    endpoint.addr == [0; 16]
}

impl Claim {
    /// Whether a packet to `to` is for an address of this claim. 2: exactly, 1: by wildcard.
    pub(crate) fn matches(&self, to: &Endpoint) -> u8 {
        if self.local.family == to.family && self.local.addr == to.addr {
            return 2;
        }
        let family_fits = self.local.family == to.family
            || (self.local.family == FAMILY_V6 && to.family == FAMILY_V4 && !self.v6_only);
        u8::from(is_wildcard(&self.local) && family_fits)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.matches(&other.local) != 0
            || other.matches(&self.local) != 0
            || (is_wildcard(&self.local)
                && is_wildcard(&other.local)
                && (self.local.family == other.local.family
                    || (self.local.family == FAMILY_V6 && !self.v6_only)
                    || (other.local.family == FAMILY_V6 && !other.v6_only)))
    }

    fn conflicts(&self, other: &Self) -> bool {
        let share_port = self.reuse_port && other.reuse_port;
        let nobody_listens = !self.listening && !other.listening;
        let share_address = self.reuse_addr && other.reuse_addr && nobody_listens;
        self.id != other.id && self.overlaps(other) && !share_port && !share_address
    }
}

impl Ports {
    /// Ports that somebody has.
    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether `claim` can be granted.
    pub(crate) fn is_free(&self, claim: &Claim) -> bool {
        self.ports.get(&claim.local.port).is_none_or(|holders| {
            (holders.users == 0 || claim.reuse_addr || claim.reuse_port)
                && !holders.bound.iter().any(|other| claim.conflicts(other))
        })
    }

    /// Whether a socket that is bound may begin to listen: no other listener in its way, unless
    /// both share the port.
    pub(crate) fn is_free_to_listen(&self, claim: &Claim) -> bool {
        self.ports.get(&claim.local.port).is_none_or(|holders| {
            !holders.bound.iter().any(|other| {
                other.listening
                    && other.id != claim.id
                    && claim.overlaps(other)
                    && !(claim.reuse_port && other.reuse_port)
            })
        })
    }

    /// Whether nobody at all has the port.
    pub(crate) fn is_unused(&self, port: u16) -> bool {
        self.ports
            .get(&port)
            .is_none_or(|holders| holders.bound.is_empty() && holders.users == 0)
    }

    /// Whether an outgoing connection may take the port beside those that have it: only if no
    /// application bound it.
    pub(crate) fn is_shareable(&self, port: u16) -> bool {
        self.ports
            .get(&port)
            .is_none_or(|holders| holders.bound.is_empty())
    }

    /// Enters a claim, or replaces the one of the same socket.
    pub(crate) fn grant(&mut self, claim: Claim) {
        let bound = &mut self.ports.entry(claim.local.port).or_default().bound;
        match bound.iter_mut().find(|other| other.id == claim.id) {
            Some(slot) => *slot = claim,
            None => bound.push(claim),
        }
    }

    /// Takes a socket's claim away.
    pub(crate) fn revoke(&mut self, port: u16, id: ConnId) {
        if let Some(holders) = self.ports.get_mut(&port) {
            holders.bound.retain(|claim| claim.id != id);
            self.tidy(port);
        }
    }

    /// Counts an unlisted connection on `port`.
    pub(crate) fn enter(&mut self, port: u16) {
        self.ports.entry(port).or_default().users += 1;
    }

    /// Counts it no more.
    pub(crate) fn leave(&mut self, port: u16) {
        if let Some(holders) = self.ports.get_mut(&port) {
            holders.users = holders.users.saturating_sub(1);
            self.tidy(port);
        }
    }

    fn tidy(&mut self, port: u16) {
        if self.is_unused(port) {
            self.ports.remove(&port);
        }
    }

    /// The listeners for a packet to `to`: those that match best.
    pub(crate) fn listeners(&self, to: &Endpoint) -> impl Iterator<Item = ConnId> + Clone + '_ {
        let bound = self
            .ports
            .get(&to.port)
            .map(|holders| holders.bound.as_slice())
            .unwrap_or_default();
        let best = bound
            .iter()
            .filter(|claim| claim.listening)
            .map(|claim| claim.matches(to))
            .max()
            .unwrap_or(0);
        let to = *to;
        bound
            .iter()
            .filter(move |claim| claim.listening && best > 0 && claim.matches(&to) == best)
            .map(|claim| claim.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: u32, addr: &str, port: u16) -> Claim {
        Claim {
            id: ConnId(id),
            local: Endpoint::new(addr.parse().unwrap(), port),
            v6_only: false,
            reuse_addr: false,
            reuse_port: false,
            listening: false,
        }
    }

    #[test]
    fn wildcard_and_exact_addresses_overlap() {
        let mut p = Ports::default();
        p.grant(claim(1, "0.0.0.0", 80));
        assert!(!p.is_free(&claim(2, "10.0.0.1", 80)));
        assert!(p.is_free(&claim(2, "10.0.0.1", 81)));
        assert!(!p.is_free(&claim(2, "::", 80)));
        assert!(p.is_free(&Claim {
            v6_only: true,
            ..claim(2, "::", 80)
        }));
        let mut p = Ports::default();
        p.grant(claim(1, "10.0.0.2", 80));
        assert!(p.is_free(&claim(2, "10.0.0.1", 80)));
    }

    #[test]
    fn reuse_rules_are_linuxs() {
        let mut p = Ports::default();
        let reuse = |id, listening| Claim {
            reuse_addr: true,
            listening,
            ..claim(id, "0.0.0.0", 80)
        };
        p.grant(reuse(1, false));
        assert!(p.is_free(&reuse(2, false)));
        p.grant(reuse(1, true));
        assert!(!p.is_free(&reuse(2, false)));
        let group = |id| Claim {
            reuse_port: true,
            listening: true,
            ..claim(id, "0.0.0.0", 90)
        };
        p.grant(group(3));
        assert!(p.is_free(&group(4)));
        p.grant(group(4));
        let to = Endpoint::new("10.0.0.1".parse().unwrap(), 90);
        assert_eq!(p.listeners(&to).count(), 2);
    }

    #[test]
    fn old_connections_hold_the_port_without_reuse() {
        let mut p = Ports::default();
        p.enter(80);
        assert!(!p.is_free(&claim(1, "0.0.0.0", 80)));
        assert!(p.is_free(&Claim {
            reuse_addr: true,
            ..claim(1, "0.0.0.0", 80)
        }));
        p.leave(80);
        assert!(p.is_free(&claim(1, "0.0.0.0", 80)));
        assert!(p.is_unused(80));
    }

    #[test]
    fn the_closest_listener_wins() {
        let mut p = Ports::default();
        let listen = |c: Claim| Claim {
            listening: true,
            ..c
        };
        p.grant(listen(claim(1, "::", 80)));
        let to = Endpoint::new("10.0.0.1".parse().unwrap(), 80);
        assert_eq!(p.listeners(&to).collect::<Vec<_>>(), [ConnId(1)]);
        p.grant(listen(claim(2, "10.0.0.1", 80)));
        assert_eq!(p.listeners(&to).collect::<Vec<_>>(), [ConnId(2)]);
        let other = Endpoint::new("10.0.0.9".parse().unwrap(), 80);
        assert_eq!(p.listeners(&other).collect::<Vec<_>>(), [ConnId(1)]);
    }
}
