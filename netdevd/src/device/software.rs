//! Does in software what a device cannot: cuts super-frames, completes checksums. So transports
//! may always send super-frames with partial checksums.
//!
//! The frame is copied first: its payload may be in memory that an application is writing, and
//! the checksum must be that of the bytes sent.

use super::{Busy, Device, Frame, Io};
use crate::counters::Counter;
use abi::Nanos;
use abi::config::Offload;
use shm::SkBuff;
use std::os::fd::BorrowedFd;
use wire::gso::{ChecksumMode, SuperFrame};
use wire::vnet::VirtioNetHdr;

/// Headers of a segment at the most: Ethernet, IP with options or extensions, TCP with options.
const HEADERS: usize = 256;

/// A device with the offloads that it lacks.
#[derive(Debug)]
pub struct Software<D> {
    inner: D,
    scratch: Vec<u8>,
    /// How many segments of the present super-frame have been sent, should the device be busy,
    /// and its length: should another one come instead, that begins at its beginning.
    sent: (usize, usize),
}

impl<D: Device> Software<D> {
    /// Around a device.
    #[must_use]
    pub fn new(inner: D) -> Self {
        Self {
            inner,
            scratch: Vec::new(),
            sent: (0, 0),
        }
    }

    #[cfg(test)]
    pub(super) fn inner_for_test(&mut self) -> &mut D {
        &mut self.inner
    }

    fn segment(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        let hdr = *frame.hdr();
        let (mode, flags) = match self.inner.offload() {
            Offload::None => (ChecksumMode::Full, 0),
            Offload::Checksum | Offload::Full => (ChecksumMode::Partial, VirtioNetHdr::NEEDS_CSUM),
        };
        frame.copy_to(&mut self.scratch);
        let Ok(whole) = SuperFrame::new(&self.scratch, &[], hdr.gso_size) else {
            io.stats.add(Counter::TxMalformed, 1);
            return Ok(());
        };
        let (sent, of) = self.sent;
        let begin = if of == frame.len() { sent } else { 0 };
        let mut headers = [0u8; HEADERS];
        for index in begin..whole.segments() {
            let Ok(segment) = whole.segment(index, mode, &mut headers) else {
                io.stats.add(Counter::TxMalformed, 1);
                break;
            };
            let words = VirtioNetHdr {
                flags,
                csum_start: u16::try_from(segment.transport).unwrap_or(0),
                csum_offset: hdr.csum_offset,
                ..VirtioNetHdr::default()
            };
            let words = if flags == 0 {
                VirtioNetHdr::default()
            } else {
                words
            };
            let front = headers.get(..segment.header_len).unwrap_or(&[]);
            let payload = whole.pieces(segment.payload).next().unwrap_or(&[]);
            let piece = Frame::of_slices(words, &[front, payload]);
            if self.inner.transmit(io, &piece) == Err(Busy) {
                self.sent = (index, frame.len());
                return Err(Busy);
            }
        }
        self.sent = (0, 0);
        io.stats.add(Counter::SwSegmented, 1);
        io.stats.add(Counter::TxCopied, frame.len() as u64);
        Ok(())
    }

    fn checksum(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        let hdr = frame.hdr();
        frame.copy_to(&mut self.scratch);
        if wire::gso::complete_checksum(&mut self.scratch, hdr.csum_start, hdr.csum_offset).is_err()
        {
            io.stats.add(Counter::TxMalformed, 1);
            return Ok(());
        }
        let whole = Frame::of_slices(VirtioNetHdr::default(), &[&self.scratch]);
        self.inner.transmit(io, &whole)?;
        io.stats.add(Counter::SwChecksums, 1);
        io.stats.add(Counter::TxCopied, frame.len() as u64);
        Ok(())
    }
}

impl<D: Device> Device for Software<D> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn offload(&self) -> Offload {
        Offload::Full
    }

    fn receive(&mut self, io: &mut Io<'_>, budget: usize, out: &mut Vec<SkBuff>) -> usize {
        self.inner.receive(io, budget, out)
    }

    fn transmit(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        let hdr = frame.hdr();
        match self.inner.offload() {
            Offload::None | Offload::Checksum if hdr.is_gso() => self.segment(io, frame),
            Offload::None if hdr.needs_csum() => self.checksum(io, frame),
            _ => self.inner.transmit(io, frame),
        }
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        self.inner.flush(io);
    }

    fn has_input(&self) -> bool {
        self.inner.has_input()
    }

    fn deadline(&self) -> Option<Nanos> {
        self.inner.deadline()
    }
}
