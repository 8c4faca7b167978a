//! A device in memory: what is sent comes back, copied into netdevd's own pool.

use super::rx::RxSlots;
use super::{Busy, Device, Frame, Io};
use crate::counters::Counter;
use abi::config::Offload;
use shm::SkBuff;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

/// Frames on their way at the most.
const QUEUE: usize = 256;

/// What is sent comes back.
#[derive(Debug, Default)]
pub struct Loopback {
    slots: RxSlots,
    queue: VecDeque<SkBuff>,
    scratch: Vec<u8>,
}

impl Loopback {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Loopback {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Nothing crosses a wire: a partial checksum stays partial, a super-frame whole.
    fn offload(&self) -> Offload {
        Offload::Full
    }

    fn receive(&mut self, _: &mut Io<'_>, budget: usize, out: &mut Vec<SkBuff>) -> usize {
        let n = budget.min(self.queue.len());
        out.extend(self.queue.drain(..n));
        n
    }

    fn transmit(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        if self.queue.len() >= QUEUE {
            return Err(Busy);
        }
        frame.copy_to(&mut self.scratch);
        io.stats.add(Counter::TxCopied, frame.len() as u64);
        match self.slots.store(io.alloc, frame.hdr(), &self.scratch) {
            Some(skb) => {
                io.stats.add(Counter::RxCopied, frame.len() as u64);
                self.queue.push_back(skb);
            }
            None => io.stats.add(Counter::TxErrors, 1),
        }
        Ok(())
    }

    fn has_input(&self) -> bool {
        !self.queue.is_empty()
    }
}
