//! What ipd knows of each device: configuration, corrected by what its driver reports.

use abi::DevIndex;
use abi::config::{DeviceKind, StackConfig};
use core::net::{IpAddr, Ipv4Addr};
use ipnet::{IpNet, Ipv4Net};
use wire::MacAddr;

/// A device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) index: DevIndex,
    pub(crate) name: String,
    pub(crate) mac: MacAddr,
    /// Largest IP packet in bytes.
    pub(crate) mtu: u16,
    /// What is sent comes back: there are no neighbours to ask.
    pub(crate) loopback: bool,
    pub(crate) addresses: Vec<Ipv4Net>,
    /// Whether the driver has reported.
    reported: bool,
}

impl Device {
    /// Whether `ip` is this device's own.
    pub(crate) fn has(&self, ip: Ipv4Addr) -> bool {
        self.addresses.iter().any(|net| net.addr() == ip)
    }
}

/// What a driver's report changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    /// Something that the route cache holds is different now.
    pub(crate) changed: bool,
    /// It never reported before.
    pub(crate) first: bool,
    /// It has another link-layer address than was known.
    pub(crate) moved: bool,
}

/// The devices, few enough to be searched.
#[derive(Debug)]
pub(crate) struct Devices(Vec<Device>);

impl Devices {
    pub(crate) fn new(stack: &StackConfig) -> Self {
        let device = |d: &abi::config::DeviceConfig| Device {
            index: d.index,
            name: d.name.clone(),
            mac: MacAddr(d.mac),
            mtu: d.mtu,
            loopback: d.kind == DeviceKind::Loopback,
            addresses: d
                .addresses
                .iter()
                .filter_map(|net| match net {
                    IpNet::V4(v4) => Some(*v4),
                    IpNet::V6(_) => None,
                })
                .collect(),
            reported: false,
        };
        Self(stack.devices.iter().map(device).collect())
    }

    pub(crate) fn reconfigure(&mut self, stack: &StackConfig) {
        let before = std::mem::replace(self, Self::new(stack));
        for device in &mut self.0 {
            if let Some(old) = before.get(device.index) {
                device.reported = old.reported;
                device.mac = old.mac;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.0.iter()
    }

    #[inline]
    pub(crate) fn get(&self, index: DevIndex) -> Option<&Device> {
        self.0.iter().find(|d| d.index == index)
    }

    /// Of several devices, the first that reaches a network at all.
    pub(crate) fn first_wired(&self) -> Option<&Device> {
        self.0
            .iter()
            .find(|d| !d.loopback && !d.addresses.is_empty())
    }

    /// Takes in a driver's report; none for a device that is not configured.
    pub(crate) fn report(&mut self, index: DevIndex, mac: [u8; 6], mtu: u16) -> Option<News> {
        let device = self.0.iter_mut().find(|d| d.index == index)?;
        let first = !std::mem::replace(&mut device.reported, true);
        let mac = Some(MacAddr(mac))
            .filter(|m| m.is_unicast())
            .unwrap_or(device.mac);
        // The configuration is the upper bound; a driver that says nonsense is not followed.
        let mtu = if (68..device.mtu).contains(&mtu) {
            mtu
        } else {
            device.mtu
        };
        let moved = mac != device.mac;
        let changed = moved || mtu != device.mtu;
        (device.mac, device.mtu) = (mac, mtu);
        Some(News {
            changed,
            first,
            moved,
        })
    }

    /// An address of ours on `device` to ask for `target` from: one of the same network if any.
    pub(crate) fn source_toward(&self, device: DevIndex, target: IpAddr) -> Option<Ipv4Addr> {
        let (device, IpAddr::V4(target)) = (self.get(device)?, target) else {
            return None;
        };
        let near = device.addresses.iter().find(|net| net.contains(&target));
        near.or(device.addresses.first()).map(Ipv4Net::addr)
    }
}
