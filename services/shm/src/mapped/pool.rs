//! A pool: slots of packet memory in one memfd, allocated by one producing service.
//!
//! ```text
//!   0      header: magic, version, slots and sizes of the two classes          (one page)
//!   4096   ownership words   u64  [slots]
//!   ...    descriptors       192  [slots]
//!   ...    buffers           small [small_slots], then large [large_slots]     (page aligned)
//! ```
//!
//! Small slots take what fits one frame, large ones a 64 KiB super-frame, so that small packets
//! do not hold large buffers.
#![allow(unsafe_code, reason = "turns slots into buffer pointers")]

use crate::error::{PeerFault, ShmError};
use crate::mapped::mapping::{self, Mapping};
use crate::mapped::skbuff::SkBuff;
use crate::owner;
use crate::sync::Ordering;
use abi::skbuff::{HEADROOM, SkBuffDesc};
use abi::{Handle, PoolId, ServiceId};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use zerocopy::{FromBytes, IntoBytes};

const MAGIC: u64 = u64::from_le_bytes(*b"STRATA-P");
const WORDS_OFFSET: usize = 4096;
const DESC_STRIDE: usize = 192;

/// How many slots of which sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLayout {
    /// Slots of the small class.
    pub small_slots: u32,
    /// Bytes of a small slot's buffer, headroom included.
    pub small_size: u32,
    /// Slots of the large class.
    pub large_slots: u32,
    /// Bytes of a large slot's buffer, headroom included.
    pub large_size: u32,
}

impl PoolLayout {
    /// For what a device receives: a frame each, or super-frames (small head, large rest).
    pub const RECEIVE: Self =
        Self { small_slots: 1024, small_size: 2048, large_slots: 128, large_size: 69_632 };
    /// For what tcpd sends: headers, and payload of small sends.
    pub const HEADERS: Self =
        Self { small_slots: 2048, small_size: 2048, large_slots: 16, large_size: 69_632 };
    /// For datagrams.
    pub const DATAGRAMS: Self =
        Self { small_slots: 1024, small_size: 2048, large_slots: 64, large_size: 69_632 };

    /// Slots of both classes.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.small_slots + self.large_slots
    }

    const fn desc_offset(&self) -> usize {
        WORDS_OFFSET + (self.slots() as usize * 8).next_multiple_of(64)
    }

    const fn buffers_offset(&self) -> usize {
        (self.desc_offset() + self.slots() as usize * DESC_STRIDE).next_multiple_of(4096)
    }

    /// Bytes of the whole pool.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.buffers_offset()
            + self.small_slots as usize * self.small_size as usize
            + self.large_slots as usize * self.large_size as usize
    }

    fn check(&self) -> Result<(), ShmError> {
        let fits = |n: u32| n > HEADROOM && n <= 1 << 20 && n.is_multiple_of(64);
        if self.small_slots > 1 << 20 || self.large_slots > 1 << 20 || self.slots() == 0 {
            return Err(ShmError::BadLayout("number of slots of a pool"));
        }
        if !fits(self.small_size) || !fits(self.large_size) {
            return Err(ShmError::BadLayout("size of a pool's slots"));
        }
        Ok(())
    }
}

/// The two classes of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeClass {
    /// One frame.
    Small,
    /// A super-frame.
    Large,
}

/// Makes a pool's memory.
///
/// # Errors
/// When the layout is impossible or the kernel refuses.
pub fn create(name: &str, layout: PoolLayout) -> Result<OwnedFd, ShmError> {
    layout.check()?;
    let fd = mapping::create(name, layout.size())?;
    let map = Mapping::map(&fd, layout.size(), true)?;
    let header: [u32; 6] = [
        abi::LAYOUT_VERSION,
        layout.small_slots,
        layout.small_size,
        layout.large_slots,
        layout.large_size,
        0,
    ];
    let ok = map.copy_in(8, header.as_bytes());
    let words = map
        .u64s_at(WORDS_OFFSET, layout.slots() as usize)
        .ok_or(ShmError::BadLayout("words of a pool"))?;
    for word in words {
        word.store(owner::pack(1, ServiceId::NOBODY), Ordering::Relaxed);
    }
    match map.u64_at(0) {
        Some(magic) if ok => magic.store(MAGIC, Ordering::Release),
        _ => return Err(ShmError::BadLayout("header of a pool")),
    }
    Ok(fd)
}

