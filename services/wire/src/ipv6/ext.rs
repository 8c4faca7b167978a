//! IPv6 extension headers (RFC 8200 4): where they are and what lies behind them.
//!
//! The walk is bounded: a packet may carry at most [`MAX_HEADERS`] of them, so that a hostile
//! one costs no more than an honest one.

use crate::{Error, Result, protocol};

/// Most extension headers a packet may carry. RFC 8200 4.1 recommends each at most once and
/// destination options twice, which makes six.
pub const MAX_HEADERS: usize = 8;

/// Bytes of a fragment header.
pub const FRAGMENT_HEADER_LEN: usize = 8;

/// One extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Its own number: [`protocol::IPV6_HOP_BY_HOP`], `ROUTING`, `FRAGMENT`, `DEST_OPTIONS` or
    /// [`protocol::AH`].
    pub kind: u8,
    /// Where it starts, in bytes behind the fixed header.
    pub offset: usize,
    /// All of it, its next-header byte included.
    pub bytes: &'a [u8],
}

/// What a fragment header says (RFC 8200 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Where this piece belongs in the fragmentable part, in bytes; a multiple of 8.
    pub offset: u16,
    /// Not the last fragment.
    pub more: bool,
    /// Which packet the fragment belongs to.
    pub ident: u32,
    /// The first header of the fragmentable part.
    pub next_header: u8,
}

impl Fragment {
    /// Reads a fragment header.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let &[next_header, _, high, low, i0, i1, i2, i3] = bytes
            .first_chunk::<FRAGMENT_HEADER_LEN>()
            .ok_or(Error::Truncated)?;
        let field = u16::from_be_bytes([high, low]);
        Ok(Self {
            offset: field & 0xfff8,
            more: field & 1 == 1,
            ident: u32::from_be_bytes([i0, i1, i2, i3]),
            next_header,
        })
    }

    /// Writes the header to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]; [`Error::Malformed`] if `offset` is not a multiple of 8.
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        if !self.offset.is_multiple_of(8) {
            return Err(Error::Malformed);
        }
        let out = out
            .first_chunk_mut::<FRAGMENT_HEADER_LEN>()
            .ok_or(Error::BufferTooSmall)?;
        let [high, low] = (self.offset | u16::from(self.more)).to_be_bytes();
        let [i0, i1, i2, i3] = self.ident.to_be_bytes();
        *out = [self.next_header, 0, high, low, i0, i1, i2, i3];
        Ok(())
    }
}

/// Steps through the extension headers of one packet; stops after the last one or the first
/// error.
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    payload: &'a [u8],
    next_header: u8,
    offset: usize,
    seen: usize,
    /// Set behind a non-first fragment: what follows is a piece of payload, not a header.
    opaque: bool,
    failed: bool,
}

impl<'a> Extensions<'a> {
    /// Walks `payload`, the bytes behind the fixed header whose next-header field is
    /// `next_header`.
    #[must_use]
    pub const fn new(next_header: u8, payload: &'a [u8]) -> Self {
        Self {
            payload,
            next_header,
            offset: 0,
            seen: 0,
            opaque: false,
            failed: false,
        }
    }

    fn step(&mut self) -> Result<Option<Extension<'a>>> {
        if self.opaque {
            return Ok(None);
        }
        let kind = self.next_header;
        let rest = self.payload.get(self.offset..).ok_or(Error::Truncated)?;
        let unit = match kind {
            // RFC 8200 4.1: hop-by-hop options may only stand immediately after the IPv6 header.
            protocol::IPV6_HOP_BY_HOP if self.seen > 0 => return Err(Error::Malformed),
            protocol::IPV6_HOP_BY_HOP | protocol::IPV6_ROUTING | protocol::IPV6_DEST_OPTIONS => 8,
            // RFC 4302 2.2: the length of AH is in units of 4 bytes, minus 2.
            protocol::AH => 4,
            protocol::IPV6_FRAGMENT => 0,
            _ => return Ok(None),
        };
        if self.seen == MAX_HEADERS {
            return Err(Error::TooManyHeaders);
        }
        let &[next_header, len] = rest.first_chunk::<2>().ok_or(Error::Truncated)?;
        let len = match unit {
            0 => FRAGMENT_HEADER_LEN,
            4 => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        let bytes = rest.get(..len).ok_or(Error::Truncated)?;
        if kind == protocol::IPV6_FRAGMENT {
            self.opaque = Fragment::parse(bytes)?.offset != 0;
        }
        let extension = Extension {
            kind,
            offset: self.offset,
            bytes,
        };
        self.next_header = next_header;
        self.offset += len;
        self.seen += 1;
        Ok(Some(extension))
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

/// What lies behind the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperLayer {
    /// Its protocol ([`crate::protocol`]). Of a non-first fragment: the protocol of the first
    /// header of the fragmentable part.
    pub protocol: u8,
    /// Where it starts, in bytes behind the fixed header.
    pub offset: usize,
    /// The fragment header, if there was one.
    pub fragment: Option<Fragment>,
}

/// Finds the upper-layer header behind all extension headers in `payload`, the bytes behind the
/// fixed header whose next-header field is `next_header`. Behind a non-first fragment header
/// the search stops: there are no more headers in that piece.
///
/// # Errors
/// [`Error::Truncated`]; [`Error::Malformed`] for hop-by-hop options that are not first or a
/// second fragment header; [`Error::TooManyHeaders`].
pub fn upper_layer(next_header: u8, payload: &[u8]) -> Result<UpperLayer> {
    let mut walk = Extensions::new(next_header, payload);
    let mut fragment = None;
    while let Some(extension) = walk.next().transpose()? {
        if extension.kind == protocol::IPV6_FRAGMENT {
            let header = Fragment::parse(extension.bytes)?;
            // A fragment of a fragment comes from no honest source (RFC 8200 4.5: only the
            // source fragments, once).
            if fragment.replace(header).is_some() {
                return Err(Error::Malformed);
            }
        }
    }
    Ok(UpperLayer {
        protocol: walk.next_header,
        offset: walk.offset,
        fragment,
    })
}

#[cfg(test)]
mod tests {
    use super::{Extensions, Fragment, MAX_HEADERS, UpperLayer, upper_layer};
    use crate::{Error, protocol};

