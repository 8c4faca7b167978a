//! Devices: opened once, held by the supervisor, lent to their netdevd.

use crate::config::Config;
use crate::topology::Topology;
use abi::DevIndex;
use abi::config::DeviceKind;
use anyhow::{Context, bail};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::OwnedFd;

/// Opens a device and sets its kernel side up as configured.
pub(super) fn open(
    index: DevIndex,
    topology: &Topology,
    config: &Config,
) -> anyhow::Result<OwnedFd> {
    let device = topology
        .stack
        .devices
        .iter()
        .find(|device| device.index == index)
        .context("no such device")?;
    let _ = config;
    match device.kind {
        DeviceKind::Loopback => {
            Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?.into())
        }
        DeviceKind::Tap | DeviceKind::Packet => bail!("no device backend in this build"),
    }
}
