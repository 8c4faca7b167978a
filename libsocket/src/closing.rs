//! `SO_LINGER`: closing the last descriptor of a stream waits until the peer has acknowledged
//! what was sent and the FIN, at most for the linger time.
//!
//! The kernel alone knows which descriptor is the last one (`dup`, `fork`, `SCM_RIGHTS`), and it
//! tells the transport only, by hanging up. So the descriptor is closed first, as if nobody
//! lingered; whatever dies then, the end goes on in the transport's record. Then the transport is
//! asked whether it was the last ([`Op::Closing`]), and if so, the end is waited for: the
//! transport frees the socket's slot when it has come. Nothing of ours is left then that it could
//! wake us by, so we look, ever more seldom ([`LOOKS`]).
//!
//! As with the kernel: a socket that does not block waits all the same; `shutdown` does not wait;
//! a signal ends the waiting, and so does a reset; none of it is an error, and what is left goes on
//! in the background. A process that ends without closing waits for nothing. A descriptor that was
//! taken out of the library (`OwnedFd`, `into_raw_fd`) is closed by others, who do not wait.

use crate::session::Session;
use abi::session::{Answer, Op, SocketId, SocketKind, SocketState, control, header};
use nix::poll::ppoll;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::time::TimeSpec;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks, the first time and after some: acknowledged within a short round trip it is
/// seen at once, and waiting costs little of a processor.
const LOOKS: RangeInclusive<Duration> = Duration::from_micros(50)..=Duration::from_millis(5);

/// Keeps signals back from this thread but while it naps, so that none comes between two naps
/// without ending the wait.
struct Signals {
    before: SigSet,
}

impl Signals {
    fn hold() -> nix::Result<Self> {
        let mut held = SigSet::all();
        // Raised by an instruction of this thread: kept back, they end the process.
        for fault in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGSYS,
        ] {
            held.remove(fault);
        }
        let before = held.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before })
    }

    /// Sleeps; whether no signal came, before or meanwhile.
    fn nap(&self, time: Duration) -> bool {
        ppoll(
            &mut [],
            Some(TimeSpec::from_duration(time)),
            Some(self.before),
        )
        .is_ok()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

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
        let mut nap = *LOOKS.start();
        let Ok(signals) = Signals::hold() else {
            return;
        };
        while self.state().is_some() {
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() || !signals.nap(nap.min(left)) {
                return;
            }
            nap = (nap * 2).min(*LOOKS.end());
            // Of another transport nobody has asked yet whether it was the last.
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
