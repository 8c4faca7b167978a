//! TCP headers (RFC 9293 3.1); options are in [`options`].
//!
//! ```text
//!  0                   1                   2                   3
//! |          Source Port          |       Destination Port        |
//! |                        Sequence Number                        |
//! |                    Acknowledgment Number                      |
//! | Data  |       |C|E|U|A|P|R|S|F|                               |
//! | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//! |       |       |R|E|G|K|H|T|N|N|                               |
//! |           Checksum            |         Urgent Pointer        |
//! |                       [Options], [data]                       |
//! ```

use bitflags::bitflags;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result, SeqNumber};

mod checksum;
pub mod options;

pub use checksum::{
    fill_checksum, fill_checksum_parts, fill_partial_checksum, verify_checksum,
    verify_checksum_parts,
};
pub use options::{Options, Timestamps};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Most bytes of a header: the data offset is a nibble of 32-bit words.
pub const MAX_HEADER_LEN: usize = 60;
/// Where the checksum lies in the header, as `csum_offset` of a virtio header wants it.
pub const CHECKSUM_OFFSET: u16 = 16;

bitflags! {
    /// The control bits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Flags: u16 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push: hand what is here to the application.
        const PSH = 0x08;
        /// The acknowledgment number is significant.
        const ACK = 0x10;
        /// The urgent pointer is significant.
        const URG = 0x20;
        /// ECN echo (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// The fixed part of the header as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// Source port.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Sequence number.
    pub seq: U32,
    /// Acknowledgment number.
    pub ack: U32,
    /// Header length in 32-bit words (upper 4 bits), reserved bits.
    pub offset_reserved: u8,
    /// Control bits.
    pub flags: u8,
    /// Window, not scaled.
    pub window: U16,
    /// Checksum over pseudo header, header and payload.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

/// A segment whose data offset was checked.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The fixed part of the header.
    pub raw: &'a RawHeader,
    /// The options, their padding included.
    pub options: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Checks that the data offset is possible and inside `bytes`, which must end where the
    /// segment does (TCP has no length of its own).
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::BadLength`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (raw, rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        let options_len = (usize::from(raw.offset_reserved >> 4) * 4)
            .checked_sub(HEADER_LEN)
            .ok_or(Error::BadLength)?;
        let (options, payload) = rest.split_at_checked(options_len).ok_or(Error::BadLength)?;
        Ok(Self {
            raw,
            options,
            payload,
        })
    }
}

/// A TCP header's meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first octet, or of SYN.
    pub seq: SeqNumber,
    /// Next octet expected from the other side; meaningful with [`Flags::ACK`].
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// Window as on the wire, not scaled.
    pub window: u16,
    /// Offset behind `seq` of the octet after urgent data; meaningful with [`Flags::URG`].
    pub urgent: u16,
    /// Options.
    pub options: Options,
}

impl Repr {
    /// Reads a segment's header; also returns its length, where the payload starts. `bytes` must
    /// end where the segment does. The checksum is a matter of [`verify_checksum`].
    ///
    /// Options are taken as Linux takes them: unknown and ill-sized ones are skipped, and a list
    /// that runs out of its bounds ends there, without the segment being refused.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::BadLength`] if the data offset is out of range.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize)> {
        let segment = Segment::new(bytes)?;
        Ok((Self::of(&segment), HEADER_LEN + segment.options.len()))
    }

    /// The meaning of a checked view.
    #[inline]
    #[must_use]
    pub fn of(segment: &Segment<'_>) -> Self {
        let raw = segment.raw;
        // RFC 9293 3.1: reserved bits must be ignored in received segments.
        let flags = Flags::from_bits_truncate(u16::from(raw.flags));
        Self {
            src_port: raw.src_port.get(),
            dst_port: raw.dst_port.get(),
            seq: SeqNumber(raw.seq.get()),
            ack: SeqNumber(raw.ack.get()),
            flags,
            window: raw.window.get(),
            urgent: raw.urgent.get(),
            options: Options::parse(segment.options, flags.contains(Flags::SYN)),
        }
    }

    /// Bytes of the header that [`emit`](Self::emit) writes, options and padding included: a
    /// multiple of 4, 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.wire_len()
    }

    /// How many sequence numbers the segment takes with `payload_len` bytes of payload: SYN and
    /// FIN count as one each (RFC 9293 3.4, SEG.LEN).
    #[inline]
    #[must_use]
    pub fn seq_len(&self, payload_len: u32) -> u32 {
        payload_len
            .wrapping_add(u32::from(self.flags.contains(Flags::SYN)))
            .wrapping_add(u32::from(self.flags.contains(Flags::FIN)))
    }

    /// Writes header and options to the front of `out`, the checksum 0; [`fill_checksum`] or
    /// [`fill_partial_checksum`] comes after. Returns nothing but success: the length is
    /// [`header_len`](Self::header_len).
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        let (raw, rest) = RawHeader::mut_from_prefix(out).map_err(|_| Error::BufferTooSmall)?;
        let options_len = self.options.emit(rest)?;
        // At most 15 words, so nothing is lost; RFC 9293 3.1: reserved bits are sent as zero.
        let words = u8::try_from((HEADER_LEN + options_len) / 4).unwrap_or(0);
        let [_, flags] = self.flags.bits().to_be_bytes();
        *raw = RawHeader {
            src_port: U16::new(self.src_port),
            dst_port: U16::new(self.dst_port),
            seq: U32::new(self.seq.0),
            ack: U32::new(self.ack.0),
            offset_reserved: words << 4,
            flags,
            window: U16::new(self.window),
            checksum: U16::ZERO,
            urgent: U16::new(self.urgent),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
