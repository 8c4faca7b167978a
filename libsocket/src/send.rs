//! Sending on a stream. The order of looks at the words is explained in `shadow`.

use crate::error::os;
use crate::shadow::Stuffed;
use crate::socket::{Shared, Socket};
use crate::wait::{Deadline, wait};
use abi::session::{SocketKind, SocketState, busy, control, shut};
use nix::poll::PollFlags;
use shm::Buffer;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Bytes copied before the transport hears of them: the stack's largest unit, so that it sends
/// while the rest of a long write is still being copied.
const UNIT: usize = 64 * 1024;

/// Free room in a send buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Where the next byte goes.
    pub(crate) tail: u64,
    /// Bytes in use.
    pub(crate) used: usize,
    /// Bytes that may be in use.
    pub(crate) limit: usize,
    /// Bytes that there are.
    pub(crate) capacity: usize,
}

/// See [`Shared::occupy`]: dropping it lets go.
struct Occupied<'a> {
    word: &'a AtomicU32,
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        // Release: what was written is published before.
        self.word.fetch_sub(1, Ordering::Release);
    }
}

impl Shared {
    /// The room in the send buffer, after validating the transport's position.
    pub(crate) fn room(&self) -> io::Result<Room> {
        let capacity = self.session.memory().layout().tx_capacity;
        let head = self.load_long(control::TX_HEAD);
        let tail = self
            .long(control::TX_TAIL)
            .map_or(0, |w| w.load(Ordering::Relaxed));
        let used = tail.wrapping_sub(head);
        if used > u64::from(capacity) {
            return Err(self.session.fault());
        }
        let mut limit = match self.load(control::TX_LIMIT) {
            0 => capacity,
            limit => limit.min(capacity),
        };
        if self.kind == SocketKind::Stream {
            // The position first, the ring then: one that is newer allows no less.
            let ring = self.session.memory().rings(self.id.slot).tx;
            let most = ring.limit(head).saturating_sub(head);
            limit = limit.min(u32::try_from(most).unwrap_or(u32::MAX));
        }
        let size = |n: u32| usize::try_from(n).unwrap_or(0);
        Ok(Room {
            tail,
            used: usize::try_from(used).unwrap_or(0),
            limit: size(limit),
            capacity: size(capacity),
        })
    }

    /// Publishes what was written up to `tail`.
    pub(crate) fn publish(&self, tail: u64) {
        if let Some(word) = self.long(control::TX_TAIL) {
            // Release: the bytes are there before the position says so.
            word.store(tail, Ordering::Release);
        }
        self.session.ring(self.id.slot);
    }

    /// Puts what fits of `data` into the send buffer of a socket that is not connected. Nobody
    /// is told.
    pub(crate) fn preload(&self, data: &[u8]) -> io::Result<usize> {
        let room = self.room()?;
        let len = data.len().min(room.limit);
        if !self.copy_tx(0, data.get(..len).unwrap_or_default()) {
            return Err(self.session.fault());
        }
        if let Some(word) = self.long(control::TX_TAIL) {
            // Release: as in `publish`.
            word.store(len as u64, Ordering::Release);
        }
        Ok(len)
    }

    /// Takes that back: the connect was refused.
    pub(crate) fn unload(&self) {
        if let Some(word) = self.long(control::TX_TAIL) {
            word.store(0, Ordering::Release);
        }
    }

    /// Copies into the send buffer at `position`.
    pub(crate) fn copy_tx(&self, position: u64, bytes: &[u8]) -> bool {
        let memory = self.session.memory();
        let rings = memory.rings(self.id.slot);
        let mut rest = bytes;
        memory.pieces(
            self.id.slot,
            Buffer::Tx,
            &rings,
            position,
            rest.len(),
            |at, len| {
                let Some((now, later)) = rest.split_at_checked(len) else {
                    return false;
                };
                rest = later;
                memory.mapping().copy_in(at, now)
            },
        )
    }

