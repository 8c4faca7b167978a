//! From the engine's segments to sk_buffs for ipd.
//!
//! The header goes into the linear part; the payload stays in the application's send buffer and
//! is named by fragments that netdevd gathers, save small ones, which are cheaper to copy.

use crate::engine::SegmentOut;
use abi::RegionId;
use abi::session::Rings;
use abi::skbuff::{checksum, flag, gso};
use session::Sessions;
use shm::{Allocator, Buffer, SizeClass, SkBuff};
use wire::tcp::{Flags, fill_partial_checksum};

/// TCP's protocol number.
pub(super) const PROTOCOL_TCP: u8 = 6;
/// Offset of the checksum in the TCP header (RFC 9293 3.1).
const CHECKSUM_OFFSET: u16 = 16;
/// Payloads up to so many bytes are copied behind the header: mapping lookup, a longer iovec and
/// a cold cache line in netdevd cost more.
const COPY_BREAK: usize = 512;

/// Why a segment was not built. It counts as lost, and is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The pool is used up: ipd or netdevd is behind, or down.
    NoBuffer,
    /// The session memory is gone, or header and payload do not fit.
    Malformed,
}

/// What was built, and how many payload bytes were copied for it.
pub(super) struct Built {
    pub(super) skb: SkBuff,
    pub(super) copied: usize,
    pub(super) payload: usize,
}

/// Builds the sk_buff of a segment.
pub(super) fn build(
    segment: &SegmentOut,
    alloc: &mut Allocator,
    sessions: &Sessions,
    rings: Option<&Rings>,
) -> Result<Built, Unsent> {
    let (Some(src), Some(dst)) = (segment.src.ip(), segment.dst.ip()) else {
        return Err(Unsent::Malformed);
    };
    let mut skb = alloc.alloc(SizeClass::Small).ok_or(Unsent::NoBuffer)?;
    let header_len = segment.repr.header_len();
    let header = skb.put(header_len).ok_or(Unsent::Malformed)?;
    segment.repr.emit(header).map_err(|_| Unsent::Malformed)?;

    let payload = segment.payload.map_or(0, |p| p.len as usize);
    let mut copied = 0;
    if let Some(p) = segment.payload {
        let memory = sessions
            .memory(RegionId(p.owner.region))
            .ok_or(Unsent::Malformed)?;
        let rings = rings.ok_or(Unsent::Malformed)?;
        let each: &mut dyn FnMut(usize, usize) -> bool = if payload <= COPY_BREAK {
            copied = payload;
            &mut |at, len| {
                skb.put(len)
                    .is_some_and(|place| memory.mapping().copy_out(at, place))
            }
        } else {
            &mut |at, len| {
                u32::try_from(len)
                    .is_ok_and(|len| skb.add_frag(RegionId(p.owner.region), at as u64, len))
            }
        };
        if !memory.pieces(p.owner.slot, Buffer::Tx, rings, p.position, payload, each) {
            return Err(Unsent::Malformed);
        }
    }

    let total = u32::try_from(header_len + payload).map_err(|_| Unsent::Malformed)?;
    let header = skb
        .linear_mut()
        .get_mut(..header_len)
        .ok_or(Unsent::Malformed)?;
    fill_partial_checksum(header, total, src, dst).map_err(|_| Unsent::Malformed)?;
    let start = u16::try_from(skb.data_offset()).map_err(|_| Unsent::Malformed)?;
    let desc = skb.desc_mut();
    desc.ip_summed = checksum::PARTIAL;
    desc.csum_start = start;
    desc.csum_offset = CHECKSUM_OFFSET;
    desc.transport = start;
    desc.src = segment.src.addr;
    desc.dst = segment.dst.addr;
    desc.family = segment.dst.family;
    desc.protocol = PROTOCOL_TCP;
    desc.tos = segment.tos;
    desc.ttl = segment.ttl;
    desc.flags = flag::DONT_FRAG;
    if segment.gso_size != 0 && payload > usize::from(segment.gso_size) {
        desc.gso_size = segment.gso_size;
        desc.gso_type = if dst.is_ipv4() {
            gso::TCPV4
        } else {
            gso::TCPV6
        };
        if segment.repr.flags.contains(Flags::CWR) {
            // RFC 3168 6.1.2: on the first of them alone.
            desc.flags |= flag::GSO_ECN;
        }
    }
    Ok(Built {
        skb,
        copied,
        payload,
    })
}
