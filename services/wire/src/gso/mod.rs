//! Segmentation in software: what a device with TSO or USO does, for one without.
//!
//! ```text
//!   super-frame   | Ethernet | IP | TCP |  payload, up to 64 KiB                   |
//!                                        |<- gso_size ->|<- gso_size ->|<- rest ->|
//!   segment i     | Ethernet | IP'| TCP'|<- a range of the payload, where it lies
//! ```
//!
//! The payload is never copied: for each segment the caller gets the headers, fixed up, and the
//! range of payload that goes behind them. Nothing here keeps state between segments, so they
//! may be made in any order, or again after a device was full.

use core::net::IpAddr;
use core::ops::Range;

use zerocopy::FromBytes;
use zerocopy::big_endian::U16;

use crate::checksum::{Checksum, nonzero, pseudo_header};
use crate::ethernet::{self, EtherType};
use crate::{Error, Result, ipv4, ipv6, protocol, tcp, udp};

mod complete;

pub use complete::{complete_checksum, complete_checksum_parts};

/// Who computes the segments' transport checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumMode {
    /// Software: the field is right.
    Full,
    /// The device: the field holds the pseudo-header sum (`VirtioNetHdr::NEEDS_CSUM`).
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// A super-frame whose headers were checked and can be cut.
#[derive(Debug, Clone)]
pub struct SuperFrame<'a> {
    headers: &'a [u8],
    /// What of the payload lies right behind the headers.
    first: &'a [u8],
    rest: &'a [&'a [u8]],
    payload_len: usize,
    /// Where the IP header starts.
    network: usize,
    /// Where the TCP or UDP header starts.
    transport: usize,
    kind: Transport,
    src: IpAddr,
    dst: IpAddr,
    gso_size: usize,
}

/// One segment: the headers are in the caller's buffer, the payload is where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Bytes written to the buffer.
    pub header_len: usize,
    /// Which bytes of the super-frame's payload follow; see [`SuperFrame::pieces`].
    pub payload: Range<usize>,
    /// Where in the segment the transport header starts (`csum_start`).
    pub transport: usize,
}

impl<'a> SuperFrame<'a> {
    /// Checks a TCP or UDP super-frame. `linear` is the frame from its Ethernet header on, with
    /// all headers and perhaps the first payload; `rest` is the payload that lies elsewhere.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what cannot be cut: other protocols, fragments;
    /// [`Error::Malformed`] if `gso_size` is 0; [`Error::BadLength`] if the IP length is not that
    /// of headers and payload; and what the headers' own parsers say.
    pub fn new(linear: &'a [u8], rest: &'a [&'a [u8]], gso_size: u16) -> Result<Self> {
        if gso_size == 0 {
            return Err(Error::Malformed);
        }
        let (link, network) = ethernet::Header::parse(linear)?;
        let packet = linear.get(network..).ok_or(Error::Truncated)?;
        let ip = match link.ethertype {
            EtherType::IPV4 => Ip::v4(packet)?,
            EtherType::IPV6 => Ip::v6(packet)?,
            _ => return Err(Error::Unsupported),
        };
        let transport = network + ip.header_len;
        let segment = linear.get(transport..).ok_or(Error::Truncated)?;
        let (kind, transport_len) = match ip.protocol {
            protocol::TCP => (
                Transport::Tcp,
                tcp::HEADER_LEN + tcp::Segment::new(segment)?.options.len(),
            ),
            protocol::UDP => (Transport::Udp, udp::HEADER_LEN),
            _ => return Err(Error::Unsupported),
        };
        let (headers, first) = linear
            .split_at_checked(transport + transport_len)
            .ok_or(Error::Truncated)?;
        let payload_len = first.len() + rest.iter().map(|piece| piece.len()).sum::<usize>();
        if ip.total_len != ip.header_len + transport_len + payload_len {
            return Err(Error::BadLength);
        }
        Ok(Self {
            headers,
            first,
            rest,
            payload_len,
            network,
            transport,
            kind,
            src: ip.src,
            dst: ip.dst,
            gso_size: usize::from(gso_size),
        })
    }

    /// How many segments there are, at least one.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.payload_len.div_ceil(self.gso_size).max(1)
    }