    /// Keeps the transport from giving the send buffer's pages back while bytes are written there;
    /// none when it is about to: then there is no room, and writability will show. See
    /// [`abi::session::busy`].
    fn occupy(&self) -> Option<Occupied<'_>> {
        let word = self.word(control::TX_BUSY)?;
        let occupied = Occupied { word };
        // SeqCst: pairs with the transport's swap; its look at TX_TAIL comes after it, and our
        // writing after this.
        let before = word.fetch_add(1, Ordering::SeqCst);
        (before & busy::TRIM == 0).then_some(occupied)
    }

    /// The transport is giving the send buffer's pages back.
    fn is_trimmed(&self) -> bool {
        self.word(control::TX_BUSY)
            .is_some_and(|w| w.load(Ordering::SeqCst) & busy::TRIM != 0)
    }

    /// A1 to A4 of stuffing.
    pub(crate) fn stuff(&self, socket: &Socket) -> Stuffed {
        let set = || {
            if let Some(word) = self.word(control::TX_STUFFED) {
                word.store(1, Ordering::SeqCst);
            }
        };
        set();
        let stuffed = socket.shadow.stuff();
        set();
        fence(Ordering::SeqCst);
        stuffed
    }

    /// Whether a stream may be written to now; an error that it may never be, is not taken.
    fn check_sending(&self) -> Result<(), i32> {
        if self.is_stale() {
            return Err(libc::ECONNRESET);
        }
        if let Some((_, errno)) = self.pending_error() {
            return Err(errno);
        }
        if self.is_shut(shut::WR) || self.is_reset() {
            return Err(libc::EPIPE);
        }
        match self.state() {
            SocketState::Connected => Ok(()),
            SocketState::Connecting => Err(libc::EAGAIN),
            _ => Err(libc::EPIPE),
        }
    }

    /// The byte at `position` is urgent: said before the position that includes it.
    fn mark_urgent(&self, position: u64) {
        if let Some(word) = self.long(control::TX_URGENT) {
            word.store(position.wrapping_add(1), Ordering::Release);
        }
    }

    /// Writes what there is room for of `bufs` from byte `skip` on. What was written before an
    /// impossible position turned up is lost with the connection.
    fn fill(&self, bufs: &[IoSlice<'_>], mut skip: usize) -> io::Result<usize> {
        let mut written = 0;
        let Some(_occupied) = self.occupy() else {
            return Ok(0);
        };
        for buf in bufs {
            if skip >= buf.len() {
                skip -= buf.len();
                continue;
            }
            let mut rest = buf.get(skip..).unwrap_or_default();
            skip = 0;
            while !rest.is_empty() {
                let room = self.room()?;
                let len = rest
                    .len()
                    .min(UNIT)
                    .min(room.limit.saturating_sub(room.used));
                let Some((now, later)) = rest.split_at_checked(len).filter(|_| len > 0) else {
                    return Ok(written);
                };
                if !self.copy_tx(room.tail, now) {
                    return Err(self.session.fault());
                }
                self.publish(room.tail.wrapping_add(len as u64));
                written += len;
                rest = later;
            }
        }
        Ok(written)
    }
}

impl Socket {
    /// There is no room: makes the descriptor unwritable and waits until it is writable, unless
    /// `can_go_on` answers after the stuffing that there is room now, or an end. Called with the
    /// writing half locked; who waits does not hold it. `deadline` is kept between calls.
    ///
    /// # Errors
    /// `EAGAIN` (not waiting, or for too long), `EINTR`, `ECONNRESET` when nobody is there.
    pub(crate) fn await_room(
        &self,
        tx: MutexGuard<'_, ()>,
        dont_wait: bool,
        deadline: &mut Option<Deadline>,
        can_go_on: impl Fn() -> io::Result<bool>,
    ) -> io::Result<()> {
        let stuffed = self.shared.stuff(self);
        if can_go_on()? {
            // A5: the transport has to drain what we stuffed in vain.
            self.shared.session.ring(self.shared.id.slot);
            return Ok(());
        }
        if stuffed == Stuffed::End {
            // The kernel says that nobody is there, and the words tell of no end.
            return Err(os(libc::ECONNRESET));
        }
        drop(tx);
        let deadline = match deadline {
            Some(deadline) => deadline,
            None if dont_wait || self.shadow.is_nonblocking()? => return Err(os(libc::EAGAIN)),
            None => deadline.insert(self.shared.write_deadline()),
        };
        wait(self.as_fd(), PollFlags::POLLOUT, deadline).map(drop)
    }

    /// Sends `bufs` on a stream; waits until all of it is in the send buffer, unless the socket
    /// is nonblocking or `dont_wait`: then what fits.
    ///
    /// # Errors
    /// As `sendmsg(2)` with `MSG_NOSIGNAL`, when nothing could be sent. Trouble after some bytes
    /// went is told by the next call.
    pub fn send_vectored(&self, bufs: &[IoSlice<'_>], dont_wait: bool) -> io::Result<usize> {
        let mut sent = 0;
        match self.send_stream(bufs, dont_wait, false, &mut sent) {
            Err(error) if sent == 0 => Err(error),
            _ => Ok(sent),
        }
    }

    /// Sends one byte that is marked as urgent.
    pub(crate) fn send_marked(&self, byte: &[u8], dont_wait: bool) -> io::Result<usize> {
        let mut sent = 0;
        match self.send_stream(&[IoSlice::new(byte)], dont_wait, true, &mut sent) {
            Err(error) if sent == 0 => Err(error),
            _ => Ok(sent),
        }
    }

    fn send_stream(
        &self,
        bufs: &[IoSlice<'_>],
        dont_wait: bool,
        urgent: bool,
        sent: &mut usize,
    ) -> io::Result<()> {
        let shared = &*self.shared;
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        let mut deadline = None;
        loop {
            let tx = shared.lock_tx();
            match shared.check_sending() {
                Ok(()) => {
                    if urgent {
                        let room = shared.room()?;
                        if room.used < room.limit {
                            shared.mark_urgent(room.tail);
                        }
                    }
                    *sent += shared.fill(bufs, *sent)?;
                }
                Err(libc::EAGAIN) => {}
                // Not taken when the caller will not see it.
                Err(errno) if *sent > 0 => return Err(os(errno)),
                Err(errno) => return Err(os(shared.take_error().unwrap_or(errno))),
            }
            if *sent == total {
                return Ok(());
            }
            self.await_room(tx, dont_wait, &mut deadline, || {
                match shared.check_sending() {
                    Ok(()) => shared
                        .room()
                        .map(|room| room.used < room.limit && !shared.is_trimmed()),
                    Err(errno) => Ok(errno != libc::EAGAIN),
                }
            })?;
        }
    }
}
