//! Internet checksums over packets whose bytes may lie in several slots.

use abi::skbuff::checksum::{NONE, PARTIAL};
use shm::arena::Piece;
use shm::{Arena, PeerFault, SkBuff};
use wire::checksum::Checksum;

const CHUNK: usize = 2048;

/// Adds `len` bytes of the packet, from `offset` behind the start of the data on, to `sum`.
///
/// # Errors
/// When the packet is shorter or a fragment lies where this process cannot read.
pub(crate) fn add(
    sum: &mut Checksum,
    arena: &Arena,
    skb: &SkBuff,
    offset: usize,
    len: usize,
) -> Result<(), PeerFault> {
    arena.for_each_piece(skb, offset, len, |piece| match piece {
        Piece::Private(bytes) => {
            sum.add(bytes);
            true
        }
        Piece::Shared { map, at, len } => {
            // Memory that others may write is never referred to, only copied out.
            let mut chunk = [0u8; CHUNK];
            (0..len).step_by(CHUNK).all(|done| {
                let n = CHUNK.min(len - done);
                chunk.get_mut(..n).is_some_and(|chunk| {
                    let there = map.copy_out(at + done, chunk);
                    sum.add(chunk);
                    there
                })
            })
        }
    })
}

/// Whether the place of a partial checksum, if there is one to complete, is still there after
/// the packet was cut.
pub(crate) fn is_possible(skb: &SkBuff) -> bool {
    let desc = skb.desc();
    let end = u32::from(desc.csum_start) + u32::from(desc.csum_offset) + 2;
    desc.ip_summed != PARTIAL || end <= desc.tail
}

/// Completes a partial checksum in software, for a packet that no device gets to see whole.
///
/// # Errors
/// When the sender put the field where it cannot be, or as [`add`].
pub(crate) fn complete(arena: &Arena, skb: &mut SkBuff) -> Result<(), PeerFault> {
    const BAD: PeerFault = PeerFault::Other("partial checksum outside the linear data");
    if skb.desc().ip_summed != PARTIAL {
        return Ok(());
    }
    let start = u32::from(skb.desc().csum_start)
        .checked_sub(skb.data_offset())
        .ok_or(BAD)? as usize;
    let field = start + usize::from(skb.desc().csum_offset);
    let len = skb.len().checked_sub(start).ok_or(BAD)?;
    let mut sum = Checksum::new();
    add(&mut sum, arena, skb, start, len)?;
    let place = skb.linear_mut().get_mut(field..field + 2).ok_or(BAD)?;
    // RFC 768: a computed zero is sent as all ones; for other protocols the two are the same sum.
    let sum = match sum.finish() {
        0 => u16::MAX,
        sum => sum,
    };
    place.copy_from_slice(&sum.to_be_bytes());
    skb.desc_mut().ip_summed = NONE;
    Ok(())
}
