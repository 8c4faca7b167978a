//! A raw packet socket on one end of a veth pair: whole Ethernet frames, one a call.
#![allow(unsafe_code, reason = "options and addresses that nix does not know")]

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socket, sockopt,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

// From <linux/if_packet.h>.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Room for what comes while the link's thread is not scheduled.
const BUFFER: usize = 16 << 20;

/// One port of a link.
#[derive(Debug)]
pub struct Port {
    fd: OwnedFd,
}

impl Port {
    /// Opens the interface of that name, which must be up, in the present namespace.
    ///
    /// # Errors
    /// When there is none or packet sockets are forbidden.
    pub fn open(name: &str) -> Result<Self> {
        let index =
            if_nametoindex(name).with_context(|| format!("there is no interface {name}"))?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Protocol 0: nothing is queued before the socket is bound.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("a packet socket needs CAP_NET_RAW in this namespace")?;
        let on: libc::c_int = 1;
        set(&fd, PACKET_IGNORE_OUTGOING, on).context("PACKET_IGNORE_OUTGOING")?;
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
        }
        if setsockopt(&fd, sockopt::SndBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER);
        }
        bind(&fd, index).with_context(|| format!("cannot bind to {name}"))?;
        Ok(Self { fd })
    }

    /// The next frame, in the front of `into`; none when there is none now.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        // MSG_TRUNC: the frame's own length, so that a longer one is seen.
        match recv(self.fd.as_raw_fd(), into, MsgFlags::MSG_TRUNC) {
            Ok(len) => Ok(Some(len)),
            Err(nix::Error::EAGAIN) => Ok(None),
            // The interface went down and up, which it tells once.
            Err(nix::Error::ENETDOWN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a frame; whether there was room.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<bool> {
        match send(self.fd.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(nix::Error::EAGAIN | nix::Error::ENOBUFS | nix::Error::ENETDOWN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sets an option that is an int.
fn set(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let value = std::ptr::from_ref(&value).cast();
    // SAFETY: `value` points to an int, readable for its length during the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, value, len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    address.sll_ifindex = i32::try_from(index).unwrap_or(0);
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    let pointer = std::ptr::from_ref(&address).cast();
    // SAFETY: a sockaddr_ll of that length, valid during the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), pointer, len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
