//! Who gets a datagram.
//!
//! As Linux scores: a socket connected to just this peer wins over one that is bound to the
//! address, that one over one that is bound to any; among equals an IPv4 socket over a dual one,
//! and the newest over older ones (`SO_REUSEADDR`), unless they share the port (`SO_REUSEPORT`):
//! then the addresses' hash chooses, so that a flow stays with its socket. To broadcast and
//! multicast addresses, all that match get a copy.

use super::record::{Kind, Record, flag};
use super::socket::Socket;
use abi::Endpoint;
use core::net::IpAddr;
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

/// Ports of UDP and identifiers of ICMP echo are different spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// UDP ports.
    Udp,
    /// ICMP echo identifiers.
    Ping,
}

/// The space a kind of socket has its port in.
#[must_use]
pub fn space_of(kind: Kind) -> Option<Space> {
    match kind {
        Kind::Udp => Some(Space::Udp),
        Kind::Ping => Some(Space::Ping),
        Kind::Raw(_) => None,
    }
}

/// A received datagram's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Own address and port.
    pub local: Endpoint,
    /// The peer's.
    pub peer: Endpoint,
}

/// The lookup tables.
#[derive(Debug)]
pub struct Demux {
    key: [u8; 16],
    /// All sockets with a port, the newest last.
    ports: HashMap<(Space, u16), Vec<Entry>>,
    /// Connected ones by their whole name.
    flows: HashMap<(Space, Flow), Vec<u32>>,
    raw: Vec<(u8, u32)>,
}

/// What lookups need of a socket, side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) index: u32,
    pub(crate) record: NameRecord,
}

/// The part of a record that is its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameRecord {
    pub(crate) local: Option<IpAddr>,
    pub(crate) peer: Endpoint,
    pub(crate) flags: u32,
    pub(crate) v6: bool,
}

impl NameRecord {
    pub(crate) fn of(r: &Record) -> Self {
        Self {
            local: r.local_ip(),
            peer: r.peer,
            flags: r.flags,
            v6: r.v6 != 0,
        }
    }

    pub(crate) fn takes_family(&self, ip: IpAddr) -> bool {
        match self.local {
            Some(own) => own.is_ipv4() == ip.is_ipv4(),
            None if !self.v6 => ip.is_ipv4(),
            None => ip.is_ipv6() || self.flags & flag::V6_ONLY == 0,
        }
    }

    /// Whether a datagram to `dst` from `peer` is for it.
    fn matches(&self, dst: IpAddr, peer: &Endpoint) -> bool {
        self.takes_family(dst)
            && self.local.is_none_or(|own| own == dst)
            && (!self.peer.is_some() || self.peer == *peer)
    }
}

