//! What goes into the engine, and the memory it writes payload to.

use super::{ConnId, SocketRef};
use abi::Endpoint;
use abi::session::Rings;
use core::net::IpAddr;
use wire::SeqNumber;
use wire::tcp::Repr;

/// A received segment, checksum verified, without its payload.
#[derive(Debug, Clone, Copy)]
pub struct SegmentMeta<'a> {
    /// The sender; the port is the header's source port.
    pub src: Endpoint,
    /// The own address it was sent to; the port is the header's destination port.
    pub dst: Endpoint,
    /// Header and options.
    pub repr: &'a Repr,
    /// Payload bytes.
    pub payload_len: u32,
    /// Payload bytes of each wire segment when the device merged several; 0 for a single one.
    pub gso_size: u16,
    /// The network marked it (ECN congestion experienced).
    pub ce: bool,
    /// IP packet size of the device it came by, for the MSS of a new connection; 0: not known.
    pub mtu: u16,
}

/// The payload of the segment in hand.
pub trait Payload {
    /// Copies `to.len()` bytes from `offset` of the payload. Returns whether all were there.
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool;
}

impl Payload for [u8] {
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        let Some(from) = offset
            .checked_add(to.len())
            .and_then(|end| self.get(offset..end))
        else {
            return false;
        };
        to.copy_from_slice(from);
        true
    }
}

impl<const N: usize> Payload for [u8; N] {
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        self.as_slice().copy_to(offset, to)
    }
}

/// The memory behind sockets, as the shell provides it.
pub trait Buffers {
    /// Copies `len` bytes from `offset` of `payload` to stream position `position` of the
    /// receive buffer of `owner`, whose rings say where that is.
    /// The range lies within the receive buffer's free space: the engine only asks for bytes
    /// inside the window it offered. Bytes outside the contiguous received part are placed too
    /// and must stay: they are never asked for again.
    ///
    /// Returns false if there is no such memory; the segment then counts as lost.
    fn place(
        &mut self,
        owner: SocketRef,
        rings: &Rings,
        position: u64,
        payload: &dyn Payload,
        offset: usize,
        len: usize,
    ) -> bool;

    /// A connection of `listener` is about to be established and needs buffers of the sizes
    /// that the listener's socket has. `None` when there is room for no more: the handshake's
    /// last step is then treated as lost and happens again. The answer is in the child's record
    /// ([`super::Tcb::owner`]) from then on, and given back with [`super::Notice::Released`].
    fn attach(
        &mut self,
        listener: ConnId,
        listener_owner: SocketRef,
        child: ConnId,
    ) -> Option<SocketRef>;
}

/// What the route to a peer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Source address to use if the socket is not bound to one.
    pub source: IpAddr,
    /// IP packet size of the outgoing device; 0: [`super::Config::mtu`].
    pub mtu: u16,
}

/// The words an application writes, as loaded once from shared memory: hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppWords {
    /// Bytes put into the send buffer since the socket began.
    pub written: u64,
    /// Bytes taken from the receive buffer since the socket began.
    pub consumed: u64,
    /// Send position that urgent data ends at (RFC 6093); 0 for none.
    pub urgent: u64,
    /// No more receiving (`SHUT_RD`).
    pub shut_rd: bool,
    /// No more sending: FIN after `written` bytes (`SHUT_WR`).
    pub shut_wr: bool,
    /// The application has taken the connection from its listener's queue.
    pub accepted: bool,
}

/// Direction of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// No more receiving.
    Read,
    /// No more sending.
    Write,
    /// Both.
    Both,
}

/// Why a packet of ours did not arrive, from an ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpKind {
    /// Network unreachable.
    NetUnreachable,
    /// Host unreachable, administratively prohibited, or TTL exceeded.
    HostUnreachable,
    /// Protocol unreachable.
    ProtocolUnreachable,
    /// Port unreachable.
    PortUnreachable,
    /// Parameter problem.
    ParameterProblem,
    /// Too big for a link that takes `mtu` bytes (0: an old router that does not say).
    FragmentationNeeded {
        /// IP packet size that fits.
        mtu: u16,
    },
}

impl IcmpKind {
    /// The meaning of an `ICMPv4` type and code (RFC 1122 4.2.3.9), if TCP cares: source quench
    /// is ignored (RFC 6633), everything unknown too. `mtu` is the next hop's.
    #[must_use]
    pub const fn from_v4(kind: u8, code: u8, mtu: u16) -> Option<Self> {
        Some(match (kind, code) {
            (3, 0 | 6 | 9 | 11) => Self::NetUnreachable,
            (3, 1 | 5 | 7 | 8 | 10 | 12..=15) | (11, _) => Self::HostUnreachable,
            (3, 2) => Self::ProtocolUnreachable,
            (3, 3) => Self::PortUnreachable,
            (3, 4) => Self::FragmentationNeeded { mtu },
            (12, _) => Self::ParameterProblem,
            _ => return None,
        })
    }
}

/// An ICMP error about a segment of ours, from the bytes it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Source of the quoted segment: the own end.
    pub local: Endpoint,
    /// Destination of the quoted segment.
    pub remote: Endpoint,
    /// Its sequence number, which the engine checks against what is in flight (RFC 5927 4.1).
    pub seq: SeqNumber,
    /// What happened to it.
    pub kind: IcmpKind,
}
