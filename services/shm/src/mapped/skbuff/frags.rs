//! What of a packet does not lie in its own slot: fragments of other regions, and the second slot
//! that it may take along.

use super::SkBuff;
use abi::RegionId;
use abi::skbuff::Frag;

impl SkBuff {
    /// The valid fragments.
    #[inline]
    #[must_use]
    pub fn frags(&self) -> &[Frag] {
        self.desc
            .frags
            .get(..usize::from(self.desc.nr_frags))
            .unwrap_or(&[])
    }

    /// Bytes in fragments.
    #[inline]
    #[must_use]
    pub fn frag_len(&self) -> usize {
        self.frags().iter().map(|f| f.len as usize).sum()
    }

    /// Adds a fragment behind the others; false when there is no place.
    pub fn add_frag(&mut self, region: RegionId, offset: u64, len: u32) -> bool {
        let Some(place) = self.desc.frags.get_mut(usize::from(self.desc.nr_frags)) else {
            return false;
        };
        *place = Frag {
            region: region.0,
            len,
            offset,
        };
        self.desc.nr_frags += 1;
        true
    }

    /// Makes `other`'s buffer the continuation of this one: its linear data becomes a fragment
    /// and its slot is freed with this one. Both must be of one pool; false (and `other` freed)
    /// when not, when there is an extra already, or when `other` has fragments itself.
    pub fn attach_extra(&mut self, other: Self) -> bool {
        let simple = other.extra.is_none() && other.desc.nr_frags == 0;
        if !std::ptr::eq(self.pool, other.pool) || self.extra.is_some() || !simple {
            return false;
        }
        let Some((base, _)) = self.pool.buffer_range(other.of.slot) else {
            return false;
        };
        let at = base as u64 + u64::from(other.data());
        let len = u32::try_from(other.linear_len()).unwrap_or(0);
        if !self.add_frag(RegionId::of_pool(self.pool.id()), at, len) {
            return false;
        }
        self.extra = Some(other.of);
        std::mem::forget(other);
        true
    }

    /// Cuts the packet to `len` bytes in all.
    pub fn trim(&mut self, len: usize) {
        let linear = self.linear_len();
        if len <= linear {
            self.desc.tail = self.data() + u32::try_from(len).unwrap_or(0);
            self.desc.nr_frags = 0;
            return;
        }
        let mut left = len - linear;
        let mut kept = 0;
        for f in self
            .desc
            .frags
            .iter_mut()
            .take(usize::from(self.desc.nr_frags))
        {
            if left == 0 {
                break;
            }
            let take = left.min(f.len as usize);
            f.len = u32::try_from(take).unwrap_or(f.len);
            left -= take;
            kept += 1;
        }
        self.desc.nr_frags = kept;
    }
}
