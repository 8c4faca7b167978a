//! AF_PACKET: a raw socket on an interface that exists.
//!
//! The stack has a link-layer address of its own on it, so the interface is made promiscuous and
//! a socket filter keeps what is for other stations from being copied.
#![allow(unsafe_code, reason = "options and addresses that nix does not know")]

use super::{advice, ifreq};
use abi::config::DeviceConfig;
use anyhow::{Context as _, bail, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

// From <linux/if_packet.h>.
const PACKET_ADD_MEMBERSHIP: libc::c_int = 1;
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_MR_PROMISC: u16 = 1;

/// Room for some super-frames both ways; a 64 KiB frame counts for more than its size.
const BUFFER: usize = 8 << 20;

#[repr(C)]
struct PacketMreq {
    ifindex: libc::c_int,
    kind: u16,
    alen: u16,
    address: [u8; 8],
}

/// Sets an option to a structure.
///
/// # Safety
/// `value` must be the structure that the option takes.
unsafe fn set<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: readable for `len` bytes during the call; the caller promises the type.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Opens a packet socket on the interface of that name.
pub(super) fn open(config: &DeviceConfig) -> anyhow::Result<OwnedFd> {
    let index = ifreq::index(&config.name).with_context(|| {
        format!(
            "there is none in this network namespace: `ip link` lists them, \
             `ip link add {} type veth` makes one",
            config.name
        )
    })?;
    let mtu = ifreq::mtu(&config.name)?;
    ensure!(
        i32::from(config.mtu) <= mtu,
        "its MTU is {mtu}, less than the {} of the configuration: `ip link set {} mtu {}`",
        config.mtu,
        config.name,
        config.mtu
    );
    if ifreq::flags(&config.name)? & libc::IFF_UP == 0 {
        bail!("it is down: `ip link set {} up`", config.name);
    }
    // Protocol 0: nothing is queued before everything is set and the socket bound.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)
        .map_err(io::Error::from)
        .map_err(|e| {
            advice(
                e,
                "a packet socket needs CAP_NET_RAW in this network namespace: run as root, or in \
                 a namespace of your own (`unshare -rn`)",
            )
        })?;
    let on: libc::c_int = 1;
    // SAFETY: takes an int.
    unsafe { set(&fd, libc::SOL_PACKET, PACKET_VNET_HDR, &on) }.context("PACKET_VNET_HDR")?;
    // SAFETY: takes an int.
    unsafe { set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &on) }
        .context("PACKET_IGNORE_OUTGOING")?;
    let promiscuous = PacketMreq {
        ifindex: index,
        kind: PACKET_MR_PROMISC,
        alen: 0,
        address: [0; 8],
    };
    // SAFETY: takes a packet_mreq, which this is.
    unsafe { set(&fd, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous) }
        .context("making the interface promiscuous")?;
    filter(&fd, config.mac).context("attaching the socket filter")?;
    // Beyond the system's limit needs privilege in the first namespace; less is slower only.
    if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
    }
    if setsockopt(&fd, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER);
    }
    bind(&fd, index).context("binding to the interface")?;
    Ok(fd)
}

fn bind(fd: &OwnedFd, index: libc::c_int) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    address.sll_ifindex = index;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    let pointer = std::ptr::from_ref(&address).cast();
    // SAFETY: a sockaddr_ll of that length, valid during the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), pointer, len) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Classic BPF: untagged frames to our address and to groups. (The kernel takes VLAN tags out of
/// the frame before it gets here, so a tagged one would pass for an untagged one.)
fn filter(fd: &OwnedFd, mac: [u8; 6]) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
    const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48).cast_unsigned();
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let [a, b, c, d, e, f] = mac;
    let program = [
        op(LOAD_BYTE, 0, 0, VLAN_TAG_PRESENT),
        op(JUMP_EQUAL, 7, 0, 1),
        op(LOAD_BYTE, 0, 0, 0),
        op(JUMP_SET, 4, 0, 1),
        op(LOAD_WORD, 0, 0, 0),
        op(JUMP_EQUAL, 0, 3, u32::from_be_bytes([a, b, c, d])),
        op(LOAD_HALF, 0, 0, 4),
        op(JUMP_EQUAL, 0, 1, u16::from_be_bytes([e, f]).into()),
        op(RETURN, 0, 0, u32::MAX),
        op(RETURN, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(0),
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: takes a sock_fprog; the kernel copies the program, which lives until the call is
    // over, and does not write it.
    unsafe { set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) }
}
