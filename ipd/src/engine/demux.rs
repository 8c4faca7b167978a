//! Local delivery: whole datagrams for this host, from the wire or looped, to whoever serves
//! their protocol.

use super::counters::Counter;
use super::input::here;
use super::{Action, Engine, Env, Upper};
use abi::endpoint::FAMILY_V4;
use abi::skbuff::{flag, kind};
use abi::{DevIndex, Endpoint};
use core::net::IpAddr;
use shm::SkBuff;
use wire::icmpv4::{self, unreachable};
use wire::ipv4::Repr;
use wire::protocol;

/// How a datagram got here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ingress {
    /// The device; 0 when looped.
    pub(super) device: DevIndex,
    /// The transport that sent it, when looped.
    pub(super) origin: Option<Upper>,
    /// It never was on a wire.
    pub(super) looped: bool,
    /// By broadcast or multicast.
    pub(super) to_many: bool,
}

impl Engine {
    /// Takes a datagram for this host, data at its IP header.
    #[inline]
    pub(super) fn local_input(
        &mut self,
        env: &mut Env<'_>,
        ingress: Ingress,
        header: &Repr,
        skb: SkBuff,
    ) {
        if header.is_fragment() {
            if let Some((header, whole)) = self.reassemble(env, ingress, header, skb) {
                self.demux(env, ingress, &header, whole);
            }
        } else {
            self.demux(env, ingress, header, skb);
        }
    }

    #[inline]
    fn demux(&mut self, env: &mut Env<'_>, ingress: Ingress, header: &Repr, mut skb: SkBuff) {
        if header.protocol == protocol::ICMP {
            return self.icmp_input(env, ingress, header, skb);
        }
        if let Some(upper) = self.protocols.get(header.protocol) {
            return self.deliver(
                env,
                ingress,
                upper,
                header,
                (kind::PACKET, header.protocol),
                skb,
            );
        }
        if self.protocols.may_be_served(header.protocol) {
            // Its transport is being replaced, or still being started: it must look as if the packet was lost.
            return self.counters.bump(Counter::IpInTransportAbsent);
        }
        self.counters.bump(Counter::IpInUnknownProtos);
        skb.desc_mut().network = here(&skb).unwrap_or(abi::skbuff::OFFSET_NONE);
        // RFC 1122 3.2.2.1: a host should say so when the protocol is not supported.
        let error = icmpv4::Repr::DestinationUnreachable {
            code: unreachable::PROTOCOL,
            next_hop_mtu: 0,
        };
        self.icmp_error(env, &error, header, &skb);
    }

    /// Hands a datagram (data at its IP header) to a transport, as `what` (kind, protocol).
    #[inline]
    pub(super) fn deliver(
        &mut self,
        env: &mut Env<'_>,
        ingress: Ingress,
        upper: Upper,
        header: &Repr,
        what: (u8, u8),
        skb: SkBuff,
    ) {
        // A looped packet lies in its sender's pool, which other transports have not mapped.
        let mut skb = if ingress.looped && ingress.origin != Some(upper) && !Self::is_own(env, &skb)
        {
            self.counters.bump(Counter::IpLoopbackCopies);
            let Some(copy) = self.copy_to_own(env, &skb) else {
                return self.counters.bump(Counter::IpInDiscards);
            };
            copy
        } else {
            skb
        };
        let network = here(&skb);
        let pulled = skb.pull(header.header_len());
        let (Some(network), Some(transport), true) = (network, here(&skb), pulled) else {
            return self.counters.bump(Counter::IpInDiscards);
        };
        let src = Endpoint::new(IpAddr::V4(header.src), 0);
        let dst = Endpoint::new(IpAddr::V4(header.dst), 0);
        let desc = skb.desc_mut();
        (desc.kind, desc.protocol) = what;
        (desc.network, desc.transport) = (network, transport);
        (desc.ttl, desc.tos) = (header.ttl, header.tos);
        (desc.src, desc.dst, desc.family) = (src.addr, dst.addr, FAMILY_V4);
        (desc.dev_in, desc.dev_out) = (ingress.device.0, 0);
        if ingress.looped {
            desc.flags |= flag::LOOPBACK;
        }
        if ingress.to_many {
            desc.flags |= flag::LINK_BROADCAST;
        }
        self.counters.bump(Counter::IpInDelivers);
        env.out.push(Action::Deliver { upper, skb });
    }
}
