//! Fixed messages: in front of each datagram in a buffer, and with each accepted connection.

use crate::endpoint::Endpoint;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Alignment of datagram records in a buffer.
pub const DATAGRAM_ALIGN: usize = 16;

/// In front of each datagram in a buffer; 64 bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DatagramHeader {
    /// Payload bytes that follow. [`DATAGRAM_SKIP`]: no datagram, go on at the buffer's start.
    pub len: u32,
    /// Bytes the datagram had on the wire (more than `len` if it was cut).
    pub wire_len: u32,
    /// Source (received) or destination (to send; none: the connected peer).
    pub peer: Endpoint,
    /// The address it was sent to (received); the source asked for (to send; none: choose).
    pub local: Endpoint,
    /// Device it came by; 0 for none or any.
    pub device: u16,
    /// TTL as received; 0 to send: the default.
    pub ttl: u8,
    /// TOS as received or asked for.
    pub tos: u8,
    /// Arrival in nanoseconds of `CLOCK_MONOTONIC`.
    pub stamp: [u8; 8],
    /// Reserved, zero.
    pub reserved: u32,
}

/// [`DatagramHeader::len`] of a filler at the buffer's end. Of a filler only `len` is there: it
/// may be as short as [`DATAGRAM_ALIGN`].
pub const DATAGRAM_SKIP: u32 = u32::MAX;

const _: () = assert!(size_of::<DatagramHeader>() == 64);

/// What the transport sends over a listener's shadow fd with each new connection's descriptor.
/// Fixed size, so that one `recvmsg` takes exactly one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AcceptMessage {
    /// Socket slot in the listener's session.
    pub slot: u32,
    /// The slot's incarnation. A message whose incarnation is not the slot's current one, or
    /// that was taken before (see [`super::control::ACCEPTED`]), is a duplicate after a restart: drop it.
    pub incarnation: u32,
    /// The peer.
    pub peer: Endpoint,
    /// The own address.
    pub local: Endpoint,
    /// Reserved, zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<AcceptMessage>() == 64);
