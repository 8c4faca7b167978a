//! Devices: opened once, held by the supervisor, lent to their netdevd.

use crate::config::Config;
use crate::topology::Topology;
use abi::DevIndex;
use abi::config::DeviceKind;
use anyhow::Context;
use netdevd::{configure_host_side, open_device};
use std::os::fd::OwnedFd;

/// Opens a device, and sets a TAP's kernel side up as configured.
///
/// # Errors
/// What is missing, and what to do about it.
pub(super) fn open(
    index: DevIndex,
    topology: &Topology,
    config: &Config,
) -> anyhow::Result<OwnedFd> {
    let mut devices = topology.stack.devices.iter().zip(&config.devices);
    let (device, written) = devices
        .find(|(device, _)| device.index == index)
        .context("no such device")?;
    let fd = open_device(device)?;
    if device.kind == DeviceKind::Tap && written.host_up {
        configure_host_side(&device.name, &written.host_addresses, device.mtu).with_context(
            || {
                format!(
                    "cannot set up the kernel's side of {}: that needs CAP_NET_ADMIN in this \
                     namespace; run as root or under `unshare -rn`, or leave `host-address` out",
                    device.name
                )
            },
        )?;
    }
    Ok(fd)
}
