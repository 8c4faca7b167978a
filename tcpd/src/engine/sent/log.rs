//! The log itself: what is asked of it, and what becomes of units as they are sent,
//! acknowledged and lost. How units are cut and joined is in [`tiles`].

mod tiles;

use super::losses::Losses;
use super::{Delivery, Fate, KEEP_UNITS, Loss, RateStamp, Unit};
use crate::engine::seq::Offset;
use abi::Nanos;
use std::collections::VecDeque;
use tiles::IfFull;

/// The log.
#[derive(Debug, Default)]
pub struct SendLog {
    units: VecDeque<Unit>,
    sacked: u64,
    lost: u64,
    /// Nothing below it is lost.
    lost_from: Offset,
    losses: Losses,
    /// Calls for which [`Self::thin_out`] does nothing.
    futile: u32,
    /// Put on units as they leave; delivery-rate sampling keeps it up to date.
    pub stamp: RateStamp,
}

impl SendLog {
    /// Bytes in flight that the peer has.
    #[must_use]
    pub const fn sacked(&self) -> u64 {
        self.sacked
    }

    /// Bytes lost and not sent again.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes found to be lost since the log was made, sent again or not.
    #[must_use]
    pub const fn lost_ever(&self) -> u64 {
        self.losses.total()
    }

    /// Whether pieces that are lost are kept for [`Self::tell_losses`].
    pub fn watch_losses(&mut self, on: bool) {
        self.losses.watch(on);
    }

    /// Hands each piece that was found to be lost since the last call to `f`.
    pub fn tell_losses(&mut self, mut f: impl FnMut(&Loss)) {
        let pieces = self.losses.take();
        for piece in &pieces {
            f(piece);
        }
        self.losses.give_back(pieces);
    }

