//! Who there is, who is whose neighbour and which memory each may map: a pure function of the
//! configuration.
//!
//! ```text
//!   tcpd 2 ----\            /---- netdevd@first  4
//!               >-- ipd 1 --<---- netdevd@second 5
//!   udpd 3 ----/            \---- ...
//! ```
//!
//! A pool is mapped by the services that a packet of it visits and by no other: udpd has no
//! mapping of what tcpd sends. What a device received visits its netdevd, ipd and the transports,
//! and the other netdevds when it is forwarded.

use crate::config::Config;
use abi::config::{DaemonConfig, DeviceConfig, LinkConfig, Role, RouteConfig, StackConfig};
use abi::{DevIndex, LinkId, Nanos, PoolId, ServiceId};
use core::time::Duration;
use sha2::{Digest, Sha256};
use shm::PoolLayout;

/// ipd's id.
pub const IPD: ServiceId = ServiceId(1);
/// tcpd's id.
pub const TCPD: ServiceId = ServiceId(2);
/// udpd's id.
pub const UDPD: ServiceId = ServiceId(3);
/// The first netdevd's id; the others follow.
const FIRST_NETDEVD: u8 = 4;

/// Whether the service of this number drives a device.
#[must_use]
pub fn is_netdevd(service: ServiceId) -> bool {
    service.0 >= FIRST_NETDEVD
}

/// A daemon to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its work.
    pub role: Role,
    /// What people call it: `tcpd`, `netdevd@tap0`.
    pub name: String,
}

impl Service {
    /// Whether applications connect to it.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        matches!(self.role, Role::Tcpd | Role::Udpd)
    }

    /// Whether it drives a device.
    #[must_use]
    pub fn is_netdevd(&self) -> bool {
        matches!(self.role, Role::Netdevd { .. })
    }
}

/// A pool to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPlan {
    /// Its number.
    pub id: PoolId,
    /// Who allocates from it.
    pub owner: ServiceId,
    /// Who maps it, the owner included.
    pub visitors: Vec<ServiceId>,
    /// Its slots.
    pub layout: PoolLayout,
}

/// A constellation before anything of it exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The daemons, lowest layer first.
    pub services: Vec<Service>,
    /// The pools.
    pub pools: Vec<PoolPlan>,
    /// The stack as the daemons see it; links included.
    pub stack: StackConfig,
    /// Packet buffers that are in nobody's hands for so long are taken back.
    pub lost_buffers: Nanos,
}

impl Topology {
    /// Plans the constellation `name`. `secret` seeds sequence numbers and hashes; `host` is
    /// anything that tells this machine and namespace from others, for link-layer addresses.
    #[must_use]
    pub fn plan(name: &str, config: &Config, secret: [u8; 16], host: &[u8]) -> Self {
        let devices: Vec<DeviceConfig> = config
            .devices
            .iter()
            .zip(1u8..)
            .map(|(device, number)| DeviceConfig {
                index: DevIndex(number.into()),
                name: device.name.clone(),
                kind: device.kind,
                service: ServiceId(FIRST_NETDEVD + number - 1),
                addresses: device.addresses.clone(),
                mtu: device.mtu,
                mac: device
                    .mac
                    .unwrap_or_else(|| link_layer_address(host, name, &device.name)),
                offload: device.offload,
                impairment: device.impairment,
            })
            .collect();
        let routes = config
            .routes
            .iter()
            .filter_map(|route| {
                Some(RouteConfig {
                    to: route.to,
                    via: route.via,
                    device: devices.get(route.device)?.index,
                    source: route.source,
                    metric: route.metric,
                })
            })
            .collect();
        let services = services(&devices);
        let pools = pools(&services, config);
        let links = links(&devices);
        Self {
            services,
            pools,
            stack: StackConfig {
                name: name.to_owned(),
                devices,
                routes,
                links,
                dns: config.dns.clone(),
                tcp: config.tcp.clone(),
                udp: config.udp.clone(),
                secret,
            },
            lost_buffers: nanos(config.restart.lost_buffers),
        }
    }

    /// What `service` is told at its start.
    #[must_use]
    pub fn daemon_config(&self, service: &Service, incarnation: u32) -> DaemonConfig {
        DaemonConfig {
            service: service.id,
            role: service.role,
            incarnation,
            stack: self.stack.clone(),
            lost_buffers: self.lost_buffers,
            quarantine: Vec::new(),
            core: None,
        }
    }

