//! From above to the device: gathered from where the payload lies.

use super::{Netdevd, RETRY};
use crate::counters::Counter;
use crate::device::{Busy, Device, Frame, Io};
use abi::RegionId;
use abi::suspect::note;
use runtime::{Context, Plumbing};
use shm::vitals::stage;
use shm::{Mapping, PeerFault};
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Netdevd {
    /// Sends what waits, until the device is busy.
    pub(super) fn transmit(&mut self, cx: &mut Context<'_>) {
        if self.retry.is_some_and(|at| cx.now < at) {
            return;
        }
        self.retry = None;
        let any = !self.down.is_empty();
        while let Some(skb) = self.down.front() {
            cx.plumbing.vitals.note_packet(note::FRAME, skb);
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

    /// Sends the first frame of the backlog, or counts why it cannot be sent.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Busy> {
        let Some(skb) = self.down.front() else {
            return Ok(());
        };
        if skb.frags().iter().any(|f| !cx.knows(RegionId(f.region))) {
            // The session is so new that its memory is still on its way to us.
            adopt_regions(cx.plumbing);
        }
        let now = cx.now;
        let Plumbing { alloc, arena, .. } = &mut *cx.plumbing;
        let Some(alloc) = alloc else { return Ok(()) };
        let frame = match Frame::gather(skb, arena) {
            Ok(frame) => frame,
            Err(PeerFault::UnknownRegion(_)) => {
                self.stats.add(Counter::TxUnknownRegion, 1);
                return Ok(());
            }
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

/// What an sk_buff's fragments may point into, asked of the arena.
trait Knows {
    fn knows(&self, region: RegionId) -> bool;
}

impl Knows for Context<'_> {
    fn knows(&self, region: RegionId) -> bool {
        region.pool().is_some() || self.plumbing.arena.has_region(region)
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
