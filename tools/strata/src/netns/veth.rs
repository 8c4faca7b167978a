//! Interfaces of the namespace: a veth pair, addresses, up and down.

use super::netlink::Request;
use anyhow::{Context, Result};
use core::net::IpAddr;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use std::os::fd::{AsRawFd, BorrowedFd};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_NET_NS_FD: u16 = 28;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let fields = [index, flags, change]
        .into_iter()
        .flat_map(u32::to_ne_bytes);
    for (to, from) in header.iter_mut().skip(4).zip(fields) {
        *to = from;
    }
    header
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn index_of(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no interface {name}"))
}

/// Makes a veth pair: what goes into one comes out of the other.
///
/// # Errors
/// When the kernel refuses (it needs `CAP_NET_ADMIN` in the namespace, and the veth module).
pub fn create_veth(one: &str, other: &str) -> Result<()> {
    create(one, other, None)
}

/// As [`create_veth`], with the other end in another network namespace (a descriptor of its
/// `/proc/PID/ns/net`).
///
/// # Errors
/// When the kernel refuses: it needs `CAP_NET_ADMIN` there too.
pub fn create_veth_into(one: &str, other: &str, namespace: BorrowedFd<'_>) -> Result<()> {
    create(one, other, Some(namespace))
}

fn create(one: &str, other: &str, namespace: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut request = Request::create(RTM_NEWLINK, &link_header(0, 0, 0));
    request.attribute(IFLA_IFNAME, &terminated(one));
    let info = request.begin(IFLA_LINKINFO);
    request.attribute(IFLA_INFO_KIND, b"veth");
    let data = request.begin(IFLA_INFO_DATA);
    let peer = request.begin(VETH_INFO_PEER);
    request.raw(&link_header(0, 0, 0));
    request.attribute(IFLA_IFNAME, &terminated(other));
    if let Some(fd) = namespace {
        request.attribute(IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes());
    }
    request.end(&peer);
    request.end(&data);
    request.end(&info);
    request
        .send()
        .with_context(|| format!("cannot make the veth pair {one} - {other}"))
}

/// Brings an interface up.
///
/// # Errors
/// When there is none of that name or the kernel refuses.
pub fn set_up(name: &str) -> Result<()> {
    let header = link_header(index_of(name)?, IFF_UP, IFF_UP);
    Request::change(RTM_NEWLINK, &header)
        .send()
        .with_context(|| format!("cannot bring up {name}"))
}

/// Sets the largest IP packet of an interface in bytes.
///
/// # Errors
/// When there is none of that name or the kernel refuses.
pub fn set_mtu(name: &str, mtu: u16) -> Result<()> {
    let mut request = Request::change(RTM_NEWLINK, &link_header(index_of(name)?, 0, 0));
    request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    request
        .send()
        .with_context(|| format!("cannot set the MTU of {name} to {mtu}"))
}

/// Gives an interface of the kernel an address.
///
/// # Errors
/// When there is none of that name or the kernel refuses.
pub fn set_address(name: &str, address: IpNet) -> Result<()> {
    let index = index_of(name)?.to_ne_bytes();
    let family = if address.addr().is_ipv4() { 2 } else { 10 };
    let [a, b, c, d] = index;
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let header = [family, address.prefix_len(), 0, 0, a, b, c, d];
    let octets = match address.addr() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut request = Request::create(RTM_NEWADDR, &header);
    request.attribute(IFA_LOCAL, &octets);
    request.attribute(IFA_ADDRESS, &octets);
    request
        .send()
        .with_context(|| format!("cannot give {name} the address {address}"))
}
