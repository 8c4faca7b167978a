//! The forwarding information base: which way to a destination, and from which address.
//!
//! Built from the configuration, read by everybody: ipd for output, transports for the source
//! address and the segment size. Longest prefix wins; among equal prefixes the lowest metric;
//! connected prefixes have metric 0. Pure; a new configuration makes a new one.

use abi::DevIndex;
use abi::config::{DeviceConfig, DeviceKind, StackConfig};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the tables of a process, for caches in front of them.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The device to leave by (of a local address: the one that has it).
    pub device: DevIndex,
    /// Whom to hand it to on the link: the gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// The address to send from, unless the sender has chosen one.
    pub source: IpAddr,
    /// Largest IP packet of the device in bytes.
    pub mtu: u16,
    /// The destination is one of our own addresses.
    pub local: bool,
    /// The destination is a broadcast address of the link.
    pub broadcast: bool,
}

/// A route as listed for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub to: IpNet,
    /// Gateway, if not on the link.
    pub via: Option<IpAddr>,
    /// Device.
    pub device: DevIndex,
    /// Source address.
    pub source: IpAddr,
    /// Metric.
    pub metric: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    device: DevIndex,
    via: Option<IpAddr>,
    source: IpAddr,
    mtu: u16,
    metric: u32,
}

/// Longest-prefix match over connected and configured routes.
#[derive(Debug)]
pub struct Fib {
    v4: PrefixMap<Ipv4Net, Entry>,
    v6: PrefixMap<Ipv6Net, Entry>,
    local: HashMap<IpAddr, (DevIndex, u16)>,
    broadcast: HashMap<Ipv4Addr, Entry>,
    /// The device for what has no route by nature: limited broadcast and multicast.
    any: Option<Entry>,
    any6: Option<Entry>,
    generation: u64,
}

impl Fib {
    /// Builds the table.
    #[must_use]
    pub fn new(stack: &StackConfig) -> Self {
        let mut this = Self {
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
            local: HashMap::new(),
            broadcast: HashMap::new(),
            any: None,
            any6: None,
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
        };
        for device in &stack.devices {
            for net in &device.addresses {
                this.connected(device, *net);
            }
        }
        for route in &stack.routes {
            let Some(device) = stack.devices.iter().find(|d| d.index == route.device) else {
                continue;
            };
            let toward = route.via.unwrap_or(route.to.addr());
            let Some(source) = route.source.or_else(|| source_for(device, toward)) else {
                continue;
            };
            let entry = Entry {
                device: device.index,
                via: route.via,
                source,
                mtu: device.mtu,
                metric: route.metric,
            };
            this.insert(route.to, entry);
        }
        // Multicast and limited broadcast leave by the default route's device.
        let default4 = this.v4.get(&Ipv4Net::default()).copied();
        let default6 = this.v6.get(&Ipv6Net::default()).copied();
        this.any = default4.or(this.any);
        this.any6 = default6.or(this.any6);
        this
    }

    fn connected(&mut self, device: &DeviceConfig, net: IpNet) {
        let source = net.addr();
        let entry = Entry {
            device: device.index,
            via: None,
            source,
            mtu: device.mtu,
            metric: 0,
        };
        self.local.insert(source, (device.index, device.mtu));
        self.insert(net.trunc(), entry);
        if device.kind == DeviceKind::Loopback {
            return;
        }
        match net {
            IpNet::V4(v4) => {
                self.any = self.any.or(Some(entry));
                // RFC 3021: a 31-bit prefix has no broadcast address.
                if v4.prefix_len() < 31 {
                    self.broadcast.insert(v4.broadcast(), entry);
                }
            }
            IpNet::V6(_) => self.any6 = self.any6.or(Some(entry)),
        }
    }

