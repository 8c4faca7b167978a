//! What follows from a record: positions in the streams, and how far each side's end is.
//!
//! Functions of the record alone, so that what an application sees after a restore is what it saw
//! of the last commit.

use super::{Tcb, flag};
use crate::engine::seq::{Offset, of_stream, stream_position};

impl Tcb {
    /// The peer's FIN was reached: nothing comes after [`Self::received_upto`].
    #[must_use]
    pub const fn peer_finished(&self) -> bool {
        self.fin_at != 0 && self.rcv_nxt > self.fin_at
    }

    /// Stream position up to which the application may read.
    #[must_use]
    pub const fn received_upto(&self) -> u64 {
        let end = if self.peer_finished() {
            self.fin_at
        } else {
            self.rcv_nxt
        };
        stream_position(end)
    }

    /// Stream position below which the send buffer may be overwritten.
    #[must_use]
    pub const fn acked_upto(&self) -> u64 {
        let position = stream_position(self.snd_una);
        if position < self.written {
            position
        } else {
            self.written
        }
    }

    /// Bytes received in order that the application has not taken.
    #[must_use]
    pub const fn unread(&self) -> u64 {
        self.received_upto().saturating_sub(self.consumed)
    }

    /// Where the data the application has written ends; the FIN's place once one is queued.
    #[must_use]
    pub const fn data_end(&self) -> Offset {
        of_stream(self.written)
    }

    /// Whether the FIN was sent.
    #[must_use]
    pub const fn fin_sent(&self) -> bool {
        self.has(flag::FIN_QUEUED) && self.snd_nxt > self.data_end()
    }

    /// Whether the FIN was acknowledged.
    #[must_use]
    pub const fn fin_acked(&self) -> bool {
        self.fin_sent() && self.snd_una > self.data_end()
    }

    /// Whether all data (not the FIN) is acknowledged.
    #[must_use]
    pub const fn data_acked(&self) -> bool {
        self.snd_una >= self.data_end()
    }

    /// Sequence numbers in flight, acknowledged selectively or not.
    #[must_use]
    pub const fn flight(&self) -> u64 {
        self.snd_nxt - self.snd_una
    }

    /// First offset beyond the peer's window.
    #[must_use]
    pub fn snd_limit(&self) -> Offset {
        self.snd_una + u64::from(self.snd_wnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SocketRef;
    use crate::engine::sockopt::SockOpts;

    #[test]
    fn positions_follow_from_the_record() {
        let mut tcb = Tcb::new(SocketRef::NONE, SockOpts::new(4096, 4096), 7);
        assert!(tcb.is_valid());
        assert_eq!((tcb.received_upto(), tcb.acked_upto()), (0, 0));
        tcb.rcv_nxt = of_stream(10);
        assert_eq!(tcb.received_upto(), 10);
        tcb.fin_at = tcb.rcv_nxt;
        assert!(!tcb.peer_finished());
        tcb.rcv_nxt += 1;
        assert!(tcb.peer_finished());
        assert_eq!(tcb.received_upto(), 10);
        tcb.written = 5;
        tcb.flags |= flag::FIN_QUEUED;
        tcb.snd_nxt = tcb.data_end() + 1;
        assert!(tcb.fin_sent() && !tcb.fin_acked());
        tcb.snd_una = tcb.snd_nxt;
        assert!(tcb.fin_acked());
        assert_eq!(tcb.acked_upto(), 5);
    }
}
