//! How long receivers hear nothing: what a person at the other end notices of a fault.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What receivers receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Bulk over TCP.
    Streams,
    /// UDP echo and ping.
    Datagrams,
    /// Either.
    All,
}

/// The longest silences of all receivers since the last [`Silence::take`].
#[derive(Debug, Default)]
pub struct Silence {
    heard: Mutex<Vec<Heard>>,
}

/// One receiver.
#[derive(Debug, Clone, Copy)]
struct Heard {
    traffic: Traffic,
    last: Instant,
    longest: Duration,
    over: bool,
}

impl Silence {
    /// A receiver of `traffic` begins; the number to call [`Silence::hear`] with.
    pub(super) fn begin(&self, traffic: Traffic) -> usize {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(Heard {
            traffic,
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

    /// The longest silence of any receiver of `traffic`, one that lasts included. All begin anew.
    pub fn take(&self, traffic: Traffic) -> Duration {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut longest = Duration::ZERO;
        for one in heard.iter_mut().filter(|one| !one.over) {
            if traffic == Traffic::All || traffic == one.traffic {
                longest = longest.max(one.longest).max(now - one.last);
            }
            one.longest = Duration::ZERO;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn a_silence_is_of_those_who_are_asked_for() {
        let silence = Silence::default();
        let (stream, datagram) = (
            silence.begin(Traffic::Streams),
            silence.begin(Traffic::Datagrams),
        );
        sleep(Duration::from_millis(20));
        silence.hear(datagram);
        silence.take(Traffic::All);
        silence.hear(stream);
        sleep(Duration::from_millis(5));
        silence.hear(datagram);
        silence.end(stream);
        // The stream's would be longer, but it is over; and the silence before has been taken.
        assert_eq!(silence.take(Traffic::Streams), Duration::ZERO);
        sleep(Duration::from_millis(5));
        assert!(silence.take(Traffic::Datagrams) >= Duration::from_millis(5));
    }
}
