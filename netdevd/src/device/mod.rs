//! What a device is to netdevd. Backends and decorators implement the same trait, so that they
//! stack.

pub mod frame;
mod loopback;
mod rx;
mod software;
mod vnet;

pub use frame::Frame;
pub use loopback::Loopback;
pub use rx::RxSlots;
pub use software::Software;
pub use vnet::VnetDevice;

use crate::counters::Stats;
use abi::Nanos;
use abi::config::Offload;
use shm::{Allocator, Arena, SkBuff};
use std::fmt;
use std::os::fd::BorrowedFd;

/// What a device works with during a turn.
#[derive(Debug)]
pub struct Io<'a> {
    /// The time.
    pub now: Nanos,
    /// netdevd's receive pool.
    pub alloc: &'a mut Allocator,
    /// Everything that fragments can point into.
    pub arena: &'a Arena,
    /// Counts.
    pub stats: &'a mut Stats,
}

/// The device takes no more for now; try the same frame again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// A network device, polled: it never blocks.
pub trait Device: fmt::Debug {
    /// What becomes readable when frames wait; registered edge-triggered, so that a device being
    /// polled costs no interrupts. None for a device in memory.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// What may be left to the device.
    fn offload(&self) -> Offload;

    /// Receives up to `budget` frames, each with its data at the Ethernet header and checksum
    /// state and segmentation set. 0 means that none waits, or none can be taken now
    /// ([`Device::deadline`] tells when to try again).
    fn receive(&mut self, io: &mut Io<'_>, budget: usize, out: &mut Vec<SkBuff>) -> usize;

    /// Sends a frame. One that the device refuses is counted and gone.
    ///
    /// # Errors
    /// [`Busy`]: nothing of the frame (or, of a super-frame being cut, a part that is
    /// remembered) has been sent; the next call must be with the same frame.
    fn transmit(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy>;

    /// Sends what was held back and is due.
    fn flush(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// Whether frames wait in memory, where no descriptor tells.
    fn has_input(&self) -> bool {
        false
    }

    /// When to call again although nothing happened.
    fn deadline(&self) -> Option<Nanos> {
        None
    }
}

impl Device for Box<dyn Device> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).fd()
    }

    fn offload(&self) -> Offload {
        (**self).offload()
    }

    fn receive(&mut self, io: &mut Io<'_>, budget: usize, out: &mut Vec<SkBuff>) -> usize {
        (**self).receive(io, budget, out)
    }

    fn transmit(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        (**self).transmit(io, frame)
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        (**self).flush(io);
    }

    fn has_input(&self) -> bool {
        (**self).has_input()
    }

    fn deadline(&self) -> Option<Nanos> {
        (**self).deadline()
    }
}

/// The earlier of two deadlines.
pub(crate) fn earlier(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}

#[cfg(test)]
mod tests;
