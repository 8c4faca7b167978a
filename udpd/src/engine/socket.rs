//! A socket as the daemon works with it: the record, and what dies with the process.

use super::queue::Queue;
use super::record::{Kind, Record};
use abi::{Endpoint, RegionId};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use session::SocketRef;

/// A socket.
#[derive(Debug)]
pub struct Socket {
    /// Durable.
    pub record: Record,
    /// What it is (from the record, checked).
    pub kind: Kind,
    /// Datagrams received.
    pub rx: Queue,
    /// Datagrams to send.
    pub tx: Queue,
    /// Datagrams dropped at the full receive queue.
    pub drops: u64,
    /// Closed by the application; it goes when its send queue is empty.
    pub closing: bool,
    /// Received position that the application has been shown.
    pub rx_shown: u64,
    /// On the list of those with something to show.
    pub touched: bool,
    /// On the list of those with something to send.
    pub sending: bool,
    pub(crate) dirty: bool,
}

impl Socket {
    /// From a sound record.
    #[must_use]
    pub fn new(record: Record, kind: Kind) -> Self {
        Self {
            record,
            kind,
            rx: Queue::default(),
            tx: Queue::default(),
            drops: 0,
            closing: false,
            rx_shown: 0,
            touched: false,
            sending: false,
            dirty: false,
        }
    }

    /// Its buffers.
    #[must_use]
    pub fn place(&self) -> SocketRef {
        SocketRef {
            region: RegionId(self.record.region),
            slot: self.record.slot,
        }
    }

    /// Whether it has a default peer.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.record.peer.is_some()
    }

    /// An address as the application of this socket sees it: IPv4 is mapped for IPv6 sockets.
    #[must_use]
    pub fn shown(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.record.v6 != 0 => IpAddr::V6(v4.to_ipv6_mapped()),
            ip => ip,
        }
    }

    /// An endpoint likewise; the absent one is the unspecified address.
    #[must_use]
    pub fn shown_endpoint(&self, e: &Endpoint) -> SocketAddr {
        let ip = match e.ip() {
            Some(ip) => self.shown(ip),
            None if self.record.v6 != 0 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        SocketAddr::new(ip, e.port)
    }
}
