//! Faults on purpose: a decorator around a device that loses, doubles, reorders, corrupts,
//! delays and throttles frames, each direction alike, from one seed.
//!
//! ```text
//!   fate    what happens to a frame by chance: a pure function of seed and order
//!   mark    congestion marks instead of losses
//!   line    a transmitter of limited rate and its queue
//!   pipe    frames on their way: delayed, limited, held back
//! ```
//!
//! Super-frames are cut first, so that faults hit what would be packets on a wire; frames are
//! copied, which is fine here. When everything is off, frames pass untouched. `strata compare`
//! puts the same pipes between two interfaces.

mod fate;
mod line;
mod mark;
mod pipe;

pub use fate::{Fate, Fates};
pub use line::Line;
pub use pipe::{Faults, Packet, Pipe};

use crate::counters::{Counter, Stats};
use crate::device::{Busy, Device, Frame, Io, RxSlots, earlier};
use abi::Nanos;
use abi::config::{Impairment, Offload};
use abi::skbuff::checksum;
use shm::SkBuff;
use std::os::fd::BorrowedFd;
use wire::gso::{ChecksumMode, SuperFrame};
use wire::vnet::VirtioNetHdr;

/// When to try again to find room in the pool or the device for a frame that is due.
const RETRY: Nanos = 200_000;

/// Headers of a segment at the most.
const HEADERS: usize = 256;

/// A device with faults.
#[derive(Debug)]
pub struct Impaired<D> {
    inner: D,
    on: bool,
    rx: Pipe,
    tx: Pipe,
    slots: RxSlots,
    scratch: Vec<u8>,
    received: Vec<SkBuff>,
    /// A frame that is due and found no room.
    stuck_rx: Option<Packet>,
    stuck_tx: Option<Packet>,
    retry: Option<Nanos>,
}

impl<D: Device> Impaired<D> {
    /// Around a device.
    #[must_use]
    pub fn new(inner: D, config: &Impairment) -> Self {
        // Two directions with the same faults would be in step.
        Self {
            inner,
            on: !config.is_off(),
            rx: Pipe::new(config, 0),
            tx: Pipe::new(config, 1),
            slots: RxSlots::default(),
            scratch: Vec::new(),
            received: Vec::new(),
            stuck_rx: None,
            stuck_tx: None,
            retry: None,
        }
    }

    /// Changes the faults; frames under way go on as they were.
    pub fn set(&mut self, config: &Impairment) {
        self.on = !config.is_off();
        self.rx.set(config);
        self.tx.set(config);
    }

    fn passes(&self) -> bool {
        let empty = |pipe: &Pipe, stuck: &Option<Packet>| pipe.is_empty() && stuck.is_none();
        !self.on && empty(&self.rx, &self.stuck_rx) && empty(&self.tx, &self.stuck_tx)
    }
}

/// Puts a frame, cut into packets, into a pipe.
fn feed(pipe: &mut Pipe, scratch: &mut Vec<u8>, frame: &Frame<'_>, now: Nanos) {
    frame.copy_to(scratch);
    let hdr = frame.hdr();
    if hdr.is_gso()
        && let Ok(whole) = SuperFrame::new(scratch, &[], hdr.gso_size)
    {
        let mut headers = [0u8; HEADERS];
        for index in 0..whole.segments() {
            let Ok(segment) = whole.segment(index, ChecksumMode::Full, &mut headers) else {
                return;
            };
            let front = headers.get(..segment.header_len).unwrap_or(&[]);
            let payload = whole.pieces(segment.payload).next().unwrap_or(&[]);
            // Its checksum was right, or nobody's to check, before it was cut.
            let words = VirtioNetHdr {
                flags: VirtioNetHdr::DATA_VALID,
                ..VirtioNetHdr::default()
            };
            pipe.push(now, words, &[front, payload]);
        }
    } else {
        pipe.push(now, *hdr, &[scratch]);
    }
}

fn count(pipe: &mut Pipe, stats: &mut Stats) {
    let faults = pipe.take_faults();
    stats.add(Counter::ImpairLost, faults.lost);
    stats.add(Counter::ImpairMarked, faults.marked);
    stats.add(Counter::ImpairDuplicated, faults.duplicated);
    stats.add(Counter::ImpairReordered, faults.reordered);
    stats.add(Counter::ImpairCorrupted, faults.corrupted);
    stats.add(Counter::ImpairOverflow, faults.overflow);
}

impl<D: Device> Device for Impaired<D> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn offload(&self) -> Offload {
        self.inner.offload()
    }

    fn receive(&mut self, io: &mut Io<'_>, budget: usize, out: &mut Vec<SkBuff>) -> usize {
        if self.passes() {
            return self.inner.receive(io, budget, out);
        }
        self.retry = self.retry.filter(|at| *at > io.now);
        let taken = self.inner.receive(io, budget, &mut self.received);
        for skb in self.received.drain(..) {
            match Frame::gather(&skb, io.arena) {
                Ok(mut frame) => {
                    if skb.desc().ip_summed == checksum::UNNECESSARY {
                        frame.mark_valid();
                    }
                    feed(&mut self.rx, &mut self.scratch, &frame, io.now);
                }
                Err(_) => io.stats.add(Counter::RxMalformed, 1),
            }
        }
        let mut given = 0;
        while given < budget
            && let Some(packet) = self.stuck_rx.take().or_else(|| self.rx.pop(io.now))
        {
            if !self.slots.prepare(io.alloc, packet.bytes.len()) {
                io.stats.add(Counter::RxNoBuffer, 1);
                self.stuck_rx = Some(packet);
                self.retry = Some(io.now + RETRY);
                break;
            }
            given += 1;
            io.stats.add(Counter::RxCopied, packet.bytes.len() as u64);
            match self.slots.store(io.alloc, &packet.hdr, &packet.bytes) {
                Some(skb) => out.push(skb),
                None => io.stats.add(Counter::RxMalformed, 1),
            }
            self.rx.recycle(packet);
        }
        count(&mut self.rx, io.stats);
        taken.max(given)
    }

    fn transmit(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        if self.passes() {
            return self.inner.transmit(io, frame);
        }
        feed(&mut self.tx, &mut self.scratch, frame, io.now);
        io.stats.add(Counter::TxCopied, frame.len() as u64);
        Ok(())
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        while let Some(packet) = self.stuck_tx.take().or_else(|| self.tx.pop(io.now)) {
            let frame = Frame::of_slices(packet.hdr, &[&packet.bytes]);
            if self.inner.transmit(io, &frame) == Err(Busy) {
                io.stats.add(Counter::TxBusy, 1);
                self.stuck_tx = Some(packet);
                self.retry = Some(io.now + RETRY);
                break;
            }
            self.tx.recycle(packet);
        }
        count(&mut self.tx, io.stats);
        self.inner.flush(io);
    }

    fn has_input(&self) -> bool {
        self.inner.has_input()
    }

    fn deadline(&self) -> Option<Nanos> {
        let stuck = self.stuck_rx.is_some() || self.stuck_tx.is_some();
        let retry = self.retry.filter(|_| stuck);
        // What is due behind a stuck frame waits for it.
        let rx = self.rx.next().filter(|_| self.stuck_rx.is_none());
        let tx = self.tx.next().filter(|_| self.stuck_tx.is_none());
        earlier(earlier(rx, tx), earlier(retry, self.inner.deadline()))
    }
}

#[cfg(test)]
mod tests;
