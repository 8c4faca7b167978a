//! Session memory: the buffers and words of one application's sockets. Layout in
//! [`abi::session`].
//!
//! Both buffers use this type. What the other buffer may write is loaded once; the caller validates
//! positions against what it knows (its committed record, or its own position).

use crate::crash::{self, Point};
use crate::dirty::Dirty;
use crate::error::ShmError;
use crate::mapped::mapping::{self, Mapping};
use crate::mapped::session_layout::SessionLayout;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use abi::session::{
    CONTROL_OFFSET, CONTROL_SIZE, MAX_SOCKETS, Ring, Rings, SESSION_MAGIC, control, header,
};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Which of a socket's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The send buffer.
    Tx,
    /// The receive buffer.
    Rx,
}

/// Makes a session memory.
///
/// # Errors
/// When the sizes are impossible or the kernel refuses.
pub fn create(name: &str, layout: SessionLayout) -> Result<OwnedFd, ShmError> {
    layout.check()?;
    let fd = mapping::create(name, layout.size())?;
    let map = Mapping::map(&fd, layout.size(), true)?;
    let words = [
        (header::VERSION, abi::LAYOUT_VERSION),
        (header::SOCKETS, layout.sockets),
        (header::TX_CAPACITY, layout.tx_capacity),
        (header::RX_CAPACITY, layout.rx_capacity),
        (header::BASE, layout.base),
        (header::WINDOWS, layout.windows),
        (header::ARMED, 1),
    ];
    for (offset, value) in words {
        let bad = ShmError::BadLayout("header of a session");
        map.u32_at(offset)
            .ok_or(bad)?
            .store(value, Ordering::Relaxed);
    }
    let bad = ShmError::BadLayout("header of a session");
    map.u64_at(header::MAGIC)
        .ok_or(bad)?
        .store(SESSION_MAGIC, Ordering::Release);
    Ok(fd)
}

/// An attached session memory.
#[derive(Debug, Clone)]
pub struct SessionMemory {
    map: Arc<Mapping>,
    layout: SessionLayout,
}

impl SessionMemory {
    /// Application: attaches and believes the header's sizes (they decide only where in its own
    /// mapping it looks; all access is checked).
    ///
    /// # Errors
    /// When it is not a sealed session memory of this version.
    pub fn attach(fd: &impl AsFd) -> Result<Self, ShmError> {
        let map = Mapping::map(fd, CONTROL_OFFSET, true)?;
        let magic = map
            .u64_at(header::MAGIC)
            .map_or(0, |w| w.load(Ordering::Acquire));
        if magic != SESSION_MAGIC {
            return Err(ShmError::Layout {
                what: "session",
                found: magic,
                expected: SESSION_MAGIC,
            });
        }
        let word = |offset| map.u32_at(offset).map_or(0, |w| w.load(Ordering::Relaxed));
        if word(header::VERSION) != abi::LAYOUT_VERSION {
            return Err(ShmError::Layout {
                what: "session",
                found: word(header::VERSION).into(),
                expected: abi::LAYOUT_VERSION.into(),
            });
        }
        let layout = SessionLayout {
            sockets: word(header::SOCKETS),
            tx_capacity: word(header::TX_CAPACITY),
            rx_capacity: word(header::RX_CAPACITY),
            base: word(header::BASE),
            windows: word(header::WINDOWS),
        };
        Self::with(map, layout)
    }

    /// Transport: attaches with the sizes it made the memory with, whatever the header says now.
    ///
    /// # Errors
    /// When the memory is not sealed or too small.
    pub fn attach_as(fd: &impl AsFd, layout: SessionLayout) -> Result<Self, ShmError> {
        Self::with(Mapping::map(fd, layout.size(), true)?, layout)
    }

    fn with(map: Mapping, layout: SessionLayout) -> Result<Self, ShmError> {
        layout.check()?;
        if layout.size() > map.len() {
            return Err(ShmError::TooSmall {
                have: map.len(),
                want: layout.size(),
            });
        }
        Ok(Self {
            map: Arc::new(map),
            layout,
        })
    }

    /// The sizes.
    #[must_use]
    pub fn layout(&self) -> SessionLayout {
        self.layout
    }

    /// The mapping.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// A 32-bit word of a socket's control block; see [`abi::session::control`].
    #[must_use]
    pub fn u32(&self, slot: u32, word: usize) -> Option<&AtomicU32> {
        self.control(slot, word).and_then(|o| self.map.u32_at(o))
    }

    /// A 64-bit word of a socket's control block.
    #[must_use]
    pub fn u64(&self, slot: u32, word: usize) -> Option<&AtomicU64> {
        self.control(slot, word).and_then(|o| self.map.u64_at(o))
    }

    fn control(&self, slot: u32, word: usize) -> Option<usize> {
        (slot < self.layout.sockets && word < CONTROL_SIZE)
            .then(|| CONTROL_OFFSET + slot as usize * CONTROL_SIZE + word)
    }

    /// Offset in the mapping of the part of its send buffer that a socket has for itself.
    #[must_use]
    pub fn tx_offset(&self, slot: u32) -> Option<usize> {
        let each = self.layout.tx_base() as usize + self.layout.rx_base() as usize;
        (slot < self.layout.sockets).then(|| self.layout.buffers_offset() + slot as usize * each)
    }

