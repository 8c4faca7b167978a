//! Reading frames into sk_buffs: a small slot first, and a large one for what does not fit.
//!
//! ```text
//!   readv   [vnet header][ small slot, from NET_IP_ALIGN on ][ large slot ]
//!   1,514 bytes:           ^^^^^^^^^^^                        untouched, serves the next read
//!   65 kB:                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^    ^^^^^^^^^^ attached as extra
//! ```
//!
//! So a small packet does not hold a large buffer, and a super-frame is received without a copy
//! of its own.
#![allow(unsafe_code, reason = "lets the kernel write into slots")]

use super::frame::VNET_LEN;
use crate::counters::{Counter, Stats};
use abi::skbuff::{HEADROOM, SkBuffDesc, checksum, flag, gso};
use shm::{Allocator, SizeClass, SkBuff};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use wire::vnet::VirtioNetHdr;

/// Where frames begin in a slot: Linux's NET_IP_ALIGN, so that the IP header behind the 14 bytes
/// of Ethernet is aligned to 16.
const RESERVE: u32 = HEADROOM + 2;

/// The slots for the next read.
#[derive(Debug, Default)]
pub struct RxSlots {
    small: Option<SkBuff>,
    large: Option<SkBuff>,
}

impl RxSlots {
    /// Makes sure that slots are ready; false when the pool is used up.
    pub fn prepare(&mut self, alloc: &mut Allocator, frame: usize) -> bool {
        if self.small.is_none() {
            self.small = alloc.alloc(SizeClass::Small);
            if let Some(small) = &mut self.small {
                small.reserve(RESERVE);
            }
        }
        let Some(small) = &self.small else {
            return false;
        };
        if frame > small.tailroom() && self.large.is_none() {
            self.large = alloc.alloc(SizeClass::Large);
            if let Some(large) = &mut self.large {
                large.reserve(0);
            }
            return self.large.is_some();
        }
        true
    }

    /// Reads one frame with its virtio header from a TAP or packet socket.
    ///
    /// # Errors
    /// What `readv` says; `WouldBlock` when none waits.
    pub(super) fn read(&mut self, fd: BorrowedFd<'_>) -> io::Result<Option<SkBuff>> {
        let mut words = [0u8; VNET_LEN];
        let place = |skb: Option<&mut SkBuff>| {
            let (at, len) = skb.map_or((std::ptr::null_mut(), 0), SkBuff::tail_ptr);
            libc::iovec {
                iov_base: at.cast(),
                iov_len: len,
            }
        };
        let small = place(self.small.as_mut());
        let large = place(self.large.as_mut());
        let hdr = libc::iovec {
            iov_base: words.as_mut_ptr().cast(),
            iov_len: VNET_LEN,
        };
        let iov = [hdr, small, large];
        // SAFETY: the first piece is ours; the others are the unused rest of slots that we own
        // alone (or null with length 0), writable for as long as we hold them.
        let n = unsafe { libc::readv(fd.as_raw_fd(), iov.as_ptr(), 3) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        let Some(frame) = n.checked_sub(VNET_LEN) else {
            return Ok(None);
        };
        Ok(self.take(&words, frame))
    }

    /// Puts a frame that is in private memory into slots; none when the pool is used up.
    pub fn store(
        &mut self,
        alloc: &mut Allocator,
        hdr: &VirtioNetHdr,
        frame: &[u8],
    ) -> Option<SkBuff> {
        if !self.prepare(alloc, frame.len()) {
            return None;
        }
        let mut small = self.small.take()?;
        let (head, rest) = frame.split_at(frame.len().min(small.tailroom()));
        small.put(head.len())?.copy_from_slice(head);
        if !rest.is_empty() {
            let mut large = self.large.take()?;
            large.put(rest.len())?.copy_from_slice(rest);
            if !small.attach_extra(large) {
                return None;
            }
        }
        describe(&mut small, hdr).then_some(small)
    }

    /// Takes the slots that a read of `frame` bytes filled; none when the frame makes no sense.
    fn take(&mut self, words: &[u8], frame: usize) -> Option<SkBuff> {
        let mut small = self.small.take()?;
        let head = frame.min(small.tailroom());
        small.put(head)?;
        if frame > head {
            let mut large = self.large.take()?;
            large.put(frame - head)?;
            if !small.attach_extra(large) {
                return None;
            }
        }
        let hdr = VirtioNetHdr::parse(words).ok()?;
        describe(&mut small, &hdr).then_some(small)
    }
}

/// Counts a received frame and what reading it copied.
pub(super) fn count(stats: &mut Stats, skb: Option<&SkBuff>) {
    match skb {
        Some(skb) => stats.add(Counter::RxCopied, skb.len() as u64),
        None => stats.add(Counter::RxMalformed, 1),
    }
}

/// Writes what the virtio header says into the descriptor; false when it is impossible.
fn describe(skb: &mut SkBuff, hdr: &VirtioNetHdr) -> bool {
    if hdr.check(skb.len()).is_err() {
        return false;
    }
    let offset = skb.data_offset();
    let linear = skb.linear_len();
    let d: &mut SkBuffDesc = skb.desc_mut();
    d.mac = u16::try_from(offset).unwrap_or(abi::skbuff::OFFSET_NONE);
    if hdr.needs_csum() {
        let field_end = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset) + 2;
        let Ok(start) = u16::try_from(offset + u32::from(hdr.csum_start)) else {
            return false;
        };
        if field_end > linear {
            return false;
        }
        d.ip_summed = checksum::PARTIAL;
        d.csum_start = start;
        d.csum_offset = hdr.csum_offset;
    } else if hdr.flags & VirtioNetHdr::DATA_VALID != 0 {
        d.ip_summed = checksum::UNNECESSARY;
    }
    if hdr.is_gso() {
        d.gso_type = hdr.gso_kind();
        d.gso_size = hdr.gso_size;
        if hdr.gso_type & VirtioNetHdr::ECN != 0 {
            d.flags |= flag::GSO_ECN;
        }
    }
    // The virtio numbers are the descriptor's.
    const {
        assert!(gso::TCPV4 == VirtioNetHdr::GSO_TCPV4);
        assert!(gso::TCPV6 == VirtioNetHdr::GSO_TCPV6);
        assert!(gso::UDP_L4 == VirtioNetHdr::GSO_UDP_L4);
    }
    true
}
