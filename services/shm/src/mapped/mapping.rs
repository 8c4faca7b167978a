//! A sealed memfd, mapped into this process.
//!
//! The mapping is made once and stays for the life of the process (a few are unmapped: regions
//! of applications that went away). Words are reached as atomics, bytes only by copying: nothing
//! hands out a plain reference into memory that another process may write, save a slot's owner
//! (`skbuff`), while nobody else has a right to it.
#![allow(
    unsafe_code,
    reason = "maps memory and turns checked offsets into pointers"
)]

use crate::error::ShmError;
use crate::sync::{AtomicU32, AtomicU64};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

/// Makes a memfd of `size` bytes (zeroes, taken from memory as they are touched), sealed
/// against growing, shrinking and further sealing.
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str, size: usize) -> Result<OwnedFd, ShmError> {
    let io = |what| move |source| ShmError::System { what, source };
    let memfd = memfd::MemfdOptions::default()
        .allow_sealing(true)
        .close_on_exec(true)
        .create(name)
        .map_err(|e| ShmError::System {
            what: "memfd_create",
            source: std::io::Error::other(e),
        })?;
    memfd
        .as_file()
        .set_len(size as u64)
        .map_err(io("ftruncate of a memfd"))?;
    memfd
        .add_seals(&[
            memfd::FileSeal::SealShrink,
            memfd::FileSeal::SealGrow,
            memfd::FileSeal::SealSeal,
        ])
        .map_err(|e| ShmError::System {
            what: "sealing a memfd",
            source: std::io::Error::other(e),
        })?;
    Ok(memfd.into_file().into())
}

/// A mapped region of shared memory.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the pointer is to a shared mapping that lives as long as the value; all access through
// `&self` is by atomics or by copying with bounds checked, from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `fd` whole, after checking that it is sealed against shrinking and at least
    /// `at_least` bytes long.
    ///
    /// # Errors
    /// When a check fails or the kernel refuses.
    pub fn map(fd: &impl AsFd, at_least: usize, writable: bool) -> Result<Self, ShmError> {
        let fd = fd.as_fd();
        let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|e| ShmError::System {
            what: "reading seals",
            source: e.into(),
        })?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(ShmError::NotSealed);
        }
        let stat = nix::sys::stat::fstat(fd).map_err(|e| ShmError::System {
            what: "fstat of a memfd",
            source: e.into(),
        })?;
        let have = usize::try_from(stat.st_size).unwrap_or(0);
        if have < at_least || have == 0 {
            return Err(ShmError::TooSmall {
                have,
                want: at_least,
            });
        }
        let len = NonZeroUsize::new(have).ok_or(ShmError::TooSmall {
            have,
            want: at_least,
        })?;
        let prot = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours,
        // and the shrink seal keeps every page of it valid.
        let base = unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, fd, 0) }.map_err(|e| {
            ShmError::System {
                what: "mmap",
                source: e.into(),
            }
        })?;
        Ok(Self {
            base: base.cast(),
            len: have,
            writable,
        })
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has at least a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it was mapped for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: offset <= len of the mapping, so the result stays inside it or one past it.
        Some(unsafe { self.base.add(offset) })
    }

    /// The 32-bit word at `offset` (aligned, inside, and the mapping writable or only loaded).
    #[inline]
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let p = self.check(offset, 4)?;
        // SAFETY: inside the mapping, aligned (mappings are page aligned), valid for as long as
        // `self`; every process accesses the word atomically or by racy copies of bytes.
        Some(unsafe { AtomicU32::from_ptr(p.as_ptr().cast()) })
    }

    /// The 64-bit word at `offset`, as [`Mapping::u32_at`].
    #[inline]
    #[must_use]
    pub fn u64_at(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) {
            return None;
        }
        let p = self.check(offset, 8)?;
        // SAFETY: as in `u32_at`.
        Some(unsafe { AtomicU64::from_ptr(p.as_ptr().cast()) })
    }

    /// `count` consecutive 64-bit words at `offset`.
    #[inline]
    #[must_use]
    pub fn u64s_at(&self, offset: usize, count: usize) -> Option<&[AtomicU64]> {
        if !offset.is_multiple_of(8) {
            return None;
        }
        let p = self.check(offset, count.checked_mul(8)?)?;
        // SAFETY: inside the mapping and aligned; AtomicU64 has the layout of u64 and may be
        // shared with other processes.
        Some(unsafe { std::slice::from_raw_parts(p.as_ptr().cast::<AtomicU64>(), count) })
    }

    /// Copies `bytes` to `offset`; false (and nothing written) when it does not fit or the
    /// mapping is read-only.
    #[inline]
    #[must_use]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> bool {
        let Some(p) = self.check(offset, bytes.len()).filter(|_| self.writable) else {
            return false;
        };
        // SAFETY: destination checked; a shared mapping never overlaps a private slice of ours.
        // Another process may write the same bytes meanwhile: then the bytes are torn, which
        // readers must expect of memory that a peer can write.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p.as_ptr(), bytes.len()) };
        true
    }

    /// Copies bytes at `offset` out; false when they are not all inside.
    #[inline]
    #[must_use]
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) -> bool {
        let Some(p) = self.check(offset, into.len()) else {
            return false;
        };
        // SAFETY: source checked; see `copy_in` for concurrent writers.
        unsafe { std::ptr::copy_nonoverlapping(p.as_ptr(), into.as_mut_ptr(), into.len()) };
        true
    }

    /// A pointer to `len` bytes at `offset`, for system calls (iovec) and copies between
    /// mappings. Valid while the mapping is.
    #[inline]
    #[must_use]
    pub fn pointer(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        self.check(offset, len)
    }

    /// Copies `len` bytes from `from` at `from_offset` into this mapping; false when either
    /// range is not inside.
    #[inline]
    #[must_use]
    pub fn copy_from(&self, offset: usize, from: &Self, from_offset: usize, len: usize) -> bool {
        let (Some(d), Some(s)) = (self.check(offset, len), from.check(from_offset, len)) else {
            return false;
        };
        if !self.writable {
            return false;
        }
        // SAFETY: both ranges checked; `copy` tolerates overlap should both be one mapping.
        unsafe { std::ptr::copy(s.as_ptr(), d.as_ptr(), len) };
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of our own mmap, and no reference into it outlives
        // `self` (they all borrow it).
        let _ = unsafe { munmap(self.base.cast::<c_void>(), self.len) };
    }
}
