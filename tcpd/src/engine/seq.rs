//! Sequence numbers widened to 64 bits.
//!
//! Inside the engine a position in either direction is an [`Offset`]: the sequence number with
//! its wraps counted. The SYN sits at [`SYN_OFFSET`], the first byte of data right behind it, so
//! that offsets compare as plain integers and only two functions know about 32-bit arithmetic
//! (RFC 9293 3.4): [`to_wire`] on the way out and [`extend`] on the way in.
//!
//! `SYN_OFFSET` is 2^32 and not 0, so that a segment from just before the SYN still has an
//! offset, and so that 0 can mean "none" in a record.

use wire::SeqNumber;

/// A sequence number with its wraps counted, relative to the initial one.
pub type Offset = u64;

/// The SYN's place.
pub const SYN_OFFSET: Offset = 1 << 32;

/// The place of the first byte of data.
pub const DATA_OFFSET: Offset = SYN_OFFSET + 1;

/// The sequence number of `offset` when the SYN has `isn`.
#[must_use]
pub const fn to_wire(isn: u32, offset: Offset) -> SeqNumber {
    SeqNumber(isn.wrapping_add(offset as u32))
}

/// The offset nearest to `near` whose sequence number is `seq` (RFC 9293 3.4: half the number
/// space is ahead, half behind). `near` is at least [`SYN_OFFSET`], so the result is never
/// negative.
#[must_use]
pub const fn extend(isn: u32, near: Offset, seq: SeqNumber) -> Offset {
    let low = seq.0.wrapping_sub(isn);
    let distance = low.wrapping_sub(near as u32).cast_signed();
    near.wrapping_add_signed(distance as i64)
}

/// The offset of byte `position` of the stream.
#[must_use]
pub const fn of_stream(position: u64) -> Offset {
    DATA_OFFSET.wrapping_add(position)
}

/// The stream position at `offset`; 0 for anything before the first byte.
#[must_use]
pub const fn stream_position(offset: Offset) -> u64 {
    offset.saturating_sub(DATA_OFFSET)
}

/// `bytes` as a u32, saturating: windows and flights are below 2^31 by construction.
#[must_use]
pub(crate) fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_number_of_an_offset_comes_back() {
        for isn in [0, 1, 0x7fff_ffff, u32::MAX] {
            for offset in [
                SYN_OFFSET,
                DATA_OFFSET,
                SYN_OFFSET + (1 << 31),
                (7 << 32) + 5,
            ] {
                for shift in [-100i64, 0, 100] {
                    let near = offset.wrapping_add_signed(shift).max(SYN_OFFSET);
                    assert_eq!(extend(isn, near, to_wire(isn, offset)), offset);
                }
            }
        }
    }

    #[test]
    fn what_lies_before_the_syn_is_smaller() {
        let isn = 5;
        assert_eq!(extend(isn, SYN_OFFSET, SeqNumber(4)), SYN_OFFSET - 1);
        assert_eq!(stream_position(SYN_OFFSET), 0);
        assert_eq!(stream_position(of_stream(9)), 9);
    }
}
