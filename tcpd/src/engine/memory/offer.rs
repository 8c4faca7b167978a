//! How much of the receive buffer is offered: as much as what arrives has opened.
//!
//! A window that jumps lets a sender that was held up by it send all of the difference at once, at
//! the rate of its own device: 80 segments into the queue of the slowest link. So the window opens
//! by twice of what arrives (Linux's `rcv_ssthresh`): a sender that doubles its congestion window
//! each round trip (RFC 5681 3.1) is never held up, because what it sends moves the window's edge
//! by three times as much; one that was held up goes on at three times its rate for a while, and
//! never in one burst.
//!
//! While the rate rises from one round trip to the next, the peer is taken to be in slow start and
//! each segment is acknowledged by itself (RFC 5681 4.2 allows it; Linux does it while its window
//! opens): each acknowledgement then sets two segments free and not four, which matters where
//! queues are short, and the sender sees the spacing of its segments at the bottleneck. Linux's
//! HyStart looks for acknowledgements that are at most 2 ms apart: at 10 Mbit/s it finds them only
//! if every segment has one, and otherwise ends slow start by filling the queue.
//!
//! Volatile: a restore takes what was offered for what was opened, and the rate to be rising.

use crate::engine::conn::Conn;
use crate::engine::segment_in::{OPTION_SLACK, Segment};
use crate::engine::seq::{DATA_OFFSET, Offset, clamp};

/// Offered to begin with: what fits a SYN's window (Linux: the same).
const FIRST: u32 = 1 << 16;

/// How far the window is open.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Most bytes beyond `rcv_nxt` that may be offered.
    open: u32,
}

impl Default for Offer {
    fn default() -> Self {
        Self { open: FIRST }
    }
}

impl Offer {
    /// Bytes that are open (Linux's `rcv_ssthresh`).
    pub(super) const fn open(&self) -> u32 {
        self.open
    }

    /// No more than this is open.
    pub(super) fn limit(&mut self, bytes: u32) {
        self.open = self.open.min(bytes);
    }
}

impl Conn {
    /// Highest edge that is offered to the peer: of what the buffer has, what is open.
    pub(crate) fn rcv_edge(&self) -> Offset {
        let nxt = self.tcb.rcv_nxt.max(DATA_OFFSET);
        let open = nxt.saturating_add(self.rt.memory.offer.open.into());
        self.tcb.rcv_limit().min(open)
    }

    /// Payload was taken, in order or not, after `before`, when the last was.
    pub(crate) fn open_window(&mut self, segment: &Segment<'_>, before: abi::Nanos) {
        let tcb = &self.tcb;
        // Small segments are no bulk transfer, and waiting for their like is what delayed
        // acknowledgements are for.
        if segment.size + OPTION_SLACK < tcb.rcv_mss {
            return;
        }
        // Where this end sends as well, its own data carry the acknowledgements.
        let listens = before != 0 && tcb.last_sent_at < before;
        let room = tcb.rcv_limit().saturating_sub(tcb.rcv_nxt);
        let memory = &mut self.rt.memory;
        if listens && memory.measure.is_rising() {
            self.rt.quickack = self.rt.quickack.max(1);
        }
        let open = &mut memory.offer.open;
        if u64::from(*open) < room {
            *open = open.saturating_add(clamp(segment.payload_len()).saturating_mul(2));
        }
    }

    /// After a restore.
    pub(crate) fn resume_window(&mut self) {
        let offered = self.tcb.rcv_adv.saturating_sub(self.tcb.rcv_nxt);
        let offer = &mut self.rt.memory.offer;
        offer.open = offer.open.max(clamp(offered));
    }
}
