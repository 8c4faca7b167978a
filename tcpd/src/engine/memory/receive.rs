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

/// Segments of an initial window.
const INITIAL: u32 = 10;

/// What is being measured.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    /// Round-trip time; 0 before there is any.
    rtt: Nanos,
    /// The echo that was last measured.
    echo: u32,
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
    /// The last round trip was no faster than those before.
    steady: bool,
}

impl Measure {
    /// Round-trip time as the receiver sees it, and most bytes read within one; 0: not measured
    /// (anew after a restore).
    pub(super) const fn seen(&self) -> (Nanos, u64) {
        (self.rtt, self.space)
    }

    /// Whether the rate still rises by a quarter or more from one round trip to the next, as far as
    /// is known.
    pub(super) const fn is_rising(&self) -> bool {
        !self.steady
    }

    fn lower(&mut self, sample: Nanos) {
        if self.rtt == 0 || sample < self.rtt {
            self.rtt = sample.max(1);
        }
    }

    /// Once for each echo, for all that a sender lets out at once bears the same; and a shorter
    /// one counts in full (as Linux since 6.16). A sender that had nothing to send for a while
    /// echoes an old timestamp, and growing would wait for its pause as for a round trip.
    fn smooth(&mut self, sample: Nanos, echo: u32) {
        if echo == self.echo {
            return;
        }
        self.echo = echo;
        self.rtt = if self.rtt == 0 || sample < self.rtt {
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
        if let Some(echo) = echo
            && let Some(rtt) = tcb.negotiated.echoed_rtt(echo, now)
            && rtt >= COARSE
            && tcb.negotiated.has(crate::engine::options::flag::TIMESTAMPS)
        {
            measure.smooth(rtt, echo);
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
            // What senders begin with (RFC 6928): from then on the rate rises.
            measure.space = u64::from((tcb.opts.rcv_buf / 4).min(INITIAL * tcb.rcv_mss.max(1)));
            return;
        }
        if measure.rtt == 0 || now.saturating_sub(measure.since) < measure.rtt {
            return;
        }
        let copied = tcb.consumed - measure.from;
        measure.steady = copied < measure.space + measure.space / 4;
        if copied > measure.space {
            let twice = 2 * copied + 16 * u64::from(tcb.rcv_mss);
            // Rising: twice as much more, in proportion (as Linux). What is asked for now is
            // offered in the next round trip and used in the one after it.
            let rise = twice.saturating_mul(copied - measure.space) / measure.space.max(1);
            let want = twice.saturating_add(rise.min(twice) * 2);
            measure.space = copied;
            self.rt.memory.want_rcv = u32::try_from(want).unwrap_or(u32::MAX);
        }
        measure.since = now;
        measure.from = tcb.consumed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Found by `strata compare`: a sender began 77 ms after the handshake, its whole first window
    // echoed the SYN,ACK, and each of ten segments took the estimate nearer to 128 ms of a path of
    // 50; the buffer grew 100 ms late, all at once.
    #[test]
    fn an_old_echo_counts_once_and_a_shorter_time_in_full() {
        let mut m = Measure {
            rtt: 50 * MILLISECOND,
            ..Measure::default()
        };
        for _ in 0..10 {
            m.smooth(130 * MILLISECOND, 7);
        }
        assert_eq!(m.rtt, 60 * MILLISECOND);
        m.smooth(52 * MILLISECOND, 8);
        assert_eq!(m.rtt, 52 * MILLISECOND);
    }
}
