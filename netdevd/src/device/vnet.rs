//! A device behind a descriptor that gives and takes frames with a virtio header in front: TAP
//! (`IFF_VNET_HDR`) and AF_PACKET (`PACKET_VNET_HDR`) alike.

use super::rx::{self, RxSlots};
use super::{Busy, Device, Frame, Io};
use crate::counters::Counter;
use abi::Nanos;
use abi::config::{DeviceKind, Offload};
use shm::SkBuff;
use shm::crash::{self, Point};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// When to look again after the pool was used up: packets come back within a batch or two.
const STARVED: Nanos = 200_000;

/// When to look again after the device failed: it may be down for long.
const FAILED: Nanos = 20_000_000;

/// Largest super-frame: the largest IP packet and its Ethernet header with a VLAN tag.
const SUPER_FRAME: usize = 65_535 + 18;

/// A TAP or a packet socket.
#[derive(Debug)]
pub struct VnetDevice {
    fd: OwnedFd,
    offload: Offload,
    slots: RxSlots,
    /// Largest frame that may come.
    frame: usize,
    again: Option<Nanos>,
    failing: bool,
}

impl VnetDevice {
    /// Drives the nonblocking descriptor that [`open_device`](crate::open_device) made.
    #[must_use]
    pub fn new(fd: OwnedFd, kind: DeviceKind, offload: Offload, mtu: u16) -> Self {
        let frame = match (kind, offload) {
            // The kernel cuts what a TAP's owner has not asked for; a packet socket gets what
            // the sender makes, whatever we say.
            (DeviceKind::Tap, Offload::None | Offload::Checksum) => usize::from(mtu) + 18,
            _ => SUPER_FRAME,
        };
        Self {
            fd,
            offload,
            slots: RxSlots::default(),
            frame,
            again: None,
            failing: false,
        }
    }

    /// Says once that the device fails, and that it works again.
    fn failed(&mut self, what: &str, error: Option<&io::Error>) {
        match error {
            Some(error) if !self.failing => {
                tracing::warn!(%error, "the device fails to {what}; is the interface up?");
            }
            None if self.failing => tracing::info!("the device works again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

impl Device for VnetDevice {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn receive(&mut self, io: &mut Io<'_>, budget: usize, out: &mut Vec<SkBuff>) -> usize {
        if self.again.is_some_and(|at| io.now < at) {
            return 0;
        }
        self.again = None;
        let mut taken = 0;
        while taken < budget {
            if !self.slots.prepare(io.alloc, self.frame) {
                // The frames stay with the kernel, whose queue is the backpressure.
                io.stats.add(Counter::RxNoBuffer, 1);
                self.again = Some(io.now + STARVED);
                break;
            }
            match self.slots.read(self.fd.as_fd()) {
                Ok(skb) => {
                    taken += 1;
                    rx::count(io.stats, skb.as_ref());
                    out.extend(skb);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    io.stats.add(Counter::RxErrors, 1);
                    self.failed("receive", Some(&e));
                    self.again = Some(io.now + FAILED);
                    break;
                }
            }
        }
        if taken > 0 && self.failing {
            self.failed("receive", None);
        }
        taken
    }

    fn transmit(&mut self, io: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        loop {
            match frame.write(self.fd.as_fd()) {
                Ok(_) => {
                    crash::reach(Point::DeviceWritten);
                    io.stats.add(Counter::TxCopied, frame.len() as u64);
                    if self.failing {
                        self.failed("send", None);
                    }
                    return Ok(());
                }
                Err(e) => match e.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Err(Busy),
                    _ if e.raw_os_error() == Some(libc::ENOBUFS) => return Err(Busy),
                    _ => {
                        io.stats.add(Counter::TxErrors, 1);
                        // EINVAL is about this frame, not about the device.
                        if e.kind() != io::ErrorKind::InvalidInput {
                            self.failed("send", Some(&e));
                        }
                        return Ok(());
                    }
                },
            }
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.again
    }
}