    /// Hop-by-hop (padded), routing type 2, first fragment, TCP.
    const CHAIN: [u8; 42] = [
        43, 0, 1, 4, 0, 0, 0, 0, // hop-by-hop: PadN
        44, 1, 2, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, // routing, 16 bytes
        6, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef, // fragment at 0, more
        0x12, 0x34, 0x00, 0x50, 0, 0, 0, 1, 0, 0,
    ];

    #[test]
    fn the_transport_is_found_behind_a_chain() {
        let found = upper_layer(protocol::IPV6_HOP_BY_HOP, &CHAIN).unwrap();
        let fragment = Fragment {
            offset: 0,
            more: true,
            ident: 0xdead_beef,
            next_header: 6,
        };
        assert_eq!(
            found,
            UpperLayer {
                protocol: protocol::TCP,
                offset: 32,
                fragment: Some(fragment)
            }
        );
        let kinds: Vec<_> = Extensions::new(0, &CHAIN)
            .map(|extension| {
                extension
                    .map(|e| (e.kind, e.offset, e.bytes.len()))
                    .unwrap()
            })
            .collect();
        assert_eq!(kinds, [(0, 0, 8), (43, 8, 16), (44, 24, 8)]);
        let mut out = [0; 8];
        fragment.emit(&mut out).unwrap();
        assert_eq!(out, CHAIN[24..32]);
    }

    #[test]
    fn without_extensions_the_payload_is_the_transport() {
        let found = upper_layer(protocol::UDP, &[]).unwrap();
        assert_eq!(
            found,
            UpperLayer {
                protocol: protocol::UDP,
                offset: 0,
                fragment: None
            }
        );
        let none = upper_layer(protocol::IPV6_NO_NEXT, &[1, 2]).unwrap();
        assert_eq!(none.protocol, protocol::IPV6_NO_NEXT);
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        // The bytes behind look like destination options but are payload.
        let bytes = [60, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff];
        let found = upper_layer(protocol::IPV6_FRAGMENT, &bytes).unwrap();
        assert_eq!((found.protocol, found.offset), (60, 8));
        assert_eq!(found.fragment.unwrap().offset, 8);
    }

    #[test]
    fn hostile_chains_end_in_an_error() {
        // Destination options pointing at themselves, for ever.
        let endless = [60u8, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_HEADERS + 1);
        assert_eq!(upper_layer(60, &endless), Err(Error::TooManyHeaders));
        assert_eq!(
            upper_layer(60, &endless[..8 * MAX_HEADERS]),
            Err(Error::TooManyHeaders)
        );
        assert_eq!(upper_layer(60, &endless[..9]), Err(Error::Truncated));
        assert_eq!(
            upper_layer(60, &[6, 1, 0, 0, 0, 0, 0, 0]),
            Err(Error::Truncated)
        );
        // RFC 8200 4.1: hop-by-hop options anywhere but first.
        assert_eq!(
            upper_layer(60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0]),
            Err(Error::Malformed)
        );
        let twice = [44, 0, 0, 1, 0, 0, 0, 1, 6, 0, 0, 1, 0, 0, 0, 1];
        assert_eq!(upper_layer(44, &twice), Err(Error::Malformed));
    }
}