/// An attached pool. It stays mapped until the process ends, so that [`SkBuff`]s can refer to
/// it without counting.
#[derive(Debug)]
pub struct Pool {
    id: PoolId,
    map: Mapping,
    layout: PoolLayout,
}

impl Pool {
    /// Maps the pool in `fd` for the life of the process.
    ///
    /// # Errors
    /// When it is not a sealed pool of this layout version.
    pub fn attach(id: PoolId, fd: &impl AsFd) -> Result<&'static Self, ShmError> {
        let map = Mapping::map(fd, WORDS_OFFSET, true)?;
        let mut header = [0u32; 6];
        let magic = map.u64_at(0).map_or(0, |w| w.load(Ordering::Acquire));
        let _ = map.copy_out(8, header.as_mut_bytes());
        let [version, small_slots, small_size, large_slots, large_size, _] = header;
        if magic != MAGIC {
            return Err(ShmError::Layout { what: "pool", found: magic, expected: MAGIC });
        }
        if version != abi::LAYOUT_VERSION {
            return Err(ShmError::Layout {
                what: "pool",
                found: version.into(),
                expected: abi::LAYOUT_VERSION.into(),
            });
        }
        let layout = PoolLayout { small_slots, small_size, large_slots, large_size };
        layout.check()?;
        if layout.size() > map.len() {
            return Err(ShmError::TooSmall { have: map.len(), want: layout.size() });
        }
        Ok(Box::leak(Box::new(Self { id, map, layout })))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Its slots.
    #[must_use]
    pub fn layout(&self) -> PoolLayout {
        self.layout
    }

    /// The mapping; buffers are the part that fragments with this pool's region point into.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.map
    }

    pub(crate) fn word(&self, slot: u32) -> Option<&crate::sync::AtomicU64> {
        if slot >= self.layout.slots() {
            return None;
        }
        self.map.u64_at(WORDS_OFFSET + slot as usize * 8)
    }

    /// Offset in the mapping and size of a slot's buffer.
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

    pub(crate) fn buffer(&self, slot: u32) -> Option<(NonNull<u8>, u32)> {
        let (offset, size) = self.buffer_range(slot)?;
        Some((self.map.pointer(offset, size as usize)?, size))
    }

    pub(crate) fn read_desc(&self, slot: u32) -> Option<SkBuffDesc> {
        let mut bytes = [0u8; size_of::<SkBuffDesc>()];
        let at = self.layout.desc_offset() + slot as usize * DESC_STRIDE;
        if !self.map.copy_out(at, &mut bytes) {
            return None;
        }
        SkBuffDesc::read_from_bytes(&bytes).ok()
    }

    pub(crate) fn write_desc(&self, slot: u32, desc: &SkBuffDesc) {
        let at = self.layout.desc_offset() + slot as usize * DESC_STRIDE;
        let _ = self.map.copy_in(at, desc.as_bytes());
    }

    /// Who owns a slot now, with its generation.
    #[must_use]
    pub fn owner_of(&self, slot: u32) -> Option<(u32, ServiceId)> {
        let w = self.word(slot)?.load(Ordering::Acquire);
        Some((owner::generation(w), owner::owner(w)))
    }

    /// Slots that are free at the moment.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        (0..self.layout.slots())
            .map(|s| u32::from(matches!(self.owner_of(s), Some((_, ServiceId::NOBODY)))))
            .sum()
    }

    /// Takes over the slot of `handle` (and the extra slot its descriptor names) from `from`.
    ///
    /// The extra slot is claimed first: should the claimer die between the two, the extra is
    /// swept as its own, and the successor that pops the handle finds the packet incomplete and
    /// frees the rest. Nothing is lost but the packet.
    ///
    /// # Errors
    /// [`PeerFault`] when the handle is stale, forged or its descriptor malformed; then the slot
    /// is freed if it was `from`'s to give, otherwise left alone.
    pub fn claim(
        &'static self,
        handle: Handle,
        from: ServiceId,
        me: ServiceId,
    ) -> Result<SkBuff, PeerFault> {
        let slot = handle.slot();
        let word = self.word(slot).ok_or(PeerFault::BadSlot(handle))?;
        if word.load(Ordering::Acquire) != owner::pack(handle.generation(), from) {
            return Err(PeerFault::Stale(handle));
        }
        let desc = self.read_desc(slot).ok_or(PeerFault::BadSlot(handle))?;
        let extra = Handle(desc.extra);
        let extra_ok = extra.is_none()
            || (extra.pool() == self.id
                && extra.slot() != slot
                && self
                    .word(extra.slot())
                    .is_some_and(|w| owner::transfer(w, extra.generation(), from, me)));
        if !owner::transfer(word, handle.generation(), from, me) {
            if !extra.is_none() && extra_ok {
                self.free_slot(extra, me);
            }
            return Err(PeerFault::Stale(handle));
        }
        let valid = extra_ok && SkBuff::validate(&desc, self.buffer_range(slot));
        let skb = SkBuff::from_claimed(self, handle, me, desc, valid, extra_ok);
        if valid { Ok(skb) } else { Err(PeerFault::Descriptor(handle)) }
    }

    /// Frees one slot that is `me`'s; false if it was not.
    pub(crate) fn free_slot(&self, handle: Handle, me: ServiceId) -> bool {
        self.word(handle.slot()).is_some_and(|w| owner::free(w, handle.generation(), me))
    }
}

