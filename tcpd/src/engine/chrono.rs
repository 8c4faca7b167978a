//! Where a connection's time goes, for `TCP_INFO`: waiting for the peer's window, for the
//! application, for timeouts. In the record, because an application can see it.

use super::tcb::Tcb;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a connection with data under way is held up by (Linux's `tcp_chrono`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Held {
    /// Nothing is under way.
    Idle = 0,
    /// The network: the congestion window, or simply the way there and back.
    Network = 1,
    /// The peer's receive window.
    Window = 2,
    /// The own send buffer: it is full, and all of it is in flight.
    Buffer = 3,
}

/// Sums of time in nanoseconds. 64 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chrono {
    /// Present [`Held`].
    held: u32,
    /// Times that something was acknowledged again after timeouts.
    pub rto_recoveries: u32,
    /// Since when it has been so.
    since: Nanos,
    /// With data under way.
    busy: Nanos,
    /// Of that, waiting for the peer's window.
    window: Nanos,
    /// Of that, the send buffer was too small.
    buffer: Nanos,
    /// When the first of a row of timeouts was; 0 for none.
    rto_at: Nanos,
    /// From first timeouts to the acknowledgements after them.
    pub rto_time: Nanos,
    /// When data last came.
    pub data_at: Nanos,
}

impl Chrono {
    fn set(&mut self, held: Held, now: Nanos) {
        if self.held == held as u32 {
            return;
        }
        let [busy, window, buffer] = self.sums(now);
        (self.busy, self.window, self.buffer) = (busy, window, buffer);
        self.held = held as u32;
        self.since = now;
    }

    /// Busy, and of that waiting for the window and for the buffer, up to now.
    #[must_use]
    pub fn sums(&self, now: Nanos) -> [Nanos; 3] {
        let time = now.saturating_sub(self.since);
        let of = |held: Held| if self.held == held as u32 { time } else { 0 };
        let busy = if self.held == Held::Idle as u32 {
            0
        } else {
            time
        };
        [
            self.busy + busy,
            self.window + of(Held::Window),
            self.buffer + of(Held::Buffer),
        ]
    }

    /// A retransmission timeout.
    pub(crate) fn timeout(&mut self, now: Nanos) {
        if self.rto_at == 0 {
            self.rto_at = now.max(1);
        }
    }

    /// The peer acknowledged something new.
    pub(crate) fn progress(&mut self, now: Nanos) {
        if self.rto_at != 0 {
            self.rto_time += now.saturating_sub(self.rto_at);
            self.rto_recoveries = self.rto_recoveries.saturating_add(1);
            self.rto_at = 0;
        }
    }
}

impl Tcb {
    /// After output or an acknowledgement; `by_window` says that the peer's window ended output.
    pub(crate) fn note_held(&mut self, by_window: bool, now: Nanos) {
        let unsent = self.data_end() > self.snd_nxt;
        let held = if self.flight() == 0 && !unsent {
            Held::Idle
        } else if unsent && by_window {
            Held::Window
        } else if !unsent && self.written - self.acked_upto() >= u64::from(self.send_buffer()) {
            Held::Buffer
        } else {
            Held::Network
        };
        self.chrono.set(held, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        let mut c = Chrono::default();
        c.set(Held::Network, 10);
        c.set(Held::Window, 15);
        assert_eq!(c.sums(18), [8, 3, 0]);
        c.set(Held::Buffer, 20);
        c.set(Held::Idle, 27);
        assert_eq!(c.sums(100), [17, 5, 7]);
        c.timeout(100);
        c.timeout(150);
        c.progress(180);
        c.progress(190);
        assert_eq!((c.rto_recoveries, c.rto_time), (1, 80));
    }
}
