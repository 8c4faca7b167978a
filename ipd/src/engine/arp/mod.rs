//! ARP (RFC 826) with conflict detection and defence (RFC 5227).

mod announce;

pub(super) use announce::Announcer;

use super::counters::Counter;
use super::neigh::{How, Key, Learned};
use super::route::Kind;
use super::{Action, Engine, Env};
use abi::DevIndex;
use abi::skbuff::{checksum, flag, gso};
use core::net::{IpAddr, Ipv4Addr};
use shm::SkBuff;
use wire::MacAddr;
use wire::arp::{Operation, PACKET_LEN, Repr};
use wire::ethernet::EtherType;

impl Engine {
    /// Takes an ARP packet, data at its start.
    pub(super) fn arp_input(&mut self, env: &mut Env<'_>, device: DevIndex, skb: SkBuff) {
        let Ok(arp) = Repr::parse(skb.linear()) else {
            return self.counters.bump(Counter::ArpInErrors);
        };
        let Some(own) = self.devices.get(device) else {
            return self.counters.bump(Counter::ArpInErrors);
        };
        if !arp.sender_mac.is_unicast() || !may_claim(arp.sender_ip) {
            return self.counters.bump(Counter::ArpInErrors);
        }
        if arp.sender_mac == own.mac {
            // What we sent ourselves, returned by a hub, a bridge or the loopback device.
            return;
        }
        let to_us = own.has(arp.target_ip);
        let for_us = to_us && arp.target_mac == own.mac;
        if own.has(arp.sender_ip) {
            // RFC 5227 2.4: somebody else uses our address, whatever the packet is.
            return self.defend(env, device, arp.sender_ip);
        }
        let broadcast = skb.desc().flags & flag::LINK_BROADCAST != 0;
        let how = match arp.operation {
            Operation::Request => {
                self.counters.bump(Counter::ArpInRequests);
                if to_us { How::Request } else { How::Overheard }
            }
            Operation::Reply => {
                self.counters.bump(Counter::ArpInReplies);
                if for_us && !broadcast {
                    How::Reply
                } else {
                    How::Overheard
                }
            }
            Operation::Other(_) => return self.counters.bump(Counter::ArpInErrors),
        };
        // RFC 5227 2.1.1: a probe has no sender address, so there is nothing to learn from it.
        if !arp.sender_ip.is_unspecified() {
            self.learn_neighbour(env, device, &arp, how);
        }
        if to_us && arp.operation == Operation::Request {
            self.arp_reply(env, device, &arp, skb);
        }
    }

    fn learn_neighbour(&mut self, env: &mut Env<'_>, device: DevIndex, arp: &Repr, how: How) {
        let ip = IpAddr::V4(arp.sender_ip);
        // A stranger is worth a place only if we would send to it directly.
        let near = how != How::Request
            || self
                .route(arp.sender_ip, env.now)
                .is_some_and(|r| r.kind == Kind::Unicast && r.device == device && r.next_hop == ip);
        let how = if near { how } else { How::Overheard };
        let key = Key { device, ip };
        let learned = self.neigh.learn(key, arp.sender_mac, how, env.now);
        self.count_neighbours();
        match learned {
            Learned::Known | Learned::Ignored => {}
            Learned::Locked => self.counters.bump(Counter::ArpLocked),
            Learned::Full => self.counters.bump(Counter::NeighTableFull),
            Learned::Resolved(queue) => {
                self.counters.bump(Counter::NeighResolved);
                for skb in queue {
                    self.frame(env, device, arp.sender_mac, skb);
                }
            }
        }
    }

    /// Answers a request in its own buffer.
    fn arp_reply(&mut self, env: &mut Env<'_>, device: DevIndex, request: &Repr, mut skb: SkBuff) {
        let Some(mac) = self.devices.get(device).map(|d| d.mac) else {
            return;
        };
        let reply = Repr {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: request.target_ip,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        };
        skb.trim(PACKET_LEN);
        let desc = skb.desc_mut();
        (desc.ip_summed, desc.gso_type, desc.gso_size) = (checksum::NONE, gso::NONE, 0);
        (desc.dev_in, desc.flags) = (0, 0);
        if reply.emit(skb.linear_mut()).is_ok()
            && self.push_ethernet(device, request.sender_mac, EtherType::ARP, &mut skb)
        {
            self.counters.bump(Counter::ArpOutReplies);
            env.out.push(Action::Transmit { device, skb });
        } else {
            self.counters.bump(Counter::ArpInErrors);
        }
    }

    /// Asks for a neighbour's address: everybody, or (to confirm it) the neighbour itself.
    pub(super) fn arp_solicit(&mut self, env: &mut Env<'_>, key: Key, to: Option<MacAddr>) {
        let (Some(source), IpAddr::V4(target)) =
            (self.devices.source_toward(key.device, key.ip), key.ip)
        else {
            return;
        };
        self.counters.bump(Counter::ArpOutRequests);
        self.arp_send(
            env,
            key.device,
            source,
            target,
            to.unwrap_or(MacAddr::BROADCAST),
        );
    }

    /// Sends a request from `source` about `target` to the link-layer address `to`.
    fn arp_send(
        &mut self,
        env: &mut Env<'_>,
        device: DevIndex,
        source: Ipv4Addr,
        target: Ipv4Addr,
        to: MacAddr,
    ) {
        let Some(mac) = self.devices.get(device).map(|d| d.mac) else {
            return;
        };
        let request = Repr {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: source,
            target_mac: MacAddr::UNSPECIFIED,
            target_ip: target,
        };
        let Some(mut skb) = self.alloc(env, PACKET_LEN) else {
            return;
        };
        let built = skb
            .put(PACKET_LEN)
            .is_some_and(|place| request.emit(place).is_ok());
        if built && self.push_ethernet(device, to, EtherType::ARP, &mut skb) {
            env.out.push(Action::Transmit { device, skb });
        }
    }
}

/// Whether a host may claim this address; the unspecified one stands for none.
fn may_claim(ip: Ipv4Addr) -> bool {
    ip.is_unspecified() || !matches!(ip.octets(), [0 | 127 | 224..=255, ..])
}
