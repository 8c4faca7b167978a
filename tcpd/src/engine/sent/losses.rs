//! What was found to be lost, for a model of the path: which flight it was part of.
//!
//! Kept until the model is told, which is in the same event; at most [`MOST`] pieces, the last of
//! which then stands for all that follow. Volatile as the rest of the log: `total` begins anew
//! with a restore, and only differences of it are used.

use super::Unit;
use crate::engine::seq::Offset;

/// Pieces kept at most.
const MOST: usize = 64;

/// A piece that was found to be lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Its length in bytes.
    pub len: u32,
    /// Bytes in flight when it left, itself included; 0: not known (it left before a restore).
    pub in_flight: u32,
    /// Bytes found to be lost since it left, itself included.
    pub lost: u32,
    /// The application had nothing more to send then.
    pub app_limited: bool,
    /// It does not follow on the piece that was found before it.
    pub apart: bool,
}

/// The pieces.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Whether anybody wants to know.
    watched: bool,
    pieces: Vec<Loss>,
    /// Bytes found to be lost since the log was made.
    total: u64,
    /// End of the last piece.
    end: Offset,
}

impl Losses {
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn watch(&mut self, on: bool) {
        self.watched = on;
    }

    pub(super) fn note(&mut self, unit: &Unit) {
        self.total += unit.len();
        if !self.watched {
            return;
        }
        let known = unit.stamp.delivered_at != 0;
        let clamp = crate::engine::seq::clamp;
        let piece = Loss {
            len: clamp(unit.len()),
            in_flight: if known { unit.stamp.in_flight } else { 0 },
            lost: clamp(self.total.saturating_sub(unit.stamp.lost)),
            app_limited: unit.stamp.app_limited,
            apart: self.end != unit.start,
        };
        self.end = unit.end;
        if self.pieces.len() >= MOST {
            self.pieces.pop();
        }
        self.pieces.push(piece);
    }

    /// Takes the pieces; the vector comes back by [`Self::give_back`].
    pub(super) fn take(&mut self) -> Vec<Loss> {
        core::mem::take(&mut self.pieces)
    }

    pub(super) fn give_back(&mut self, mut pieces: Vec<Loss>) {
        pieces.clear();
        self.pieces = pieces;
    }
}
