//! ICMP for IPv4 (RFC 792): messages here, the quotation inside errors in [`Embedded`].
//!
//! Every message is an 8-byte header and a payload: echoed data, or the front of the datagram
//! that an error is about. `payload` of a view is always what follows the 8 bytes.

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result, checksum};

mod build;
mod embedded;

pub use build::{MAX_ERROR_LEN, build_error, reply_in_place};
pub use embedded::Embedded;

/// Bytes of a message's header.
pub const HEADER_LEN: usize = 8;

/// Message types (RFC 792).
pub mod kind {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DEST_UNREACHABLE: u8 = 3;
    /// Source quench, deprecated by RFC 6633.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Codes of destination unreachable (RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1).
pub mod unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The host does not answer.
    pub const HOST: u8 = 1;
    /// The host does not serve the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nobody has the port open.
    pub const PORT: u8 = 3;
    /// Too big for the next link, and not to be fragmented (RFC 1191).
    pub const FRAG_NEEDED: u8 = 4;
    /// A source route failed.
    pub const SOURCE_ROUTE: u8 = 5;
    /// Communication administratively prohibited.
    pub const PROHIBITED: u8 = 13;
}

/// Codes of time exceeded (RFC 792).
pub mod exceeded {
    /// The TTL ran out on the way.
    pub const TTL: u8 = 0;
    /// Not all fragments came in time.
    pub const REASSEMBLY: u8 = 1;
}

/// A message's header as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum over the whole message.
    pub checksum: U16,
    /// Depends on the type.
    pub rest: [u8; 4],
}

/// A message that is long enough for its header.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The header.
    pub raw: &'a RawHeader,
    /// Echoed data, or the quoted front of the offending datagram.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks that a header is there; `bytes` must end where the message does.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (raw, payload) = RawHeader::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        Ok(Self { raw, payload })
    }

    /// Whether the checksum over header and payload is right.
    #[must_use]
    pub fn verify_checksum(&self) -> bool {
        let mut sum = checksum::Checksum::new();
        sum.add(self.raw.as_bytes());
        sum.add(self.payload);
        sum.finish() == 0
    }
}

/// An ICMP header's meaning. The payload is whatever follows [`HEADER_LEN`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repr {
    /// Are you there?
    EchoRequest {
        /// Which requester, like a port.
        ident: u16,
        /// Which request.
        seq: u16,
    },
    /// I am.
    EchoReply {
        /// As in the request.
        ident: u16,
        /// As in the request.
        seq: u16,
    },
    /// The datagram quoted could not be delivered.
    DestinationUnreachable {
        /// Why ([`mod@unreachable`]).
        code: u8,
        /// With [`unreachable::FRAG_NEEDED`], the MTU of the link it did not fit; 0 from a router
        /// that does not know RFC 1191, and in every other message.
        next_hop_mtu: u16,
    },
    /// The datagram quoted took too long.
    TimeExceeded {
        /// Where ([`exceeded`]).
        code: u8,
    },
    /// The header of the datagram quoted is wrong.
    ParameterProblem {
        /// 0: at `pointer`; 1: an option is missing; 2: bad length.
        code: u8,
        /// Which byte of the quoted datagram is at fault.
        pointer: u8,
    },
    /// Any other message.
    Other {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The last four bytes of the header (in a redirect, the gateway).
        rest: [u8; 4],
    },
}