    /// The services at the other ends of the links of `service`.
    pub fn neighbours(&self, service: ServiceId) -> impl Iterator<Item = ServiceId> + '_ {
        self.stack.links.iter().filter_map(move |link| {
            if link.upper == service {
                Some(link.lower)
            } else if link.lower == service {
                Some(link.upper)
            } else {
                None
            }
        })
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

fn services(devices: &[DeviceConfig]) -> Vec<Service> {
    let netdevds = devices.iter().map(|device| Service {
        id: device.service,
        role: Role::Netdevd {
            device: device.index,
        },
        name: format!("netdevd@{}", device.name),
    });
    let others = [(IPD, Role::Ipd), (TCPD, Role::Tcpd), (UDPD, Role::Udpd)];
    netdevds
        .chain(others.map(|(id, role)| Service {
            id,
            role,
            name: role.name().to_owned(),
        }))
        .collect()
}

fn links(devices: &[DeviceConfig]) -> Vec<LinkConfig> {
    let transports = [(LinkId(1), TCPD), (LinkId(2), UDPD)].map(|(link, upper)| LinkConfig {
        link,
        upper,
        lower: IPD,
        device: None,
    });
    let below = devices.iter().zip(3u8..).map(|(device, link)| LinkConfig {
        link: LinkId(link),
        upper: IPD,
        lower: device.service,
        device: Some(device.index),
    });
    transports.into_iter().chain(below).collect()
}

fn pools(services: &[Service], config: &Config) -> Vec<PoolPlan> {
    let sizes = config.sizes;
    let sized = |layout: PoolLayout, small: Option<u32>, large: Option<u32>| PoolLayout {
        small_slots: small.unwrap_or(layout.small_slots),
        large_slots: large.unwrap_or(layout.large_slots),
        ..layout
    };
    let ids = |keep: fn(&Service) -> bool| services.iter().filter(move |s| keep(s)).map(|s| s.id);
    services
        .iter()
        .map(|service| {
            let (base, small, large) = match service.role {
                Role::Netdevd { .. } => (
                    PoolLayout::RECEIVE,
                    sizes.receive_small,
                    sizes.receive_large,
                ),
                Role::Tcpd => (
                    PoolLayout::HEADERS,
                    sizes.transmit_small,
                    sizes.transmit_large,
                ),
                Role::Ipd | Role::Udpd => (
                    PoolLayout::DATAGRAMS,
                    sizes.transmit_small,
                    sizes.transmit_large,
                ),
            };
            let visitors = match service.role {
                Role::Netdevd { .. } | Role::Ipd => ids(|_| true).collect(),
                Role::Tcpd | Role::Udpd => ids(|s| !s.is_transport()).chain([service.id]).collect(),
            };
            PoolPlan {
                id: PoolId(service.id.0),
                owner: service.id,
                visitors,
                layout: sized(base, small, large),
            }
        })
        .collect()
}

/// A locally administered unicast address (IEEE 802 48-bit, U/L bit set, I/G bit clear) that is
/// the same each time and different from those of other machines and constellations.
fn link_layer_address(host: &[u8], name: &str, device: &str) -> [u8; 6] {
    let mut hash = Sha256::new();
    for part in [host, name.as_bytes(), device.as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    let [first, ..] = &mut mac;
    *first = (*first & 0xfc) | 0x02;
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn plan() -> Topology {
        let text = r#"
            [[device]]
            name = "tap0"
            kind = "tap"
            addresses = ["10.77.0.2/24"]
            [[device]]
            name = "veth1"
            kind = "packet"
            addresses = ["10.78.0.2/24"]
            [[route]]
            to = "default"
            via = "10.78.0.1"
        "#;
        let (config, _) = Config::parse(Path::new("t"), text).unwrap();
        Topology::plan("lab", &config, [0; 16], b"host")
    }

    #[test]
    fn every_service_has_its_links_and_a_name_of_its_own() {
        let t = plan();
        let names: Vec<_> = t.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            ["netdevd@tap0", "netdevd@veth1", "ipd", "tcpd", "udpd"]
        );
        let of = |id| {
            let mut n: Vec<_> = t.neighbours(id).collect();
            n.sort();
            n
        };
        assert_eq!(of(TCPD), [IPD]);
        assert_eq!(of(ServiceId(4)), [IPD]);
        assert_eq!(of(IPD), [TCPD, UDPD, ServiceId(4), ServiceId(5)]);
        assert_eq!(t.stack.routes[0].device, DevIndex(2));
    }

    #[test]
    fn a_transport_does_not_map_the_other_ones_pool() {
        let t = plan();
        for pool in &t.pools {
            assert!(pool.visitors.contains(&pool.owner));
            assert!(pool.visitors.contains(&IPD));
            let other = match pool.owner {
                TCPD => UDPD,
                UDPD => TCPD,
                _ => continue,
            };
            assert!(!pool.visitors.contains(&other), "{pool:?}");
        }
    }

    #[test]
    fn chosen_addresses_are_stable_local_and_distinct() {
        let (a, b) = (plan(), plan());
        let macs = |t: &Topology| -> Vec<_> { t.stack.devices.iter().map(|d| d.mac).collect() };
        assert_eq!(macs(&a), macs(&b));
        let [first, second] = macs(&a)[..] else {
            panic!()
        };
        assert_ne!(first, second);
        assert_eq!(first[0] & 3, 2);
        assert_ne!(first, link_layer_address(b"other", "lab", "tap0"));
    }
}
