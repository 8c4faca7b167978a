//! Numbers that a stranger must not guess: initial sequence numbers (RFC 6528), port offsets
//! (RFC 6056) and timestamp offsets (RFC 7323 5.4), all SipHash with the stack's secret.
//!
//! The secret is kept across restarts and the clock is the kernel's, so a restarted engine goes
//! on with the same sequences.

use super::demux::Flow;
use abi::{Endpoint, Nanos};
use core::hash::{Hash, Hasher};
use siphasher::sip::SipHasher24;

/// Keyed hash of `flow` for one purpose.
fn keyed(secret: &[u8; 16], purpose: u8, flow: &Flow) -> u64 {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write_u8(purpose);
    flow.hash(&mut hasher);
    hasher.finish()
}

/// RFC 6528 3: a clock of 4 microseconds plus a keyed hash of the connection's ends.
pub(crate) fn initial_sequence(secret: &[u8; 16], flow: &Flow, now: Nanos) -> u32 {
    (keyed(secret, 1, flow) as u32).wrapping_add((now / 4_000) as u32)
}

/// RFC 6056 3.3.3 (algorithm 3): where the search for a port starts, for this destination.
pub(crate) fn port_offset(secret: &[u8; 16], local: &Endpoint, remote: &Endpoint) -> u32 {
    let local = Endpoint { port: 0, ..*local };
    let flow = Flow {
        local,
        remote: *remote,
    };
    keyed(secret, 2, &flow) as u32
}

/// A number that strangers cannot know.
pub(crate) fn noise(secret: &[u8; 16], now: Nanos) -> u32 {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write_u8(8);
    hasher.write_u64(now);
    hasher.finish() as u32
}

/// RFC 6056 3.3.4 (algorithm 4): which counter a destination uses.
pub(crate) fn port_class(secret: &[u8; 16], local: &Endpoint, remote: &Endpoint) -> u32 {
    let local = Endpoint { port: 0, ..*local };
    let flow = Flow {
        local,
        remote: *remote,
    };
    keyed(secret, 7, &flow) as u32
}

/// RFC 7323 5.4: what is added to the timestamp clock, the same for all connections between two
/// hosts, so that timestamps grow from one to the next (RFC 6191).
pub(crate) fn timestamp_offset(secret: &[u8; 16], flow: &Flow) -> u32 {
    let flow = Flow {
        local: Endpoint {
            port: 0,
            ..flow.local
        },
        remote: Endpoint {
            port: 0,
            ..flow.remote
        },
    };
    keyed(secret, 3, &flow) as u32
}

/// Which of `n` listeners that share a port a connection goes to.
pub(crate) fn pick(secret: &[u8; 16], flow: &Flow, n: usize) -> usize {
    let n = n.max(1) as u64;
    (keyed(secret, 4, flow) % n) as usize
}

/// The Fast Open cookie for the peer of `flow` (RFC 7413 4.1.2): of the addresses only, and of
/// the number of the key ([`super::fast_open`]).
pub(crate) fn fast_open_cookie(secret: &[u8; 16], flow: &Flow, key: u64) -> [u8; 8] {
    let mut flow = *flow;
    flow.local.port = 0;
    flow.remote.port = 0;
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write_u8(6);
    hasher.write_u64(key);
    flow.hash(&mut hasher);
    hasher.finish().to_be_bytes()
}

/// The two hashes of a SYN cookie: of the ends, and of the ends with a time step and the peer's
/// initial sequence number.
pub(crate) fn cookie_hash(secret: &[u8; 16], flow: &Flow, step: Option<(u32, u32)>) -> u32 {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write_u8(5);
    if let Some((step, isn)) = step {
        hasher.write_u64(u64::from(step) << 32 | u64::from(isn));
    }
    flow.hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> Flow {
        Flow {
            local: Endpoint::new("10.0.0.1".parse().unwrap(), port),
            remote: Endpoint::new("10.0.0.2".parse().unwrap(), 80),
        }
    }

    // RFC 6528 3.
    #[test]
    fn the_number_depends_on_ends_secret_and_time() {
        let a = initial_sequence(&[1; 16], &flow(1), 0);
        assert_eq!(a, initial_sequence(&[1; 16], &flow(1), 3_999));
        assert_eq!(
            a.wrapping_add(250_000),
            initial_sequence(&[1; 16], &flow(1), 1_000_000_000)
        );
        assert_ne!(a, initial_sequence(&[1; 16], &flow(2), 0));
        assert_ne!(a, initial_sequence(&[2; 16], &flow(1), 0));
    }

    // RFC 6528 3: who sees the numbers of some ends knows nothing of those of others.
    #[test]
    fn the_numbers_of_other_ends_are_unrelated() {
        let numbers: Vec<u32> = (1..=1_000)
            .map(|port| initial_sequence(&[1; 16], &flow(port), 0))
            .collect();
        let steps = numbers.windows(2).map(|w| w[1].wrapping_sub(w[0]));
        let different: std::collections::HashSet<u32> = steps.collect();
        assert!(different.len() > 990, "{} steps", different.len());
        let high = numbers.iter().filter(|n| **n > u32::MAX / 2).count();
        assert!(
            (400..600).contains(&high),
            "{high} of 1,000 in the upper half"
        );
    }

    #[test]
    fn timestamps_of_two_hosts_share_an_offset() {
        assert_eq!(
            timestamp_offset(&[1; 16], &flow(1)),
            timestamp_offset(&[1; 16], &flow(2))
        );
    }
}
