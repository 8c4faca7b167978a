//! The send log: what is in flight, unit by unit, and when each last left.
//!
//! ```text
//!   snd_una                                                          snd_nxt
//!      | sacked | in flight, sent again | lost | sacked | in flight ... |
//! ```
//!
//! Units tile `snd_una .. snd_nxt` without gap or overlap. A unit is what left at one time (so up
//! to a whole batch) and shares one fate; acknowledgements split it where they must, and
//! neighbours of the same fate are joined again, so the log is as long as the picture above has
//! pieces, never longer than [`MAX_UNITS`].
//!
//! The log is volatile (`Conn.rt`): it tunes when something is sent again, not whether. What is
//! durable is `snd_una`, `snd_nxt` and the scoreboard. After a restore [`SendLog::rebuild`] tiles
//! the flight anew as if everything that the scoreboard does not name had been sent *again* at
//! the restore. From that follows: no round-trip time, rate sample or reordering is derived from
//! it (Karn's rule), and nothing of it counts as lost before something that left after the
//! restore has arrived and a round-trip time has passed, or a timer goes off.
//!
//! It allocates with the first unit, never while the pieces stay as many, and lets a large
//! buffer go when everything is acknowledged.

mod log;
mod losses;

use super::seq::Offset;
use abi::Nanos;
pub use log::SendLog;
pub use losses::Loss;

/// Units that are kept at most, 80 bytes each. When they run short, units that left at different
/// times are joined, and what has a fate of its own but no room for it shares its neighbours'.
pub const MAX_UNITS: usize = 2048;
/// Of them, those that selective acknowledgements may not use up: one that would is not believed
/// as far as it needs them, which is safe.
const SPARE_UNITS: usize = 512;
/// Buffers up to this many units are kept when the log runs empty.
const KEEP_UNITS: usize = 64;

/// What delivery-rate sampling notes with each unit: the connection's state when it left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateStamp {
    /// Bytes delivered in the connection's life until then.
    pub delivered: u64,
    /// When the last of them was.
    pub delivered_at: Nanos,
    /// When the first unit of the flight then being sampled was sent.
    pub first_sent_at: Nanos,
    /// Bytes in flight, this unit included.
    pub in_flight: u32,
    /// Bytes found to be lost in the connection's life until then.
    pub lost: u64,
    /// The application had nothing more to send.
    pub app_limited: bool,
}

/// What has become of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// On its way, as far as is known.
    #[default]
    InFlight,
    /// The peer has it.
    Sacked,
    /// Lost, and not sent again yet.
    Lost,
}

/// A piece of the flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unit {
    /// First offset.
    pub start: Offset,
    /// Behind the last one.
    pub end: Offset,
    /// When it was last sent.
    pub sent_at: Nanos,
    /// What was noted then.
    pub stamp: RateStamp,
    /// See [`Fate`].
    pub fate: Fate,
    /// How often it was sent again, saturating; 1 if that is not known (after a restore).
    pub rexmits: u8,
}

impl Unit {
    /// Length in bytes (a FIN counts as one).
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never: units have at least one byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// RFC 8985 6.1, `RACK_sent_after`: whether this was sent after what ends at `end` and was
    /// sent at `at`.
    #[must_use]
    pub const fn is_after(&self, at: Nanos, end: Offset) -> bool {
        self.sent_at > at || (self.sent_at == at && self.end > end)
    }

    /// Whether the two can be one unit.
    fn joins(&self, next: &Self) -> bool {
        self.fate == next.fate
            && match self.fate {
                Fate::InFlight => {
                    self.sent_at == next.sent_at
                        && self.rexmits == next.rexmits
                        && self.stamp.delivered == next.stamp.delivered
                }
                // When these left hardly matters any more.
                Fate::Lost => (self.rexmits == 0) == (next.rexmits == 0),
                Fate::Sacked => true,
            }
    }

    /// Takes the right neighbour in.
    fn join(&mut self, next: &Self) {
        self.end = next.end;
        // What is lost is older than something that arrived: nothing newer may follow from it,
        // should it arrive after all. In flight the newer time is the safe one.
        if (next.sent_at >= self.sent_at) == (self.fate != Fate::Lost) {
            self.sent_at = next.sent_at;
            self.stamp = next.stamp;
        }
        self.rexmits = self.rexmits.max(next.rexmits);
    }
}

/// What one acknowledgement newly delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes, cumulatively and selectively.
    pub bytes: u64,
    /// Of the units that it covers, the part that left last (RFC 8985 6.1).
    pub newest: Option<Unit>,
    /// Of those never sent again, the part that left last: its age is a round-trip time.
    pub newest_original: Option<Unit>,
    /// Of those never sent again, the lowest part: it was overtaken if something above had
    /// arrived before.
    pub lowest_original: Option<(Offset, Offset)>,
    /// Bytes that had been counted lost and not been sent again: they were only late.
    pub not_lost: u64,
}

impl Delivery {
    fn add(&mut self, part: Unit) {
        self.bytes += part.len();
        if part.fate == Fate::Lost {
            self.not_lost += part.len();
        }
        if self
            .newest
            .is_none_or(|best| part.is_after(best.sent_at, best.end))
        {
            self.newest = Some(part);
        }
        if part.rexmits > 0 {
            return;
        }
        if self
            .newest_original
            .is_none_or(|best| part.is_after(best.sent_at, best.end))
        {
            self.newest_original = Some(part);
        }
        if self
            .lowest_original
            .is_none_or(|(start, _)| part.start < start)
        {
            self.lowest_original = Some((part.start, part.end));
        }
    }
}

#[cfg(test)]
mod tests;
