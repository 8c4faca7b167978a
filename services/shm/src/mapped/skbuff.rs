//! A slot that this process owns, with its private, validated copy of the descriptor.
//!
//! Dropping it frees the slot; [`SkBuff::into_handle`] writes the descriptor back and gives the
//! slot up for publishing in a ring.
#![allow(
    unsafe_code,
    reason = "makes slices of slots that are exclusively owned"
)]

mod frags;

pub use crate::mapped::validate::MAX_LEN;

use crate::mapped::pool::Pool;
use crate::slots::{Taken, Use};
use abi::skbuff::{HEADROOM, OFFSET_NONE, SkBuffDesc};
use abi::{Handle, ServiceId};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// An owned packet.
#[derive(Debug)]
pub struct SkBuff {
    pool: &'static Pool,
    of: Use,
    /// The second slot of the packet. It is here and not in `desc`, where anyone could change it.
    extra: Option<Use>,
    me: ServiceId,
    head: NonNull<u8>,
    end: u32,
    /// The descriptor. It was validated, but its owner may have changed it since
    /// ([`SkBuff::desc_mut`]), so offsets are clamped where they are used.
    desc: SkBuffDesc,
}

// SAFETY: the value is the only one through which this process touches the slot; moving it to
// another thread moves that exclusive right.
unsafe impl Send for SkBuff {}

/// An sk_buff whose slot is not owned yet: nothing is freed when it is dropped.
#[derive(Debug)]
pub(crate) struct Unowned(ManuallyDrop<SkBuff>);

impl Unowned {
    #[inline]
    fn new(pool: &'static Pool, slot: u32, me: ServiceId) -> Self {
        let (head, end) = pool.buffer(slot).unwrap_or((NonNull::dangling(), 0));
        let of = Use {
            slot,
            generation: 0,
        };
        let desc = SkBuffDesc::default();
        Self(ManuallyDrop::new(SkBuff {
            pool,
            of,
            extra: None,
            me,
            head,
            end,
            desc,
        }))
    }

    /// Where the descriptor is read to.
    #[inline]
    pub(crate) fn read_into(&mut self) -> &mut SkBuffDesc {
        &mut self.0.desc
    }

    #[inline]
    pub(crate) fn desc(&self) -> &SkBuffDesc {
        &self.0.desc
    }

    /// The slots are this process's now, and the descriptor was found possible.
    #[inline]
    pub(crate) fn own(mut self, taken: Taken) -> SkBuff {
        self.0.of = taken.head;
        self.0.extra = taken.extra;
        self.0.hold(true);
        ManuallyDrop::into_inner(self.0)
    }
}

impl SkBuff {
    /// A slot just allocated, empty.
    #[inline]
    pub(crate) fn fresh(pool: &'static Pool, of: Use, me: ServiceId) -> Self {
        let mut skb = Unowned::new(pool, of.slot, me);
        skb.0.desc.data = HEADROOM.min(skb.0.end);
        skb.0.desc.tail = skb.0.desc.data;
        skb.own(Taken {
            head: of,
            extra: None,
            incomplete: false,
        })
    }

    /// The place of a packet about to be taken over.
    #[inline]
    pub(crate) fn unowned(pool: &'static Pool, slot: u32, me: ServiceId) -> Unowned {
        Unowned::new(pool, slot, me)
    }

