//! The receive buffer's size: dynamic right-sizing (Fisk and Feng, 2001), as Linux's
//! `tcp_rcv_space_adjust`.
//!
//! Within a round trip a sender can send one window. What the application has taken within one is
//! therefore what the path and it have carried so far, and a buffer of twice that lets the sender
//! double. While the rate still rises, as much again for each doubling to be expected before the
//! next measurement takes effect.
//!
//! A receiver that sends nothing sees the round trip by the time a whole window takes to arrive
//! (never too short), and by its own timestamps coming back. Where nothing was measured yet, the
//! handshake was.

use crate::engine::config::MILLISECOND;
use crate::engine::conn::Conn;
use crate::engine::seq::Offset;
use abi::Nanos;

/// Timestamps are milliseconds: a shorter time by them says nothing.
const COARSE: Nanos = 4 * MILLISECOND;

/// What is being measured.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    /// Round-trip time; 0 before there is any.
    rtt: Nanos,
    /// The arrival of this offset ends the timing of a window; 0: none under way.
    window_end: Offset,
    /// When it began.
    window_at: Nanos,
    /// When the present measurement of reading began; 0 before the first.
    since: Nanos,
    /// What had been read then.
    from: u64,
    /// Most bytes read in a round trip.
    space: u64,
}

impl Measure {
    /// Round-trip time as the receiver sees it, and most bytes read within one; 0: not measured
    /// (anew after a restore).
    pub(super) const fn seen(&self) -> (Nanos, u64) {
        (self.rtt, self.space)
    }

    fn lower(&mut self, sample: Nanos) {
        if self.rtt == 0 || sample < self.rtt {
            self.rtt = sample.max(1);
        }
    }

    fn smooth(&mut self, sample: Nanos) {
        self.rtt = if self.rtt == 0 {
            sample
        } else {
            self.rtt - self.rtt / 8 + sample / 8
        };
    }
}

impl Conn {
    /// In-order data has arrived, with this echo of an own timestamp.
    pub(crate) fn time_window(&mut self, echo: Option<u32>, now: Nanos) {
        let tcb = &self.tcb;
        let measure = &mut self.rt.memory.measure;
        if measure.rtt == 0 {
            measure.rtt = tcb.rtt.min_rtt;
        }
        if let Some(rtt) = echo.and_then(|tsecr| tcb.negotiated.echoed_rtt(tsecr, now))
            && rtt >= COARSE
            && tcb.negotiated.has(crate::engine::options::flag::TIMESTAMPS)
        {
            measure.smooth(rtt);
        }
        if measure.window_end != 0 {
            if tcb.rcv_nxt < measure.window_end {
                return;
            }
            measure.lower(now.saturating_sub(measure.window_at));
        }
        measure.window_end = tcb.rcv_adv.max(tcb.rcv_nxt + 1);
        measure.window_at = now;
    }

    /// The application has read up to the record's `consumed`.
    pub(crate) fn time_reading(&mut self, now: Nanos) {
        let tcb = &self.tcb;
        let measure = &mut self.rt.memory.measure;
        if measure.since == 0 {
            measure.since = now;
            measure.from = tcb.consumed;
            measure.space = u64::from(tcb.opts.rcv_buf / 4);
            return;
        }
        if measure.rtt == 0 || now.saturating_sub(measure.since) < measure.rtt {
            return;
        }
        let copied = tcb.consumed - measure.from;
        if copied > measure.space {
            let twice = 2 * copied + 16 * u64::from(tcb.rcv_mss);
            // Rising: as much more, in proportion.
            let rise = twice.saturating_mul(copied - measure.space) / measure.space.max(1);
            let want = twice.saturating_add(rise.min(2 * twice));
            measure.space = copied;
            self.rt.memory.want_rcv = u32::try_from(want).unwrap_or(u32::MAX);
        }
        measure.since = now;
        measure.from = tcb.consumed;
    }
}
