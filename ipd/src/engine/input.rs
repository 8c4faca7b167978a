//! What devices deliver: validation, and the decision whether it is for this host.

use super::counters::Counter;
use super::demux::Ingress;
use super::route::Kind;
use super::{Engine, Env, checksum, header};
use abi::DevIndex;
use abi::skbuff::{OFFSET_NONE, flag, kind};
use core::net::Ipv4Addr;
use shm::SkBuff;
use wire::ethernet::EtherType;

/// What came of looking at a destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Own,
    ToMany(Counter),
    Refused(Counter),
}

impl Engine {
    /// Takes a frame from a device: data at the network header, `mac` and `ethertype` set.
    pub fn input(&mut self, env: &mut Env<'_>, device: DevIndex, mut skb: SkBuff) {
        // What the driver may say is what the contract names; the rest is ours to fill in.
        let desc = skb.desc_mut();
        desc.dev_in = device.0;
        desc.dev_out = 0;
        desc.kind = kind::PACKET;
        desc.mark = 0;
        desc.flags &= flag::LINK_BROADCAST | flag::GSO_ECN;
        match EtherType(desc.ethertype) {
            EtherType::IPV4 => self.ipv4_input(env, device, skb),
            EtherType::ARP => self.arp_input(env, device, skb),
            EtherType::IPV6 => self.counters.bump(Counter::Ip6Unsupported),
            _ => self.counters.bump(Counter::LinkUnknownType),
        }
    }

    #[inline]
    fn ipv4_input(&mut self, env: &mut Env<'_>, device: DevIndex, mut skb: SkBuff) {
        self.counters.bump(Counter::IpInReceives);
        let available = skb.len();
        let header = match header::parse(skb.linear(), available) {
            Ok(header) => header,
            Err(counter) => return self.counters.bump(counter),
        };
        let total_len = usize::from(header.total_len);
        if total_len < available {
            // What the link added behind the datagram is not part of it.
            skb.trim(total_len);
            if !checksum::is_possible(&skb) {
                return self.counters.bump(Counter::IpInHdrErrors);
            }
        }
        if header.tos & 3 == 3 {
            self.counters.bump(Counter::IpInCeMarks);
        }
        let link_broadcast = skb.desc().flags & flag::LINK_BROADCAST != 0;
        if self.is_martian_source(env, device, header.src, header.dst) {
            return self.counters.bump(Counter::IpInMartianSource);
        }
        let to_many = match self.destination(env, device, header.dst) {
            // RFC 1122 3.3.6: a unicast datagram in a broadcast frame is silently discarded.
            Destination::Own if link_broadcast => {
                return self.counters.bump(Counter::IpInLinkBroadcast);
            }
            Destination::Own => false,
            Destination::ToMany(counter) => {
                self.counters.bump(counter);
                skb.desc_mut().flags |= flag::LINK_BROADCAST;
                true
            }
            Destination::Refused(counter) => return self.counters.bump(counter),
        };
        self.counters
            .add(Counter::IpPayloadBytes, header.payload_len() as u64);
        let ingress = Ingress {
            device,
            origin: None,
            looped: false,
            to_many,
        };
        self.local_input(env, ingress, &header, skb);
    }

    /// RFC 1122 3.2.1.3: a datagram from an address that cannot be a host's is discarded. So is
    /// one that claims to be from ourselves, unless the device returns what is sent.
    fn is_martian_source(
        &mut self,
        env: &Env<'_>,
        device: DevIndex,
        src: Ipv4Addr,
        dst: Ipv4Addr,
    ) -> bool {
        let [first, ..] = src.octets();
        match first {
            // A host that does not know its address yet may say so, to all (RFC 1122 3.2.1.3 (a)).
            0 => !src.is_unspecified() || !(dst.is_broadcast() || dst.is_multicast()),
            127 | 224..=255 => true,
            _ => match self.route(src, env.now).map(|r| r.kind) {
                Some(Kind::Local) => !self.devices.get(device).is_some_and(|d| d.loopback),
                Some(Kind::Broadcast) => true,
                _ => false,
            },
        }
    }

    fn destination(&mut self, env: &Env<'_>, device: DevIndex, dst: Ipv4Addr) -> Destination {
        use Destination::{Own, Refused, ToMany};
        let [first, ..] = dst.octets();
        match first {
            0 | 127 => Refused(Counter::IpInMartianDest),
            224..=239 => ToMany(Counter::IpInMcastPkts),
            240..=255 if dst.is_broadcast() => ToMany(Counter::IpInBcastPkts),
            240..=255 => Refused(Counter::IpInMartianDest),
            _ => match self.route(dst, env.now) {
                Some(r) if r.kind == Kind::Local => Own,
                // Of another network of ours: directed broadcasts are not passed on (RFC 2644).
                Some(r) if r.kind == Kind::Broadcast && r.device == device => {
                    ToMany(Counter::IpInBcastPkts)
                }
                _ => Refused(Counter::IpInAddrErrors),
            },
        }
    }
}

/// Offset of the data as the descriptor's header fields hold it.
pub(super) fn here(skb: &SkBuff) -> Option<u16> {
    u16::try_from(skb.data_offset())
        .ok()
        .filter(|&o| o != OFFSET_NONE)
}
