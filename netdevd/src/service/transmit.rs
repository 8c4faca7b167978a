//! From above to the device: gathered from where the payload lies.

use super::awaiting::is_known;
use super::{Netdevd, RETRY};
use crate::counters::Counter;
use crate::device::{Busy, Device, Frame, Io};
use abi::RegionId;
use abi::suspect::note;
use runtime::{Context, Plumbing};
use shm::Mapping;
use shm::vitals::stage;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Netdevd {
    /// Sends what waits, until the device is busy.
    pub(super) fn transmit(&mut self, cx: &mut Context<'_>) {
        if self.retry.is_some_and(|at| cx.now < at) {
            return;
        }
        self.retry = None;
        if !self.awaiting.is_empty() {
            let arena = &cx.plumbing.arena;
            let late = self.awaiting.settle(cx.now, arena, &mut self.down);
            self.stats.add(Counter::TxUnknownRegion, late);
        }
        let any = !self.down.is_empty();
        while let Some(skb) = self.down.front() {
            cx.plumbing.vitals.note_packet(note::FRAME, skb);
            if !self.is_known(cx) {
                if let Some(skb) = self.down.pop_front()
                    && !self.awaiting.add(skb, cx.now)
                {
                    self.stats.add(Counter::TxUnknownRegion, 1);
                }
                continue;
            }
            match self.send(cx) {
                Ok(()) => {
                    self.down.pop_front();
                }
                Err(Busy) => {
                    self.stats.add(Counter::TxBusy, 1);
                    self.retry = Some(cx.now + RETRY);
                    break;
                }
            }
        }
        if any {
            cx.plumbing.vitals.note(0, 0);
        }
    }

    /// Whether the memories of the first frame of the backlog are here, or have just come.
    fn is_known(&self, cx: &mut Context<'_>) -> bool {
        let Some(skb) = self.down.front() else {
            return true;
        };
        if is_known(skb, &cx.plumbing.arena) {
            return true;
        }
        adopt_regions(cx.plumbing);
        is_known(skb, &cx.plumbing.arena)
    }

    /// Sends the first frame of the backlog, or counts why it cannot be sent.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Busy> {
        let Some(skb) = self.down.front() else {
            return Ok(());
        };
        let now = cx.now;
        let Plumbing { alloc, arena, .. } = &mut *cx.plumbing;
        let Some(alloc) = alloc else { return Ok(()) };
        let frame = match Frame::gather(skb, arena) {
            Ok(frame) => frame,
            Err(_) => {
                self.stats.add(Counter::TxMalformed, 1);
                return Ok(());
            }
        };
        let mut io = Io {
            now,
            alloc,
            arena,
            stats: &mut self.stats,
        };
        self.device.transmit(&mut io, &frame)?;
        let super_frame = frame.hdr().is_gso();
        self.stats.add(Counter::TxPackets, 1);
        self.stats.add(Counter::TxBytes, frame.len() as u64);
        self.stats
            .add(Counter::TxSuperFrames, u64::from(super_frame));
        cx.trace(stage::DEVICE_OUT, skb.handle(), skb.len(), 0);
        Ok(())
    }
}

/// Maps the session memories that came, read-only, and unmaps those that went.
fn adopt_regions(plumbing: &mut Plumbing) {
    for (id, memory) in plumbing.take_regions() {
        adopt(plumbing, id, memory);
    }
}

pub(super) fn adopt(plumbing: &mut Plumbing, id: RegionId, memory: Option<OwnedFd>) {
    let Some(fd) = memory else {
        plumbing.arena.remove_region(id);
        return;
    };
    match Mapping::map(&fd, 1, false) {
        Ok(map) => plumbing.arena.add_region(id, Arc::new(map)),
        Err(error) => tracing::warn!(?id, %error, "a session memory that cannot be mapped"),
    }
}
