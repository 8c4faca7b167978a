//! `SO_LINGER`: closing the last descriptor of a stream waits until the peer has acknowledged
//! what was sent and the FIN, at most for the linger time.
//!
//! The kernel alone knows which descriptor is the last one (`dup`, `fork`, `SCM_RIGHTS`), and it
//! tells the transport only, by hanging up. So the descriptor is closed first, as if nobody
//! lingered; whatever dies then, the end goes on in the transport's record. Then the transport is
//! asked whether it was the last ([`Op::Closing`]), and if so, the end is waited for: the
//! transport frees the socket's slot when it has come, and wakes those who sleep on its state.
//!
//! As with the kernel: a socket that does not block waits all the same; `shutdown` does not wait;
//! a signal ends the waiting, and so does a reset; none of it is an error, and what is left goes on
//! in the background. A process that ends without closing waits for nothing. A descriptor that was
//! taken out of the library (`OwnedFd`, `into_raw_fd`) is closed by others, who do not wait.

use crate::session::Session;
use abi::session::{Answer, Op, SocketId, SocketKind, SocketState, control, header};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Sleeps at the most before it looks whether there is another transport, whose predecessor may
/// have freed the slot and died before it could wake anybody.
const LOOK: Duration = Duration::from_millis(100);

/// Dropped after a socket's descriptor.
#[derive(Debug)]
pub(crate) struct Closing {
    session: Arc<Session>,
    id: SocketId,
    /// Off for sockets that never linger, and when the descriptor goes on without us.
    on: bool,
}

impl Closing {
    pub(crate) fn new(session: &Arc<Session>, id: SocketId, kind: SocketKind) -> Self {
        Self {
            session: Arc::clone(session),
            id,
            on: kind == SocketKind::Stream,
        }
    }

    /// Nothing is closed.
    pub(crate) fn disarm(mut self) {
        self.on = false;
    }

    fn word(&self, offset: usize) -> u32 {
        self.session
            .memory()
            .u32(self.id.slot, offset)
            .map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// The state word, while the socket is there.
    fn state(&self) -> Option<u32> {
        // In this order: of a slot that is used again, the state is not taken for ours.
        let state = self.word(control::STATE);
        let ours = self.word(control::INCARNATION) == self.id.incarnation;
        let over = [SocketState::Free as u32, SocketState::Closed as u32].contains(&state);
        (ours && !over).then_some(state)
    }

    fn starts(&self) -> u32 {
        self.session
            .memory()
            .mapping()
            .u32_at(header::STARTS)
            .map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// Whether the last descriptor is closed and there is something to wait for.
    fn is_last(&self) -> bool {
        matches!(
            self.session.request(Op::Closing(self.id)),
            Ok((Answer::Done, _))
        )
    }

    fn linger(&self, time: Duration) {
        let begin = Instant::now();
        let mut starts = self.starts();
        if !self.is_last() {
            return;
        }
        while let Some(state) = self.state() {
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return;
            }
            let memory = self.session.memory();
            if !memory.wait(self.id.slot, control::STATE, state, left.min(LOOK)) {
                return;
            }
            let now = self.starts();
            if now != starts && self.state().is_some() {
                starts = now;
                if !self.is_last() {
                    return;
                }
            }
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.on || self.state().is_none() {
            return;
        }
        let millis = self.word(control::LINGER);
        if millis > 0 {
            self.linger(Duration::from_millis(millis.into()));
        }
    }
}
