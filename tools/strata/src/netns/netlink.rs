//! Just enough of rtnetlink to ask the kernel for one thing and hear whether it did it.
//!
//! `netlink(7)`, `rtnetlink(7)`. Attributes nest, so the builder notes where one began and fills
//! in its length when it ends.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::AsRawFd;

/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;
/// `NLM_F_EXCL | NLM_F_CREATE`.
const CREATE: u16 = 0x200 | 0x400;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;

/// A request under construction.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

/// Where a nested attribute began.
#[derive(Debug)]
#[must_use]
pub(super) struct Nest(usize);

impl Request {
    /// A request to create something of message type `kind`, with its fixed header.
    pub(super) fn create(kind: u16, header: &[u8]) -> Self {
        Self::with_flags(kind, REQUEST_ACK | CREATE, header)
    }

    /// A request to change something that exists.
    pub(super) fn change(kind: u16, header: &[u8]) -> Self {
        Self::with_flags(kind, REQUEST_ACK, header)
    }

    fn with_flags(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(header);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let nest = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(&nest);
    }

    /// Begins an attribute whose value follows.
    pub(super) fn begin(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        Nest(at)
    }

    /// Adds bytes that are no attribute (a fixed header inside an attribute).
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends an attribute: writes its length and pads to four bytes.
    pub(super) fn end(&mut self, nest: &Nest) {
        let len = u16::try_from(self.bytes.len() - nest.0).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(nest.0..nest.0 + 2) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Sends it and waits for the kernel's verdict.
    pub(super) fn send(mut self) -> Result<()> {
        let len = u32::try_from(self.bytes.len()).context("netlink request too long")?;
        if let Some(field) = self.bytes.get_mut(..4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .context("cannot open a netlink socket")?;
        sendto(
            fd.as_raw_fd(),
            &self.bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )
        .context("cannot send to netlink")?;
        let mut answer = [0u8; 4096];
        let n = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())
            .context("cannot receive from netlink")?;
        let field = |at: usize| answer.get(at..at + 4).filter(|_| at + 4 <= n);
        let kind = field(4)
            .and_then(|b| b.first_chunk::<2>())
            .copied()
            .map(u16::from_ne_bytes);
        let code = field(16)
            .and_then(|b| b.first_chunk::<4>())
            .copied()
            .map(i32::from_ne_bytes);
        match (kind, code) {
            (Some(ERROR), Some(0)) => Ok(()),
            (Some(ERROR), Some(code)) => Err(std::io::Error::from_raw_os_error(-code).into()),
            _ => bail!("the kernel's answer over netlink was not understood"),
        }
    }
}
