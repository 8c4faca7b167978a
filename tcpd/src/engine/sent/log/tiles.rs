//! How units tile the flight: they are put, cut where a fate ends inside one, joined with
//! neighbours of the same fate, counted, and thinned out when there are too many.
//!
//! After each function the units tile `snd_una .. snd_nxt`, and [`SendLog::sacked`] and
//! [`SendLog::lost`] are the sums of those fates. Called by the log's own functions only.

use super::SendLog;
use crate::engine::sent::{Fate, MAX_UNITS, SPARE_UNITS, Unit};
use crate::engine::seq::Offset;
use abi::Nanos;

/// Thinning out that frees fewer units than this is not tried again for as many calls.
const FUTILE: u32 = 64;

/// What to do where a unit ought to be split and cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfFull {
    /// Nothing.
    Skip,
    /// The same to all of it.
    Widen,
}

impl SendLog {
    pub(super) fn put(&mut self, start: Offset, end: Offset, now: Nanos, rexmits: u8) {
        if start >= end {
            return;
        }
        let unit = Unit {
            start,
            end,
            sent_at: now,
            stamp: self.stamp,
            fate: Fate::InFlight,
            rexmits,
        };
        if self.units.len() >= MAX_UNITS {
            self.thin_out();
        }
        let full = self.units.len() >= MAX_UNITS;
        match self.units.back_mut() {
            Some(last) if last.joins(&unit) || (full && last.fate == Fate::InFlight) => {
                last.join(&unit);
            }
            _ => self.units.push_back(unit),
        }
    }

    /// Applies `f` to units of `[start, end)` that are `wanted`, splitting those that reach
    /// beyond.
    pub(super) fn change(
        &mut self,
        start: Offset,
        end: Offset,
        full: IfFull,
        wanted: impl Fn(&Unit) -> bool,
        mut f: impl FnMut(&mut Unit),
    ) {
        let most = match full {
            IfFull::Widen => MAX_UNITS,
            IfFull::Skip => MAX_UNITS - SPARE_UNITS,
        };
        if self.units.len() + 2 > most {
            self.thin_out();
        }
        let room = self.units.len() + 2 <= most;
        let mut at = self.units.partition_point(|unit| unit.end <= start);
        let first = at;
        while let Some(&unit) = self.units.get(at) {
            if unit.start >= end {
                break;
            }
            if wanted(&unit) && unit.start < start && room {
                // Its right part comes next.
                self.split(at, start);
            } else if wanted(&unit)
                && (unit.start >= start || full == IfFull::Widen)
                && (unit.end <= end || room || full == IfFull::Widen)
            {
                if unit.end > end && room {
                    self.split(at, end);
                }
                if let Some(unit) = self.units.get_mut(at) {
                    let (before, len) = (unit.fate, unit.len());
                    f(unit);
                    let (after, start) = (unit.fate, unit.start);
                    self.recount(before, after, start, len);
                }
            }
            at += 1;
        }
        self.coalesce(first, at);
    }

    pub(super) fn recount(&mut self, before: Fate, after: Fate, start: Offset, len: u64) {
        match before {
            Fate::Sacked => self.sacked -= len,
            Fate::Lost => self.lost -= len,
            Fate::InFlight => {}
        }
        match after {
            Fate::Sacked => self.sacked += len,
            Fate::Lost => {
                self.lost_from = if self.lost == 0 {
                    start
                } else {
                    self.lost_from.min(start)
                };
                self.lost += len;
            }
            Fate::InFlight => {}
        }
    }

    /// Splits unit `index` at `at`, which lies inside.
    fn split(&mut self, index: usize, at: Offset) {
        if let Some(unit) = self.units.get_mut(index) {
            let right = Unit { start: at, ..*unit };
            unit.end = at;
            // The right part left behind the left one.
            let behind = u32::try_from(right.len()).unwrap_or(u32::MAX);
            unit.stamp.in_flight = unit.stamp.in_flight.saturating_sub(behind);
            self.units.insert(index + 1, right);
        }
    }

    /// Joins neighbours among the units `first - 1 ..= last`.
    pub(super) fn coalesce(&mut self, first: usize, last: usize) {
        let mut kept = first.saturating_sub(1);
        let end = (last + 1).min(self.units.len());
        for at in kept + 1..end {
            let Some(&unit) = self.units.get(at) else {
                break;
            };
            match self.units.get_mut(kept) {
                Some(left) if left.joins(&unit) => left.join(&unit),
                _ => {
                    kept += 1;
                    if let Some(slot) = self.units.get_mut(kept) {
                        *slot = unit;
                    }
                }
            }
        }
        if kept + 1 < end {
            self.units.drain(kept + 1..end);
        }
    }

    /// The log is full: joins pairs of neighbours in flight, whenever they left.
    fn thin_out(&mut self) {
        if self.futile > 0 {
            // It just did not help.
            self.futile -= 1;
            return;
        }
        let before = self.units.len();
        let mut kept = 0;
        let mut odd = true;
        for at in 1..self.units.len() {
            let Some(&unit) = self.units.get(at) else {
                break;
            };
            match self.units.get_mut(kept) {
                Some(left) if odd && left.fate == unit.fate => {
                    left.join(&unit);
                    odd = false;
                }
                _ => {
                    odd = true;
                    kept += 1;
                    if let Some(slot) = self.units.get_mut(kept) {
                        *slot = unit;
                    }
                }
            }
        }
        self.units.truncate(kept + 1);
        if before - self.units.len() < FUTILE as usize {
            self.futile = FUTILE;
        }
    }
}
