//! Path MTUs learned from "fragmentation needed" (RFC 1191): a small direct-mapped table.
//!
//! Its places are records of the state memory. Two destinations that share a place overwrite each
//! other; the loser is told again by the next packet that is too big.

use super::hash::Keyed;
use abi::Nanos;
use core::net::IpAddr;

/// Places in the table (a power of two).
pub(crate) const CAPACITY: u32 = 256;
/// Nothing smaller is believed (Linux: `min_pmtu`): a forged error must not make us send crumbs.
pub(crate) const MIN_PMTU: u16 = 552;
/// RFC 1191 6.3: a path MTU is forgotten after ten minutes, so that an increase is found.
pub(crate) const LIFETIME: Nanos = 600_000_000_000;

/// RFC 1191 7.1: what to guess from the size of the datagram when a router does not say.
const PLATEAUS: [u16; 9] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 576, 552];

/// What is known of the path to one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathMtu {
    pub(crate) dst: IpAddr,
    pub(crate) mtu: u16,
    pub(crate) expires: Nanos,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    places: Vec<Option<PathMtu>>,
    dirty: Vec<u32>,
    keyed: Keyed,
}

impl Table {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            places: vec![None; CAPACITY as usize],
            dirty: Vec::new(),
            keyed,
        }
    }

    fn place(&self, dst: IpAddr) -> usize {
        self.keyed.bucket(&dst, CAPACITY as usize)
    }

    /// What is known about `dst` and has not expired.
    pub(crate) fn get(&self, dst: IpAddr, now: Nanos) -> Option<PathMtu> {
        let known = self.places.get(self.place(dst)).copied().flatten()?;
        (known.dst == dst && now < known.expires).then_some(known)
    }

    /// All that is known, for people to see.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PathMtu> {
        self.places.iter().flatten()
    }

    /// Takes in an error about a datagram of `total_len` bytes that did not fit `reported` bytes,
    /// on a path believed to carry `current`. Answers the new path MTU if it is smaller.
    pub(crate) fn update(
        &mut self,
        dst: IpAddr,
        reported: u16,
        total_len: u16,
        current: u16,
        now: Nanos,
    ) -> Option<u16> {
        // RFC 1191 5: an old router reports 0; take the next plateau below what did not fit. A
        // report that the datagram would have fitted is nonsense.
        let mtu = if reported == 0 {
            PLATEAUS.into_iter().find(|&p| p < total_len)?
        } else if reported < total_len {
            reported
        } else {
            return None;
        };
        let mtu = mtu.max(MIN_PMTU);
        if mtu >= current {
            return None;
        }
        let place = self.place(dst);
        *self.places.get_mut(place)? = Some(PathMtu {
            dst,
            mtu,
            expires: now + LIFETIME,
        });
        self.dirty.push(u32::try_from(place).ok()?);
        Some(mtu)
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Hands out the places that changed.
    pub(crate) fn take_dirty(&mut self, mut f: impl FnMut(u32, Option<PathMtu>)) {
        for place in self.dirty.drain(..) {
            f(place, self.places.get(place as usize).copied().flatten());
        }
    }

    /// Puts back what a predecessor committed, if it still holds.
    pub(crate) fn restore(&mut self, saved: PathMtu, now: Nanos) -> bool {
        let sane = saved.mtu >= MIN_PMTU && saved.expires > now && saved.expires - now <= LIFETIME;
        let place = self.place(saved.dst);
        match self.places.get_mut(place) {
            Some(slot) if sane => {
                *slot = Some(saved);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    const DST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

    fn table() -> Table {
        Table::new(Keyed::new([7; 16]))
    }

    #[test]
    fn rfc1191_learns_expires_and_takes_plateaus() {
        let mut t = table();
        assert_eq!(t.update(DST, 1400, 1500, 1500, 5), Some(1400));
        assert_eq!(t.get(DST, 6).map(|p| p.mtu), Some(1400));
        assert_eq!(t.get(DST, 5 + LIFETIME), None);
        // RFC 1191 5: no MTU reported.
        assert_eq!(t.update(DST, 0, 1500, 1500, 5), Some(1492));
        assert_eq!(t.update(DST, 0, 552, 552, 5), None);
    }

    #[test]
    fn implausible_reports_change_nothing_much() {
        let mut t = table();
        assert_eq!(
            t.update(DST, 1600, 1500, 1500, 5),
            None,
            "it would have fitted"
        );
        assert_eq!(t.update(DST, 1450, 1500, 1400, 5), None, "an increase");
        assert_eq!(t.update(DST, 68, 1500, 1500, 5), Some(MIN_PMTU), "crumbs");
    }
}
