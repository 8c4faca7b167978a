//! Where buffers lie, and giving their pages back to the system.
//!
//! A ring that once was full keeps its pages until they are punched out. That is done for sockets
//! that are freed, for those that have been idle for long, and, when the transport is short of
//! memory, around what a buffer holds.

use crate::SocketRef;
use crate::session::Session;
use crate::sessions::Sessions;
use crate::words::Words;
use abi::session::{Ring, Rings};
use core::ops::Range;
use nix::fcntl::{FallocateFlags, fallocate};
use shm::Buffer;
use shm::crash::{self, Point};
use std::os::fd::AsFd;

/// Buffers that were used further than this give their pages back when the socket is freed.
const KEEP_PAGES: u64 = 128 * 1024;

/// The positions of a socket whose buffers the transport's record says are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty {
    /// Bytes the application has written, all of them acknowledged.
    pub tx_tail: u64,
    /// Whether the receive buffer is empty too, holes included.
    pub rx: bool,
}

/// What the buffers of a socket hold, as the transport's record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Send positions that are not acknowledged, as far as the transport knows what was written.
    pub tx: Range<u64>,
    /// Receive positions that were not read, or not yet published.
    pub rx: Range<u64>,
    /// Whether there is room for a writer that finds the buffer closed meanwhile.
    pub room: bool,
}

impl Sessions {
    /// Publishes where a socket's buffers lie, from its committed record.
    pub fn set_rings(&mut self, socket: SocketRef, rings: &Rings) {
        let Some(session) = self.session_mut(socket.region) else {
            return;
        };
        if let Some(words) = session.words(socket.slot) {
            words.set_rings(rings);
        }
        session.slots.adopt_window(socket.slot, rings.window);
    }

    /// A window for a socket whose buffers outgrow its own part of the memory, to be recorded
    /// before it is used. It is given back with the socket. None when there is none left, or the
    /// socket has one.
    pub fn take_window(&mut self, socket: SocketRef) -> Option<u32> {
        if self.is_restoring {
            return None;
        }
        self.session_mut(socket.region)?
            .slots
            .take_window(socket.slot)
    }

    /// Gives the pages of empty buffers back. The send buffer's stay when the application may be
    /// writing there just now. Answers how many bytes of buffers were punched out, whether or not
    /// they had pages.
    pub fn trim(&mut self, socket: SocketRef, rings: &Rings, empty: Empty) -> u64 {
        let Some(session) = self.session(socket.region) else {
            return 0;
        };
        let Some(words) = session.words(socket.slot) else {
            return 0;
        };
        let mut freed = 0;
        if empty.rx {
            // Only the transport writes there, and readers have taken everything.
            freed += session.punch_rx(socket.slot, rings);
        }
        if words.begin_trim() {
            crash::reach(Point::WriterShutOut);
            if words.tx_tail() == empty.tx_tail {
                freed += session.punch_tx(socket.slot, rings);
            }
            words.end_trim();
            self.writable(socket);
        }
        freed
    }

    /// Gives back all pages of the buffers that hold nothing. Of the send buffer none, when the
    /// application may be writing there just now, or says that it wrote what it cannot have.
    /// Answers for which of the two, send and receive, it was done.
    pub fn give_back(&mut self, socket: SocketRef, rings: &Rings, held: &Held) -> (bool, bool) {
        let Some(session) = self.session(socket.region) else {
            return (false, false);
        };
        let Some(words) = session.words(socket.slot) else {
            return (false, false);
        };
        // Only the transport writes there, and what was read is nobody's.
        let rx = session.punch_around(socket.slot, Buffer::Rx, rings, &held.rx);
        let mut tx = false;
        if words.begin_trim() {
            crash::reach(Point::WriterShutOut);
            let written = words.tx_tail();
            if (held.tx.end..=rings.tx.limit(held.tx.start)).contains(&written) {
                let held = held.tx.start..written;
                tx = session.punch_around(socket.slot, Buffer::Tx, rings, &held);
            }
            words.end_trim();
            if held.room {
                self.writable(socket);
            }
        }
        (tx, rx)
    }
}

/// Pages.
const PAGE: u64 = 4096;

/// The places of a ring, in whole pages, at which none of the positions `held` lies; none when the
/// ring does not know where one lies.
fn places_around(ring: &Ring, held: &Range<u64>) -> Option<Vec<Range<u64>>> {
    let mut position = held.start - held.start % PAGE;
    let mut kept = Vec::new();
    while position < held.end {
        let piece = ring.stretch(position)?;
        let len = piece.len.min(held.end - position);
        kept.push(piece.at..(piece.at + len).next_multiple_of(PAGE));
        position += len;
    }
    kept.sort_unstable_by_key(|places| places.start);
    let mut free = Vec::new();
    let mut from = 0;
    for places in kept {
        if from < places.start {
            free.push(from..places.start);
        }
        from = from.max(places.end);
    }
    if from < ring.span() {
        free.push(from..ring.span());
    }
    Some(free)
}

