//! IPv4 headers (RFC 791).

use core::net::Ipv4Addr;

use arrayvec::ArrayVec;
use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result, checksum};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Most bytes of options a header has room for.
pub const MAX_OPTIONS_LEN: usize = 40;
/// Most bytes of a header.
pub const MAX_HEADER_LEN: usize = HEADER_LEN + MAX_OPTIONS_LEN;
/// Every host must be able to take a datagram of this size (RFC 791 3.1).
pub const MIN_MTU: usize = 576;

const DONT_FRAG: u16 = 0x4000;
const MORE_FRAGS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of the header as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// Version (upper half) and header length in 32-bit words (lower half).
    pub version_ihl: u8,
    /// Type of service: DSCP and ECN (RFC 2474, RFC 3168).
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: U16,
    /// Which datagram a fragment belongs to.
    pub ident: U16,
    /// Flags and the fragment offset in units of 8 bytes.
    pub frag: U16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: U16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

/// A datagram whose version and lengths were checked; its checksum was not.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The fixed part of the header.
    pub raw: &'a RawHeader,
    /// The whole header.
    pub header: &'a [u8],
    /// The payload, link-layer padding cut off.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version, header length and total length against each other and the bytes.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::BadVersion`], [`Error::BadLength`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (packet, total_len) = Self::header_only(bytes)?;
        if total_len < packet.header.len() {
            return Err(Error::BadLength);
        }
        // RFC 791 3.1: total length counts header and data; what the link added behind is not ours.
        let payload = bytes
            .get(packet.header.len()..total_len)
            .ok_or(Error::BadLength)?;
        Ok(Self { payload, ..packet })
    }

    /// Checks the header alone: the payload may be cut short, as in an ICMP error's quotation.
    /// Also returns the total length the header claims.
    #[inline]
    pub(crate) fn header_only(bytes: &'a [u8]) -> Result<(Self, usize)> {
        let (raw, rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        if raw.version_ihl >> 4 != 4 {
            return Err(Error::BadVersion);
        }
        let header_len = usize::from(raw.version_ihl & 0x0f) * 4;
        if header_len < HEADER_LEN {
            return Err(Error::BadLength);
        }
        let header = bytes.get(..header_len).ok_or(Error::Truncated)?;
        let payload = rest
            .get(header_len - HEADER_LEN..)
            .ok_or(Error::Truncated)?;
        Ok((
            Self {
                raw,
                header,
                payload,
            },
            usize::from(raw.total_len.get()),
        ))
    }

    /// The options, their padding included.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Whether the header checksum is right.
    #[inline]
    #[must_use]
    pub fn verify_checksum(&self) -> bool {
        checksum::of(self.header) == 0
    }
}

/// An IPv4 header's meaning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repr {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload ([`crate::protocol`]).
    pub protocol: u8,
    /// Time to live, in hops.
    pub ttl: u8,
    /// DSCP (upper six bits) and ECN (lower two).
    pub tos: u8,
    /// Which datagram a fragment belongs to.
    pub ident: u16,
    /// Routers must not fragment this datagram.
    pub dont_frag: bool,
    /// Not the last fragment.
    pub more_frags: bool,
    /// Where the payload belongs in the whole datagram, in **bytes**; a multiple of 8.
    pub frag_offset: u16,
    /// Bytes of header and payload.
    pub total_len: u16,
    /// Options as on the wire; `emit` pads them to a multiple of 4 with end-of-list bytes.
    pub options: ArrayVec<u8, MAX_OPTIONS_LEN>,
}

impl Default for Repr {
    /// An unfragmented empty datagram without options, TTL 64 (RFC 1700).
    fn default() -> Self {
        Self {
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::UNSPECIFIED,
            protocol: 0,
            ttl: 64,
            tos: 0,
            ident: 0,
            dont_frag: false,
            more_frags: false,
            frag_offset: 0,
            total_len: 20,
            options: ArrayVec::new_const(),
        }
    }
}

