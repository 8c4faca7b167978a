//! What transports send: routing, source address, header, size.

use super::counters::Counter;
use super::demux::Ingress;
use super::input::here;
use super::route::{Kind, Route};
use super::{Engine, Env, Upper};
use abi::skbuff::{OFFSET_NONE, flag, gso, kind};
use abi::{DevIndex, Endpoint};
use core::net::{IpAddr, Ipv4Addr};
use shm::SkBuff;
use wire::icmpv4::{self, unreachable};
use wire::ipv4::{HEADER_LEN, Repr};

/// What is to be sent, apart from the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    /// None: to be chosen.
    pub(super) src: Option<Ipv4Addr>,
    pub(super) dst: Ipv4Addr,
    pub(super) protocol: u8,
    /// 0: the default.
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) dont_frag: bool,
    pub(super) broadcast_ok: bool,
    /// The device for what is addressed to many, if the sender is bound to one.
    pub(super) device: Option<DevIndex>,
    /// The transport it comes from; none for what the engine makes.
    pub(super) origin: Option<Upper>,
}

/// RFC 1700: the default TTL; RFC 1112 6.1: multicast stays on the link unless asked otherwise.
const DEFAULT_TTL: u8 = 64;
const MULTICAST_TTL: u8 = 1;

impl Engine {
    /// Takes a packet from a transport: data at the transport header, addresses in the
    /// descriptor. With kind ICMP_ERROR it is a received packet to be complained about.
    pub fn output(&mut self, env: &mut Env<'_>, from: Upper, mut skb: SkBuff) {
        if skb.desc().kind == kind::ICMP_ERROR {
            return self.icmp_requested(env, &skb);
        }
        self.counters.bump(Counter::IpOutRequests);
        let transport = here(&skb).unwrap_or(OFFSET_NONE);
        let desc = skb.desc_mut();
        let address = |addr, family| {
            Endpoint {
                addr,
                family,
                port: 0,
            }
            .ip()
        };
        let (src, dst) = (
            address(desc.src, desc.family),
            address(desc.dst, desc.family),
        );
        let (flags, device) = (
            desc.flags,
            Some(DevIndex(desc.dev_out)).filter(|d| d.0 != 0),
        );
        desc.flags = flags & flag::GSO_ECN;
        (desc.mac, desc.network, desc.transport) = (OFFSET_NONE, OFFSET_NONE, transport);
        (desc.dev_in, desc.dev_out) = (0, 0);
        let (protocol, ttl, tos) = (desc.protocol, desc.ttl, desc.tos);
        let (dst, src) = match (dst, src) {
            (Some(IpAddr::V4(dst)), Some(IpAddr::V4(src))) => (dst, src),
            (Some(IpAddr::V6(_)), _) => return self.counters.bump(Counter::Ip6Unsupported),
            _ => return self.counters.bump(Counter::IpOutAddrErrors),
        };
        let what = Outgoing {
            src: Some(src).filter(|s| !s.is_unspecified()),
            dst,
            protocol,
            ttl,
            tos,
            dont_frag: flags & flag::DONT_FRAG != 0,
            broadcast_ok: flags & flag::BROADCAST_OK != 0,
            device,
            origin: Some(from),
        };
        self.ipv4_output(env, &what, skb);
    }

    /// Sends a packet, data at its transport header.
    pub(super) fn ipv4_output(&mut self, env: &mut Env<'_>, what: &Outgoing, mut skb: SkBuff) {
        let [first, ..] = what.dst.octets();
        if first == 0 || (first >= 240 && !what.dst.is_broadcast()) {
            return self.counters.bump(Counter::IpOutAddrErrors);
        }
        let Some(route) = self.route_out(what, env) else {
            self.counters.bump(Counter::IpOutNoRoutes);
            return self.refuse(env, what, skb, unreachable::NET, 0);
        };
        let Some(src) = self.source(what, &route) else {
            return self.counters.bump(Counter::IpOutAddrErrors);
        };
        if route.kind == Kind::Broadcast && !what.broadcast_ok {
            return self.counters.bump(Counter::IpOutBroadcastDenied);
        }
        let what = Outgoing {
            src: Some(src),
            ..*what
        };
        let Ok(total_len) = u16::try_from(HEADER_LEN + skb.len()) else {
            return self.counters.bump(Counter::IpOutTooBig);
        };
        self.counters.add(Counter::IpPayloadBytes, skb.len() as u64);
        if route.kind == Kind::Local {
            return self.loop_back(env, &what, total_len, skb);
        }
        // A super-frame goes out as segments of gso_size bytes each; they must fit, not it.
        let is_gso = skb.desc().gso_type != gso::NONE;
        let unit = if is_gso {
            Self::segment_len(&skb)
        } else {
            usize::from(total_len)
        };
        if unit > usize::from(route.mtu) {
            if what.dont_frag || is_gso {
                self.counters.bump(Counter::IpOutTooBig);
                return self.refuse(env, &what, skb, unreachable::FRAG_NEEDED, route.mtu);
            }
            return self.fragment(env, &what, &route, skb);
        }
        let segments = if is_gso { segments(&skb) } else { 1 };
        let ident = self.idents.next(src, what.dst, what.protocol, segments);
        let header = header_for(&what, ident, total_len);
        if !push_header(&mut skb, &header) {
            return self.counters.bump(Counter::IpOutDiscards);
        }
        self.link_output(env, &route, what.dst, skb);
    }