impl Session {
    /// Punches out what of a buffer does not hold any of `held`; false if that failed.
    fn punch_around(&self, slot: u32, buffer: Buffer, rings: &Rings, held: &Range<u64>) -> bool {
        let Some(memory) = self.memory() else {
            return false;
        };
        let layout = memory.layout();
        let (ring, own, base, skip) = match buffer {
            Buffer::Tx => (&rings.tx, memory.tx_offset(slot), layout.tx_base(), 0),
            Buffer::Rx => (
                &rings.rx,
                memory.rx_offset(slot),
                layout.rx_base(),
                layout.tx_capacity - layout.tx_base(),
            ),
        };
        let Some(free) = places_around(ring, held) else {
            return false;
        };
        let window = memory
            .window_offset(rings.window)
            .map(|at| at + skip as usize);
        let punch = |at: Option<usize>, places: Range<u64>| {
            let size = |n: u64| usize::try_from(n).ok();
            let len = places.end.saturating_sub(places.start);
            len == 0
                || at
                    .zip(size(places.start))
                    .zip(size(len))
                    .is_some_and(|((at, from), len)| self.punch(at + from, len) > 0)
        };
        let base = u64::from(base);
        free.into_iter().all(|places| {
            let low = places.start.min(base)..places.end.min(base);
            let high = places.start.max(base) - base..places.end.max(base) - base;
            punch(own, low) && punch(window, high)
        })
    }

    /// Punches out the buffers of a slot that used much of them.
    pub(crate) fn give_pages_back(&self, slot: u32) {
        let Some(attached) = &self.attached else {
            return;
        };
        let memory = &attached.memory;
        if Words::new(memory, slot).reach() < KEEP_PAGES {
            return;
        }
        let layout = memory.layout();
        let both = layout.tx_base() as usize + layout.rx_base() as usize;
        if let Some(at) = memory.tx_offset(slot) {
            self.punch(at, both);
        }
    }

    /// Punches out a window that its socket has let go of.
    pub(crate) fn punch_window(&self, window: u32) {
        if let Some(memory) = self.memory()
            && let Some(at) = memory.window_offset(window)
        {
            self.punch(at, memory.layout().window_size());
        }
    }

    fn punch_tx(&self, slot: u32, rings: &Rings) -> u64 {
        let Some(memory) = self.memory() else {
            return 0;
        };
        let layout = memory.layout();
        let base = layout.tx_base() as usize;
        let beyond = usize::try_from(rings.tx.span())
            .unwrap_or(0)
            .saturating_sub(base);
        let own = memory.tx_offset(slot).map_or(0, |at| self.punch(at, base));
        let more = memory
            .window_offset(rings.window)
            .map_or(0, |at| self.punch(at, beyond));
        own + more
    }

    fn punch_rx(&self, slot: u32, rings: &Rings) -> u64 {
        let Some(memory) = self.memory() else {
            return 0;
        };
        let layout = memory.layout();
        let base = layout.rx_base() as usize;
        let skip = (layout.tx_capacity - layout.tx_base()) as usize;
        let beyond = usize::try_from(rings.rx.span())
            .unwrap_or(0)
            .saturating_sub(base);
        let own = memory.rx_offset(slot).map_or(0, |at| self.punch(at, base));
        let more = memory
            .window_offset(rings.window)
            .map_or(0, |at| self.punch(at + skip, beyond));
        own + more
    }

    #[track_caller]
    fn punch(&self, at: usize, len: usize) -> u64 {
        let (Some(attached), Ok(from), Ok(bytes)) =
            (&self.attached, i64::try_from(at), i64::try_from(len))
        else {
            return 0;
        };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if len > 0 && fallocate(attached.fd.as_fd(), flags, from, bytes).is_ok() {
            crash::reach(Point::PagesGiven);
            len as u64
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(ring: &Ring, from: u64, to: u64) -> Vec<(u64, u64)> {
        let free = places_around(ring, &(from..to)).unwrap();
        free.into_iter()
            .map(|free| (free.start, free.end))
            .collect()
    }

    #[test]
    fn what_is_held_is_left_alone() {
        let ring = Ring::new(8 * 4096);
        assert_eq!(around(&ring, 5, 5), [(4096, 32_768)], "its page");
        assert_eq!(around(&ring, 4096, 4096), [(0, 32_768)]);
        // Three pages hold it.
        let free = [(0, 4096), (12_288, 32_768)];
        assert_eq!(around(&ring, 5_000, 8_193), free);
        // Around the end.
        assert_eq!(around(&ring, 30_000, 33_000), [(4096, 28_672)]);
        assert_eq!(around(&ring, 70_000, 102_768), [], "full");
    }

    /// Whatever sizes it had: no byte in use is in what goes, and all else is.
    #[test]
    fn a_ring_between_two_sizes_keeps_both_ends() {
        let mut ring = Ring::new(4 * 4096);
        assert!(ring.switch(10_000, 20_000, 16 * 4096));
        for (lo, hi) in [(10_000, 26_000), (15_000, 60_000), (30_000, 80_000)] {
            let free = places_around(&ring, &(lo..hi)).unwrap();
            let mut held = [false; 16];
            for p in lo..hi.min(ring.limit(lo)) {
                let at = ring.stretch(p).unwrap().at;
                assert!(!free.iter().any(|places| places.contains(&at)), "{p}");
                held[usize::try_from(at / 4096).unwrap()] = true;
            }
            let pages: u64 = free.iter().map(|places| places.end - places.start).sum();
            let kept = held.iter().filter(|&&held| held).count() as u64;
            assert_eq!(pages, (16 - kept) * 4096);
        }
    }
}