impl Repr {
    /// Reads a datagram's header and verifies its checksum.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::BadVersion`]; [`Error::BadLength`] if the header or total
    /// length is impossible or exceeds `bytes`; [`Error::BadChecksum`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let packet = Packet::new(bytes)?;
        // RFC 1122 3.2.1.2: a host MUST verify the checksum and silently discard if it is bad.
        if !packet.verify_checksum() {
            return Err(Error::BadChecksum);
        }
        Ok(Self::of(&packet))
    }

    /// Reads a datagram's header without verifying its checksum.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), without [`Error::BadChecksum`].
    #[inline]
    pub fn parse_unchecked(bytes: &[u8]) -> Result<Self> {
        Ok(Self::of(&Packet::new(bytes)?))
    }

    /// The meaning of a checked view.
    #[inline]
    #[must_use]
    pub fn of(packet: &Packet<'_>) -> Self {
        let raw = packet.raw;
        let frag = raw.frag.get();
        let mut options = ArrayVec::new_const();
        let bytes = packet.options();
        if !bytes.is_empty() {
            // At most 40 bytes, because the length is a nibble of words; so this cannot fail.
            let _ = options.try_extend_from_slice(bytes);
        }
        Self {
            src: raw.src.into(),
            dst: raw.dst.into(),
            protocol: raw.protocol,
            ttl: raw.ttl,
            tos: raw.tos,
            ident: raw.ident.get(),
            dont_frag: frag & DONT_FRAG != 0,
            more_frags: frag & MORE_FRAGS != 0,
            frag_offset: (frag & OFFSET_MASK) << 3,
            total_len: raw.total_len.get(),
            options,
        }
    }

    /// Bytes of the header, options and their padding included: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len().next_multiple_of(4)
    }

    /// Bytes of payload, 0 if `total_len` is less than the header.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::from(self.total_len).saturating_sub(self.header_len())
    }

    /// Whether this is one of several pieces of a datagram.
    #[inline]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.more_frags || self.frag_offset != 0
    }

    /// Writes the header, with its checksum, to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]; [`Error::BadLength`] if `total_len` is less than the header;
    /// [`Error::Malformed`] if `frag_offset` is not a multiple of 8.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        if usize::from(self.total_len) < self.header_len() {
            return Err(Error::BadLength);
        }
        if !self.frag_offset.is_multiple_of(8) {
            return Err(Error::Malformed);
        }
        let header = out
            .get_mut(..self.header_len())
            .ok_or(Error::BufferTooSmall)?;
        let (fixed, options) =
            RawHeader::mut_from_prefix(header).map_err(|_| Error::BufferTooSmall)?;
        let mut frag = self.frag_offset >> 3;
        if self.dont_frag {
            frag |= DONT_FRAG;
        }
        if self.more_frags {
            frag |= MORE_FRAGS;
        }
        *fixed = RawHeader {
            version_ihl: 0x45,
            tos: self.tos,
            total_len: U16::new(self.total_len),
            ident: U16::new(self.ident),
            frag: U16::new(frag),
            ttl: self.ttl,
            protocol: self.protocol,
            checksum: U16::ZERO,
            src: self.src.octets(),
            dst: self.dst.octets(),
        };
        if !options.is_empty() {
            for (at, byte) in options.iter_mut().enumerate() {
                *byte = self.options.get(at).copied().unwrap_or(0);
            }
            fixed.version_ihl += u8::try_from(options.len() / 4).unwrap_or(0);
        }
        let mut sum = checksum::Checksum::new();
        sum.add(fixed.as_bytes());
        sum.add(options);
        fixed.checksum = U16::new(sum.finish());
        Ok(())
    }
}

/// Takes one hop off the TTL of the datagram at the front of `packet` and updates the header
/// checksum in place (RFC 1624). Returns the new TTL: 0 means the datagram must go no further
/// (RFC 1812 5.3.1), and a TTL of 0 stays as it is.
///
/// # Errors
/// [`Error::Truncated`], [`Error::BadVersion`].
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Result<u8> {
    let (raw, _) = RawHeader::mut_from_prefix(packet).map_err(|_| Error::Truncated)?;
    if raw.version_ihl >> 4 != 4 {
        return Err(Error::BadVersion);
    }
    let Some(ttl) = raw.ttl.checked_sub(1) else {
        return Ok(0);
    };
    let word = |ttl| u16::from_be_bytes([ttl, raw.protocol]);
    raw.checksum = U16::new(checksum::update16(
        raw.checksum.get(),
        word(raw.ttl),
        word(ttl),
    ));
    raw.ttl = ttl;
    Ok(ttl)
}

#[cfg(test)]
mod tests;