    /// The units, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Unit> {
        self.units.iter()
    }

    /// Number of units.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Behind the last unit.
    #[must_use]
    pub fn end(&self) -> Option<Offset> {
        self.units.back().map(|unit| unit.end)
    }

    /// The highest offset that was selectively acknowledged.
    #[must_use]
    pub fn high_sacked(&self) -> Option<Offset> {
        if self.sacked == 0 {
            return None;
        }
        self.units
            .iter()
            .rev()
            .find(|unit| unit.fate == Fate::Sacked)
            .map(|unit| unit.end)
    }

    /// Makes the log tile `una .. nxt`: what it does not know was sent without it (a restore, or
    /// data on a SYN).
    pub fn cover(&mut self, una: Offset, nxt: Offset, now: Nanos) {
        let from = self.end().unwrap_or(una).max(una);
        if from < nxt {
            self.put(from, nxt, now, 1);
        }
    }

    /// After a restore: see the module's head. `sacked` are the scoreboard's ranges, ascending.
    pub fn rebuild(
        &mut self,
        una: Offset,
        nxt: Offset,
        sacked: impl Iterator<Item = (Offset, Offset)>,
        now: Nanos,
    ) {
        self.units.clear();
        self.sacked = 0;
        self.lost = 0;
        self.cover(una, nxt, now);
        let mut ignored = Delivery::default();
        for (start, end) in sacked {
            self.sack(start, end, &mut ignored);
        }
    }

    /// New data leaves.
    pub fn push(&mut self, start: Offset, end: Offset, now: Nanos) {
        self.put(start, end, now, 0);
    }

    /// `[start, end)` leaves again. Should the log be full, what shares its unit counts as sent
    /// again too, and is found to be lost later.
    pub fn resend(&mut self, start: Offset, end: Offset, now: Nanos) {
        let stamp = self.stamp;
        let wanted = |unit: &Unit| unit.fate != Fate::Sacked;
        let full = IfFull::Widen;
        self.change(start, end, full, wanted, |unit| {
            unit.fate = Fate::InFlight;
            unit.sent_at = now;
            unit.stamp = stamp;
            unit.rexmits = unit.rexmits.saturating_add(1);
        });
        if (start..end).contains(&self.lost_from) {
            self.lost_from = end;
        }
    }

    /// Everything below `ack` was delivered.
    pub fn advance(&mut self, ack: Offset, delivery: &mut Delivery) {
        while let Some(first) = self.units.front_mut() {
            if first.start >= ack {
                break;
            }
            let part = Unit {
                end: first.end.min(ack),
                ..*first
            };
            first.start = part.end;
            match part.fate {
                Fate::Sacked => self.sacked -= part.len(),
                Fate::Lost => {
                    self.lost -= part.len();
                    delivery.add(part);
                }
                Fate::InFlight => delivery.add(part),
            }
            if part.end < ack || self.units.front().is_some_and(Unit::is_empty) {
                self.units.pop_front();
            }
        }
        if self.units.is_empty() && self.units.capacity() > 2 * KEEP_UNITS {
            self.units.shrink_to(KEEP_UNITS);
        }
    }

    /// `[start, end)` was selectively acknowledged. Returns the bytes that are new.
    pub fn sack(&mut self, start: Offset, end: Offset, delivery: &mut Delivery) -> u64 {
        let mut new = 0;
        let wanted = |unit: &Unit| unit.fate != Fate::Sacked;
        self.change(start, end, IfFull::Skip, wanted, |unit| {
            delivery.add(*unit);
            new += unit.len();
            unit.fate = Fate::Sacked;
        });
        new
    }

    /// `[start, end)` is lost, as far as the peer does not have it. Returns the bytes that were
    /// not known to be.
    pub fn mark_lost(&mut self, start: Offset, end: Offset) -> u64 {
        let before = self.lost;
        let wanted = |unit: &Unit| unit.fate == Fate::InFlight;
        let mut losses = core::mem::take(&mut self.losses);
        self.change(start, end, IfFull::Widen, wanted, |unit| {
            unit.fate = Fate::Lost;
            losses.note(unit);
        });
        self.losses = losses;
        self.lost - before
    }

    /// Marks as lost what is in flight and of which `is_lost` says so; it sees units ascending
    /// and ends the search by `None`. Returns the bytes.
    pub fn find_lost(&mut self, mut is_lost: impl FnMut(&Unit) -> Option<bool>) -> u64 {
        let before = self.lost;
        let mut found: Option<(usize, usize)> = None;
        for i in 0..self.units.len() {
            let Some(unit) = self.units.get_mut(i) else {
                break;
            };
            if unit.fate != Fate::InFlight {
                continue;
            }
            match is_lost(unit) {
                None => break,
                Some(false) => {}
                Some(true) => {
                    unit.fate = Fate::Lost;
                    self.losses.note(unit);
                    let (start, len) = (unit.start, unit.len());
                    self.recount(Fate::InFlight, Fate::Lost, start, len);
                    found = Some((found.map_or(i, |(first, _)| first), i));
                }
            }
        }
        if let Some((first, last)) = found {
            self.coalesce(first, last + 1);
        }
        self.lost - before
    }

    /// Nothing is lost after all.
    pub fn forget_losses(&mut self) {
        if self.lost > 0 {
            for unit in &mut self.units {
                if unit.fate == Fate::Lost {
                    unit.fate = Fate::InFlight;
                }
            }
            self.lost = 0;
            self.coalesce(0, self.units.len());
        }
    }

    /// The peer reneged: what it said it had counts as lost.
    pub fn forget_sacks(&mut self) {
        for unit in &mut self.units {
            if unit.fate == Fate::Sacked {
                unit.fate = Fate::Lost;
                // When it left is not known any more, so nothing may be derived from it.
                unit.rexmits = unit.rexmits.max(1);
            }
        }
        self.lost += self.sacked;
        self.sacked = 0;
        self.lost_from = 0;
        self.coalesce(0, self.units.len());
    }

    /// The first range that is lost.
    #[must_use]
    pub fn next_lost(&self) -> Option<(Offset, Offset)> {
        if self.lost == 0 {
            return None;
        }
        let from = self
            .units
            .partition_point(|unit| unit.end <= self.lost_from);
        self.units
            .range(from..)
            .find(|unit| unit.fate == Fate::Lost)
            .map(|unit| (unit.start, unit.end))
    }

    /// The first range that the peer does not have.
    #[must_use]
    pub fn first_hole(&self) -> Option<(Offset, Offset)> {
        self.units
            .iter()
            .find(|unit| unit.fate != Fate::Sacked)
            .map(|unit| (unit.start, unit.end))
    }

    /// The last range that the peer does not have, at most `most` bytes of it.
    #[must_use]
    pub fn last_hole(&self, most: u64) -> Option<(Offset, Offset)> {
        self.units
            .iter()
            .rev()
            .find(|unit| unit.fate != Fate::Sacked)
            .map(|unit| (unit.start.max(unit.end.saturating_sub(most)), unit.end))
    }
}
