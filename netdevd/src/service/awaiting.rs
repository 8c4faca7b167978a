//! Frames whose payload lies in a session memory that is still on its way to us.
//!
//! A transport answers a new session at once and gives its memory to the supervisor, which gives
//! it to each netdevd. On a busy machine the session's first frames are quicker: dropped, they
//! would cost a new connection its first flight and a retransmission timeout.

use abi::{Nanos, RegionId};
use shm::{Arena, SkBuff};
use std::collections::VecDeque;

/// Frames that wait at the most: who forges regions holds up nobody but himself.
const MOST: usize = 128;

/// How long: less than the shortest retransmission timeout, for what comes later than a
/// retransmission is a duplicate.
const PATIENCE: Nanos = 100_000_000;

/// Whether every fragment is in memory that is known here.
pub(super) fn is_known(skb: &SkBuff, arena: &Arena) -> bool {
    skb.frags().iter().all(|frag| {
        let region = RegionId(frag.region);
        region.pool().is_some() || arena.has_region(region)
    })
}

/// The frames and until when they wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Awaiting {
    frames: VecDeque<(Nanos, SkBuff)>,
}

impl Awaiting {
    /// Puts a frame aside; false when there is no room.
    pub(super) fn add(&mut self, skb: SkBuff, now: Nanos) -> bool {
        let room = self.frames.len() < MOST;
        if room {
            self.frames.push_back((now + PATIENCE, skb));
        }
        room
    }

    /// Puts those whose memory has come in front of `queue`, in their order, and drops those that
    /// waited too long; answers how many.
    pub(super) fn settle(
        &mut self,
        now: Nanos,
        arena: &Arena,
        queue: &mut VecDeque<SkBuff>,
    ) -> u64 {
        let mut dropped = 0;
        let frames = std::mem::take(&mut self.frames);
        let mut known = Vec::new();
        for (until, skb) in frames {
            if is_known(&skb, arena) {
                known.push(skb);
            } else if now < until {
                self.frames.push_back((until, skb));
            } else {
                dropped += 1;
            }
        }
        for skb in known.into_iter().rev() {
            queue.push_front(skb);
        }
        dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When the oldest has waited too long.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.frames.front().map(|(until, _)| *until)
    }
}