impl Repr {
    /// Reads a message's header and verifies the checksum over all of `bytes`, which must end
    /// where the message does.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::BadChecksum`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let message = Message::new(bytes)?;
        if !message.verify_checksum() {
            return Err(Error::BadChecksum);
        }
        Ok(Self::of(&message))
    }

    /// Reads a message's header without verifying the checksum.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn parse_unchecked(bytes: &[u8]) -> Result<Self> {
        Ok(Self::of(&Message::new(bytes)?))
    }

    /// The meaning of a checked view.
    #[must_use]
    pub fn of(message: &Message<'_>) -> Self {
        let &RawHeader {
            kind, code, rest, ..
        } = message.raw;
        let [a, b, c, d] = rest;
        let (first, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match (kind, code) {
            (kind::ECHO_REQUEST, 0) => Self::EchoRequest {
                ident: first,
                seq: second,
            },
            (kind::ECHO_REPLY, 0) => Self::EchoReply {
                ident: first,
                seq: second,
            },
            (kind::DEST_UNREACHABLE, unreachable::FRAG_NEEDED) => Self::DestinationUnreachable {
                code,
                next_hop_mtu: second,
            },
            (kind::DEST_UNREACHABLE, _) => Self::DestinationUnreachable {
                code,
                next_hop_mtu: 0,
            },
            (kind::TIME_EXCEEDED, _) => Self::TimeExceeded { code },
            (kind::PARAMETER_PROBLEM, _) => Self::ParameterProblem { code, pointer: a },
            _ => Self::Other { kind, code, rest },
        }
    }

    /// Bytes of the header that [`emit`](Self::emit) writes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// The message's type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match *self {
            Self::EchoRequest { .. } => kind::ECHO_REQUEST,
            Self::EchoReply { .. } => kind::ECHO_REPLY,
            Self::DestinationUnreachable { .. } => kind::DEST_UNREACHABLE,
            Self::TimeExceeded { .. } => kind::TIME_EXCEEDED,
            Self::ParameterProblem { .. } => kind::PARAMETER_PROBLEM,
            Self::Other { kind, .. } => kind,
        }
    }

    /// Whether this is an error about another datagram, about which no error may be sent in turn
    /// (RFC 1122 3.2.2). Unknown types count as errors, to be safe from loops.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        // Queries and answers: echo, router discovery (9, 10), timestamp (13, 14), information
        // (15, 16), address mask (17, 18), extended echo (42, 43).
        !matches!(self.kind(), 0 | 8 | 9 | 10 | 13..=18 | 42 | 43)
    }

    /// Writes the header with checksum 0 to the front of `out`; [`fill_checksum`] comes after,
    /// when the payload is in its place.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        let pair = |first: u16, second: u16| {
            let ([a, b], [c, d]) = (first.to_be_bytes(), second.to_be_bytes());
            [a, b, c, d]
        };
        let (code, rest) = match *self {
            Self::EchoRequest { ident, seq } | Self::EchoReply { ident, seq } => {
                (0, pair(ident, seq))
            }
            Self::DestinationUnreachable { code, next_hop_mtu } => (code, pair(0, next_hop_mtu)),
            Self::TimeExceeded { code } => (code, [0; 4]),
            Self::ParameterProblem { code, pointer } => (code, [pointer, 0, 0, 0]),
            Self::Other { code, rest, .. } => (code, rest),
        };
        RawHeader {
            kind: self.kind(),
            code,
            checksum: U16::ZERO,
            rest,
        }
        .write_to_prefix(out)
        .map_err(|_| Error::BufferTooSmall)
    }
}

/// Computes and writes the checksum of a whole message.
///
/// # Errors
/// [`Error::Truncated`].
pub fn fill_checksum(message: &mut [u8]) -> Result<()> {
    fill_checksum_parts(message, &[])
}

/// As [`fill_checksum`], for a payload that lies in pieces elsewhere.
///
/// # Errors
/// [`Error::Truncated`].
pub fn fill_checksum_parts(header: &mut [u8], payload: &[&[u8]]) -> Result<()> {
    let (raw, _) = RawHeader::mut_from_prefix(header).map_err(|_| Error::Truncated)?;
    raw.checksum = U16::ZERO;
    let mut sum = checksum::Checksum::new();
    sum.add(header);
    for piece in payload {
        sum.add(piece);
    }
    let (raw, _) = RawHeader::mut_from_prefix(header).map_err(|_| Error::Truncated)?;
    raw.checksum = U16::new(sum.finish());
    Ok(())
}

#[cfg(test)]
mod tests;
