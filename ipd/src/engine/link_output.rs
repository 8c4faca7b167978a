//! From a routed datagram to a frame: the neighbour's address, the Ethernet header, the device.

use super::counters::Counter;
use super::neigh::{Expired, Key, Verdict};
use super::route::{Kind, Route};
use super::{Action, Engine, Env};
use abi::DevIndex;
use core::net::{IpAddr, Ipv4Addr};
use shm::SkBuff;
use wire::MacAddr;
use wire::ethernet::{EtherType, HEADER_LEN, Header};
use wire::icmpv4::{self, unreachable};

impl Engine {
    /// Sends a datagram, data at its IP header, along `route`.
    #[inline]
    pub(super) fn link_output(
        &mut self,
        env: &mut Env<'_>,
        route: &Route,
        dst: Ipv4Addr,
        skb: SkBuff,
    ) {
        let Some(device) = self.devices.get(route.device) else {
            return self.counters.bump(Counter::IpOutNoRoutes);
        };
        let mac = match route.kind {
            Kind::Broadcast => MacAddr::BROADCAST,
            Kind::Multicast => MacAddr::from_ipv4_multicast(dst).unwrap_or(MacAddr::BROADCAST),
            Kind::Unicast | Kind::Local if device.loopback => device.mac,
            Kind::Unicast | Kind::Local => {
                let key = Key {
                    device: route.device,
                    ip: route.next_hop,
                };
                let (neighbour, verdict) = self.neigh.outgoing(key, route.neighbour, env.now);
                if route.neighbour != Some(neighbour) {
                    self.cache.remember(IpAddr::V4(dst), neighbour);
                }
                match verdict {
                    Verdict::Send(mac) => mac,
                    Verdict::Wait { solicit } => {
                        self.neigh.enqueue(neighbour, skb);
                        self.count_neighbours();
                        if solicit {
                            self.arp_solicit(env, key, None);
                        }
                        return;
                    }
                    Verdict::Unreachable => {
                        self.counters.bump(Counter::NeighNegativeHits);
                        return self.unreachable_host(env, &skb);
                    }
                }
            }
        };
        self.frame(env, route.device, mac, skb);
    }

    /// Puts the Ethernet header on and lets the frame go.
    #[inline]
    pub(super) fn frame(
        &mut self,
        env: &mut Env<'_>,
        device: DevIndex,
        dst: MacAddr,
        mut skb: SkBuff,
    ) {
        self.counters.bump(Counter::IpOutTransmits);
        if self.push_ethernet(device, dst, EtherType::IPV4, &mut skb) {
            env.out.push(Action::Transmit { device, skb });
        } else {
            self.counters.bump(Counter::IpOutDiscards);
        }
    }

    /// Pushes an Ethernet header from us to `dst`; false when there is no device or no headroom.
    #[inline]
    pub(super) fn push_ethernet(
        &self,
        device: DevIndex,
        dst: MacAddr,
        ethertype: EtherType,
        skb: &mut SkBuff,
    ) -> bool {
        let Some(d) = self.devices.get(device) else {
            return false;
        };
        let header = Header {
            dst,
            src: d.mac,
            ethertype,
        };
        let emitted = skb
            .push(HEADER_LEN)
            .is_some_and(|place| header.emit(place).is_ok());
        let Ok(mac) = u16::try_from(skb.data_offset()) else {
            return false;
        };
        let desc = skb.desc_mut();
        desc.mac = mac;
        desc.dev_out = device.0;
        desc.ethertype = ethertype.0;
        emitted
    }

    /// RFC 1122 2.3.2.2, RFC 1812 5.2.7.1: the host does not answer ARP.
    fn unreachable_host(&mut self, env: &mut Env<'_>, skb: &SkBuff) {
        let error = icmpv4::Repr::DestinationUnreachable {
            code: unreachable::HOST,
            next_hop_mtu: 0,
        };
        self.local_error(env, &error, skb);
    }

    /// Handles the neighbours' timers.
    pub(super) fn expire_neighbours(&mut self, env: &mut Env<'_>) {
        while let Some(expired) = self.neigh.expire(env.now) {
            match expired {
                Expired::Solicit { key, to } => self.arp_solicit(env, key, to),
                Expired::Failed { queue } => {
                    self.counters.bump(Counter::NeighFailed);
                    for skb in queue {
                        self.unreachable_host(env, &skb);
                    }
                }
            }
        }
    }

    /// Moves the table's own counts to the counters.
    pub(super) fn count_neighbours(&mut self) {
        let evicted = std::mem::take(&mut self.neigh.evicted);
        let dropped = std::mem::take(&mut self.neigh.queue_drops);
        let created = std::mem::take(&mut self.neigh.created);
        self.counters.add(Counter::NeighEvicted, evicted);
        self.counters.add(Counter::NeighQueueDrops, dropped);
        self.counters.add(Counter::NeighCreated, created);
    }
}
