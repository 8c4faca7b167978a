//! A frame to send, gathered from where its pieces lie: the sk_buff's linear part, and payload
//! in session memories and pools. Nothing is copied until the device takes it.
#![allow(
    unsafe_code,
    reason = "gathers iovecs from memory that other processes may write"
)]

use abi::skbuff::{MAX_FRAGS, checksum, flag, gso};
use shm::{Arena, PeerFault, SkBuff};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use wire::vnet::VirtioNetHdr;

/// Pieces of a frame at the most: headers and fragments.
const PIECES: usize = 1 + MAX_FRAGS;

/// Bytes of the virtio header in front of each frame, the form without `num_buffers` that TAP and
/// AF_PACKET begin with.
pub const VNET_LEN: usize = wire::vnet::HEADER_LEN;

/// A frame as a list of pieces.
///
/// Invariant: each of the first `count` pieces is readable memory for `'a`. Bytes of fragments may
/// change under us (they are an application's), so they are only ever copied, by the kernel or by
/// [`Frame::copy_to`].
#[derive(Debug)]
pub struct Frame<'a> {
    hdr: VirtioNetHdr,
    pieces: [libc::iovec; PIECES],
    count: usize,
    len: usize,
    lives: PhantomData<&'a [u8]>,
}

const NO_PIECE: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

impl<'a> Frame<'a> {
    /// The frame of an sk_buff whose data begins at the Ethernet header.
    ///
    /// # Errors
    /// When a fragment's region is not attached or does not reach that far, or the offload words
    /// make no sense.
    pub fn gather(skb: &'a SkBuff, arena: &'a Arena) -> Result<Self, PeerFault> {
        let mut this = Self::empty(VirtioNetHdr::default());
        let linear = skb.linear();
        this.piece(linear.as_ptr(), linear.len());
        for frag in skb.frags() {
            let (at, len) = arena.frag_ptr(frag)?;
            this.piece(at.as_ptr(), len);
        }
        this.hdr = offload_words(skb).ok_or(PeerFault::Other("impossible offload words"))?;
        this.hdr
            .check(this.len)
            .map_err(|_| PeerFault::Other("impossible offload words"))?;
        Ok(this)
    }

    /// A frame in private memory.
    #[must_use]
    pub fn of_slices(hdr: VirtioNetHdr, slices: &[&'a [u8]]) -> Self {
        let mut this = Self::empty(hdr);
        for slice in slices {
            this.piece(slice.as_ptr(), slice.len());
        }
        this
    }

    fn empty(hdr: VirtioNetHdr) -> Self {
        Self {
            hdr,
            pieces: [NO_PIECE; PIECES],
            count: 0,
            len: 0,
            lives: PhantomData,
        }
    }

    fn piece(&mut self, at: *const u8, len: usize) {
        if let Some(place) = self.pieces.get_mut(self.count)
            && len > 0
        {
            *place = libc::iovec {
                iov_base: at.cast_mut().cast(),
                iov_len: len,
            };
            self.count += 1;
            self.len += len;
        }
    }

    /// Checksum and segmentation offload, positions counted from the frame's start.
    #[must_use]
    pub fn hdr(&self) -> &VirtioNetHdr {
        &self.hdr
    }

    /// Says that the checksum, complete in the frame, has been verified.
    pub(crate) fn mark_valid(&mut self) {
        self.hdr.flags |= VirtioNetHdr::DATA_VALID;
    }

    /// Bytes, from the Ethernet header on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the whole frame to `into`, replacing what was there.
    pub fn copy_to(&self, into: &mut Vec<u8>) {
        into.clear();
        into.reserve(self.len);
        for piece in self.pieces.iter().take(self.count) {
            let start = into.len();
            // SAFETY: `reserve` made room for all pieces behind `start`.
            let to = unsafe { into.as_mut_ptr().add(start) };
            // SAFETY: source readable (the type's invariant), destination just reserved and
            // private, so they do not overlap.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.iov_base.cast::<u8>(), to, piece.iov_len);
            }
            // SAFETY: exactly these bytes have been written.
            unsafe { into.set_len(start + piece.iov_len) };
        }
    }

    /// Writes virtio header and frame to a TAP or packet socket in one call.
    ///
    /// # Errors
    /// What `writev` says; `WouldBlock` when the device takes no more.
    pub fn write(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let mut hdr = [0u8; VNET_LEN];
        if self.hdr.emit(&mut hdr).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut iov = [NO_PIECE; PIECES + 1];
        let [first, rest @ ..] = &mut iov;
        *first = libc::iovec {
            iov_base: hdr.as_mut_ptr().cast(),
            iov_len: VNET_LEN,
        };
        rest.copy_from_slice(&self.pieces);
        let count = libc::c_int::try_from(self.count + 1).unwrap_or(0);
        // SAFETY: the first `count` entries are readable for the call: `hdr` is ours, the others
        // by the type's invariant.
        let n = unsafe { libc::writev(fd.as_raw_fd(), iov.as_ptr(), count) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

/// The virtio header for what an sk_buff's descriptor asks of the device; none when it is
/// impossible.
fn offload_words(skb: &SkBuff) -> Option<VirtioNetHdr> {
    let d = skb.desc();
    let mut hdr = VirtioNetHdr::default();
    if d.ip_summed == checksum::PARTIAL {
        // The descriptor counts from the buffer's start, the device from the frame's.
        let start = u32::from(d.csum_start).checked_sub(skb.data_offset())?;
        hdr.flags = VirtioNetHdr::NEEDS_CSUM;
        hdr.csum_start = u16::try_from(start).ok()?;
        hdr.csum_offset = d.csum_offset;
    }
    if d.gso_type != gso::NONE {
        hdr.gso_type = d.gso_type;
        hdr.gso_size = d.gso_size;
        if d.flags & flag::GSO_ECN != 0 {
            hdr.gso_type |= VirtioNetHdr::ECN;
        }
        hdr.hdr_len = headers_len(skb.linear(), &hdr);
    }
    Some(hdr)
}

/// Bytes of all headers of a super-frame, a hint for how much to copy into the kernel's linear
/// part: up to the end of the transport header.
fn headers_len(linear: &[u8], hdr: &VirtioNetHdr) -> u16 {
    let transport = usize::from(hdr.csum_start);
    let len = match hdr.gso_kind() {
        VirtioNetHdr::GSO_UDP_L4 => 8,
        // RFC 9293 3.1: data offset, in words of 32 bits.
        _ => linear
            .get(transport + 12)
            .map_or(20, |offset| usize::from(offset >> 4) * 4),
    };
    u16::try_from((transport + len).min(linear.len())).unwrap_or(0)
}
