//! Ethernet II frames (RFC 894): addresses, EtherTypes, the 14-byte header.

use core::fmt;
use core::str::FromStr;

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result};

/// Bytes of an Ethernet header.
pub const HEADER_LEN: usize = 14;

/// A 48-bit link-layer address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`, every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, which stands for "unknown" in an ARP request.
    pub const UNSPECIFIED: Self = Self([0; 6]);

    /// Whether the group bit is set; true of the broadcast address too.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 1
    }

    /// Whether this is the broadcast address.
    #[inline]
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether this can be one station's address: neither a group nor all zero.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::UNSPECIFIED
    }

    /// Whether the address was assigned locally rather than by a vendor.
    #[inline]
    #[must_use]
    pub const fn is_local(self) -> bool {
        let Self([first, ..]) = self;
        first & 2 == 2
    }

    /// The group address of an IPv4 multicast address: 01:00:5e and its low 23 bits
    /// (RFC 1112 6.4). `None` if `addr` is not a multicast address.
    #[must_use]
    pub const fn from_ipv4_multicast(addr: core::net::Ipv4Addr) -> Option<Self> {
        if !addr.is_multicast() {
            return None;
        }
        let [_, b, c, d] = addr.octets();
        Some(Self([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = Error;

    /// Six groups of one or two hexadecimal digits, separated by `:` or all by `-`.
    fn from_str(text: &str) -> Result<Self> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut groups = text.split(separator);
        let mut octets = [0u8; 6];
        for octet in &mut octets {
            let group = groups.next().ok_or(Error::Malformed)?;
            // `from_str_radix` alone would take a sign.
            if group.len() > 2 || !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(Error::Malformed);
            }
            *octet = u8::from_str_radix(group, 16).map_err(|_| Error::Malformed)?;
        }
        match groups.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(Error::Malformed),
        }
    }
}

/// What a frame carries. Values below 0x0600 are 802.3 lengths, not types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4, RFC 894.
    pub const IPV4: Self = Self(0x0800);
    /// ARP, RFC 826.
    pub const ARP: Self = Self(0x0806);
    /// IPv6, RFC 2464.
    pub const IPV6: Self = Self(0x86dd);
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::ARP => f.write_str("ARP"),
            Self::IPV6 => f.write_str("IPv6"),
            Self(other) => write!(f, "0x{other:04x}"),
        }
    }
}

/// The header as it lies on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// EtherType.
    pub ethertype: U16,
}

/// A frame that is long enough for its header.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The header.
    pub raw: &'a RawHeader,
    /// Everything behind it, link-layer padding included.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks that a header is there.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (raw, payload) = RawHeader::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        Ok(Self { raw, payload })
    }
}

/// An Ethernet header's meaning (the `Repr` of this layer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Header {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// What the frame carries.
    pub ethertype: EtherType,
}

impl Header {
    /// Reads a frame's header; also returns its length, always [`HEADER_LEN`].
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize)> {
        let raw = Frame::new(bytes)?.raw;
        let header = Self {
            dst: raw.dst,
            src: raw.src,
            ethertype: EtherType(raw.ethertype.get()),
        };
        Ok((header, HEADER_LEN))
    }

    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        RawHeader {
            dst: self.dst,
            src: self.src,
            ethertype: U16::new(self.ethertype.0),
        }
        .write_to_prefix(out)
        .map_err(|_| Error::BufferTooSmall)
    }
}

#[cfg(test)]
mod tests {
    use super::{EtherType, HEADER_LEN, Header, MacAddr};
    use crate::Error;

    const FRAME: [u8; 16] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06, 0xaa,
        0xbb,
    ];

    #[test]
    fn header_is_read_and_written_back() {
        let (header, len) = Header::parse(&FRAME).unwrap();
        assert_eq!(len, HEADER_LEN);
        assert!(header.dst.is_broadcast() && header.dst.is_multicast());
        assert_eq!(header.src, MacAddr([2, 0, 0, 0, 0, 1]));
        assert!(header.src.is_unicast() && header.src.is_local());
        assert_eq!(header.ethertype, EtherType::ARP);
        let mut out = [0; HEADER_LEN];
        header.emit(&mut out).unwrap();
        assert_eq!(out, FRAME[..HEADER_LEN]);
    }

    #[test]
    fn short_buffers_are_refused() {
        assert_eq!(Header::parse(&FRAME[..13]), Err(Error::Truncated));
        assert_eq!(
            Header::default().emit(&mut [0; 13]),
            Err(Error::BufferTooSmall)
        );
    }

    #[test]
    fn addresses_have_a_text_form() {
        let mac: MacAddr = "02:00:5E:10:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        assert_eq!("2-0-5e-10-0-1".parse(), Ok(mac));
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "+2:0:0:0:0:0",
            "02:00:5g:0:0:0",
            "002:0:0:0:0:0",
            "1:2:3:4:5:",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(Error::Malformed), "{bad}");
        }
    }

    // RFC 1112 6.4: the low 23 bits of the group are placed into 01-00-5E-00-00-00.
    #[test]
    fn ipv4_groups_map_to_group_addresses() {
        let group = "239.129.2.3".parse().unwrap();
        assert_eq!(
            MacAddr::from_ipv4_multicast(group),
            Some(MacAddr([0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]))
        );
        assert_eq!(
            MacAddr::from_ipv4_multicast("10.0.0.1".parse().unwrap()),
            None
        );
    }
}
