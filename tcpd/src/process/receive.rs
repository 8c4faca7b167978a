//! From ipd's sk_buffs to the engine: checksum, header, and the payload's way to its socket.

use crate::engine::{Buffers, ConnId, Payload, SocketRef};
use abi::session::Rings;
use abi::skbuff::checksum;
use abi::{Endpoint, RegionId};
use core::net::IpAddr;
use session::Sessions;
use shm::{Arena, Buffer, SkBuff, arena::Piece};
use wire::tcp::Repr;

/// ECN's two bits, and congestion experienced (RFC 3168 5).
const ECN_MASK: u8 = 3;
const ECN_CE: u8 = 3;

/// Why a packet was no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The header is not all there, or says the impossible.
    Malformed,
    /// The checksum is wrong (RFC 9293 3.1, MUST-3).
    Checksum,
}

/// A segment whose header was checked.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) repr: Repr,
    pub(super) src: Endpoint,
    pub(super) dst: Endpoint,
    pub(super) header_len: usize,
    pub(super) payload_len: u32,
    pub(super) ce: bool,
}

/// Checks and parses a packet that begins at the TCP header.
pub(super) fn parse(skb: &SkBuff, arena: &Arena) -> Result<Segment, Refused> {
    let desc = skb.desc();
    let (repr, header_len) = Repr::parse(skb.linear()).map_err(|_| Refused::Malformed)?;
    let mut src = Endpoint {
        addr: desc.src,
        family: desc.family,
        port: repr.src_port,
    };
    let mut dst = Endpoint {
        addr: desc.dst,
        family: desc.family,
        port: repr.dst_port,
    };
    let (Some(from), Some(to)) = (src.ip(), dst.ip()) else {
        return Err(Refused::Malformed);
    };
    // A local sender's partial checksum (PARTIAL) never left the machine.
    if desc.ip_summed == checksum::NONE && !checksum_is_right(skb, arena, from, to) {
        return Err(Refused::Checksum);
    }
    // Canonical form, so that endpoints compare bytewise.
    src = Endpoint::new(from, repr.src_port);
    dst = Endpoint::new(to, repr.dst_port);
    let payload = skb
        .len()
        .checked_sub(header_len)
        .ok_or(Refused::Malformed)?;
    let payload_len = u32::try_from(payload).map_err(|_| Refused::Malformed)?;
    let ce = desc.tos & ECN_MASK == ECN_CE;
    Ok(Segment {
        repr,
        src,
        dst,
        header_len,
        payload_len,
        ce,
    })
}

fn checksum_is_right(skb: &SkBuff, arena: &Arena, src: IpAddr, dst: IpAddr) -> bool {
    let Ok(len) = u32::try_from(skb.len()) else {
        return false;
    };
    let mut sum = wire::checksum::pseudo_header(src, dst, super::transmit::PROTOCOL_TCP, len);
    let mut buffer = [0u8; 2048];
    let whole = arena.for_each_piece(skb, 0, skb.len(), |piece| match piece {
        Piece::Private(bytes) => {
            sum.add(bytes);
            true
        }
        Piece::Shared { map, at, len } => {
            let mut done = 0;
            while done < len {
                let n = (len - done).min(buffer.len());
                let Some(part) = buffer.get_mut(..n) else {
                    return false;
                };
                if !map.copy_out(at + done, part) {
                    return false;
                }
                sum.add(part);
                done += n;
            }
            true
        }
    });
    whole.is_ok() && sum.finish() == 0
}

/// The payload of a packet, for who wants to look at it.
pub(super) struct SkbPayload<'a> {
    pub(super) arena: &'a Arena,
    pub(super) skb: &'a SkBuff,
    pub(super) header_len: usize,
}

impl Payload for SkbPayload<'_> {
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        let Some(at) = self.header_len.checked_add(offset) else {
            return false;
        };
        self.arena.copy_out(self.skb, at, to).is_ok()
    }
}

/// Buffers for the engine: payload goes from the packet in hand straight into the socket's
/// receive buffer, out-of-order data too.
pub(super) struct SocketBuffers<'a> {
    pub(super) sessions: &'a mut Sessions,
    pub(super) packet: SkbPayload<'a>,
    /// Bytes copied, for the account of copies.
    pub(super) copied: u64,
    /// Children that were given a socket in this call.
    pub(super) attached: &'a mut Vec<(ConnId, session::NewSocket)>,
}

impl Buffers for SocketBuffers<'_> {
    fn place(
        &mut self,
        owner: SocketRef,
        rings: &Rings,
        position: u64,
        _payload: &dyn Payload,
        offset: usize,
        len: usize,
    ) -> bool {
        let Some(memory) = self.sessions.memory(RegionId(owner.region)) else {
            return false;
        };
        let mut from = self.packet.header_len + offset;
        let (arena, skb) = (self.packet.arena, self.packet.skb);
        let whole = memory.pieces(owner.slot, Buffer::Rx, rings, position, len, |at, run| {
            let copied = arena.copy_to_mapping(skb, from, run, memory.mapping(), at);
            from += run;
            copied.is_ok()
        });
        if !whole {
            return false;
        }
        self.copied += len as u64;
        true
    }

    fn attach(
        &mut self,
        listener: ConnId,
        listener_owner: SocketRef,
        child: ConnId,
    ) -> Option<SocketRef> {
        let _ = listener;
        let new = self
            .sessions
            .create_waiting(RegionId(listener_owner.region))
            .ok()?;
        self.attached.push((child, new));
        Some(SocketRef {
            region: new.socket.region.0,
            slot: new.socket.slot,
        })
    }
}
