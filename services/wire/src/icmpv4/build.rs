//! Building answers: an error that quotes its cause, an echo reply out of its request.

use zerocopy::FromBytes;
use zerocopy::big_endian::U16;

use super::{HEADER_LEN, RawHeader, Repr, fill_checksum, kind};
use crate::{Error, Result, checksum, ipv4};

/// Most bytes of an error message, ICMP header included: with an IPv4 header of 20 bytes it is
/// the 576 that every host can take (RFC 1812 4.3.2.3).
pub const MAX_ERROR_LEN: usize = ipv4::MIN_MTU - ipv4::HEADER_LEN;

/// Writes the error `repr` about `offending`, a datagram from its IPv4 header on, to the front
/// of `out`: header, as much of the datagram as may be quoted, checksum. Returns the message's
/// length.
///
/// Whether an error may be sent at all (RFC 1122 3.2.2: not about errors, broadcasts, later
/// fragments, …) is the caller's to decide.
///
/// # Errors
/// [`Error::BufferTooSmall`] if not even the quoted header and 8 bytes fit; [`Error::Truncated`],
/// [`Error::BadVersion`], [`Error::BadLength`] if `offending` is no IPv4 datagram;
/// [`Error::Unsupported`] if `repr` is no error.
pub fn build_error(repr: &Repr, offending: &[u8], out: &mut [u8]) -> Result<usize> {
    if !repr.is_error() {
        return Err(Error::Unsupported);
    }
    let (packet, total_len) = ipv4::Packet::header_only(offending)?;
    // Link-layer padding is not part of the datagram.
    let datagram = offending.get(..total_len).unwrap_or(offending);
    if datagram.len() < packet.header.len() {
        return Err(Error::BadLength);
    }
    let room = out.len().min(MAX_ERROR_LEN).saturating_sub(HEADER_LEN);
    if room < datagram.len().min(packet.header.len() + 8) {
        return Err(Error::BufferTooSmall);
    }
    // RFC 1812 4.3.2.3: "as much of the original datagram as possible" within 576 bytes.
    let quoted = datagram.get(..room).unwrap_or(datagram);
    let message = out
        .get_mut(..HEADER_LEN + quoted.len())
        .ok_or(Error::BufferTooSmall)?;
    repr.emit(message)?;
    message
        .get_mut(HEADER_LEN..)
        .ok_or(Error::BufferTooSmall)?
        .copy_from_slice(quoted);
    fill_checksum(message)?;
    Ok(HEADER_LEN + quoted.len())
}

/// Turns an echo request into its reply where it lies, updating the checksum (RFC 1624) without
/// reading the payload. Only the header need be in `message`.
///
/// # Errors
/// [`Error::Truncated`]; [`Error::Unsupported`] if it is no echo request.
pub fn reply_in_place(message: &mut [u8]) -> Result<()> {
    let (raw, _) = RawHeader::mut_from_prefix(message).map_err(|_| Error::Truncated)?;
    if raw.kind != kind::ECHO_REQUEST || raw.code != 0 {
        return Err(Error::Unsupported);
    }
    let word = |kind| u16::from_be_bytes([kind, 0]);
    let updated = checksum::update16(raw.checksum.get(), word(raw.kind), word(kind::ECHO_REPLY));
    // A reply can be all zero, the one case where the update gives the wrong zero (RFC 1624 3);
    // with a sum of ones either zero verifies, so the other one is always right.
    raw.checksum = U16::new(checksum::nonzero(updated));
    raw.kind = kind::ECHO_REPLY;
    Ok(())
}
