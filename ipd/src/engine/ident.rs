//! Identification fields (RFC 791 3.2, RFC 6864): unique per source, destination and protocol
//! for as long as fragments can live, and not guessable from another destination's.

use super::hash::Keyed;
use abi::Nanos;
use core::net::Ipv4Addr;
use std::hash::BuildHasher;

const COUNTERS: usize = 1024;

/// Counters shared by hash.
#[derive(Debug)]
pub(crate) struct Idents {
    counters: Vec<u16>,
    keyed: Keyed,
}

impl Idents {
    /// The counters start at places that depend on the time: a successor must not repeat what
    /// its predecessor sent within the last seconds (RFC 6864 4.3).
    pub(crate) fn new(keyed: Keyed, now: Nanos) -> Self {
        let start = |i: usize| {
            let [a, b, ..] = keyed.hash_one((i, now)).to_le_bytes();
            u16::from_le_bytes([a, b])
        };
        Self {
            counters: (0..COUNTERS).map(start).collect(),
            keyed,
        }
    }

    /// The identification for the next packet; a super-frame takes one for each of `segments`.
    pub(crate) fn next(
        &mut self,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        protocol: u8,
        segments: u16,
    ) -> u16 {
        let place = self.keyed.bucket(&(src, dst, protocol), COUNTERS);
        let Some(counter) = self.counters.get_mut(place) else {
            return 0;
        };
        let ident = *counter;
        *counter = counter.wrapping_add(segments);
        ident
    }
}
