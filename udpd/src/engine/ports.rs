//! Port conflicts, and ephemeral ports.

use super::Errno;
use super::demux::{Demux, Entry, NameRecord, Space};
use super::record::flag;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Linux's `ip_local_port_range`.
pub const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Random tries before looking at every port in turn.
const TRIES: u32 = 64;

/// Chooses ephemeral ports: RFC 6056 3.3.2 (algorithm 2), uniformly at random at each try.
#[derive(Debug)]
pub struct Ports {
    key: [u8; 16],
    drawn: u64,
}

impl Ports {
    /// `key` must be secret and new with each start.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self { key, drawn: 0 }
    }

    fn draw(&mut self) -> u64 {
        let mut h = SipHasher13::new_with_key(&self.key);
        h.write_u64(self.drawn);
        self.drawn = self.drawn.wrapping_add(1);
        h.finish()
    }

    /// A port that no overlapping socket has, whatever its reuse flags.
    ///
    /// # Errors
    /// `EAGAIN` when all are taken, as Linux says it.
    pub(crate) fn choose(
        &mut self,
        demux: &Demux,
        space: Space,
        name: &NameRecord,
    ) -> Result<u16, Errno> {
        // Identifiers have the whole range but 0 (Linux: 1 to 65535).
        let (first, last) = match space {
            Space::Udp => (*EPHEMERAL.start(), *EPHEMERAL.end()),
            Space::Ping => (1, u16::MAX),
        };
        let count = u64::from(last - first) + 1;
        let free = |port: u16| {
            demux
                .on_port(space, port)
                .iter()
                .all(|e| !overlaps(&e.record, name))
        };
        let at = |n: u64| u16::try_from(u64::from(first) + n % count).unwrap_or(first);
        for _ in 0..TRIES {
            let port = at(self.draw());
            if free(port) {
                return Ok(port);
            }
        }
        let start = self.draw() % count;
        (0..count)
            .map(|n| at(start + n))
            .find(|&p| free(p))
            .ok_or(libc::EAGAIN)
    }
}

/// Whether two names could both be meant by one datagram's destination.
pub(crate) fn overlaps(a: &NameRecord, b: &NameRecord) -> bool {
    match (a.local, b.local) {
        (Some(x), Some(y)) => x == y,
        (Some(x), None) => b.takes_family(x),
        (None, Some(y)) => a.takes_family(y),
        (None, None) => {
            let v4 = |r: &NameRecord| !r.v6 || r.flags & flag::V6_ONLY == 0;
            (a.v6 && b.v6) || (v4(a) && v4(b))
        }
    }
}

/// Whether a socket with that name may not have the port that `others` have: as Linux, both
/// must have asked for `SO_REUSEADDR`, or both for `SO_REUSEPORT` (whose check for one user id
/// does not apply: a stack has one user).
pub(crate) fn conflicts(others: &[Entry], index: u32, name: &NameRecord) -> bool {
    others.iter().any(|e| {
        let both = e.record.flags & name.flags;
        e.index != index
            && overlaps(&e.record, name)
            && both & (flag::REUSE_ADDR | flag::REUSE_PORT) == 0
    })
}
