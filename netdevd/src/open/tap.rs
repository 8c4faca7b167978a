//! TAP: an Ethernet interface whose other end is our descriptor.
#![allow(unsafe_code, reason = "ioctl takes pointers to kernel structures")]

use super::{advice, ifreq};
use abi::config::{DeviceConfig, Offload};
use anyhow::{Context as _, bail};
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const NODE: &str = "/dev/net/tun";

/// Opens the TAP of that name, making it if need be, with virtio headers and the configured
/// offloads.
pub(super) fn open(config: &DeviceConfig) -> anyhow::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = fcntl::open(NODE, flags, Mode::empty()).map_err(io::Error::from);
    let fd = match fd {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!("{NODE} does not exist: `modprobe tun`, or use kind = \"packet\" on a veth");
        }
        fd => fd.map_err(|e| {
            advice(
                e,
                "no permission on /dev/net/tun: run as root, let the group have it \
                 (`chmod 0666 /dev/net/tun`), or use kind = \"packet\" on a veth",
            )
        })?,
    };
    let mut request = ifreq::request(&config.name)?;
    let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(kind).context("TAP flags")?;
    // SAFETY: TUNSETIFF takes an ifreq.
    let made = unsafe { ifreq::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    match made {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            bail!("another process has this TAP open: is a constellation running on it?");
        }
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            bail!(
                "the interface exists and is no single-queue TAP: choose another name, or \
                 `ip link del {}`",
                config.name
            );
        }
        made => made.map_err(|e| {
            advice(
                e,
                "making a TAP needs CAP_NET_ADMIN in this network namespace: run as root, or in \
                 a namespace of your own (`unshare -rn`)",
            )
        })?,
    }
    let offloads = match config.offload {
        Offload::None => 0,
        Offload::Checksum => libc::TUN_F_CSUM,
        Offload::Full => {
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN
        }
    };
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let set = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(offloads),
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error()).context("setting the offloads");
    }
    // Both ends must agree, or the kernel sends what we call too long.
    if ifreq::mtu(&config.name)? != i32::from(config.mtu) {
        ifreq::set_mtu(&config.name, config.mtu)
            .with_context(|| format!("setting the MTU to {}", config.mtu))?;
    }
    Ok(fd)
}
