//! `TCP_NOTSENT_LOWAT`: how much an application may write ahead of what has left, so that what it
//! decides to send last is not behind a buffer full of what it decided before.
//!
//! As Linux, the socket is writable while less than half of the mark is unsent, and unlike Linux
//! (which takes a whole sk_buff more) a write is cut at the mark. A mark below two segments counts
//! as two, or what leaves would be small for ever. The limit moves with what leaves, so sending is
//! news for the application's words ([`super::Notice::Acked`]).

use super::seq::{DATA_OFFSET, clamp};
use super::tcb::Tcb;

impl Tcb {
    /// The mark in force, in bytes; `None`: no limit but the buffer.
    fn unsent_mark(&self) -> Option<u64> {
        let mark = self.opts.notsent_lowat;
        let least = 2 * self.mss();
        (mark != 0 && mark != u32::MAX).then(|| u64::from(mark.max(least)))
    }

    /// Whether sending changes what the application may write.
    pub(crate) fn limits_unsent(&self) -> bool {
        self.unsent_mark().is_some()
    }

    /// Bytes written that never left.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.data_end()
            .saturating_sub(self.snd_nxt.max(DATA_OFFSET))
    }

    /// Whether little enough is unsent for another write to be worth it (Linux's
    /// `__tcp_stream_memory_free` with `wake` 1).
    #[must_use]
    pub fn is_little_unsent(&self) -> bool {
        self.unsent_mark()
            .is_none_or(|mark| 2 * self.unsent() < mark)
    }

    /// Bytes that the application may have in the send buffer now: its size, and no more than the
    /// mark beyond what is in flight. Never 0.
    #[must_use]
    pub fn shown_send_limit(&self) -> u32 {
        let buffer = self.send_buffer();
        match self.unsent_mark() {
            None => buffer,
            Some(mark) => {
                let flight = self.written.saturating_sub(self.acked_upto()) - self.unsent();
                buffer.min(clamp(flight.saturating_add(mark))).max(1)
            }
        }
    }
}
