//! The virtio network header that TAP (`IFF_VNET_HDR`) and AF_PACKET (`PACKET_VNET_HDR`) put in
//! front of each frame: checksum and segmentation offload (virtio 1.2, 5.1.6).
//!
//! Little-endian, as the kernel takes it on little-endian machines or after `TUNSETVNETLE`.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result};

/// Bytes of the header without `num_buffers`, the default of TAP and AF_PACKET.
pub const HEADER_LEN: usize = 10;
/// Bytes of the header with `num_buffers` (`TUNSETVNETHDRSZ` 12).
pub const HEADER_LEN_MRG: usize = 12;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    flags: u8,
    gso_type: u8,
    hdr_len: U16,
    gso_size: U16,
    csum_start: U16,
    csum_offset: U16,
}

/// Offload state of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VirtioNetHdr {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM) and [`DATA_VALID`](Self::DATA_VALID).
    pub flags: u8,
    /// One of the `GSO_` values, perhaps with the [`ECN`](Self::ECN) bit.
    pub gso_type: u8,
    /// Bytes of all headers, Ethernet to transport; a hint.
    pub hdr_len: u16,
    /// Payload bytes per segment, if the frame is to be (or was) segmented.
    pub gso_size: u16,
    /// Where in the frame the checksum starts, if it needs completing.
    pub csum_start: u16,
    /// Where behind `csum_start` the checksum field lies.
    pub csum_offset: u16,
    /// How many buffers the frame was merged from; only in the 12-byte form.
    pub num_buffers: u16,
}

impl VirtioNetHdr {
    /// The checksum field holds a partial sum; `csum_start` and `csum_offset` are valid.
    pub const NEEDS_CSUM: u8 = 1;
    /// The device verified the checksum.
    pub const DATA_VALID: u8 = 2;
    /// One ordinary frame.
    pub const GSO_NONE: u8 = 0;
    /// A TCP over IPv4 super-frame.
    pub const GSO_TCPV4: u8 = 1;
    /// A UDP datagram to fragment (legacy UFO).
    pub const GSO_UDP: u8 = 3;
    /// A TCP over IPv6 super-frame.
    pub const GSO_TCPV6: u8 = 4;
    /// A UDP super-frame to cut into datagrams (USO).
    pub const GSO_UDP_L4: u8 = 5;
    /// Bit in `gso_type`: the TCP super-frame has CWR set.
    pub const ECN: u8 = 0x80;

    /// Reads a header from `bytes`: 12 or more are the form with `num_buffers`, 10 or 11 the
    /// form without.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (raw, rest) = Raw::ref_from_prefix(bytes).map_err(|_| Error::Truncated)?;
        Ok(Self {
            flags: raw.flags,
            gso_type: raw.gso_type,
            hdr_len: raw.hdr_len.get(),
            gso_size: raw.gso_size.get(),
            csum_start: raw.csum_start.get(),
            csum_offset: raw.csum_offset.get(),
            num_buffers: rest
                .first_chunk()
                .map_or(0, |&bytes| u16::from_le_bytes(bytes)),
        })
    }

    /// Writes the header to `out`: the form with `num_buffers` if there is room for it.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] for less than 10 bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<()> {
        let raw = Raw {
            flags: self.flags,
            gso_type: self.gso_type,
            hdr_len: U16::new(self.hdr_len),
            gso_size: U16::new(self.gso_size),
            csum_start: U16::new(self.csum_start),
            csum_offset: U16::new(self.csum_offset),
        };
        raw.write_to_prefix(out)
            .map_err(|_| Error::BufferTooSmall)?;
        if let Some(merged) = out.get_mut(HEADER_LEN..).and_then(<[u8]>::first_chunk_mut) {
            *merged = self.num_buffers.to_le_bytes();
        }
        Ok(())
    }

    /// Whether the checksum field holds a partial sum.
    #[inline]
    #[must_use]
    pub const fn needs_csum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// Whether the frame is a super-frame.
    #[inline]
    #[must_use]
    pub const fn is_gso(&self) -> bool {
        self.gso_kind() != Self::GSO_NONE
    }

    /// `gso_type` without the ECN bit.
    #[inline]
    #[must_use]
    pub const fn gso_kind(&self) -> u8 {
        self.gso_type & !Self::ECN
    }

    /// Checks what the header says against a frame of `frame_len` bytes: that the checksum
    /// field, if there is one to complete, lies inside, and that a super-frame has a known type
    /// and a segment size.
    ///
    /// # Errors
    /// [`Error::BadLength`], [`Error::Unsupported`], [`Error::Malformed`].
    #[inline]
    pub fn check(&self, frame_len: usize) -> Result<()> {
        if self.needs_csum() {
            let field_end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
            if field_end > frame_len {
                return Err(Error::BadLength);
            }
        }
        match self.gso_kind() {
            Self::GSO_NONE => Ok(()),
            Self::GSO_TCPV4 | Self::GSO_TCPV6 | Self::GSO_UDP_L4 if self.gso_size == 0 => {
                Err(Error::Malformed)
            }
            Self::GSO_TCPV4 | Self::GSO_TCPV6 | Self::GSO_UDP_L4 => Ok(()),
            _ => Err(Error::Unsupported),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::VirtioNetHdr;
    use crate::Error;

    /// As the kernel hands up a 64 KiB IPv4 super-frame: NEEDS_CSUM, TCPV4, 54 bytes of
    /// headers, 1448 a segment, checksum from 34 at 16.
    const TSO: [u8; 12] = [1, 1, 54, 0, 0xa8, 0x05, 34, 0, 16, 0, 2, 0];

    #[test]
    fn both_forms_are_read_and_written_back() {
        let long = VirtioNetHdr::parse(&TSO).unwrap();
        assert!(long.needs_csum() && long.is_gso());
        assert_eq!((long.hdr_len, long.gso_size), (54, 1448));
        assert_eq!(
            (long.csum_start, long.csum_offset, long.num_buffers),
            (34, 16, 2)
        );
        let mut out = [0; 12];
        long.emit(&mut out).unwrap();
        assert_eq!(out, TSO);

        let short = VirtioNetHdr::parse(&TSO[..10]).unwrap();
        assert_eq!(
            short,
            VirtioNetHdr {
                num_buffers: 0,
                ..long
            }
        );
        let mut out = [0; 10];
        short.emit(&mut out).unwrap();
        assert_eq!(out, TSO[..10]);
        assert_eq!(VirtioNetHdr::parse(&TSO[..9]), Err(Error::Truncated));
        assert_eq!(short.emit(&mut [0; 9]), Err(Error::BufferTooSmall));
    }

    #[test]
    fn impossible_offloads_are_refused() {
        let good = VirtioNetHdr::parse(&TSO).unwrap();
        assert_eq!(good.check(52), Ok(()));
        assert_eq!(good.check(51), Err(Error::BadLength));
        assert_eq!(
            VirtioNetHdr {
                gso_size: 0,
                ..good
            }
            .check(9000),
            Err(Error::Malformed)
        );
        let ufo = VirtioNetHdr {
            gso_type: VirtioNetHdr::GSO_UDP,
            ..good
        };
        assert_eq!(ufo.check(9000), Err(Error::Unsupported));
        let ecn = VirtioNetHdr {
            gso_type: VirtioNetHdr::GSO_TCPV6 | VirtioNetHdr::ECN,
            ..good
        };
        assert_eq!(ecn.check(9000), Ok(()));
        assert_eq!(VirtioNetHdr::default().check(0), Ok(()));
        let far = VirtioNetHdr {
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..good
        };
        assert_eq!(far.check(65536), Err(Error::BadLength));
    }
}
