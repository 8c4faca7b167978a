//! The few interface ioctls that are needed.
#![allow(unsafe_code, reason = "ioctl takes pointers to kernel structures")]

use ipnet::{Ipv4Net, Ipv6Net};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A zeroed `ifreq` with the interface's name.
///
/// # Errors
/// When the name is empty or too long for the kernel.
pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` cannot be an interface's name (1 to 15 bytes, no slash)"),
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// An ioctl with a pointer to `argument`.
///
/// # Safety
/// `argument` must be the structure that `number` expects.
pub(super) unsafe fn ioctl<T>(fd: RawFd, number: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller promises that the structure is the expected one; it is valid for reads
    // and writes during the call.
    let result = unsafe { libc::ioctl(fd, number, std::ptr::from_mut(argument)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// An ioctl on an interface by its name.
fn interface(number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = control(AddressFamily::Inet)?;
    // SAFETY: all callers pass SIOC[GS]IF* numbers, which take an ifreq.
    unsafe { ioctl(socket.as_raw_fd(), number, request) }
}

fn control(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(
        family,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

/// The interface's index.
pub(super) fn index(name: &str) -> io::Result<libc::c_int> {
    let mut r = request(name)?;
    interface(libc::SIOCGIFINDEX, &mut r)?;
    // SAFETY: SIOCGIFINDEX has just filled this member.
    Ok(unsafe { r.ifr_ifru.ifru_ifindex })
}

/// The interface's MTU.
pub(super) fn mtu(name: &str) -> io::Result<libc::c_int> {
    let mut r = request(name)?;
    interface(libc::SIOCGIFMTU, &mut r)?;
    // SAFETY: SIOCGIFMTU has just filled this member.
    Ok(unsafe { r.ifr_ifru.ifru_mtu })
}

/// Sets it.
pub(super) fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut r = request(name)?;
    r.ifr_ifru.ifru_mtu = mtu.into();
    interface(libc::SIOCSIFMTU, &mut r)
}

/// The interface's flags.
pub(super) fn flags(name: &str) -> io::Result<libc::c_int> {
    let mut r = request(name)?;
    interface(libc::SIOCGIFFLAGS, &mut r)?;
    // SAFETY: SIOCGIFFLAGS has just filled this member.
    Ok(unsafe { r.ifr_ifru.ifru_flags }.into())
}

/// Brings the interface up.
pub(super) fn set_up(name: &str) -> io::Result<()> {
    let mut r = request(name)?;
    interface(libc::SIOCGIFFLAGS, &mut r)?;
    let up = i16::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: SIOCGIFFLAGS has just filled this member.
    let flags = unsafe { r.ifr_ifru.ifru_flags };
    r.ifr_ifru.ifru_flags = flags | up;
    interface(libc::SIOCSIFFLAGS, &mut r)
}

/// Sets an IPv4 address and its netmask.
pub(super) fn set_address4(label: &str, net: &Ipv4Net) -> io::Result<()> {
    let mut r = request(label)?;
    r.ifr_ifru.ifru_addr = sockaddr(net.addr());
    interface(libc::SIOCSIFADDR, &mut r)?;
    r.ifr_ifru.ifru_netmask = sockaddr(net.netmask());
    interface(libc::SIOCSIFNETMASK, &mut r)
}

/// Adds an IPv6 address.
pub(super) fn add_address6(name: &str, net: &Ipv6Net) -> io::Result<()> {
    let socket = control(AddressFamily::Inet6)?;
    let mut r = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr {
            s6_addr: net.addr().octets(),
        },
        ifr6_prefixlen: net.prefix_len().into(),
        ifr6_ifindex: index(name)?,
    };
    // SAFETY: on an IPv6 socket SIOCSIFADDR takes an in6_ifreq.
    match unsafe { ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &mut r) } {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// An IPv4 address as ifreq holds it: a `sockaddr_in` in a `sockaddr`'s place.
fn sockaddr(address: std::net::Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // Behind the two bytes of the port.
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr {
        sa_family: u16::try_from(libc::AF_INET).unwrap_or(2),
        sa_data: data,
    }
}
