//! Fast Open cookies of servers (RFC 7413 4.1.3), with their MSS, by own and peer's address.
//!
//! Volatile: after a restart the first connection to each server asks for a cookie again, which
//! costs it the round trip that the cookie would have saved and nothing else. That is what any
//! host does whose cache is cold, so nobody can tell it from one.

use super::config::SECOND;
use super::demux::{Flow, Keyed};
use abi::Nanos;
use arrayvec::ArrayVec;
use std::collections::HashMap;

/// Servers that are remembered; then the one that was used least recently is forgotten.
const CAPACITY: usize = 1_024;
/// After so many SYNs with data that were lost in a row, the destination is left alone for a
/// time that doubles with each (as Linux).
const LOSSES: u32 = 2;
const PENALTY: Nanos = 60 * SECOND;

/// What is known of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Empty: to be asked for.
    pub(crate) cookie: ArrayVec<u8, 16>,
    /// 0: not known.
    pub(crate) mss: u16,
    losses: u32,
    lost_at: Nanos,
    used_at: Nanos,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct CookieCache {
    servers: HashMap<Flow, Known, Keyed>,
}

fn key(flow: &Flow) -> Flow {
    let mut key = *flow;
    key.local.port = 0;
    key.remote.port = 0;
    key
}

impl CookieCache {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self {
            servers: HashMap::with_hasher(Keyed(secret)),
        }
    }

    /// What to put into a SYN: `None` for nothing, as something on the way drops such SYNs.
    pub(crate) fn get(&mut self, flow: &Flow, now: Nanos) -> Option<Known> {
        let Some(known) = self.servers.get_mut(&key(flow)) else {
            return Some(Known::default());
        };
        known.used_at = now;
        let penalty = PENALTY << known.losses.min(20);
        if known.losses >= LOSSES && now.saturating_sub(known.lost_at) < penalty {
            return None;
        }
        Some(known.clone())
    }

    fn entry(&mut self, flow: &Flow, now: Nanos) -> &mut Known {
        let key = key(flow);
        if self.servers.len() >= CAPACITY && !self.servers.contains_key(&key) {
            let oldest = self.servers.iter().min_by_key(|(_, k)| k.used_at);
            if let Some(oldest) = oldest.map(|(&flow, _)| flow) {
                self.servers.remove(&oldest);
            }
        }
        let known = self.servers.entry(key).or_default();
        known.used_at = now;
        known
    }

    /// A SYN,ACK brought a cookie.
    pub(crate) fn learn(&mut self, flow: &Flow, cookie: &[u8], mss: u16, now: Nanos) {
        let known = self.entry(flow, now);
        known.cookie = cookie.try_into().unwrap_or_default();
        known.mss = mss;
        known.losses = 0;
    }

    /// Data of a SYN was taken.
    pub(crate) fn succeeded(&mut self, flow: &Flow, now: Nanos) {
        self.entry(flow, now).losses = 0;
    }

    /// Only a SYN without data was answered.
    pub(crate) fn lost(&mut self, flow: &Flow, now: Nanos) {
        let known = self.entry(flow, now);
        known.losses = known.losses.saturating_add(1);
        known.lost_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::Endpoint;

    fn flow(host: u32, port: u16) -> Flow {
        let [a, b, c, d] = host.to_be_bytes();
        Flow {
            local: Endpoint::new("10.0.0.1".parse().unwrap(), port),
            remote: Endpoint::new([a, b, c, d].into(), 80),
        }
    }

    // RFC 7413 4.1.3: by address, not by port.
    #[test]
    fn a_cookie_is_for_two_hosts() {
        let mut c = CookieCache::new([1; 16]);
        c.learn(&flow(9, 1), &[1, 2, 3, 4], 1400, 5);
        let known = c.get(&flow(9, 2), 6).unwrap();
        assert_eq!(
            (known.cookie.as_slice(), known.mss),
            (&[1, 2, 3, 4][..], 1400)
        );
        assert!(c.get(&flow(8, 1), 6).unwrap().cookie.is_empty());
    }

    #[test]
    fn repeated_losses_suspend_it() {
        let mut c = CookieCache::new([1; 16]);
        c.learn(&flow(9, 1), &[1, 2, 3, 4], 1400, 5);
        c.lost(&flow(9, 1), 10);
        assert!(c.get(&flow(9, 1), 11).is_some());
        c.lost(&flow(9, 1), 12);
        assert!(c.get(&flow(9, 1), 200 * SECOND).is_none());
        assert!(c.get(&flow(9, 1), 241 * SECOND).is_some());
        c.lost(&flow(9, 1), 241 * SECOND);
        assert!(c.get(&flow(9, 1), 700 * SECOND).is_none());
        c.succeeded(&flow(9, 1), 700 * SECOND);
        assert!(c.get(&flow(9, 1), 701 * SECOND).is_some());
    }

    #[test]
    fn it_is_bounded() {
        let mut c = CookieCache::new([1; 16]);
        for host in 0..3_000 {
            c.learn(&flow(host, 1), &[0; 8], 1400, Nanos::from(host));
        }
        assert_eq!(c.servers.len(), CAPACITY);
        assert!(c.get(&flow(100, 1), 1).unwrap().cookie.is_empty());
        assert!(!c.get(&flow(2_999, 1), 1).unwrap().cookie.is_empty());
    }
}
