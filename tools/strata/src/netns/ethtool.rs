//! Switching an interface's offloads off, so that every frame on it is complete.
#![allow(unsafe_code, reason = "ioctl takes pointers to kernel structures")]

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

// linux/ethtool.h.
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Makes the kernel finish checksums and segments itself before a frame reaches the interface.
///
/// # Errors
/// When there is none of that name or the kernel refuses.
pub fn no_offload(name: &str) -> Result<()> {
    for command in [ETHTOOL_STSO, ETHTOOL_STXCSUM] {
        set(name, command).with_context(|| format!("cannot switch the offloads of {name} off"))?;
    }
    Ok(())
}

fn set(name: &str, command: u32) -> Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut value = Value { command, data: 0 };
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    // One byte stays zero: the name's end.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = core::ptr::from_mut(&mut value).cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the structure of the command, here
    // an ethtool_value; both live until the call is over.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCETHTOOL,
            core::ptr::from_mut(&mut request),
        )
    };
    Errno::result(result)?;
    Ok(())
}
