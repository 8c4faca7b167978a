//! The pools and regions that one process has attached.

use crate::error::PeerFault;
use crate::mapped::mapping::Mapping;
use crate::mapped::pool::Pool;
use crate::mapped::skbuff::SkBuff;
use abi::ids::MAX_POOLS;
use abi::skbuff::Frag;
use abi::{Handle, PoolId, RegionId, ServiceId};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

/// Everything that handles and fragments of this process can point into.
#[derive(Debug)]
pub struct Arena {
    me: ServiceId,
    pools: Vec<Option<&'static Pool>>,
    regions: HashMap<RegionId, Arc<Mapping>>,
}

impl Arena {
    /// An arena of `me` with nothing attached.
    #[must_use]
    pub fn new(me: ServiceId) -> Self {
        Self {
            me,
            pools: vec![None; MAX_POOLS],
            regions: HashMap::new(),
        }
    }

    /// Who this process is.
    #[must_use]
    pub fn me(&self) -> ServiceId {
        self.me
    }

    /// Adds a pool.
    pub fn add_pool(&mut self, pool: &'static Pool) {
        if let Some(place) = self.pools.get_mut(usize::from(pool.id().0)) {
            *place = Some(pool);
        }
    }

    /// Adds or replaces an application's session memory.
    pub fn add_region(&mut self, id: RegionId, map: Arc<Mapping>) {
        self.regions.insert(id, map);
    }

    /// Removes one; it is unmapped when the last user drops it.
    pub fn remove_region(&mut self, id: RegionId) {
        self.regions.remove(&id);
    }

    /// Removes the regions that `keep` does not want.
    pub fn retain_regions(&mut self, mut keep: impl FnMut(RegionId) -> bool) {
        self.regions.retain(|&id, _| keep(id));
    }

    /// Whether the region is attached.
    #[must_use]
    pub fn has_region(&self, id: RegionId) -> bool {
        self.regions.contains_key(&id)
    }

