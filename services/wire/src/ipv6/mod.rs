//! IPv6 headers (RFC 8200): the fixed header here, extension headers in [`ext`].

use core::net::Ipv6Addr;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result};

pub mod ext;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Every link must carry packets of this size (RFC 8200 5).
pub const MIN_MTU: usize = 1280;

/// The fixed header as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// Bytes behind this header, extension headers included.
    pub payload_len: U16,
    /// What follows: an extension header or a protocol.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

/// A packet whose version and payload length were checked.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The fixed header.
    pub raw: &'a RawHeader,
    /// Extension headers and payload, link-layer padding cut off.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version and payload length. A jumbogram (RFC 2675) is not supported and looks
    /// empty.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::BadVersion`], [`Error::BadLength`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (raw, rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        if raw.version_class_flow.get() >> 28 != 6 {
            return Err(Error::BadVersion);
        }
        let payload = rest
            .get(..usize::from(raw.payload_len.get()))
            .ok_or(Error::BadLength)?;
        Ok(Self { raw, payload })
    }
}

/// An IPv6 header's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// What follows: an extension header or a protocol ([`crate::protocol`]).
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// DSCP (upper six bits) and ECN (lower two).
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes behind the fixed header, extension headers included.
    pub payload_len: u16,
}

impl Default for Repr {
    /// An empty packet with hop limit 64.
    fn default() -> Self {
        Self {
            src: Ipv6Addr::UNSPECIFIED,
            dst: Ipv6Addr::UNSPECIFIED,
            next_header: crate::protocol::IPV6_NO_NEXT,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len: 0,
        }
    }
}

impl Repr {
    /// Reads a packet's fixed header.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::BadVersion`]; [`Error::BadLength`] if the payload length
    /// exceeds `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw = Packet::new(bytes)?.raw;
        let [first, second, third, fourth] = raw.version_class_flow.get().to_be_bytes();
        Ok(Self {
            src: raw.src.into(),
            dst: raw.dst.into(),
            next_header: raw.next_header,
            hop_limit: raw.hop_limit,
            traffic_class: (first << 4) | (second >> 4),
            flow_label: u32::from_be_bytes([0, second & 0x0f, third, fourth]),
            payload_len: raw.payload_len.get(),
        })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the fixed header to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]; [`Error::Malformed`] if the flow label has more than 20 bits.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        if self.flow_label >> 20 != 0 {
            return Err(Error::Malformed);
        }
        let first = (6 << 28) | (u32::from(self.traffic_class) << 20) | self.flow_label;
        RawHeader {
            version_class_flow: U32::new(first),
            payload_len: U16::new(self.payload_len),
            next_header: self.next_header,
            hop_limit: self.hop_limit,
            src: self.src.octets(),
            dst: self.dst.octets(),
        }
        .write_to_prefix(out)
        .map_err(|_| Error::BufferTooSmall)
    }
}

#[cfg(test)]
mod tests;
