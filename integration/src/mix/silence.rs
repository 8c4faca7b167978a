//! How long receivers hear nothing: what a person at the other end notices of a fault.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The longest silences of all receivers since the last [`Silence::take`].
#[derive(Debug, Default)]
pub struct Silence {
    heard: Mutex<Vec<Heard>>,
}

/// One receiver.
#[derive(Debug, Clone, Copy)]
struct Heard {
    last: Instant,
    longest: Duration,
    over: bool,
}

impl Silence {
    /// A receiver begins; the number to call [`Silence::hear`] with.
    pub(super) fn begin(&self) -> usize {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(Heard {
            last: Instant::now(),
            longest: Duration::ZERO,
            over: false,
        });
        heard.len() - 1
    }

    /// It received something.
    pub(super) fn hear(&self, receiver: usize) {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = heard.get_mut(receiver) {
            one.longest = one.longest.max(now - one.last);
            one.last = now;
        }
    }

    /// It has ended: its silence means nothing any more.
    pub(super) fn end(&self, receiver: usize) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = heard.get_mut(receiver) {
            one.over = true;
        }
    }

    /// The longest silence of any receiver, one that lasts included, and begins anew.
    pub fn take(&self) -> Duration {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut longest = Duration::ZERO;
        for one in heard.iter_mut().filter(|one| !one.over) {
            longest = longest.max(one.longest).max(now - one.last);
            one.longest = Duration::ZERO;
        }
        longest
    }
}
