//! The TCP checksum (RFC 9293 3.1): verifying it, filling it in, leaving it to a device.

use core::net::IpAddr;

use zerocopy::FromBytes;
use zerocopy::big_endian::U16;

use super::RawHeader;
use crate::checksum::{partial_seed, pseudo_header};
use crate::{Error, Result, protocol};

/// Whether the checksum of a whole segment is right.
#[inline]
#[must_use]
pub fn verify_checksum(segment: &[u8], src: IpAddr, dst: IpAddr) -> bool {
    verify_checksum_parts(&[segment], src, dst)
}

/// As [`verify_checksum`], for a segment that lies in pieces, header first.
#[must_use]
pub fn verify_checksum_parts(segment: &[&[u8]], src: IpAddr, dst: IpAddr) -> bool {
    let len: usize = segment.iter().map(|piece| piece.len()).sum();
    let Ok(len) = u32::try_from(len) else {
        return false;
    };
    let mut sum = pseudo_header(src, dst, protocol::TCP, len);
    for piece in segment {
        sum.add(piece);
    }
    sum.finish() == 0
}

/// Computes and writes the checksum of a whole segment, header and payload in one piece.
///
/// # Errors
/// [`Error::Truncated`], [`Error::BadLength`] if it is longer than any packet.
#[inline]
pub fn fill_checksum(segment: &mut [u8], src: IpAddr, dst: IpAddr) -> Result<()> {
    fill_checksum_parts(segment, &[], src, dst)
}

/// As [`fill_checksum`], for a payload that lies in pieces elsewhere; `header` is exactly the
/// header with its options (or the header and the first bytes of payload).
///
/// # Errors
/// As [`fill_checksum`].
pub fn fill_checksum_parts(
    header: &mut [u8],
    payload: &[&[u8]],
    src: IpAddr,
    dst: IpAddr,
) -> Result<()> {
    let len = header.len() + payload.iter().map(|piece| piece.len()).sum::<usize>();
    let len = u32::try_from(len).map_err(|_| Error::BadLength)?;
    set(header, 0)?;
    let mut sum = pseudo_header(src, dst, protocol::TCP, len);
    sum.add(header);
    for piece in payload {
        sum.add(piece);
    }
    set(header, sum.finish())
}

/// Writes the partial checksum for a device that completes it (`VirtioNetHdr::NEEDS_CSUM`);
/// `len` is the length in bytes of header and payload, of a super-frame the whole.
///
/// # Errors
/// [`Error::Truncated`].
#[inline]
pub fn fill_partial_checksum(header: &mut [u8], len: u32, src: IpAddr, dst: IpAddr) -> Result<()> {
    set(header, partial_seed(src, dst, protocol::TCP, len))
}

#[inline]
fn set(header: &mut [u8], checksum: u16) -> Result<()> {
    let (raw, _) = RawHeader::mut_from_prefix(header).map_err(|_| Error::Truncated)?;
    raw.checksum = U16::new(checksum);
    Ok(())
}