    /// The pool of that number, if attached.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&'static Pool> {
        self.pools.get(usize::from(id.0)).copied().flatten()
    }

    /// The attached pools.
    pub fn pools(&self) -> impl Iterator<Item = &'static Pool> {
        self.pools.iter().flatten().copied()
    }

    /// Claims what a neighbour published.
    ///
    /// # Errors
    /// [`PeerFault`] as [`Pool::claim`], or when the pool is not attached.
    pub fn claim(&self, handle: Handle, from: ServiceId) -> Result<SkBuff, PeerFault> {
        let pool = self
            .pool(handle.pool())
            .ok_or(PeerFault::UnknownPool(handle.pool()))?;
        pool.claim(handle, from, self.me)
    }

    /// The mapping that a fragment lies in, and its offset there. Of a pool it must be in the
    /// buffers; of a session region the mapping checks the end when it is read.
    fn locate(&self, frag: &Frag) -> Result<(&Mapping, usize), PeerFault> {
        const OUTSIDE: PeerFault = PeerFault::Other("fragment outside its region");
        let id = RegionId(frag.region);
        let unknown = PeerFault::UnknownRegion(id);
        let at = usize::try_from(frag.offset).map_err(|_| OUTSIDE)?;
        match id.pool() {
            Some(pool) => {
                let pool = self.pool(pool).ok_or(unknown)?;
                if !pool.in_buffers(at, frag.len as usize) {
                    return Err(OUTSIDE);
                }
                Ok((pool.mapping(), at))
            }
            None => Ok((self.regions.get(&id).ok_or(unknown)?, at)),
        }
    }

    /// Where a fragment's bytes are, for an iovec.
    ///
    /// # Errors
    /// When its region is not attached or it does not lie inside.
    pub fn frag_ptr(&self, frag: &Frag) -> Result<(NonNull<u8>, usize), PeerFault> {
        let len = frag.len as usize;
        let (map, at) = self.locate(frag)?;
        let p = map
            .pointer(at, len)
            .ok_or(PeerFault::Other("fragment outside its region"))?;
        Ok((p, len))
    }

    /// Copies `into.len()` bytes that start `offset` bytes into the packet (linear data, then
    /// fragments).
    ///
    /// # Errors
    /// When the packet is shorter, or a fragment cannot be read; what was copied before stays.
    pub fn copy_out(&self, skb: &SkBuff, offset: usize, into: &mut [u8]) -> Result<(), PeerFault> {
        let mut done = 0;
        self.for_each_piece(skb, offset, into.len(), |piece| {
            let n = piece.len();
            let place = into.get_mut(done..done + n);
            done += n;
            place.is_some_and(|to| piece.copy_to_slice(to))
        })
    }

    /// Copies `len` bytes of the packet, from `offset` on, into `to` at `to_offset`.
    ///
    /// # Errors
    /// As [`Arena::copy_out`], or when the destination does not have the place; what was copied
    /// before stays.
    pub fn copy_to_mapping(
        &self,
        skb: &SkBuff,
        offset: usize,
        len: usize,
        to: &Mapping,
        to_offset: usize,
    ) -> Result<(), PeerFault> {
        let mut at = to_offset;
        self.for_each_piece(skb, offset, len, |piece| {
            let ok = piece.copy_to_mapping(to, at);
            at += piece.len();
            ok
        })
    }

    /// Calls `f` with the pieces of `len` bytes from `offset` on, until it says false.
    ///
    /// # Errors
    /// When the packet is shorter, a fragment cannot be read, or `f` said false.
    pub fn for_each_piece(
        &self,
        skb: &SkBuff,
        offset: usize,
        len: usize,
        mut f: impl FnMut(Piece<'_>) -> bool,
    ) -> Result<(), PeerFault> {
        const SHORT: PeerFault = PeerFault::Other("packet shorter than its headers say");
        const REFUSED: PeerFault = PeerFault::Other("no place for the packet's bytes");
        let (mut skip, mut left) = (offset, len);
        let linear = skb.linear();
        if skip < linear.len() && left > 0 {
            let n = left.min(linear.len() - skip);
            let bytes = linear.get(skip..skip + n).ok_or(SHORT)?;
            if !f(Piece::Private(bytes)) {
                return Err(REFUSED);
            }
            left -= n;
            skip = 0;
        } else {
            skip -= skip.min(linear.len());
        }
        for frag in skb.frags() {
            if left == 0 {
                break;
            }
            let flen = frag.len as usize;
            if skip >= flen {
                skip -= flen;
                continue;
            }
            let n = left.min(flen - skip);
            let (map, at) = self.locate(frag)?;
            let at = at.checked_add(skip).ok_or(SHORT)?;
            if !f(Piece::Shared { map, at, len: n }) {
                return Err(REFUSED);
            }
            left -= n;
            skip = 0;
        }
        if left == 0 { Ok(()) } else { Err(SHORT) }
    }
}

/// A run of a packet's bytes.
#[derive(Debug)]
pub enum Piece<'a> {
    /// In the owned slot.
    Private(&'a [u8]),
    /// In a region that another process may write.
    Shared {
        /// The region.
        map: &'a Mapping,
        /// Offset in it.
        at: usize,
        /// Length.
        len: usize,
    },
}

impl Piece<'_> {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Private(b) => b.len(),
            Self::Shared { len, .. } => *len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn copy_to_slice(&self, to: &mut [u8]) -> bool {
        match self {
            Self::Private(b) if b.len() == to.len() => {
                to.copy_from_slice(b);
                true
            }
            Self::Private(_) => false,
            Self::Shared { map, at, .. } => map.copy_out(*at, to),
        }
    }

    fn copy_to_mapping(&self, to: &Mapping, at: usize) -> bool {
        match self {
            Self::Private(b) => to.copy_in(at, b),
            Self::Shared { map, at: from, len } => to.copy_from(at, map, *from, *len),
        }
    }
}
