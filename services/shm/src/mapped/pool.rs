//! A pool: slots of packet memory in one memfd, allocated by one producing service.
//!
//! ```text
//!   0      header, twice: magic, version, slots and sizes of the two classes   (one page)
//!   4096   ownership words   u64  [slots]
//!   ...    descriptors       192  [slots]
//!   ...    buffers           small [small_slots], then large [large_slots]     (page aligned)
//! ```
//!
//! Small slots take what fits one frame, large ones a 64 KiB super-frame, so that small packets
//! do not hold large buffers.
//! What a claimed slot becomes is in `skbuff`, who hands out free ones in `allocator`.

use crate::error::{PeerFault, ShmError};
use crate::mapped::header;
use crate::mapped::layout::{DESC_STRIDE, WORDS_OFFSET};
pub use crate::mapped::layout::{PoolLayout, SizeClass};
use crate::mapped::mapping::{self, Mapping};
use crate::mapped::skbuff::SkBuff;
use crate::mapped::validate;
use crate::owner;
use crate::slots::{Slots, Use};
use crate::sync::{AtomicU32, Ordering};
use abi::skbuff::{DESC_BASE, MAX_FRAGS, SkBuffDesc};
use abi::{Handle, PoolId, ServiceId};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: u64 = u64::from_le_bytes(*b"STRATA-P");

#[derive(Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: u64,
    version: u32,
    small_slots: u32,
    small_size: u32,
    large_slots: u32,
    large_size: u32,
    zero: u32,
}

/// Makes a pool's memory.
///
/// # Errors
/// When the layout is impossible or the kernel refuses.
pub fn create(name: &str, layout: PoolLayout) -> Result<OwnedFd, ShmError> {
    layout.check()?;
    let fd = mapping::create(name, layout.size())?;
    let map = Mapping::map(&fd, layout.size(), true)?;
    let words = map
        .u64s_at(WORDS_OFFSET, layout.slots() as usize)
        .ok_or(ShmError::BadLayout("words of a pool"))?;
    for word in words {
        word.store(
            owner::pack(owner::FIRST_GENERATION, ServiceId::NOBODY),
            Ordering::Relaxed,
        );
    }
    let header = Header {
        magic: MAGIC,
        version: abi::LAYOUT_VERSION,
        small_slots: layout.small_slots,
        small_size: layout.small_size,
        large_slots: layout.large_slots,
        large_size: layout.large_size,
        zero: 0,
    };
    if !header::store(&map, header.as_bytes()) {
        return Err(ShmError::BadLayout("header of a pool"));
    }
    Ok(fd)
}

/// An attached pool. It stays mapped until the process ends, so that [`SkBuff`]s can refer to
/// it without counting.
#[derive(Debug)]
pub struct Pool {
    id: PoolId,
    producer: ServiceId,
    map: &'static Mapping,
    slots: Slots<'static>,
    layout: PoolLayout,
    /// Not 0 while a slot is in an [`SkBuff`] of this process, whatever its word says: what a
    /// search for lost slots ([`crate::lost`]) must not touch.
    held: Vec<AtomicU32>,
}

