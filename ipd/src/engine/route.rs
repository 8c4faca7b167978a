//! The route cache: the answers of the FIB, the path MTU table and the neighbour table for one
//! destination, in one place that a packet finds by a multiplication.
//!
//! Nothing here is state: it can be thrown away at any time, and is at each change.

use super::counters::{Counter, Counters};
use super::device::Devices;
use super::{neigh, pmtu};
use abi::{DevIndex, Nanos};
use core::net::{IpAddr, Ipv4Addr};
use runtime::fib::Fib;

/// Places (a power of two).
const PLACES: u32 = 1024;

/// What kind of destination it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of our own addresses, or 127/8.
    Local,
    /// A host on or behind the link.
    Unicast,
    /// All hosts of a connected network, or of any.
    Broadcast,
    /// A group.
    Multicast,
}

/// How to get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) kind: Kind,
    pub(crate) device: DevIndex,
    pub(crate) next_hop: IpAddr,
    pub(crate) source: IpAddr,
    /// Largest IP packet in bytes, the path's MTU taken into account.
    pub(crate) mtu: u16,
    /// The next hop's entry in the neighbour table, when it has been used.
    pub(crate) neighbour: Option<neigh::Ref>,
}

/// The tables behind the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) fib: &'a Fib,
    pub(crate) pmtu: &'a pmtu::Table,
    pub(crate) devices: &'a Devices,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    dst: IpAddr,
    /// Generation of the FIB it was looked up in; 0 for an empty place.
    generation: u64,
    expires: Nanos,
    route: Option<Route>,
}

const EMPTY: Place = Place {
    dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    generation: 0,
    expires: 0,
    route: None,
};

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    places: Vec<Place>,
    generation: u64,
    key: u32,
}

impl Cache {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        let [a, b, c, d, ..] = secret;
        let key = u32::from_le_bytes([a, b, c, d]);
        Self {
            places: vec![EMPTY; PLACES as usize],
            generation: 1,
            key,
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        self.generation += 1;
    }

    /// Forgets what is known of the way to `dst`.
    pub(crate) fn forget(&mut self, dst: IpAddr) {
        let at = self.place(dst);
        if let Some(place) = self.places.get_mut(at) {
            *place = EMPTY;
        }
    }

    fn place(&self, dst: IpAddr) -> usize {
        let word = match dst {
            IpAddr::V4(v4) => u32::from(v4),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let (words, _) = octets.as_chunks::<4>();
                words.iter().fold(0, |w: u32, part| {
                    w.rotate_left(9) ^ u32::from_le_bytes(*part)
                })
            }
        };
        // Fibonacci hashing: the upper bits of the product depend on all bits of the address.
        let hash = (word ^ self.key).wrapping_mul(0x9e37_79b9);
        (hash >> (32 - PLACES.trailing_zeros())) as usize
    }

    /// The route to `dst`, from the cache or from the tables; none when there is none.
    #[inline]
    pub(crate) fn lookup(
        &mut self,
        dst: IpAddr,
        tables: Tables<'_>,
        now: Nanos,
        counters: &mut Counters,
    ) -> Option<Route> {
        let (generation, at) = (self.generation, self.place(dst));
        let place = self.places.get_mut(at)?;
        if place.generation == generation && place.dst == dst && now < place.expires {
            counters.bump(Counter::RouteCacheHits);
            return place.route;
        }
        counters.bump(Counter::RouteCacheMisses);
        let (route, expires) = resolve(dst, tables, now);
        *place = Place {
            dst,
            generation,
            expires,
            route,
        };
        route
    }

    /// Notes which neighbour the route to `dst` leads to.
    pub(crate) fn remember(&mut self, dst: IpAddr, neighbour: neigh::Ref) {
        let (generation, at) = (self.generation, self.place(dst));
        if let Some(place) = self.places.get_mut(at)
            && place.generation == generation
            && place.dst == dst
            && let Some(route) = &mut place.route
        {
            route.neighbour = Some(neighbour);
        }
    }
}

fn resolve(dst: IpAddr, tables: Tables<'_>, now: Nanos) -> (Option<Route>, Nanos) {
    // RFC 1122 3.2.1.3 (g): 127/8 never leaves the host; it needs no route.
    if dst.is_loopback() {
        let route = Route {
            kind: Kind::Local,
            device: DevIndex(0),
            next_hop: dst,
            source: dst,
            mtu: u16::MAX,
            neighbour: None,
        };
        return (Some(route), Nanos::MAX);
    }
    let Some(hop) = tables.fib.lookup(dst) else {
        return (None, Nanos::MAX);
    };
    let limited = dst == IpAddr::V4(Ipv4Addr::BROADCAST);
    let kind = if hop.local {
        Kind::Local
    } else if hop.broadcast || limited {
        Kind::Broadcast
    } else if dst.is_multicast() {
        Kind::Multicast
    } else {
        Kind::Unicast
    };
    let path = tables.pmtu.get(dst, now);
    // The driver may have found the link smaller than configured.
    let link = tables
        .devices
        .get(hop.device)
        .map_or(hop.mtu, |d| d.mtu.min(hop.mtu));
    let route = Route {
        kind,
        device: hop.device,
        next_hop: hop.next_hop,
        source: if kind == Kind::Local { dst } else { hop.source },
        mtu: path.map_or(link, |p| p.mtu.min(link)),
        neighbour: None,
    };
    (Some(route), path.map_or(Nanos::MAX, |p| p.expires))
}
