//! What a descriptor that a neighbour wrote may say.
//!
//! The copy that passes is what every layer works on, so what is promised here needs no check
//! elsewhere:
//! - `data <= tail <= end`, header offsets unset or inside the buffer;
//! - at most [`MAX_FRAGS`] fragments, [`MAX_LEN`] bytes in all;
//! - a fragment lies in a buffer of the packet's own two slots, or in a session region of the
//!   service that allocates from the pool: nobody can have bytes gathered by a neighbour that it
//!   could not read itself. That a session region is attached, and ends behind the fragment, is
//!   checked when it is read;
//! - `ip_summed` and `gso_type` are known, a super-frame has a segment size, and the place of a
//!   partial checksum is inside the linear data.

use crate::mapped::pool::Pool;
use abi::skbuff::{Frag, HEADROOM, MAX_FRAGS, OFFSET_NONE, SkBuffDesc, checksum, gso};
use abi::{RegionId, ServiceId};

/// Bytes of a packet at the most: the largest IP packet and what is in front of it.
pub const MAX_LEN: u64 = 65_535 + HEADROOM as u64;

/// Whether `d` is possible for the packet of `slot` and perhaps `extra` of `pool`.
#[inline]
pub(crate) fn is_possible(pool: &Pool, d: &SkBuffDesc, slot: u32, extra: Option<u32>) -> bool {
    let Some((_, end)) = pool.buffer_range(slot) else {
        return false;
    };
    let offset_ok = |o: u16| o == OFFSET_NONE || u32::from(o) <= end;
    d.data <= d.tail
        && d.tail <= end
        && offset_ok(d.mac)
        && offset_ok(d.network)
        && offset_ok(d.transport)
        && offloads_ok(d)
        && frags_ok(pool, d, slot, extra)
}

#[inline]
fn offloads_ok(d: &SkBuffDesc) -> bool {
    let summed = match d.ip_summed {
        checksum::NONE | checksum::UNNECESSARY => true,
        checksum::PARTIAL => u32::from(d.csum_start) + u32::from(d.csum_offset) + 2 <= d.tail,
        _ => false,
    };
    let segmented = match d.gso_type {
        gso::NONE => true,
        gso::TCPV4 | gso::TCPV6 | gso::UDP_L4 => d.gso_size != 0,
        _ => false,
    };
    summed && segmented
}

#[inline]
fn frags_ok(pool: &Pool, d: &SkBuffDesc, slot: u32, extra: Option<u32>) -> bool {
    let linear = u64::from(d.tail - d.data);
    if d.nr_frags == 0 {
        return linear <= MAX_LEN;
    }
    if usize::from(d.nr_frags) > MAX_FRAGS {
        return false;
    }
    let frags = || d.frags.iter().take(usize::from(d.nr_frags));
    let total = linear + frags().map(|f| u64::from(f.len)).sum::<u64>();
    total <= MAX_LEN && frags().all(|f| frag_ok(pool, f, slot, extra))
}

fn frag_ok(pool: &Pool, f: &Frag, slot: u32, extra: Option<u32>) -> bool {
    let region = RegionId(f.region);
    let Some(end) = f.offset.checked_add(f.len.into()) else {
        return false;
    };
    match region.pool() {
        Some(id) => {
            let inside = |slot| {
                pool.buffer_range(slot).is_some_and(|(base, size)| {
                    let base = base as u64;
                    f.offset >= base && end <= base + u64::from(size)
                })
            };
            id == pool.id() && (inside(slot) || extra.is_some_and(inside))
        }
        None => {
            let producer = pool.producer();
            producer == ServiceId::NOBODY || region.transport() == producer
        }
    }
}
