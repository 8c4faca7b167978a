//! A small pcapng writer (draft-ietf-opsawg-pcapng): section header, interfaces, enhanced
//! packets with nanosecond timestamps. What it writes, tshark and Wireshark read.
//!
//! For taps and tests; it writes through `impl Write`, so it is not for the packet path itself.

use std::io::{self, Write};

/// Frames start with an Ethernet header.
pub const LINKTYPE_ETHERNET: u16 = 1;
/// Packets start with an IPv4 or IPv6 header.
pub const LINKTYPE_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const OPT_IF_NAME: u16 = 2;
const OPT_IF_TSRESOL: u16 = 9;
const OPT_EPB_FLAGS: u16 = 2;

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Not known.
    #[default]
    Unknown,
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

/// Writes one section to `sink`. Every method writes whole blocks, so the file is readable after
/// each.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Starts a section.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(mut sink: W) -> io::Result<Self> {
        sink.write_all(&SECTION_HEADER.to_le_bytes())?;
        sink.write_all(&28u32.to_le_bytes())?;
        sink.write_all(&BYTE_ORDER_MAGIC.to_le_bytes())?;
        sink.write_all(&1u16.to_le_bytes())?;
        sink.write_all(&0u16.to_le_bytes())?;
        // The section's length is not known in advance.
        sink.write_all(&(-1i64).to_le_bytes())?;
        sink.write_all(&28u32.to_le_bytes())?;
        Ok(Self {
            sink,
            interfaces: 0,
        })
    }

    /// Declares an interface and returns its number. `name` is cut to 1024 bytes; `snap_len` is
    /// the most bytes of a packet that are kept, 0 for no limit.
    ///
    /// # Errors
    /// The sink's.
    pub fn interface(&mut self, name: &str, link_type: u16, snap_len: u32) -> io::Result<u32> {
        let name = name.as_bytes();
        let name = name.get(..1024).unwrap_or(name);
        let name_len = u16::try_from(name.len()).unwrap_or(0);
        let padded = u32::from(name_len).next_multiple_of(4);
        let len = 20 + (4 + padded) + (4 + 4) + 4;
        self.sink.write_all(&INTERFACE.to_le_bytes())?;
        self.sink.write_all(&len.to_le_bytes())?;
        self.sink.write_all(&link_type.to_le_bytes())?;
        self.sink.write_all(&0u16.to_le_bytes())?;
        self.sink.write_all(&snap_len.to_le_bytes())?;
        self.option(OPT_IF_NAME, name)?;
        // 10^-9 seconds.
        self.option(OPT_IF_TSRESOL, &[9])?;
        self.option(OPT_END, &[])?;
        self.sink.write_all(&len.to_le_bytes())?;
        let number = self.interfaces;
        self.interfaces += 1;
        Ok(number)
    }

    /// Writes one packet, which may lie in pieces. `timestamp` is nanoseconds since 1970;
    /// `original_len` is its length on the wire if it was cut, at least what is given.
    ///
    /// # Errors
    /// The sink's; [`io::ErrorKind::InvalidInput`] for an interface that was not declared or a
    /// packet of more than 2^31 bytes.
    pub fn packet(
        &mut self,
        interface: u32,
        timestamp: u64,
        direction: Direction,
        pieces: &[&[u8]],
        original_len: Option<u32>,
    ) -> io::Result<()> {
        self.commented(interface, timestamp, direction, pieces, original_len, "")
    }

    /// As [`Writer::packet`], with a comment that analysers show; it is cut to 4,096 bytes.
    ///
    /// # Errors
    /// As there.
    pub fn commented(
        &mut self,
        interface: u32,
        timestamp: u64,
        direction: Direction,
        pieces: &[&[u8]],
        original_len: Option<u32>,
        comment: &str,
    ) -> io::Result<()> {
        let comment = comment.get(..comment.floor_char_boundary(4096));
        let comment = comment.unwrap_or_default().as_bytes();
        let comment_len = u32::try_from(comment.len())
            .unwrap_or(0)
            .next_multiple_of(4);
        let captured: usize = pieces.iter().map(|piece| piece.len()).sum();
        let captured = u32::try_from(captured)
            .ok()
            .filter(|&len| interface < self.interfaces && len <= 1 << 31)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let flags = match direction {
            Direction::Unknown => None,
            Direction::Inbound => Some(1u32),
            Direction::Outbound => Some(2u32),
        };
        let mut options_len = 0;
        if flags.is_some() {
            options_len += 4 + 4;
        }
        if comment_len > 0 {
            options_len += 4 + comment_len;
        }
        if options_len > 0 {
            options_len += 4;
        }
        let padding = captured.next_multiple_of(4) - captured;
        let len = 32 + captured + padding + options_len;
        let [t0, t1, t2, t3, t4, t5, t6, t7] = timestamp.to_be_bytes();
        let high = u32::from_be_bytes([t0, t1, t2, t3]);
        let low = u32::from_be_bytes([t4, t5, t6, t7]);
        let original = original_len.unwrap_or(captured).max(captured);
        for word in [
            ENHANCED_PACKET,
            len,
            interface,
            high,
            low,
            captured,
            original,
        ] {
            self.sink.write_all(&word.to_le_bytes())?;
        }
        for piece in pieces {
            self.sink.write_all(piece)?;
        }
        self.pad(padding)?;
        if comment_len > 0 {
            self.option(OPT_COMMENT, comment)?;
        }
        if let Some(flags) = flags {
            self.option(OPT_EPB_FLAGS, &flags.to_le_bytes())?;
        }
        if options_len > 0 {
            self.option(OPT_END, &[])?;
        }
        self.sink.write_all(&len.to_le_bytes())
    }

    /// Flushes the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// Gives the sink back.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.sink
    }

    fn option(&mut self, code: u16, value: &[u8]) -> io::Result<()> {
        let len = u16::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.sink.write_all(&code.to_le_bytes())?;
        self.sink.write_all(&len.to_le_bytes())?;
        self.sink.write_all(value)?;
        self.pad(u32::from(len).next_multiple_of(4) - u32::from(len))
    }

    fn pad(&mut self, len: u32) -> io::Result<()> {
        for _ in 0..len {
            self.sink.write_all(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