impl Pool {
    /// Maps the pool in `fd` for the life of the process. Who allocates from it is not known, so
    /// fragments of its packets may lie in any session region: see [`Pool::attach_for`].
    ///
    /// # Errors
    /// When it is not a sealed pool of this layout version.
    pub fn attach(id: PoolId, fd: &impl AsFd) -> Result<&'static Self, ShmError> {
        Self::attach_for(id, ServiceId::NOBODY, fd)
    }

    /// Maps the pool in `fd`, from which `producer` allocates. Its packets may have fragments in
    /// session regions of that service only, so that no other can have them gathered from
    /// memory that it does not map itself.
    ///
    /// # Errors
    /// As [`Pool::attach`].
    pub fn attach_for(
        id: PoolId,
        producer: ServiceId,
        fd: &impl AsFd,
    ) -> Result<&'static Self, ShmError> {
        let map = Mapping::map(fd, WORDS_OFFSET, true)?;
        let mut header = Header::default();
        let is_whole = header::load(&map, header.as_mut_bytes());
        let Header { magic, version, .. } = header;
        if magic != MAGIC {
            return Err(ShmError::Layout {
                what: "pool",
                found: magic,
                expected: MAGIC,
            });
        }
        if version != abi::LAYOUT_VERSION {
            return Err(ShmError::Layout {
                what: "pool",
                found: version.into(),
                expected: abi::LAYOUT_VERSION.into(),
            });
        }
        if !is_whole {
            return Err(ShmError::BadLayout("header of a pool"));
        }
        let layout = PoolLayout {
            small_slots: header.small_slots,
            small_size: header.small_size,
            large_slots: header.large_slots,
            large_size: header.large_size,
        };
        layout.check()?;
        if layout.size() > map.len() {
            return Err(ShmError::TooSmall {
                have: map.len(),
                want: layout.size(),
            });
        }
        let map: &'static Mapping = Box::leak(Box::new(map));
        let words = map
            .u64s_at(WORDS_OFFSET, layout.slots() as usize)
            .ok_or(ShmError::BadLayout("words of a pool"))?;
        let slots = Slots::new(words);
        let held = words.iter().map(|_| AtomicU32::new(0)).collect();
        Ok(Box::leak(Box::new(Self {
            id,
            producer,
            map,
            slots,
            layout,
            held,
        })))
    }

    /// Its number.
    #[inline]
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Who allocates from it; nobody when that is not known here.
    #[must_use]
    pub fn producer(&self) -> ServiceId {
        self.producer
    }

    /// Its slots' sizes.
    #[must_use]
    pub fn layout(&self) -> PoolLayout {
        self.layout
    }

    /// The mapping; buffers are the part that fragments with this pool's region point into.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        self.map
    }

    /// The ownership words.
    #[inline]
    #[must_use]
    pub fn slots(&self) -> Slots<'static> {
        self.slots
    }

    /// Whether the slot is in this process's hands.
    #[must_use]
    pub fn is_held(&self, slot: u32) -> bool {
        // Relaxed: set and asked by the thread that works on packets; see `lost` for what else
        // protects a slot.
        self.held
            .get(slot as usize)
            .is_some_and(|held| held.load(Ordering::Relaxed) != 0)
    }

    /// Forgets what is in this process's hands: for tests, in which services that die share a
    /// process with their successors.
    #[doc(hidden)]
    pub fn hold_nothing(&self) {
        for held in &self.held {
            held.store(0, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn hold(&self, slot: u32, held: bool) {
        if let Some(word) = self.held.get(slot as usize) {
            word.store(held.into(), Ordering::Relaxed);
        }
    }

    /// Offset in the mapping and size of a slot's buffer.
    #[inline]
    #[must_use]
    pub fn buffer_range(&self, slot: u32) -> Option<(usize, u32)> {
        let l = &self.layout;
        let base = l.buffers_offset();
        if slot < l.small_slots {
            Some((base + slot as usize * l.small_size as usize, l.small_size))
        } else if slot < l.slots() {
            let large = (slot - l.small_slots) as usize;
            let start = base + l.small_slots as usize * l.small_size as usize;
            Some((start + large * l.large_size as usize, l.large_size))
        } else {
            None
        }
    }

    /// Whether bytes of the mapping are all in buffers, not in the pool's own structures.
    #[must_use]
    pub fn in_buffers(&self, offset: usize, len: usize) -> bool {
        offset >= self.layout.buffers_offset()
            && offset
                .checked_add(len)
                .is_some_and(|end| end <= self.layout.size())
    }

    #[inline]
    pub(crate) fn buffer(&self, slot: u32) -> Option<(NonNull<u8>, u32)> {
        let (offset, size) = self.buffer_range(slot)?;
        Some((self.map.pointer(offset, size as usize)?, size))
    }

    fn desc_at(&self, slot: u32) -> Option<usize> {
        (slot < self.layout.slots())
            .then(|| self.layout.desc_offset() + slot as usize * DESC_STRIDE)
    }

    /// Copies the descriptor of a slot: the part that every packet has, and the fragments that
    /// are valid. The others stay as they were in `into`.
    #[inline]
    pub(crate) fn read_desc(&self, slot: u32, into: &mut SkBuffDesc) -> bool {
        let Some(at) = self.desc_at(slot) else {
            return false;
        };
        let Some(base) = into.as_mut_bytes().first_chunk_mut::<DESC_BASE>() else {
            return false;
        };
        let ok = self.map.copy_out(at, base);
        if into.nr_frags == 0 {
            return ok;
        }
        let n = usize::from(into.nr_frags).min(MAX_FRAGS);
        let frags = into.frags.get_mut(..n);
        ok && frags.is_some_and(|f| self.map.copy_out(at + DESC_BASE, f.as_mut_bytes()))
    }

    #[inline]
    pub(crate) fn write_desc(&self, slot: u32, desc: &SkBuffDesc) {
        let base = desc.as_bytes().first_chunk::<DESC_BASE>();
        let (Some(at), Some(base)) = (self.desc_at(slot), base) else {
            return;
        };
        let _ = self.map.copy_in(at, base);
        if desc.nr_frags != 0 {
            let n = usize::from(desc.nr_frags).min(MAX_FRAGS);
            let frags = desc.frags.get(..n).unwrap_or_default();
            let _ = self.map.copy_in(at + DESC_BASE, frags.as_bytes());
        }
    }

    /// Who owns a slot now, with its generation.
    #[must_use]
    pub fn owner_of(&self, slot: u32) -> Option<(u32, ServiceId)> {
        self.slots.owner_of(slot)
    }

    /// Slots that are free at the moment.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        (0..self.layout.slots())
            .map(|s| u32::from(matches!(self.owner_of(s), Some((_, ServiceId::NOBODY)))))
            .sum()
    }

    /// For a look at what a dead process worked on: the descriptor of `handle`'s slot as it was
    /// published last, and `len` bytes from `offset` of its buffer, if `owner` owns the slot in
    /// that use. All of it is what others wrote.
    #[must_use]
    pub fn peek(
        &self,
        handle: Handle,
        owner: ServiceId,
        offset: u32,
        len: u32,
    ) -> Option<(SkBuffDesc, Vec<u8>)> {
        let slot = handle.slot();
        let is_owned = self.owner_of(slot) == Some((handle.generation(), owner));
        let (base, size) = self.buffer_range(slot)?;
        if handle.pool() != self.id || !is_owned || offset.checked_add(len)? > size {
            return None;
        }
        let mut desc = SkBuffDesc::default();
        let mut bytes = vec![0; len as usize];
        let read = self.read_desc(slot, &mut desc)
            && self.map.copy_out(base + offset as usize, &mut bytes);
        read.then_some((desc, bytes))
    }

    /// Takes over the slot of `handle` (and the extra slot its descriptor names) from `from`.
    /// The handle is used up: the sk_buff has another one. [`crate::slots`] says what happens
    /// when the claimer dies in between.
    ///
    /// # Errors
    /// [`PeerFault`] when the handle is stale, forged or its descriptor malformed; then the slot
    /// is freed if it was `from`'s to give, otherwise left alone.
    #[inline]
    pub fn claim(
        &'static self,
        handle: Handle,
        from: ServiceId,
        me: ServiceId,
    ) -> Result<SkBuff, PeerFault> {
        if from == me || from == ServiceId::NOBODY {
            return Err(PeerFault::Stale(handle));
        }
        self.take(handle, from, me)
    }

    /// [`Pool::claim`], from oneself too.
    #[inline]
    pub(crate) fn take(
        &'static self,
        handle: Handle,
        from: ServiceId,
        me: ServiceId,
    ) -> Result<SkBuff, PeerFault> {
        let slot = handle.slot();
        if handle.pool() != self.id {
            return Err(PeerFault::UnknownPool(handle.pool()));
        }
        if slot >= self.layout.slots() {
            return Err(PeerFault::BadSlot(handle));
        }
        // Read into its last place: a descriptor is worth not copying twice.
        let mut skb = SkBuff::unowned(self, slot, me);
        let head = Use {
            slot,
            generation: handle.generation(),
        };
        let taken = self.slots.claim(head, from, me, || {
            if !self.read_desc(slot, skb.read_into()) {
                return Err(());
            }
            let extra = Handle(skb.desc().extra);
            if extra.is_none() {
                Ok(None)
            } else if extra.pool() == self.id {
                Ok(Some(Use {
                    slot: extra.slot(),
                    generation: extra.generation(),
                }))
            } else {
                Err(())
            }
        });
        let taken = taken.ok_or(PeerFault::Stale(handle))?;
        let extra = taken.extra.map(|e| e.slot);
        if !taken.incomplete && validate::is_possible(self, skb.desc(), slot, extra) {
            return Ok(skb.own(taken));
        }
        self.slots.free(taken.head, me);
        if let Some(extra) = taken.extra {
            self.slots.free(extra, me);
        }
        Err(PeerFault::Descriptor(handle))
    }
}
