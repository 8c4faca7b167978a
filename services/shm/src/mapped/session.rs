//! Session memory: the buffers and words of one application's sockets. Layout in
//! [`abi::session`].
//!
//! Both sides use this type. What the other side may write is loaded once; the caller validates
//! positions against what it knows (its committed record, or its own position).

use crate::dirty::Dirty;
use crate::error::ShmError;
use crate::mapped::mapping::{self, Mapping};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use abi::session::{CONTROL_OFFSET, CONTROL_SIZE, MAX_SOCKETS, SESSION_MAGIC, header};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Sizes of a session memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLayout {
    /// Sockets.
    pub sockets: u32,
    /// Capacity of each send buffer, a power of two of at least a page.
    pub tx_capacity: u32,
    /// Capacity of each receive buffer, likewise.
    pub rx_capacity: u32,
}

impl SessionLayout {
    const fn buffers_offset(&self) -> usize {
        (CONTROL_OFFSET + self.sockets as usize * CONTROL_SIZE).next_multiple_of(4096)
    }

    /// Bytes of the memfd (sparse).
    #[must_use]
    pub const fn size(&self) -> usize {
        self.buffers_offset()
            + self.sockets as usize * (self.tx_capacity as usize + self.rx_capacity as usize)
    }

    fn check(&self) -> Result<(), ShmError> {
        let fits = |c: u32| c.is_power_of_two() && (4096..=1 << 26).contains(&c);
        if self.sockets == 0 || self.sockets > MAX_SOCKETS {
            return Err(ShmError::BadLayout("number of sockets of a session"));
        }
        if !fits(self.tx_capacity) || !fits(self.rx_capacity) {
            return Err(ShmError::BadLayout("buffer sizes of a session"));
        }
        Ok(())
    }
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

    /// Offset in the mapping of a socket's send buffer.
    #[must_use]
    pub fn tx_offset(&self, slot: u32) -> Option<usize> {
        let each = self.layout.tx_capacity as usize + self.layout.rx_capacity as usize;
        (slot < self.layout.sockets).then(|| self.layout.buffers_offset() + slot as usize * each)
    }

    /// Offset in the mapping of a socket's receive buffer.
    #[must_use]
    pub fn rx_offset(&self, slot: u32) -> Option<usize> {
        self.tx_offset(slot)
            .map(|o| o + self.layout.tx_capacity as usize)
    }

    /// Up to two runs (offset in the mapping, length) that hold `len` bytes of the send buffer
    /// from `position` on; none when `len` exceeds the capacity.
    #[must_use]
    pub fn tx_runs(&self, slot: u32, position: u64, len: usize) -> Option<[(usize, usize); 2]> {
        Self::runs(
            self.tx_offset(slot)?,
            self.layout.tx_capacity as usize,
            position,
            len,
        )
    }

    /// Likewise of the receive buffer.
    #[must_use]
    pub fn rx_runs(&self, slot: u32, position: u64, len: usize) -> Option<[(usize, usize); 2]> {
        Self::runs(
            self.rx_offset(slot)?,
            self.layout.rx_capacity as usize,
            position,
            len,
        )
    }

    fn runs(
        base: usize,
        capacity: usize,
        position: u64,
        len: usize,
    ) -> Option<[(usize, usize); 2]> {
        if len > capacity {
            return None;
        }
        let at = usize::try_from(position & (capacity as u64 - 1)).ok()?;
        let first = len.min(capacity - at);
        Some([(base + at, first), (base, len - first)])
    }

    /// Application: says that a socket's words changed; answers whether the transport's doorbell
    /// must be rung.
    #[must_use]
    pub fn mark_dirty(&self, slot: u32) -> bool {
        slot < self.layout.sockets && self.dirty().is_some_and(|d| d.mark(slot))
    }

    fn dirty(&self) -> Option<Dirty<'_>> {
        Some(Dirty {
            summary: self.map.u64_at(header::DIRTY_SUMMARY)?,
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
