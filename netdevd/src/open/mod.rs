//! Making device descriptors: the supervisor calls this once, a device outlives its netdevd.

mod ifreq;
mod packet;
mod tap;

use abi::config::{DeviceConfig, DeviceKind};
use anyhow::Context as _;
use ipnet::IpNet;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::OwnedFd;

/// Opens the device: a TAP (made, if there is none of the name), a packet socket on an existing
/// interface, or for loopback an eventfd in its place.
///
/// # Errors
/// Says what is missing and what to do about it.
pub fn open_device(config: &DeviceConfig) -> anyhow::Result<OwnedFd> {
    match config.kind {
        DeviceKind::Tap => tap::open(config).with_context(|| format!("TAP {}", config.name)),
        DeviceKind::Packet => {
            packet::open(config).with_context(|| format!("interface {}", config.name))
        }
        DeviceKind::Loopback => {
            Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?.into())
        }
    }
}

/// Sets up the kernel's side of a TAP: addresses, MTU, and up.
///
/// # Errors
/// When the interface does not exist or is not ours to change.
pub fn configure_host_side(name: &str, addresses: &[IpNet], mtu: u16) -> anyhow::Result<()> {
    ifreq::set_mtu(name, mtu).with_context(|| format!("setting the MTU of {name} to {mtu}"))?;
    ifreq::set_up(name).with_context(|| format!("bringing {name} up"))?;
    let mut v4 = 0;
    for address in addresses {
        let set = match address {
            IpNet::V4(net) => {
                // Further IPv4 addresses go on aliases, as ifconfig does it.
                let label = if v4 == 0 {
                    name.to_owned()
                } else {
                    format!("{name}:{v4}")
                };
                v4 += 1;
                ifreq::set_address4(&label, net)
            }
            IpNet::V6(net) => ifreq::add_address6(name, net),
        };
        set.with_context(|| format!("giving {name} the address {address}"))?;
    }
    Ok(())
}

/// What to do when the kernel says no.
fn advice(error: std::io::Error, on_permission: &str) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        anyhow::Error::new(error).context(on_permission.to_owned())
    } else {
        error.into()
    }
}
