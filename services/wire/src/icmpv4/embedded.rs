//! The front of the offending datagram that every ICMP error quotes: how a transport finds out
//! which of its sockets the error is about.

use core::net::Ipv4Addr;

use crate::{Error, Result, SeqNumber, ipv4};

/// The quoted IPv4 header and the first 8 bytes behind it (RFC 792).
///
/// Hostile like everything else: anybody can send an ICMP error. A transport must match it to a
/// connection, and TCP must check that [`tcp_seq`](Self::tcp_seq) is in its send window
/// (RFC 5927 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Embedded {
    /// Source of the offending datagram; ours, if the error is honest.
    pub src: Ipv4Addr,
    /// Its destination.
    pub dst: Ipv4Addr,
    /// Its protocol.
    pub protocol: u8,
    /// Its total length as it reached the complainer, in bytes (RFC 1191 5 guesses from it).
    pub total_len: u16,
    /// Its fragment offset in bytes: unless 0, `transport` is no header.
    pub frag_offset: u16,
    /// The first 8 bytes of its payload.
    pub transport: [u8; 8],
}

impl Embedded {
    /// Reads the quotation, an error message's payload.
    ///
    /// Its checksum is not verified: some routers quote it as it was before, some after they
    /// took a hop off the TTL.
    ///
    /// # Errors
    /// [`Error::Truncated`] if less than the header and 8 bytes are quoted;
    /// [`Error::BadVersion`], [`Error::BadLength`] if they are no IPv4 header.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (packet, total_len) = ipv4::Packet::header_only(payload)?;
        if total_len < packet.header.len() {
            return Err(Error::BadLength);
        }
        let transport = *packet.payload.first_chunk().ok_or(Error::Truncated)?;
        let repr = ipv4::Repr::of(&packet);
        Ok(Self {
            src: repr.src,
            dst: repr.dst,
            protocol: repr.protocol,
            total_len: repr.total_len,
            frag_offset: repr.frag_offset,
            transport,
        })
    }

    /// Source and destination port, if there is a transport header of that kind.
    #[must_use]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        if self.frag_offset != 0 {
            return None;
        }
        let [a, b, c, d, ..] = self.transport;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// The sequence number of an offending TCP segment.
    #[must_use]
    pub const fn tcp_seq(&self) -> Option<SeqNumber> {
        if self.frag_offset != 0 || self.protocol != crate::protocol::TCP {
            return None;
        }
        let [_, _, _, _, a, b, c, d] = self.transport;
        Some(SeqNumber(u32::from_be_bytes([a, b, c, d])))
    }
}
