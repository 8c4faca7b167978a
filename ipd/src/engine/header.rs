//! Reading an IPv4 header whose payload may lie elsewhere, in fragments of the sk_buff.

use super::counters::Counter;
use wire::ipv4::{HEADER_LEN, Packet, RawHeader, Repr};
use zerocopy::FromBytes;

/// Reads the header at the front of `bytes`, the linear part of a packet of `available` bytes.
/// The error is the counter of what is wrong (RFC 1122 3.2.1: silently discard).
#[inline]
pub(crate) fn parse(bytes: &[u8], available: usize) -> Result<Repr, Counter> {
    let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| Counter::IpInTruncated)?;
    // RFC 1122 3.2.1.1: version other than 4 is silently discarded.
    if raw.version_ihl >> 4 != 4 {
        return Err(Counter::IpInHdrErrors);
    }
    let header_len = usize::from(raw.version_ihl & 0x0f) * 4;
    if header_len < HEADER_LEN {
        return Err(Counter::IpInHdrErrors);
    }
    let header = bytes.get(..header_len).ok_or(Counter::IpInTruncated)?;
    let packet = Packet {
        raw,
        header,
        payload: &[],
    };
    // RFC 1122 3.2.1.2: the checksum must be verified.
    if !packet.verify_checksum() {
        return Err(Counter::IpInCsumErrors);
    }
    let total_len = usize::from(raw.total_len.get());
    if total_len < header_len {
        return Err(Counter::IpInHdrErrors);
    }
    if total_len > available {
        return Err(Counter::IpInTruncated);
    }
    Ok(Repr::of(&packet))
}