impl Demux {
    /// Empty tables; `key` is the secret of the flow hash.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            ports: HashMap::new(),
            flows: HashMap::new(),
            raw: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, index: u32, socket: &Socket) {
        let r = &socket.record;
        if let Kind::Raw(protocol) = socket.kind {
            self.raw.push((protocol, index));
        }
        let Some(space) = space_of(socket.kind).filter(|_| r.local.port != 0) else {
            return;
        };
        let entry = Entry {
            index,
            record: NameRecord::of(r),
        };
        self.ports
            .entry((space, r.local.port))
            .or_default()
            .push(entry);
        if r.peer.is_some() && r.local.is_some() {
            let flow = Flow {
                local: r.local,
                peer: r.peer,
            };
            self.flows.entry((space, flow)).or_default().push(index);
        }
    }

    pub(crate) fn remove(&mut self, index: u32, socket: &Socket) {
        let r = &socket.record;
        if matches!(socket.kind, Kind::Raw(_)) {
            self.raw.retain(|&(_, i)| i != index);
        }
        let Some(space) = space_of(socket.kind) else {
            return;
        };
        if let Some(list) = self.ports.get_mut(&(space, r.local.port)) {
            list.retain(|e| e.index != index);
            if list.is_empty() {
                self.ports.remove(&(space, r.local.port));
            }
        }
        let flow = (
            space,
            Flow {
                local: r.local,
                peer: r.peer,
            },
        );
        if let Some(list) = self.flows.get_mut(&flow) {
            list.retain(|&i| i != index);
            if list.is_empty() {
                self.flows.remove(&flow);
            }
        }
    }

    /// Sockets that have a port, the newest last.
    pub(crate) fn on_port(&self, space: Space, port: u16) -> &[Entry] {
        self.ports.get(&(space, port)).map_or(&[], Vec::as_slice)
    }

    /// The one socket that a datagram to a single host is for.
    #[must_use]
    pub fn lookup(&self, space: Space, flow: &Flow) -> Option<u32> {
        if let Some(&index) = self.flows.get(&(space, *flow)).and_then(|list| list.last()) {
            return Some(index);
        }
        let dst = flow.local.ip()?;
        let mut best: Option<(u8, &Entry)> = None;
        let mut sharers = 0u64;
        for entry in self.on_port(space, flow.local.port).iter().rev() {
            let r = &entry.record;
            if r.peer.is_some() || !r.matches(dst, &flow.peer) {
                continue;
            }
            let score = 2 * u8::from(r.local.is_some()) + u8::from(!r.v6);
            let shared = r.flags & flag::REUSE_PORT != 0;
            match best {
                Some((s, _)) if score < s => {}
                Some((s, _)) if score == s => sharers += u64::from(shared),
                _ => {
                    best = Some((score, entry));
                    sharers = u64::from(shared);
                }
            }
        }
        let (score, entry) = best?;
        if sharers < 2 {
            return Some(entry.index);
        }
        let chosen = self.hash(flow) % sharers;
        self.on_port(space, flow.local.port)
            .iter()
            .filter(|e| {
                let r = &e.record;
                !r.peer.is_some()
                    && r.flags & flag::REUSE_PORT != 0
                    && r.matches(dst, &flow.peer)
                    && 2 * u8::from(r.local.is_some()) + u8::from(!r.v6) == score
            })
            .nth(usize::try_from(chosen).unwrap_or(0))
            .map(|e| e.index)
    }

    /// All sockets that a datagram to many is for.
    pub fn lookup_many(&self, space: Space, flow: &Flow, into: &mut Vec<u32>) {
        let Some(dst) = flow.local.ip() else { return };
        into.extend(
            self.on_port(space, flow.local.port)
                .iter()
                .filter(|e| e.record.matches(dst, &flow.peer))
                .map(|e| e.index),
        );
    }

    /// Raw sockets of a protocol; who of them takes the packet is for the caller to say.
    pub fn raw(&self, protocol: u8) -> impl Iterator<Item = u32> + '_ {
        self.raw
            .iter()
            .filter(move |(p, _)| *p == protocol)
            .map(|&(_, i)| i)
    }

    fn hash(&self, flow: &Flow) -> u64 {
        let mut h = SipHasher13::new_with_key(&self.key);
        flow.hash(&mut h);
        h.finish()
    }
}

impl super::Engine {
    /// Sockets that an arrived UDP datagram, or an echo reply, is for.
    pub fn receivers(&self, space: Space, flow: &Flow, to_many: bool, into: &mut Vec<u32>) {
        if to_many {
            self.demux.lookup_many(space, flow, into);
        } else {
            into.extend(self.demux.lookup(space, flow));
        }
    }

    /// The socket that an ICMP error is about.
    #[must_use]
    pub fn find(&self, space: Space, flow: &Flow) -> Option<u32> {
        self.demux.lookup(space, flow)
    }

    /// Raw sockets that an arrived packet is for: own and peer addresses match, ports do not
    /// count.
    pub fn raw_receivers(&self, protocol: u8, dst: IpAddr, src: IpAddr, into: &mut Vec<u32>) {
        into.extend(self.demux.raw(protocol).filter(|&index| {
            self.get(index).is_some_and(|s| {
                s.record.takes_family(dst)
                    && s.record.local_ip().is_none_or(|own| own == dst)
                    && s.record.peer.ip().is_none_or(|peer| peer == src)
            })
        }));
    }
}
