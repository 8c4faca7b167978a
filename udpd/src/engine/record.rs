//! What is durable of a socket.

use abi::Endpoint;
use abi::session::SocketKind;
use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names layout and version of the record; raise the digit with any change.
pub const RECORD_KIND: u64 = u64::from_le_bytes(*b"UDPSOCK1");

/// Bytes of a record.
pub const RECORD_LEN: u32 = 88;

/// What a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UDP.
    Udp,
    /// ICMP echo; its port is the identifier.
    Ping,
    /// One IP protocol, as it comes.
    Raw(u8),
}

/// One socket. Plain data in the state memory; no padding.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Record {
    /// Session memory that its buffers are in.
    pub region: u32,
    /// Slot there.
    pub slot: u32,
    /// Which use of the slot.
    pub incarnation: u32,
    /// [`flag`] bits.
    pub flags: u32,
    /// Number of the last request that changed it: its repetition is answered, not done again.
    pub last_request: u64,
    /// Own address (family 0: any) and port (0: none yet).
    pub local: Endpoint,
    /// Default peer; family 0 for none.
    pub peer: Endpoint,
    /// High-water mark of the receive queue in bytes.
    pub rx_limit: u32,
    /// Send buffer in use in bytes.
    pub tx_limit: u32,
    /// `SO_MARK`.
    pub mark: u32,
    /// 1 UDP, 2 ping, 3 raw.
    pub kind: u8,
    /// Of a raw socket.
    pub protocol: u8,
    /// Made for IPv6: 1.
    pub v6: u8,
    /// TTL to send with; 0 for the default.
    pub ttl: u8,
    /// TOS to send with.
    pub tos: u8,
    /// `IP_MTU_DISCOVER`.
    pub mtu_discover: u8,
    /// Reserved, zero.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<Record>() == RECORD_LEN as usize);

/// Flag bits of a record.
pub mod flag {
    /// `SO_REUSEADDR`.
    pub const REUSE_ADDR: u32 = 1;
    /// `SO_REUSEPORT`.
    pub const REUSE_PORT: u32 = 2;
    /// `SO_BROADCAST`.
    pub const BROADCAST: u32 = 4;
    /// `IP_PKTINFO`.
    pub const PACKET_INFO: u32 = 8;
    /// `IPV6_V6ONLY`.
    pub const V6_ONLY: u32 = 16;
    /// The address was asked for: disconnecting keeps it.
    pub const ADDR_BOUND: u32 = 32;
    /// The port was asked for: disconnecting keeps it.
    pub const PORT_BOUND: u32 = 64;
}

impl Record {
    /// What the socket is, if the record is sound.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self.kind {
            1 => Kind::Udp,
            2 => Kind::Ping,
            3 => Kind::Raw(self.protocol),
            _ => return None,
        })
    }

    /// Sets what the socket is.
    pub fn set_kind(&mut self, kind: Kind) {
        (self.kind, self.protocol) = match kind {
            Kind::Udp => (1, 0),
            Kind::Ping => (2, 0),
            Kind::Raw(protocol) => (3, protocol),
        };
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets or clears a flag.
    pub fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// Own address; none for any.
    #[must_use]
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.local.ip()
    }

    /// Whether datagrams of that family are for it at all.
    #[must_use]
    pub fn takes_family(&self, ip: IpAddr) -> bool {
        match self.local_ip() {
            Some(own) => own.is_ipv4() == ip.is_ipv4(),
            None if self.v6 == 0 => ip.is_ipv4(),
            None => ip.is_ipv6() || !self.has(flag::V6_ONLY),
        }
    }
}

/// What an application asks for, as ours; raw sockets of protocols that other transports serve,
/// or that mean "none", are not to be had.
///
/// # Errors
/// `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`.
pub fn kind_of(kind: SocketKind) -> Result<Kind, super::Errno> {
    match kind {
        SocketKind::Datagram => Ok(Kind::Udp),
        SocketKind::Ping => Ok(Kind::Ping),
        SocketKind::Raw(0 | 255 | wire::protocol::TCP) => Err(libc::EPROTONOSUPPORT),
        SocketKind::Raw(protocol) => Ok(Kind::Raw(protocol)),
        SocketKind::Stream => Err(libc::ESOCKTNOSUPPORT),
    }
}
