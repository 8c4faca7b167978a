//! A slot that this process owns, with its private, validated copy of the descriptor.
//!
//! Dropping it frees the slot; [`SkBuff::into_handle`] writes the descriptor back and gives the
//! slot up for publishing in a ring.
#![allow(unsafe_code, reason = "makes slices of slots that are exclusively owned")]

use crate::mapped::pool::Pool;
use abi::skbuff::{Frag, HEADROOM, MAX_FRAGS, OFFSET_NONE, SkBuffDesc};
use abi::{Handle, RegionId, ServiceId};
use std::ptr::NonNull;

/// An owned packet.
#[derive(Debug)]
pub struct SkBuff {
    pool: &'static Pool,
    handle: Handle,
    me: ServiceId,
    head: NonNull<u8>,
    end: u32,
    /// The descriptor; offsets inside it have been checked, and every method keeps them so.
    desc: SkBuffDesc,
}

// SAFETY: the value is the only one through which this process touches the slot; moving it to
// another thread moves that exclusive right.
unsafe impl Send for SkBuff {}

impl SkBuff {
    pub(crate) fn fresh(pool: &'static Pool, handle: Handle, me: ServiceId) -> Self {
        let (head, end) = pool.buffer(handle.slot()).unwrap_or((NonNull::dangling(), 0));
        let mut desc = SkBuffDesc::default();
        desc.data = HEADROOM.min(end);
        desc.tail = desc.data;
        Self { pool, handle, me, head, end, desc }
    }

    pub(crate) fn from_claimed(
        pool: &'static Pool,
        handle: Handle,
        me: ServiceId,
        mut desc: SkBuffDesc,
        valid: bool,
        extra_ok: bool,
    ) -> Self {
        let mut this = Self::fresh(pool, handle, me);
        if !extra_ok {
            desc.extra = 0;
        }
        if valid {
            this.desc = desc;
        } else {
            this.desc.extra = desc.extra;
        }
        this
    }

    /// Whether a descriptor's offsets and fragments are possible for the slot.
    pub(crate) fn validate(d: &SkBuffDesc, buffer: Option<(usize, u32)>) -> bool {
        let Some((_, end)) = buffer else { return false };
        let offset_ok = |o: u16| o == OFFSET_NONE || u32::from(o) <= end;
        d.data <= d.tail
            && d.tail <= end
            && offset_ok(d.mac)
            && offset_ok(d.network)
            && offset_ok(d.transport)
            && usize::from(d.nr_frags) <= MAX_FRAGS
            && d.frags
                .iter()
                .take(usize::from(d.nr_frags))
                .all(|f| f.len <= 1 << 20 && f.offset.checked_add(f.len.into()).is_some())
    }

    /// The handle.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The descriptor, for reading.
    #[must_use]
    pub fn desc(&self) -> &SkBuffDesc {
        &self.desc
    }

    /// The descriptor's metadata, for writing. `data`, `tail`, `extra` and fragments are changed by the
    /// methods only: what is set here to an impossible value is refused by the next layer.
    pub fn desc_mut(&mut self) -> &mut SkBuffDesc {
        &mut self.desc
    }

    fn data(&self) -> u32 {
        self.desc.data.min(self.end)
    }

    fn tail(&self) -> u32 {
        self.desc.tail.clamp(self.data(), self.end)
    }