    /// The handle of this use of the slot. It changes each time the packet is handed on;
    /// [`Handle::packet`] does not.
    #[inline]
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.pool.id(), self.of.slot, self.of.generation)
    }

    /// Notes for this process that it has the slots, or has not.
    #[inline]
    fn hold(&self, held: bool) {
        self.pool.hold(self.of.slot, held);
        if let Some(extra) = self.extra {
            self.pool.hold(extra.slot, held);
        }
    }

    fn extra_handle(&self) -> Handle {
        self.extra.map_or(Handle::NONE, |e| {
            Handle::new(self.pool.id(), e.slot, e.generation)
        })
    }

    /// The descriptor, for reading.
    #[inline]
    #[must_use]
    pub fn desc(&self) -> &SkBuffDesc {
        &self.desc
    }

    /// The descriptor's metadata, for writing. `data`, `tail` and fragments are changed by the
    /// methods: what is set here to an impossible value is refused by the next layer. `extra` is
    /// not looked at.
    #[inline]
    pub fn desc_mut(&mut self) -> &mut SkBuffDesc {
        &mut self.desc
    }

    #[inline]
    fn data(&self) -> u32 {
        self.desc.data.min(self.end)
    }

    #[inline]
    fn tail(&self) -> u32 {
        self.desc.tail.clamp(self.data(), self.end)
    }

    /// Bytes before the data.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.data() as usize
    }

    /// Bytes behind the linear data.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        (self.end - self.tail()) as usize
    }

    /// Offset of the data from the buffer's start.
    #[inline]
    #[must_use]
    pub fn data_offset(&self) -> u32 {
        self.data()
    }

    /// Bytes of linear data.
    #[inline]
    #[must_use]
    pub fn linear_len(&self) -> usize {
        (self.tail() - self.data()) as usize
    }

    /// Bytes in all.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.linear_len() + self.frag_len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The linear data.
    #[inline]
    #[must_use]
    pub fn linear(&self) -> &[u8] {
        self.range(self.data(), self.tail())
    }

    /// The linear data, for writing.
    #[inline]
    #[must_use]
    pub fn linear_mut(&mut self) -> &mut [u8] {
        let len = self.linear_len();
        let start = self.at(self.data());
        // SAFETY: data <= tail <= end, so the bytes are inside the slot's buffer, which this
        // value owns alone (ownership word) and which stays mapped for the life of the process;
        // a hostile process that writes it all the same can only garble the bytes.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// The byte at `offset` of the buffer, cut to one past its end.
    #[inline]
    fn at(&self, offset: u32) -> *mut u8 {
        // SAFETY: the buffer has `end` bytes, so this is inside it or one past it.
        unsafe { self.head.as_ptr().add(offset.min(self.end) as usize) }
    }

    #[inline]
    fn range(&self, from: u32, to: u32) -> &[u8] {
        let to = to.min(self.end);
        let from = from.min(to);
        let start = self.at(from);
        // SAFETY: from <= to <= end; see `linear_mut`.
        unsafe { std::slice::from_raw_parts(start, (to - from) as usize) }
    }

    /// The bytes from a header offset (mac, network, transport) to the end of the linear data;
    /// empty when the offset is not set or lies behind it. Headers that were pulled are still
    /// there: offsets count from the buffer's start.
    #[inline]
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
    #[inline]
    pub fn push(&mut self, n: usize) -> Option<&mut [u8]> {
        let data = self.data();
        let n32 = u32::try_from(n).ok()?;
        self.desc.data = data.checked_sub(n32)?;
        self.linear_mut().get_mut(..n)
    }

    /// Takes `n` bytes off the front of the linear data; false when there are fewer.
    #[inline]
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
    #[inline]
    pub fn put(&mut self, n: usize) -> Option<&mut [u8]> {
        let before = self.linear_len();
        if n > self.tailroom() {
            return None;
        }
        self.desc.tail = self.tail() + u32::try_from(n).ok()?;
        self.linear_mut().get_mut(before..)
    }

    /// Moves the start of the data to `reserve` bytes behind the buffer's start; only on an
    /// empty sk_buff.
    pub fn reserve(&mut self, reserve: u32) {
        if self.is_empty() {
            self.desc.data = reserve.min(self.end);
            self.desc.tail = self.desc.data;
        }
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
        (self.at(self.tail()), self.tailroom())
    }

    /// Writes the descriptor back and gives the value up without freeing the slot: it stays
    /// owned by this process until the consumer of the ring claims it.
    #[inline]
    #[must_use]
    pub fn into_handle(mut self) -> Handle {
        self.desc.extra = self.extra_handle().0;
        self.pool.write_desc(self.of.slot, &self.desc);
        let handle = self.handle();
        self.hold(false);
        std::mem::forget(self);
        handle
    }

    /// Takes a handle back that was not published after all; none when it was (and is claimed),
    /// or was taken back before.
    ///
    /// Only for handles that [`SkBuff::into_handle`] of this process gave.
    #[must_use]
    pub fn reclaim(pool: &'static Pool, handle: Handle, me: ServiceId) -> Option<Self> {
        pool.take(handle, me, me).ok()
    }
}

impl Drop for SkBuff {
    #[inline]
    fn drop(&mut self) {
        self.hold(false);
        // Each is its own step: should the process die in between, the other is swept.
        self.pool.slots().free(self.of, self.me);
        if let Some(extra) = self.extra {
            self.pool.slots().free(extra, self.me);
        }
    }
}