    fn route_out(&mut self, what: &Outgoing, env: &Env<'_>) -> Option<Route> {
        let route = self.route(what.dst, env.now);
        let to_many = what.dst.is_broadcast() || what.dst.is_multicast();
        if !to_many || (route.is_some() && what.device.is_none()) {
            return route;
        }
        // To the link itself: by the device the sender is bound to, or by the first there is.
        let device = match what.device {
            Some(index) => self.devices.get(index),
            None => self.devices.first_wired(),
        }?;
        Some(Route {
            kind: if what.dst.is_broadcast() {
                Kind::Broadcast
            } else {
                Kind::Multicast
            },
            device: device.index,
            next_hop: IpAddr::V4(what.dst),
            source: IpAddr::V4(device.addresses.first()?.addr()),
            mtu: device.mtu,
            neighbour: None,
        })
    }

    /// The source address: the route's, or the sender's own if it may be used there.
    fn source(&self, what: &Outgoing, route: &Route) -> Option<Ipv4Addr> {
        let IpAddr::V4(chosen) = route.source else {
            return None;
        };
        let Some(src) = what.src.filter(|&src| src != chosen) else {
            return Some(chosen);
        };
        // RFC 1122 3.2.1.3: a host sends from its own addresses only, and 127/8 stays inside.
        let leaves = route.kind != Kind::Local;
        let allowed = self.fib.is_local(IpAddr::V4(src)) && !(leaves && src.is_loopback());
        allowed.then_some(src)
    }

    /// Bytes of one segment of a super-frame, headers included.
    fn segment_len(skb: &SkBuff) -> usize {
        let header = match skb.desc().gso_type {
            // The data offset field, in words.
            gso::TCPV4 => skb.linear().get(12).map_or(0, |b| usize::from(b >> 4) * 4),
            _ => wire::udp::HEADER_LEN,
        };
        let segment = header + usize::from(skb.desc().gso_size);
        HEADER_LEN + segment.min(skb.len())
    }

    /// Loops a packet to this host: no size limit, no neighbour, no checksum to complete.
    fn loop_back(&mut self, env: &mut Env<'_>, what: &Outgoing, total_len: u16, mut skb: SkBuff) {
        self.counters.bump(Counter::IpLoopback);
        let header = header_for(what, 0, total_len);
        if !push_header(&mut skb, &header) {
            return self.counters.bump(Counter::IpOutDiscards);
        }
        let ingress = Ingress {
            device: DevIndex(0),
            origin: what.origin,
            looped: true,
            to_many: false,
        };
        self.local_input(env, ingress, &header, skb);
    }

    /// Tells the sender, if it is a transport, that its packet (data at the transport header)
    /// cannot go.
    fn refuse(&mut self, env: &mut Env<'_>, what: &Outgoing, mut skb: SkBuff, code: u8, mtu: u16) {
        let total_len = u16::try_from(HEADER_LEN + skb.len()).unwrap_or(u16::MAX);
        if what.origin.is_some() && push_header(&mut skb, &header_for(what, 0, total_len)) {
            let error = icmpv4::Repr::DestinationUnreachable {
                code,
                next_hop_mtu: mtu,
            };
            self.local_error(env, &error, &skb);
        }
    }
}

/// Segments that a super-frame becomes, at the most.
fn segments(skb: &SkBuff) -> u16 {
    let size = usize::from(skb.desc().gso_size).max(1);
    u16::try_from(skb.len().div_ceil(size)).unwrap_or(u16::MAX)
}

/// The IPv4 header of a whole datagram.
#[inline]
pub(super) fn header_for(what: &Outgoing, ident: u16, total_len: u16) -> Repr {
    let default_ttl = if what.dst.is_multicast() {
        MULTICAST_TTL
    } else {
        DEFAULT_TTL
    };
    Repr {
        src: what.src.unwrap_or(Ipv4Addr::UNSPECIFIED),
        dst: what.dst,
        protocol: what.protocol,
        ttl: if what.ttl == 0 { default_ttl } else { what.ttl },
        tos: what.tos,
        ident,
        dont_frag: what.dont_frag,
        total_len,
        ..Repr::default()
    }
}

/// Pushes a header into the headroom and notes where it is; false when there is no room.
#[inline]
pub(super) fn push_header(skb: &mut SkBuff, header: &Repr) -> bool {
    let emitted = skb
        .push(header.header_len())
        .is_some_and(|place| header.emit(place).is_ok());
    let network = here(skb);
    skb.desc_mut().network = network.unwrap_or(OFFSET_NONE);
    emitted && network.is_some()
}
