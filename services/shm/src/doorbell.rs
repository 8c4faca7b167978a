//! The masked doorbell's algorithm, apart from the memory and the eventfd that [`crate::Bell`]
//! adds.
//!
//! ```text
//!   word u32:  arming number << 1 | armed
//!
//!   consumer                         producer
//!   word = n+1 armed                 publish (ring tail)
//!   fence SeqCst   <-------------->  fence SeqCst
//!   look at the inputs again         if armed { signal; word: armed -> masked, if still n+1 }
//!   wait for the signal
//! ```
//!
//! One of the two fences comes first: either the consumer's look sees the publication, or the
//! producer sees it armed. The producer signals before it masks, so that dying between the two
//! costs a wake-up too many and never one too few; and it masks by compare-and-swap on the
//! number, so that a slow producer cannot mask a later arming. The number stays in the word when
//! it is masked, so a restarted consumer goes on counting where its predecessor stopped: were it
//! to begin again, a producer that had seen the predecessor's number could mask the successor's
//! arming without having signalled for it.

use crate::crash::{self, Point};
use crate::sync::{AtomicU32, Ordering, fence};

const ARMED: u32 = 1;

/// Producer: signals if the consumer is armed and masks it; answers whether it was. Call after
/// publishing.
#[inline]
pub fn ring(word: &AtomicU32, signal: impl FnOnce()) -> bool {
    // Pairs with the fence in `arm`.
    fence(Ordering::SeqCst);
    let seen = word.load(Ordering::Relaxed);
    if seen & ARMED == 0 {
        return false;
    }
    signal();
    crash::reach(Point::BellSignalled);
    let _ = word.compare_exchange(seen, seen & !ARMED, Ordering::Relaxed, Ordering::Relaxed);
    true
}

/// The consumer's side: counts its armings.
///
/// It swaps where a store would do: loom does not see that a store which overwrites what a
/// compare-and-swap left comes after it. Once a sleep, that costs nothing.
#[derive(Debug)]
pub struct Armings {
    number: u32,
}

impl Armings {
    /// Goes on counting where a predecessor stopped.
    #[must_use]
    pub fn attach(word: &AtomicU32) -> Self {
        Self {
            number: word.load(Ordering::Relaxed) >> 1,
        }
    }

    /// Arms. Look at all inputs after it, and wait only if they are empty. Between this and the
    /// wait, the signal must not be taken away.
    #[inline]
    pub fn arm(&mut self, word: &AtomicU32) {
        self.number = self.number.wrapping_add(1) & (u32::MAX >> 1);
        word.swap((self.number << 1) | ARMED, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        crash::reach(Point::BellArmed);
    }

    /// Masks, when there was work after arming or the wait is over. Take the signal away after
    /// it, and look at the inputs after that.
    #[inline]
    pub fn mask(&self, word: &AtomicU32) {
        word.swap(self.number << 1, Ordering::Relaxed);
    }
}