    /// Likewise of its receive buffer.
    #[must_use]
    pub fn rx_offset(&self, slot: u32) -> Option<usize> {
        self.tx_offset(slot)
            .map(|o| o + self.layout.tx_base() as usize)
    }

    /// Offset in the mapping of a window; `number` counts from 1, as in
    /// [`abi::session::Rings::window`].
    #[must_use]
    pub fn window_offset(&self, number: u32) -> Option<usize> {
        let index = number.checked_sub(1).filter(|&i| i < self.layout.windows)?;
        Some(self.layout.windows_offset() + index as usize * self.layout.window_size())
    }

    /// The piece of the mapping (offset, length) that begins with a socket's byte at `position`;
    /// none when there is no such slot or window, or the ring knows no place for it.
    #[must_use]
    pub fn piece(
        &self,
        slot: u32,
        buffer: Buffer,
        rings: &Rings,
        position: u64,
    ) -> Option<(usize, usize)> {
        let layout = &self.layout;
        let (ring, base, capacity, start) = match buffer {
            Buffer::Tx => (
                &rings.tx,
                layout.tx_base(),
                layout.tx_capacity,
                self.tx_offset(slot)?,
            ),
            Buffer::Rx => (
                &rings.rx,
                layout.rx_base(),
                layout.rx_capacity,
                self.rx_offset(slot)?,
            ),
        };
        let stretch = ring.stretch(position)?;
        let at = usize::try_from(stretch.at).ok()?;
        let len = usize::try_from(stretch.len).ok()?;
        let (base, capacity) = (base as usize, capacity as usize);
        if at < base {
            return Some((start + at, len.min(base - at)));
        }
        if at + len > capacity {
            return None;
        }
        let window = self.window_offset(rings.window)?;
        let skip = match buffer {
            Buffer::Tx => 0,
            Buffer::Rx => (layout.tx_capacity - layout.tx_base()) as usize,
        };
        Some((window + skip + at - base, len))
    }

    /// Calls `each` with the pieces that hold `len` bytes of a buffer from `position` on, in
    /// order. False when one is not there or `each` says so.
    #[must_use]
    pub fn pieces(
        &self,
        slot: u32,
        buffer: Buffer,
        rings: &Rings,
        mut position: u64,
        mut len: usize,
        mut each: impl FnMut(usize, usize) -> bool,
    ) -> bool {
        while len > 0 {
            let Some((at, n)) = self.piece(slot, buffer, rings, position) else {
                return false;
            };
            let n = n.min(len);
            if n == 0 || !each(at, n) {
                return false;
            }
            position = position.wrapping_add(n as u64);
            len -= n;
        }
        true
    }

    /// The rings as published. Load the positions that they are wanted for before.
    #[must_use]
    pub fn rings(&self, slot: u32) -> Rings {
        let load = |word| {
            self.u64(slot, word)
                .map_or(0, |w| w.load(Ordering::Acquire))
        };
        let ring = |word| Ring::from_words([load(word), load(word + 8)]);
        Rings {
            tx: ring(control::TX_RING),
            rx: ring(control::RX_RING),
            window: self
                .u32(slot, control::WINDOW)
                .map_or(0, |w| w.load(Ordering::Acquire)),
            reserved: 0,
        }
    }

    /// Transport: publishes the rings of its committed record. Follow with the positions that
    /// need them.
    pub fn set_rings(&self, slot: u32, rings: &Rings) {
        if let Some(w) = self.u32(slot, control::WINDOW) {
            // Release: what the window held before is gone.
            w.store(rings.window, Ordering::Release);
        }
        crash::reach(Point::RingsHalfShown);
        for (word, ring) in [(control::TX_RING, &rings.tx), (control::RX_RING, &rings.rx)] {
            for (at, value) in [word, word + 8].into_iter().zip(ring.words()) {
                if let Some(w) = self.u64(slot, at) {
                    // Release: pairs with the Acquire of `rings`.
                    w.store(value, Ordering::Release);
                }
            }
        }
    }

    /// Application: says that a socket's words changed; answers whether the transport's doorbell
    /// must be rung.
    #[must_use]
    pub fn mark_dirty(&self, slot: u32) -> bool {
        slot < self.layout.sockets && self.dirty().is_some_and(|d| d.mark(slot))
    }

    fn dirty(&self) -> Option<Dirty<'_>> {
        Some(Dirty {
            summary: self
                .map
                .u64s_at(header::DIRTY_SUMMARY, MAX_SOCKETS as usize / (64 * 64))?,
            bits: self.map.u64s_at(header::DIRTY, MAX_SOCKETS as usize / 64)?,
            armed: self.map.u32_at(header::ARMED)?,
        })
    }

    /// Transport: takes the sockets marked since the last call. What was taken and not worked on
    /// is lost when the transport dies: a successor looks at every socket once.
    pub fn take_dirty(&self, mut each: impl FnMut(u32)) {
        if let Some(dirty) = self.dirty() {
            dirty.take(|slot| {
                if slot < self.layout.sockets {
                    each(slot);
                }
            });
        }
    }

    /// Transport: whether anything is marked.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty().is_some_and(|d| d.any())
    }

    /// Transport: wants to be rung (before sleeping) or not (awake). After arming all sessions,
    /// fence with [`std::sync::atomic::Ordering::SeqCst`] and look at [`Self::is_dirty`] again.
    pub fn set_armed(&self, armed: bool) {
        if let Some(dirty) = self.dirty() {
            dirty.set_armed(armed);
        }
    }
}