    fn insert(&mut self, to: IpNet, entry: Entry) {
        match to.trunc() {
            IpNet::V4(net) => {
                if self.v4.get(&net).is_none_or(|e| entry.metric < e.metric) {
                    self.v4.insert(net, entry);
                }
            }
            IpNet::V6(net) => {
                if self.v6.get(&net).is_none_or(|e| entry.metric < e.metric) {
                    self.v6.insert(net, entry);
                }
            }
        }
    }

    /// The way to `dst`; none when there is no route.
    #[must_use]
    pub fn lookup(&self, dst: IpAddr) -> Option<Hop> {
        if let Some(&(device, mtu)) = self.local.get(&dst) {
            return Some(local(dst, device, mtu));
        }
        let (entry, broadcast) = match dst {
            // RFC 1122 3.2.1.3 (g): the whole of 127/8 is this host.
            IpAddr::V4(v4) if v4.is_loopback() => {
                return Some(local(dst, DevIndex(0), u16::MAX));
            }
            IpAddr::V6(v6) if v6.is_loopback() => {
                return Some(local(dst, DevIndex(0), u16::MAX));
            }
            IpAddr::V4(v4) if v4.is_broadcast() => (self.any?, true),
            IpAddr::V4(v4) => match self.broadcast.get(&v4) {
                Some(entry) => (*entry, true),
                None => {
                    let net = Ipv4Net::from(v4);
                    let found = self.v4.get_lpm(&net).map(|(_, e)| *e);
                    let found = if v4.is_multicast() {
                        // The default route's gateway does not apply to multicast.
                        found.filter(|e| e.via.is_none()).or(self.any)
                    } else {
                        found
                    };
                    (found?, false)
                }
            },
            IpAddr::V6(v6) => {
                let net = Ipv6Net::from(v6);
                let found = self.v6.get_lpm(&net).map(|(_, e)| *e);
                let found = if v6.is_multicast() {
                    found.filter(|e| e.via.is_none()).or(self.any6)
                } else {
                    found
                };
                (found?, false)
            }
        };
        let direct = broadcast || dst.is_multicast();
        Some(Hop {
            device: entry.device,
            next_hop: entry.via.filter(|_| !direct).unwrap_or(dst),
            source: entry.source,
            mtu: entry.mtu,
            local: false,
            broadcast,
        })
    }

    /// Whether `ip` is one of our own addresses (127/8 and ::1 among them).
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.local.contains_key(&ip)
    }

    /// Whether `ip` is a broadcast address of a link of ours, or the limited one.
    #[must_use]
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => v4.is_broadcast() || self.broadcast.contains_key(&v4),
            IpAddr::V6(_) => false,
        }
    }

    /// Tells tables apart: a cache that was filled from another generation is void.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All routes, for showing.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        let route = |to, e: &Entry| Route {
            to,
            via: e.via,
            device: e.device,
            source: e.source,
            metric: e.metric,
        };
        let v4 = self.v4.iter().map(|(net, e)| route(IpNet::V4(net), e));
        let v6 = self.v6.iter().map(|(net, e)| route(IpNet::V6(net), e));
        v4.chain(v6).collect()
    }
}

fn local(dst: IpAddr, device: DevIndex, mtu: u16) -> Hop {
    Hop {
        device,
        next_hop: dst,
        source: dst,
        mtu,
        local: true,
        broadcast: false,
    }
}

/// The device's address that shares a prefix with `toward`, or its first of that family.
fn source_for(device: &DeviceConfig, toward: IpAddr) -> Option<IpAddr> {
    let same = |n: &&IpNet| match (n.addr(), toward) {
        (IpAddr::V4(_), IpAddr::V4(_)) => true,
        // A link-local source cannot leave the link.
        (IpAddr::V6(a), IpAddr::V6(t)) => a.is_unicast_link_local() == is_link_local(t),
        _ => false,
    };
    let mut candidates = device.addresses.iter().filter(same);
    candidates
        .clone()
        .find(|n| n.contains(&toward))
        .or_else(|| candidates.next())
        .map(IpNet::addr)
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local()
}

#[cfg(test)]
mod tests;