    /// Bytes of the headers of every segment.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.headers.len()
    }

    /// Bytes of payload altogether.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Writes the headers of segment `index`, counted from 0, to the front of `out`.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]; [`Error::BadLength`] if there is no such segment.
    pub fn segment(&self, index: usize, mode: ChecksumMode, out: &mut [u8]) -> Result<Segment> {
        let last = self.segments() - 1;
        if index > last {
            return Err(Error::BadLength);
        }
        let start = index * self.gso_size;
        let payload = start..(start + self.gso_size).min(self.payload_len);
        let header_len = self.headers.len();
        let out = out.get_mut(..header_len).ok_or(Error::BufferTooSmall)?;
        out.copy_from_slice(self.headers);

        let (front, transport) = out
            .split_at_mut_checked(self.transport)
            .ok_or(Error::BufferTooSmall)?;
        let network = front.get_mut(self.network..).ok_or(Error::BufferTooSmall)?;
        let transport_len = transport.len() + payload.len();
        self.fix_network(network, transport_len, index)?;
        match self.kind {
            Transport::Tcp => fix_tcp(transport, start, index == 0, index == last)?,
            Transport::Udp => {
                let (raw, _) =
                    udp::RawHeader::mut_from_prefix(transport).map_err(|_| Error::Truncated)?;
                raw.len = U16::new(to_u16(transport_len)?);
                raw.checksum = U16::ZERO;
            }
        }
        self.checksum(transport, &payload, mode)?;
        Ok(Segment {
            header_len,
            payload,
            transport: self.transport,
        })
    }

    /// The slices that make up a range of the payload, in order.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = &'a [u8]> {
        let mut offset = 0;
        core::iter::once(self.first)
            .chain(self.rest.iter().copied())
            .filter_map(move |piece| {
                let start = range.start.saturating_sub(offset).min(piece.len());
                let end = range.end.saturating_sub(offset).min(piece.len());
                offset += piece.len();
                piece.get(start..end).filter(|part| !part.is_empty())
            })
    }

    fn fix_network(&self, network: &mut [u8], transport_len: usize, index: usize) -> Result<()> {
        let header_len = network.len();
        if self.src.is_ipv6() {
            let (raw, _) =
                ipv6::RawHeader::mut_from_prefix(network).map_err(|_| Error::Truncated)?;
            raw.payload_len = U16::new(to_u16(header_len - ipv6::HEADER_LEN + transport_len)?);
            return Ok(());
        }
        let (raw, _) = ipv4::RawHeader::mut_from_prefix(network).map_err(|_| Error::Truncated)?;
        raw.total_len = U16::new(to_u16(header_len + transport_len)?);
        // Each segment is a datagram of its own, so each has an identification of its own
        // (RFC 6864 4.1 lets it be anything with DF, but needs it unique without).
        raw.ident = U16::new(raw.ident.get().wrapping_add(to_u16(index)?));
        raw.checksum = U16::ZERO;
        let sum = crate::checksum::of(network);
        let (raw, _) = ipv4::RawHeader::mut_from_prefix(network).map_err(|_| Error::Truncated)?;
        raw.checksum = U16::new(sum);
        Ok(())
    }

    fn checksum(
        &self,
        transport: &mut [u8],
        payload: &Range<usize>,
        mode: ChecksumMode,
    ) -> Result<()> {
        let len = u32::try_from(transport.len() + payload.len()).map_err(|_| Error::BadLength)?;
        let proto = match self.kind {
            Transport::Tcp => protocol::TCP,
            Transport::Udp => protocol::UDP,
        };
        let mut sum: Checksum = pseudo_header(self.src, self.dst, proto, len);
        let field = match mode {
            ChecksumMode::Partial => sum.fold(),
            ChecksumMode::Full => {
                sum.add(transport);
                for piece in self.pieces(payload.clone()) {
                    sum.add(piece);
                }
                match self.kind {
                    Transport::Tcp => sum.finish(),
                    Transport::Udp => nonzero(sum.finish()),
                }
            }
        };
        match self.kind {
            Transport::Tcp => {
                let (raw, _) =
                    tcp::RawHeader::mut_from_prefix(transport).map_err(|_| Error::Truncated)?;
                raw.checksum = U16::new(field);
            }
            Transport::Udp => {
                let (raw, _) =
                    udp::RawHeader::mut_from_prefix(transport).map_err(|_| Error::Truncated)?;
                raw.checksum = U16::new(field);
            }
        }
        Ok(())
    }
}

fn fix_tcp(transport: &mut [u8], start: usize, first: bool, last: bool) -> Result<()> {
    let (raw, _) = tcp::RawHeader::mut_from_prefix(transport).map_err(|_| Error::Truncated)?;
    let start = u32::try_from(start).map_err(|_| Error::BadLength)?;
    raw.seq = raw.seq.get().wrapping_add(start).into();
    let mut flags = tcp::Flags::from_bits_truncate(u16::from(raw.flags));
    if !last {
        flags.remove(tcp::Flags::FIN | tcp::Flags::PSH);
    }
    if !first {
        // RFC 3168 6.1.2: CWR is set in the first new data packet after a reduction, only.
        flags.remove(tcp::Flags::CWR);
    }
    let [_, flags] = flags.bits().to_be_bytes();
    raw.flags = flags;
    raw.checksum = U16::ZERO;
    Ok(())
}

fn to_u16(value: usize) -> Result<u16> {
    u16::try_from(value).map_err(|_| Error::BadLength)
}

/// What segmentation needs of an IP header.
struct Ip {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    header_len: usize,
    total_len: usize,
}

impl Ip {
    fn v4(packet: &[u8]) -> Result<Self> {
        let (view, total_len) = ipv4::Packet::header_only(packet)?;
        let repr = ipv4::Repr::of(&view);
        if repr.is_fragment() {
            return Err(Error::Unsupported);
        }
        Ok(Self {
            src: repr.src.into(),
            dst: repr.dst.into(),
            protocol: repr.protocol,
            header_len: view.header.len(),
            total_len,
        })
    }

    fn v6(packet: &[u8]) -> Result<Self> {
        let (raw, rest) = ipv6::RawHeader::ref_from_prefix(packet).map_err(|_| Error::Truncated)?;
        if raw.version_class_flow.get() >> 28 != 6 {
            return Err(Error::BadVersion);
        }
        let upper = ipv6::ext::upper_layer(raw.next_header, rest)?;
        if upper.fragment.is_some() {
            return Err(Error::Unsupported);
        }
        Ok(Self {
            src: core::net::Ipv6Addr::from(raw.src).into(),
            dst: core::net::Ipv6Addr::from(raw.dst).into(),
            protocol: upper.protocol,
            header_len: ipv6::HEADER_LEN + upper.offset,
            total_len: ipv6::HEADER_LEN + usize::from(raw.payload_len.get()),
        })
    }
}

#[cfg(test)]
mod tests;
