//! Copying a packet into the own pool, where every neighbour can read it.

use super::counters::Counter;
use super::{Engine, Env};
use abi::skbuff::checksum::PARTIAL;
use abi::skbuff::{HEADROOM, OFFSET_NONE};
use shm::{SizeClass, SkBuff};

impl Engine {
    /// An empty sk_buff of the own pool with room for `len` bytes behind the headroom.
    pub(super) fn alloc(&mut self, env: &mut Env<'_>, len: usize) -> Option<SkBuff> {
        let small = env
            .alloc
            .pool()
            .layout()
            .small_size
            .saturating_sub(HEADROOM) as usize;
        let class = if len <= small {
            SizeClass::Small
        } else {
            SizeClass::Large
        };
        let skb = env.alloc.alloc(class).filter(|skb| skb.tailroom() >= len);
        if skb.is_none() {
            self.counters.bump(Counter::NoBuffers);
        }
        skb
    }

    /// Whether all neighbours can read `skb`, because it lies in the own pool.
    pub(super) fn is_own(env: &Env<'_>, skb: &SkBuff) -> bool {
        skb.handle().pool() == env.alloc.pool().id()
    }

    /// A copy of `skb` in the own pool, data at the same header; none when it cannot be made.
    pub(super) fn copy_to_own(&mut self, env: &mut Env<'_>, skb: &SkBuff) -> Option<SkBuff> {
        let len = skb.len();
        let partial = skb.desc().ip_summed == PARTIAL;
        if partial && u32::from(skb.desc().csum_start) < skb.data_offset() {
            return None;
        }
        let mut copy = self.alloc(env, len)?;
        env.arena.copy_out(skb, 0, copy.put(len)?).ok()?;
        self.counters.add(Counter::IpCopiedBytes, len as u64);
        let (from, to) = (skb.data_offset(), copy.data_offset());
        // An offset that is not set, or points to headers that are not copied, is not set there.
        let moved = |offset: u16| {
            let behind = u32::from(offset).checked_sub(from)?;
            let inside = offset != OFFSET_NONE && behind as usize <= len;
            u16::try_from(behind + to).ok().filter(|_| inside)
        };
        let (old, new) = (*skb.desc(), copy.desc_mut());
        new.network = moved(old.network).unwrap_or(OFFSET_NONE);
        new.transport = moved(old.transport).unwrap_or(OFFSET_NONE);
        new.csum_start = moved(old.csum_start).unwrap_or(0);
        new.csum_offset = old.csum_offset;
        new.ip_summed = old.ip_summed;
        (new.gso_type, new.gso_size) = (old.gso_type, old.gso_size);
        (new.dev_in, new.dev_out, new.ethertype) = (old.dev_in, old.dev_out, old.ethertype);
        (new.protocol, new.kind, new.ttl, new.tos) = (old.protocol, old.kind, old.ttl, old.tos);
        (new.flags, new.family, new.mark) = (old.flags, old.family, old.mark);
        (new.src, new.dst, new.stamp) = (old.src, old.dst, old.stamp);
        Some(copy)
    }
}
