//! Which records of a table were committed last, for a successor that takes those up first.
//!
//! ```text
//!   0    head u32: entries ever written, wrapping
//!   64   entries u32 [512], entry n at n mod 512: index + 1, or 0 for none
//! ```
//!
//! A hint: it decides in which order records are looked at, and never whether. So it needs no
//! checksum and no order of stores, and whoever writes over it costs milliseconds.

use crate::error::ShmError;
use crate::mapped::mapping::Mapping;
use crate::sync::{AtomicU32, Ordering};
use std::os::fd::AsFd;

/// Entries.
const PLACES: u32 = 512;
/// Where they begin.
const ENTRIES: usize = 64;
/// An index is noted again only when so many others were since: so those that are at work all the
/// time are among the last so many, and as many more as there are of them.
const AGAIN: u32 = PLACES / 8;

/// Bytes that it takes.
pub const SIZE: usize = 4096;
const _: () = assert!(ENTRIES + PLACES as usize * 4 <= SIZE);

/// The attached hint.
#[derive(Debug)]
pub struct Recent {
    map: Mapping,
    at: usize,
    /// For each record, the head when this process noted it, plus one; 0 for never.
    noted: Vec<u32>,
}

impl Recent {
    /// Attaches to the hint at byte `at` (a multiple of 4) of `fd`, for a table of `count` records.
    ///
    /// # Errors
    /// When the memory is too small.
    pub fn attach(fd: &impl AsFd, at: usize, count: u32) -> Result<Self, ShmError> {
        Ok(Self {
            map: Mapping::map(fd, at.saturating_add(SIZE), true)?,
            at,
            noted: vec![0; count as usize],
        })
    }

    fn head(&self) -> Option<&AtomicU32> {
        self.map.u32_at(self.at)
    }

    fn entry(&self, n: u32) -> Option<&AtomicU32> {
        let place = (n % PLACES) as usize;
        self.map.u32_at(self.at + ENTRIES + place * 4)
    }

    /// Record `index` is about to be committed.
    pub fn note(&mut self, index: u32) {
        let Some(head) = self.head().map(|head| head.load(Ordering::Relaxed)) else {
            return;
        };
        let Some(noted) = self.noted.get_mut(index as usize) else {
            return;
        };
        if *noted != 0 && head.wrapping_sub(*noted) < AGAIN {
            return;
        }
        *noted = head.wrapping_add(1);
        if let Some(entry) = self.entry(head) {
            entry.store(index.wrapping_add(1), Ordering::Relaxed);
        }
        if let Some(word) = self.head() {
            word.store(head.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// The records that were committed last, the very last first; some may come twice, or not be
    /// in use.
    pub fn latest(&self) -> impl Iterator<Item = u32> + '_ {
        let head = self.head().map_or(0, |head| head.load(Ordering::Relaxed));
        (1..=PLACES)
            .filter_map(move |back| self.entry(head.wrapping_sub(back)))
            .filter_map(|entry| entry.load(Ordering::Relaxed).checked_sub(1))
            .filter(|&index| (index as usize) < self.noted.len())
    }
}
