//! UDP headers (RFC 768) and the rules of their checksum.

use core::net::IpAddr;

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{nonzero, partial_seed, pseudo_header};
use crate::{Error, Result, protocol};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies in the header, as `csum_offset` of a virtio header wants it.
pub const CHECKSUM_OFFSET: u16 = 6;

/// The header as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// Source port.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Bytes of header and payload.
    pub len: U16,
    /// Checksum over pseudo header, header and payload; 0 for none.
    pub checksum: U16,
}

/// A datagram whose length was checked.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The header.
    pub raw: &'a RawHeader,
    /// The payload, cut to the length the header states.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Checks that header and stated length fit `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::BadLength`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (raw, rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        let payload_len = usize::from(raw.len.get())
            .checked_sub(HEADER_LEN)
            .ok_or(Error::BadLength)?;
        let payload = rest.get(..payload_len).ok_or(Error::BadLength)?;
        Ok(Self { raw, payload })
    }
}

/// A UDP header's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Repr {
    /// Source port; 0 if the sender wants no answer.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Bytes of header and payload, at least 8.
    pub len: u16,
}

impl Repr {
    /// Reads a header. The checksum is a matter of [`verify_checksum`].
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::BadLength`] if the stated length is less than a header or
    /// more than `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw = Datagram::new(bytes)?.raw;
        Ok(Self {
            src_port: raw.src_port.get(),
            dst_port: raw.dst_port.get(),
            len: raw.len.get(),
        })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Bytes of payload.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::from(self.len).saturating_sub(HEADER_LEN)
    }

    /// Writes the header with checksum 0 ("none") to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]; [`Error::BadLength`] if `len` is less than a header.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        if usize::from(self.len) < HEADER_LEN {
            return Err(Error::BadLength);
        }
        RawHeader {
            src_port: U16::new(self.src_port),
            dst_port: U16::new(self.dst_port),
            len: U16::new(self.len),
            checksum: U16::ZERO,
        }
        .write_to_prefix(out)
        .map_err(|_| Error::BufferTooSmall)
    }
}

/// Whether the checksum of the datagram at the front of `datagram` is right, or rightly absent.
/// Bytes beyond its stated length are not looked at; an impossible length is `false`.
#[must_use]
pub fn verify_checksum(datagram: &[u8], src: IpAddr, dst: IpAddr) -> bool {
    let Ok(view) = Datagram::new(datagram) else {
        return false;
    };
    if view.raw.checksum.get() == 0 {
        // RFC 768: an all zero transmitted checksum means that the sender generated none.
        // RFC 8200 8.1: over IPv6 such datagrams must be discarded.
        return src.is_ipv4();
    }
    let mut sum = pseudo_header(src, dst, protocol::UDP, u32::from(view.raw.len.get()));
    sum.add(view.raw.as_bytes());
    sum.add(view.payload);
    sum.finish() == 0
}

/// Computes and writes the checksum of the datagram at the front of `datagram`.
///
/// # Errors
/// [`Error::Truncated`], [`Error::BadLength`].
pub fn fill_checksum(datagram: &mut [u8], src: IpAddr, dst: IpAddr) -> Result<()> {
    let len = usize::from(Datagram::new(datagram)?.raw.len.get());
    let (header, payload) = datagram
        .split_at_mut_checked(HEADER_LEN)
        .ok_or(Error::Truncated)?;
    let payload = payload.get(..len - HEADER_LEN).ok_or(Error::BadLength)?;
    fill_checksum_parts(header, &[payload], src, dst)
}

/// As [`fill_checksum`], for a payload that lies in pieces elsewhere. The pieces must add up to
/// the length the header states.
///
/// # Errors
/// [`Error::Truncated`]; [`Error::BadLength`] if the pieces do not add up.
pub fn fill_checksum_parts(
    header: &mut [u8],
    payload: &[&[u8]],
    src: IpAddr,
    dst: IpAddr,
) -> Result<()> {
    let (raw, _) = RawHeader::mut_from_prefix(header).map_err(|_| Error::Truncated)?;
    let len: usize = payload.iter().map(|piece| piece.len()).sum();
    if usize::from(raw.len.get()) != len + HEADER_LEN {
        return Err(Error::BadLength);
    }
    raw.checksum = U16::ZERO;
    let mut sum = pseudo_header(src, dst, protocol::UDP, u32::from(raw.len.get()));
    sum.add(raw.as_bytes());
    for piece in payload {
        sum.add(piece);
    }
    raw.checksum = U16::new(nonzero(sum.finish()));
    Ok(())
}

/// Writes the partial checksum for a device that completes it (`VirtioNetHdr::NEEDS_CSUM`).
///
/// # Errors
/// [`Error::Truncated`].
#[inline]
pub fn fill_partial_checksum(header: &mut [u8], src: IpAddr, dst: IpAddr) -> Result<()> {
    let (raw, _) = RawHeader::mut_from_prefix(header).map_err(|_| Error::Truncated)?;
    let len = u32::from(raw.len.get());
    raw.checksum = U16::new(partial_seed(src, dst, protocol::UDP, len));
    Ok(())
}

#[cfg(test)]
mod tests;
