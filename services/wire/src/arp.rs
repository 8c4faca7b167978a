//! ARP for IPv4 over Ethernet (RFC 826). Other hardware or protocol types are refused.

use core::net::Ipv4Addr;

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::{EtherType, MacAddr};
use crate::{Error, Result};

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;

const HARDWARE_ETHERNET: u16 = 1;

/// What the sender wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
    /// Anything else (RARP, InARP, …), kept so that it can be counted.
    Other(u16),
}

impl From<u16> for Operation {
    fn from(value: u16) -> Self {
        match value {
            1 => Self::Request,
            2 => Self::Reply,
            other => Self::Other(other),
        }
    }
}

impl From<Operation> for u16 {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Request => 1,
            Operation::Reply => 2,
            Operation::Other(other) => other,
        }
    }
}

/// The packet as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawPacket {
    /// `ar$hrd`: hardware type, 1 for Ethernet.
    pub hardware: U16,
    /// `ar$pro`: protocol type, an EtherType.
    pub protocol: U16,
    /// `ar$hln`: bytes of a hardware address.
    pub hardware_len: u8,
    /// `ar$pln`: bytes of a protocol address.
    pub protocol_len: u8,
    /// `ar$op`.
    pub operation: U16,
    /// `ar$sha`.
    pub sender_mac: MacAddr,
    /// `ar$spa`.
    pub sender_ip: [u8; 4],
    /// `ar$tha`.
    pub target_mac: MacAddr,
    /// `ar$tpa`.
    pub target_ip: [u8; 4],
}

/// Bytes that are an ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The packet's fields.
    pub raw: &'a RawPacket,
}

impl<'a> Packet<'a> {
    /// Checks the types and lengths; bytes behind the packet are link-layer padding.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Unsupported`] for other hardware or protocols;
    /// [`Error::BadLength`] for address lengths that are not 6 and 4.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (raw, _) = RawPacket::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        // RFC 826, packet reception: "Do I have the hardware type in ar$hrd?", then "Do I speak
        // the protocol in ar$pro?", each optionally with its length.
        if raw.hardware.get() != HARDWARE_ETHERNET || raw.protocol.get() != EtherType::IPV4.0 {
            return Err(Error::Unsupported);
        }
        if raw.hardware_len != 6 || raw.protocol_len != 4 {
            return Err(Error::BadLength);
        }
        Ok(Self { raw })
    }
}

/// An ARP packet's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr {
    /// Request, reply or another.
    pub operation: Operation,
    /// The sender's link-layer address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address; unspecified in an address probe (RFC 5227 2.1.1).
    pub sender_ip: Ipv4Addr,
    /// The target's link-layer address; zero in a request.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// Reads a packet.
    ///
    /// # Errors
    /// As [`Packet::new`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw = Packet::new(bytes)?.raw;
        Ok(Self {
            operation: raw.operation.get().into(),
            sender_mac: raw.sender_mac,
            sender_ip: raw.sender_ip.into(),
            target_mac: raw.target_mac,
            target_ip: raw.target_ip.into(),
        })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        PACKET_LEN
    }

    /// Writes the packet to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        RawPacket {
            hardware: U16::new(HARDWARE_ETHERNET),
            protocol: U16::new(EtherType::IPV4.0),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(self.operation.into()),
            sender_mac: self.sender_mac,
            sender_ip: self.sender_ip.octets(),
            target_mac: self.target_mac,
            target_ip: self.target_ip.octets(),
        }
        .write_to_prefix(out)
        .map_err(|_| Error::BufferTooSmall)
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, PACKET_LEN, Repr};
    use crate::{Error, MacAddr};

    /// Who has 10.77.0.2? Tell 10.77.0.1 (a request as RFC 826 lays it out).
    const REQUEST: [u8; PACKET_LEN] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 10, 77,
        0, 1, 0, 0, 0, 0, 0, 0, 10, 77, 0, 2,
    ];

    #[test]
    fn request_is_read_and_written_back() {
        let repr = Repr::parse(&REQUEST).unwrap();
        assert_eq!(repr.operation, Operation::Request);
        assert_eq!(repr.sender_mac, MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(repr.sender_ip.to_string(), "10.77.0.1");
        assert_eq!(repr.target_mac, MacAddr::UNSPECIFIED);
        assert_eq!(repr.target_ip.to_string(), "10.77.0.2");
        let mut out = [0; PACKET_LEN];
        repr.emit(&mut out).unwrap();
        assert_eq!(out, REQUEST);
    }

    #[test]
    fn padding_is_ignored_and_truncation_is_not() {
        let mut padded = [0; 46];
        padded[..PACKET_LEN].copy_from_slice(&REQUEST);
        assert_eq!(Repr::parse(&padded), Repr::parse(&REQUEST));
        assert_eq!(
            Repr::parse(&REQUEST[..PACKET_LEN - 1]),
            Err(Error::Truncated)
        );
    }

    #[test]
    fn other_hardware_and_protocols_are_refused() {
        for (at, error) in [
            (1, Error::Unsupported),
            (2, Error::Unsupported),
            (4, Error::BadLength),
            (5, Error::BadLength),
        ] {
            let mut bytes = REQUEST;
            bytes[at] ^= 0x10;
            assert_eq!(Repr::parse(&bytes), Err(error), "byte {at}");
        }
        let mut rarp = REQUEST;
        rarp[7] = 3;
        assert_eq!(Repr::parse(&rarp).unwrap().operation, Operation::Other(3));
    }
}
