//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), and what partial
//! checksum offload needs of it.
//!
//! The sum is kept in the machine's own byte order: one's complement addition commutes with a
//! byte swap (RFC 1071 2.B), so the bytes are swapped once, at the end.

use core::net::IpAddr;

/// A checksum under way. Pieces may be added in any sizes, odd ones included: a piece that
/// starts at an odd offset is summed with its bytes exchanged (RFC 1071 2.B).
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum {
    /// Native-endian one's complement sum, kept below 2^34 by folding after each piece.
    sum: u64,
    /// Whether an odd number of bytes was added so far.
    odd: bool,
}

impl Checksum {
    /// An empty sum.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Adds the next bytes of the data.
    #[inline]
    pub fn add(&mut self, data: &[u8]) {
        self.add_native(sum_native(data));
        self.odd ^= data.len() % 2 == 1;
    }

    /// Adds a 16-bit field.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.add_native(u64::from(value.to_be()));
    }

    /// Adds a 32-bit field.
    #[inline]
    pub fn add_u32(&mut self, value: u32) {
        self.add_native(u64::from(value.to_be()));
    }

    /// The sum folded to 16 bits and *not* complemented: what a partial checksum holds.
    #[inline]
    #[must_use]
    pub fn fold(self) -> u16 {
        u16::from_be(fold_native(self.sum))
    }

    /// The checksum to put into a header: the complement of the sum. Over data that carries a
    /// right checksum this is 0.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    #[inline]
    fn add_native(&mut self, sum: u64) {
        let piece = if self.odd {
            u64::from(fold_native(sum).swap_bytes())
        } else {
            halves(sum)
        };
        let total = self.sum.wrapping_add(piece);
        self.sum = halves(total);
    }
}

/// The checksum of one contiguous piece of data; 0 when the data holds its own right checksum.
#[inline]
#[must_use]
pub fn of(data: &[u8]) -> u16 {
    let mut sum = Checksum::new();
    sum.add(data);
    sum.finish()
}

/// Starts a transport checksum with the pseudo header of RFC 9293 3.1 (IPv4) or RFC 8200 8.1
/// (IPv6). `len` is the length in bytes of transport header and payload.
///
/// Both addresses must be of one family; there is no third pseudo header, and mixing them
/// gives the sum over both addresses as they are.
#[inline]
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: u32) -> Checksum {
    let mut sum = Checksum::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(v4) => sum.add(&v4.octets()),
            IpAddr::V6(v6) => sum.add(&v6.octets()),
        }
    }
    // In IPv4 the length is 16 bits; a 32-bit one with a zero upper half sums to the same.
    sum.add_u32(len);
    sum.add_u16(u16::from(proto));
    sum
}

/// What goes into the checksum field of a packet whose checksum the device completes
/// (`VirtioNetHdr::NEEDS_CSUM`): the pseudo-header sum, not complemented.
#[inline]
#[must_use]
pub fn partial_seed(src: IpAddr, dst: IpAddr, proto: u8, len: u32) -> u16 {
    pseudo_header(src, dst, proto, len).fold()
}

/// The checksum field after one 16-bit field changed from `old` to `new`
/// (RFC 1624 3, equation 3: HC' = ~(~HC + ~m + m')).
///
/// Exact unless all the data is zero after the change: its checksum is 0xffff, and this gives 0.
/// No IP, TCP or UDP checksum covers such data; an ICMP echo reply's can.
#[inline]
#[must_use]
pub fn update16(check: u16, old: u16, new: u16) -> u16 {
    let sum = u64::from(!check) + u64::from(!old) + u64::from(new);
    !fold_native(sum)
}

/// The checksum field after one aligned 32-bit field changed from `old` to `new`; exact where
/// [`update16`] is.
#[inline]
#[must_use]
pub fn update32(check: u16, old: u32, new: u32) -> u16 {
    let sum = u64::from(!check) + u64::from(!old) + u64::from(new);
    !fold_native(sum)
}

/// Writes zero as its other one's complement form, 0xffff. RFC 768: "If the computed checksum is
/// zero, it is transmitted as all ones"; it verifies wherever 0 does.
#[inline]
pub(crate) const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Sums `data` as native-endian words, an odd last byte padded with zero.
#[inline]
fn sum_native(data: &[u8]) -> u64 {
    let (blocks, tail) = data.as_chunks::<64>();
    // Eight independent lanes of 32-bit halves: no carry chain, so the loop vectorises (64 KiB in
    // 1.4 us, 12 % less than with four lanes measured in the same run). A lane overflows only
    // after 2^31 blocks, more than fits any slice that is a packet.
    let mut lanes = [0u64; 8];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(halves(u64::from_ne_bytes(*word)));
        }
    }
    let mut sum = 0u64;
    if !blocks.is_empty() {
        sum = lanes
            .iter()
            .fold(0, |sum, lane| sum.wrapping_add(halves(*lane)));
    }
    let (words, tail) = tail.as_chunks::<8>();
    for word in words {
        sum += halves(u64::from_ne_bytes(*word));
    }
    let (words, rest) = tail.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    sum + match *rest {
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a, b, c] => u64::from(u32::from_ne_bytes([a, b, c, 0])),
        _ => 0,
    }
}

/// One end-around fold: the same sum in at most 33 bits.
#[inline]
const fn halves(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// Folds a sum to 16 bits with end-around carry.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the value was folded below 2^16 by the line above"
)]
const fn fold_native(sum: u64) -> u16 {
    let sum = halves(sum);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests;
