//! The shared descriptor of an sk_buff: what travels beside the buffer of a slot.
//!
//! All positions are offsets from the start of the slot's buffer (`head`), whose size the pool
//! knows (`end`). The owner of the slot, and nobody else, may write the descriptor; a consumer
//! copies it once when it claims the slot, validates the copy and works on that.
//!
//! ```text
//!  head        mac   network  transport   data        tail          end
//!   |  headroom |       |         |        |  linear   |  tailroom   |
//!   +-----------+-------+---------+--------+-----------+-------------+
//!                                  then frags[0..nr_frags], in order
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Fragments a descriptor can carry.
pub const MAX_FRAGS: usize = 6;

/// Offset not set.
pub const OFFSET_NONE: u16 = u16::MAX;

/// Headroom reserved at allocation: 12 bytes virtio-net, 18 Ethernet with VLAN, 60 IPv4 with
/// options (or 40 IPv6 and extensions), rounded so that the transport header is aligned.
pub const HEADROOM: u32 = 128;

/// Payload outside the slot's own buffer: `len` bytes at `offset` of `region`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Frag {
    /// [`crate::RegionId`] as a number.
    pub region: u32,
    /// Length in bytes.
    pub len: u32,
    /// Offset in the region in bytes.
    pub offset: u64,
}

/// State of the transport checksum, Linux's `ip_summed`.
pub mod checksum {
    /// Nobody has looked: software must verify (in) or it is complete in the packet (out).
    pub const NONE: u8 = 0;
    /// Verified by the device or never needed verification.
    pub const UNNECESSARY: u8 = 1;
    /// The field holds the pseudo-header sum; the device (or a software fallback) completes it
    /// from `csum_start` to the end. On input it comes from a local sender and counts as valid.
    pub const PARTIAL: u8 = 3;
}

/// Segmentation type of a super-frame.
pub mod gso {
    /// Not a super-frame.
    pub const NONE: u8 = 0;
    /// TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// UDP (USO).
    pub const UDP_L4: u8 = 5;
}

/// What a descriptor carries between ipd and a transport.
pub mod kind {
    /// A packet.
    pub const PACKET: u8 = 0;
    /// An ICMP error about a packet that the transport sent: `network` points at the ICMP
    /// packet's IP header, `transport` at the ICMP header. Locally generated ones look the same.
    pub const ICMP_ERROR: u8 = 1;
}

/// The descriptor in shared memory. 184 bytes, no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SkBuffDesc {
    /// Start of the linear data.
    pub data: u32,
    /// End of the linear data.
    pub tail: u32,
    /// Offset of the link-layer header or [`OFFSET_NONE`].
    pub mac: u16,
    /// Offset of the IP header or [`OFFSET_NONE`].
    pub network: u16,
    /// Offset of the transport header or [`OFFSET_NONE`].
    pub transport: u16,
    /// Device it came in by; 0 for none.
    pub dev_in: u16,
    /// Device it goes out by; 0 for not routed yet.
    pub dev_out: u16,
    /// EtherType at and below ipd's lower side.
    pub ethertype: u16,
    /// See [`checksum`].
    pub ip_summed: u8,
    /// See [`gso`].
    pub gso_type: u8,
    /// Payload bytes of each segment of a super-frame.
    pub gso_size: u16,
    /// Where checksumming starts: offset from `head`, valid for [`checksum::PARTIAL`].
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
    /// IP protocol number between ipd and transports.
    pub protocol: u8,
    /// See [`kind`].
    pub kind: u8,
    /// Number of valid fragments.
    pub nr_frags: u8,
    /// TTL or hop limit: as received, or asked for by the transport (0: default).
    pub ttl: u8,
    /// TOS or traffic class: as received, or asked for.
    pub tos: u8,
    /// Bit 0: do not fragment. Bit 1: broadcast allowed. Bit 2: link-layer broadcast or multicast
    /// received. Bit 3: ECN CWR belongs on the first segment of a super-frame.
    pub flags: u8,
    /// Address family of `src` and `dst`, as in [`crate::Endpoint`].
    pub family: u16,
    /// Free mark, as `SO_MARK`.
    pub mark: u32,
    /// Source address between ipd and transports (see [`crate::Endpoint`] for the format).
    pub src: [u8; 16],
    /// Destination address between ipd and transports.
    pub dst: [u8; 16],
    /// When the device delivered it or the transport emitted it, low 32 bits of microseconds.
    pub stamp: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// A second slot that belongs to this one and is freed with it (the large half of a
    /// received super-frame), as [`crate::Handle`]; 0 for none.
    pub extra: u64,
    /// Fragments, of which `nr_frags` are valid.
    pub frags: [Frag; MAX_FRAGS],
}

/// Flag bits of [`SkBuffDesc::flags`].
pub mod flag {
    /// Set DF (IPv4); never fragment.
    pub const DONT_FRAG: u8 = 1;
    /// The sender may use broadcast addresses.
    pub const BROADCAST_OK: u8 = 2;
    /// Received by link-layer broadcast or multicast.
    pub const LINK_BROADCAST: u8 = 4;
    /// CWR on the first segment only.
    pub const GSO_ECN: u8 = 8;
    /// Looped back inside the machine: it never crosses a wire.
    pub const LOOPBACK: u8 = 16;
}

impl Default for SkBuffDesc {
    fn default() -> Self {
        Self {
            data: HEADROOM,
            tail: HEADROOM,
            mac: OFFSET_NONE,
            network: OFFSET_NONE,
            transport: OFFSET_NONE,
            dev_in: 0,
            dev_out: 0,
            ethertype: 0,
            ip_summed: checksum::NONE,
            gso_type: gso::NONE,
            gso_size: 0,
            csum_start: 0,
            csum_offset: 0,
            protocol: 0,
            kind: kind::PACKET,
            nr_frags: 0,
            ttl: 0,
            tos: 0,
            flags: 0,
            mark: 0,
            src: [0; 16],
            dst: [0; 16],
            family: 0,
            reserved: 0,
            stamp: 0,
            extra: 0,
            frags: [Frag::default(); MAX_FRAGS],
        }
    }
}

/// Bytes of a descriptor without its fragments: what travels with every packet.
pub const DESC_BASE: usize = core::mem::offset_of!(SkBuffDesc, frags);

const _: () = assert!(size_of::<SkBuffDesc>() == 184);
const _: () = assert!(DESC_BASE == 88 && size_of::<Frag>() == 16);
const _: () = assert!(core::mem::offset_of!(SkBuffDesc, extra) == 80);

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn a_fresh_descriptor_is_empty_behind_the_headroom() {
        let d = SkBuffDesc::default();
        assert_eq!(
            (d.data, d.tail, d.nr_frags, d.extra),
            (HEADROOM, HEADROOM, 0, 0)
        );
        assert_eq!(
            (d.mac, d.network, d.transport),
            (OFFSET_NONE, OFFSET_NONE, OFFSET_NONE)
        );
    }

    #[test]
    fn a_descriptor_survives_the_way_through_bytes() {
        let mut d = SkBuffDesc {
            mark: 0x1234_5678,
            extra: 42,
            nr_frags: 1,
            ..Default::default()
        };
        d.frags[0] = Frag {
            region: 7,
            len: 9,
            offset: 1 << 40,
        };
        assert_eq!(SkBuffDesc::read_from_bytes(d.as_bytes()).unwrap(), d);
    }
}