/// The allocating side of a pool: hints of free slots, refilled by a look at the words.
#[derive(Debug)]
pub struct Allocator {
    pool: &'static Pool,
    me: ServiceId,
    small: Hints,
    large: Hints,
}

#[derive(Debug)]
struct Hints {
    free: Vec<u32>,
    first: u32,
    count: u32,
}

/// Slots looked up at once when the hints run out.
const REFILL: usize = 64;

impl Hints {
    fn refill(&mut self, pool: &Pool) {
        // Lowest slots first: what was used last is likely still in the cache.
        let end = self.first + self.count;
        let free = (self.first..end)
            .filter(|&s| matches!(pool.owner_of(s), Some((_, ServiceId::NOBODY))))
            .take(REFILL);
        self.free.clear();
        self.free.extend(free);
        self.free.reverse();
    }

    fn take(&mut self, pool: &'static Pool, me: ServiceId) -> Option<Handle> {
        for round in 0..2 {
            while let Some(slot) = self.free.pop() {
                if let Some(generation) = pool.word(slot).and_then(|w| owner::allocate(w, me)) {
                    return Some(Handle::new(pool.id, slot, generation));
                }
            }
            if round == 0 {
                self.refill(pool);
            }
        }
        None
    }
}

impl Allocator {
    /// The allocator of `pool` for the service that owns it.
    #[must_use]
    pub fn new(pool: &'static Pool, me: ServiceId) -> Self {
        let l = pool.layout;
        let hints =
            |first, count| Hints { free: Vec::with_capacity(REFILL), first, count };
        Self { pool, me, small: hints(0, l.small_slots), large: hints(l.small_slots, l.large_slots) }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// A fresh sk_buff with [`HEADROOM`] reserved; none when the class is used up.
    #[must_use]
    pub fn alloc(&mut self, class: SizeClass) -> Option<SkBuff> {
        let hints = match class {
            SizeClass::Small => &mut self.small,
            SizeClass::Large => &mut self.large,
        };
        let handle = hints.take(self.pool, self.me)?;
        Some(SkBuff::fresh(self.pool, handle, self.me))
    }
}
