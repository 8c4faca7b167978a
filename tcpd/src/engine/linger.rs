//! `SO_LINGER` with a time: closing waits until the peer has acknowledged everything.
//!
//! The waiting is the library's (`libsocket::closing`); the engine keeps what it waits for. Until
//! its FIN is acknowledged a closed socket that lingers keeps its buffers, so its slot in session
//! memory, and the end of that is what the waiter sees. And while somebody waits, the connection
//! is not treated as one that nobody wants (Linux makes an orphan of it only afterwards).

use super::sockopt;
use super::state::State;
use super::tcb::Tcb;
use abi::Nanos;

impl Tcb {
    /// How long closing waits, in milliseconds; 0: it does not.
    #[must_use]
    pub const fn linger_ms(&self) -> u32 {
        if self.opts.has(sockopt::flag::LINGER) {
            self.opts.linger_ms
        } else {
            0
        }
    }

    /// Closing asks for a reset: the option is on, its time zero.
    pub(crate) const fn lingers_not(&self) -> bool {
        self.opts.has(sockopt::flag::LINGER) && self.opts.linger_ms == 0
    }

    /// It was closed, was to linger, and its FIN is not acknowledged (Linux's
    /// `sk_stream_closing`).
    pub(crate) fn is_lingering(&self) -> bool {
        self.is_orphan()
            && self.linger_ms() > 0
            && matches!(
                self.state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
    }

    /// No application holds it, and none waits for its end.
    pub(crate) const fn is_abandoned(&self, now: Nanos) -> bool {
        self.is_orphan() && now >= self.linger_until
    }
}