    /// Bytes before the data.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.data() as usize
    }

    /// Bytes behind the linear data.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        (self.end - self.tail()) as usize
    }

    /// Offset of the data from the buffer's start.
    #[must_use]
    pub fn data_offset(&self) -> u32 {
        self.data()
    }

    /// Bytes of linear data.
    #[must_use]
    pub fn linear_len(&self) -> usize {
        (self.tail() - self.data()) as usize
    }

    /// Bytes in fragments.
    #[must_use]
    pub fn frag_len(&self) -> usize {
        self.frags().iter().map(|f| f.len as usize).sum()
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.linear_len() + self.frag_len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The valid fragments.
    #[must_use]
    pub fn frags(&self) -> &[Frag] {
        self.desc.frags.get(..usize::from(self.desc.nr_frags)).unwrap_or(&[])
    }

    /// The linear data.
    #[must_use]
    pub fn linear(&self) -> &[u8] {
        self.range(self.data(), self.tail())
    }

    /// The linear data, for writing.
    pub fn linear_mut(&mut self) -> &mut [u8] {
        let (from, to) = (self.data(), self.tail());
        // SAFETY: from <= to <= end, inside the slot's buffer, which this value owns alone
        // (ownership word) and which stays mapped for the life of the process; a hostile
        // process that writes it all the same can only garble the bytes.
        unsafe {
            std::slice::from_raw_parts_mut(self.head.as_ptr().add(from as usize), (to - from) as usize)
        }
    }

    fn range(&self, from: u32, to: u32) -> &[u8] {
        debug_assert!(from <= to && to <= self.end);
        // SAFETY: callers pass from <= to <= end; see `linear_mut`.
        unsafe {
            std::slice::from_raw_parts(self.head.as_ptr().add(from as usize), (to - from) as usize)
        }
    }

    /// The bytes from a header offset (mac, network, transport) to the end of the linear data;
    /// empty when the offset is not set or lies behind it. Headers that were pulled are still
    /// there: offsets count from the buffer's start.
    #[must_use]
    pub fn from_offset(&self, offset: u16) -> &[u8] {
        let from = u32::from(offset);
        if offset == OFFSET_NONE || from > self.tail() {
            return &[];
        }
        self.range(from, self.tail())
    }

    /// Prepends `n` bytes (a header) and answers them for writing; none when there is no
    /// headroom.
    pub fn push(&mut self, n: usize) -> Option<&mut [u8]> {
        let data = self.data();
        let n32 = u32::try_from(n).ok()?;
        self.desc.data = data.checked_sub(n32)?;
        self.linear_mut().get_mut(..n)
    }

    /// Takes `n` bytes off the front of the linear data; false when there are fewer.
    pub fn pull(&mut self, n: usize) -> bool {
        match u32::try_from(n) {
            Ok(n32) if n <= self.linear_len() => {
                self.desc.data = self.data() + n32;
                true
            }
            _ => false,
        }
    }

    /// Appends `n` bytes to the linear data and answers them for writing; none when there is no
    /// tailroom. The bytes are what was there before.
    pub fn put(&mut self, n: usize) -> Option<&mut [u8]> {
        let before = self.linear_len();
        if n > self.tailroom() {
            return None;
        }
        self.desc.tail = self.tail() + u32::try_from(n).ok()?;
        self.linear_mut().get_mut(before..)
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
        for f in self.desc.frags.iter_mut().take(usize::from(self.desc.nr_frags)) {
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

    /// Moves the start of the data to `reserve` bytes behind the buffer's start; only on an
    /// empty sk_buff.
    pub fn reserve(&mut self, reserve: u32) {
        if self.is_empty() {
            self.desc.data = reserve.min(self.end);
            self.desc.tail = self.desc.data;
        }
    }

    /// Adds a fragment behind the others; false when there is no place.
    pub fn add_frag(&mut self, region: RegionId, offset: u64, len: u32) -> bool {
        let Some(place) = self.desc.frags.get_mut(usize::from(self.desc.nr_frags)) else {
            return false;
        };
        *place = Frag { region: region.0, len, offset };
        self.desc.nr_frags += 1;
        true
    }

    /// Makes `other`'s buffer the continuation of this one: its linear data becomes a fragment
    /// and its slot is freed with this one. Both must be of one pool; false (and `other` freed)
    /// when not, or when there is an extra already.
    pub fn attach_extra(&mut self, other: Self) -> bool {
        if !std::ptr::eq(self.pool, other.pool) || self.desc.extra != 0 || other.desc.extra != 0 {
            return false;
        }
        let Some((base, _)) = self.pool.buffer_range(other.handle.slot()) else { return false };
        let at = base as u64 + u64::from(other.data());
        let len = u32::try_from(other.linear_len()).unwrap_or(0);
        if !self.add_frag(RegionId::of_pool(self.pool.id()), at, len) {
            return false;
        }
        self.desc.extra = other.handle.0;
        std::mem::forget(other);
        true
    }

    /// The linear data's place for an iovec: (pointer, length).
    #[must_use]
    pub fn linear_ptr(&self) -> (*const u8, usize) {
        let l = self.linear();
        (l.as_ptr(), l.len())
    }

    /// The whole rest of the buffer behind the linear data, for a read from a device; follow
    /// with [`SkBuff::put`].
    pub fn tail_ptr(&mut self) -> (*mut u8, usize) {
        // SAFETY: tail <= end, so the pointer is inside the buffer or one past it.
        let p = unsafe { self.head.as_ptr().add(self.tail() as usize) };
        (p, self.tailroom())
    }

    /// Writes the descriptor back and gives the value up without freeing the slot: it stays
    /// owned by this process until the consumer of the ring claims it.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        self.pool.write_desc(self.handle.slot(), &self.desc);
        let handle = self.handle;
        std::mem::forget(self);
        handle
    }

    /// Takes a handle back that was not published after all.
    ///
    /// Only for handles that [`SkBuff::into_handle`] of this process gave.
    #[must_use]
    pub fn reclaim(pool: &'static Pool, handle: Handle, me: ServiceId) -> Option<Self> {
        match pool.owner_of(handle.slot()) {
            Some((g, o)) if g == handle.generation() && o == me => {
                let mut this = Self::fresh(pool, handle, me);
                let desc = pool.read_desc(handle.slot())?;
                if Self::validate(&desc, pool.buffer_range(handle.slot())) {
                    this.desc = desc;
                }
                Some(this)
            }
            _ => None,
        }
    }
}

impl Drop for SkBuff {
    fn drop(&mut self) {
        // The head first: should the process die in between, the extra is its own and swept.
        self.pool.free_slot(self.handle, self.me);
        let extra = Handle(self.desc.extra);
        if !extra.is_none() {
            self.pool.free_slot(extra, self.me);
        }
    }
}
