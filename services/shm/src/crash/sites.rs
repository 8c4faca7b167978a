//! Where points are passed: a table that the processes fill in as they get there.
//!
//! A site is a point, a line of code and a kind of thing. Its entry is found by a hash of the
//! three, the same in every process of one build.

use super::Point;
use super::armed::{COUNTS, load, word};
use crate::Mapping;
use crate::sync::Ordering;
use abi::ServiceId;
use core::fmt;
use core::panic::Location;

/// Sites there can be, and words of each: hash, point + 1, kind, line, end of the file's name.
const SITES: u32 = 256;
const ENTRY: usize = 16;
const NAME: usize = 4;
/// Then how often each service (64) passed each.
const PASSED: usize = BEGIN + SITES as usize * ENTRY;

/// First word of the table, and how many there are.
pub(super) const BEGIN: usize = COUNTS + 64 * 64;
pub(super) const WORDS: usize = SITES as usize * (ENTRY + 64);

/// A place where a point is passed, for one kind of thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The point.
    pub point: Point,
    /// Its entry in the table.
    pub(super) number: u32,
    kind: u32,
    place: String,
}

impl Site {
    /// The file (the end of its path) and the line.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.point.name(), self.place)?;
        if self.kind != 0 {
            write!(f, ", kind {}", self.kind)?;
        }
        f.write_str(")")
    }
}

fn passed(service: ServiceId, number: u32) -> usize {
    PASSED + usize::from(service.0 % 64) * SITES as usize + number as usize
}

fn entry(number: u32) -> usize {
    BEGIN + number as usize * ENTRY
}

/// Counts that `service` is there, and answers the site's number; none when the table is full.
pub(super) fn note(
    memory: &Mapping,
    service: ServiceId,
    point: Point,
    kind: u32,
    place: &Location<'_>,
) -> Option<u32> {
    let number = find(memory, point, kind, place)?;
    word(memory, passed(service, number))?.fetch_add(1, Ordering::Release);
    Some(number)
}

fn find(memory: &Mapping, point: Point, kind: u32, place: &Location<'_>) -> Option<u32> {
    // The end of a file's name tells more than its beginning.
    let name = place.file().as_bytes();
    let end = name.last_chunk::<12>().map_or(&b""[..], |end| end);
    let words = [point as u32 + 1, kind, place.line(), place.column()];
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    let hash = bytes
        .chain(end.iter().copied())
        .fold(0x811c_9dc5u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
        .max(1);
    let first = hash % SITES;
    for number in (first..SITES).chain(0..first) {
        let at = entry(number);
        let slot = word(memory, at)?;
        let found = slot.compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire);
        match found {
            // Somebody else may write the same just now, with the same words.
            Ok(_) => {
                let [point, kind, line, _] = words;
                for (offset, value) in [(1, point), (2, kind), (3, line)] {
                    word(memory, at + offset)?.store(value, Ordering::Relaxed);
                }
                let room = (ENTRY - NAME) * 4;
                let name = name.get(name.len().saturating_sub(room)..)?;
                let _ = memory.copy_in((at + NAME) * 4, name);
                return Some(number);
            }
            Err(other) if other == hash => return Some(number),
            Err(_) => {}
        }
    }
    None
}

/// What `service` has passed, and how often.
pub(super) fn all(memory: &Mapping, service: ServiceId) -> Vec<(Site, u32)> {
    let sites = (0..SITES).filter_map(|number| {
        let count = load(memory, passed(service, number));
        let at = entry(number);
        let point = load(memory, at + 1).checked_sub(1)?;
        let mut name = [0; (ENTRY - NAME) * 4];
        let _ = memory.copy_out((at + NAME) * 4, &mut name);
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let site = Site {
            point: *Point::ALL.get(point as usize)?,
            number,
            kind: load(memory, at + 2),
            place: format!("{}:{}", String::from_utf8_lossy(name), load(memory, at + 3)),
        };
        (count > 0).then_some((site, count))
    });
    sites.collect()
}
