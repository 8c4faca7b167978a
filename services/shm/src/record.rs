//! Two-copy records: committed state that survives the process that writes it.
//!
//! ```text
//!   word u64: version << 2 | which copy << 1 | in use
//!   copy 0: version u64, crc32 u32, length u32, bytes
//!   copy 1: likewise
//! ```
//!
//! Committing writes the older copy, then flips the word with one store. Dying before the flip
//! leaves the old record, after it the new one; there is no between. One process writes, and
//! only its successor reads, so the orderings matter for the order of stores alone.

use crate::crash::{self, Point};
use crate::sync::{AtomicU64, Ordering, compiler_fence};

/// Bytes in front of a copy's contents.
pub const COPY_HEADER: usize = 16;

/// Bits of a record's word.
const IN_USE: u64 = 1;
const COPY: u64 = 2;

/// Version in a record's word (62 bits).
#[must_use]
pub const fn version(word: u64) -> u64 {
    word >> 2
}

/// Whether the record is in use.
#[must_use]
pub const fn in_use(word: u64) -> bool {
    word & IN_USE != 0
}

/// Index (0 or 1) of the current copy.
#[must_use]
pub const fn current(word: u64) -> usize {
    ((word & COPY) >> 1) as usize
}

/// The word after a commit into the other copy.
#[must_use]
pub const fn flipped(word: u64) -> u64 {
    (version(word).wrapping_add(1) << 2) | ((word & COPY) ^ COPY) | IN_USE
}

/// The word of a record taken out of use; version and copy go on. No copy has that version: should
/// something write over the word, so that it says "in use", the record is corrupt and not alive
/// again.
#[must_use]
pub const fn cleared(word: u64) -> u64 {
    (version(word).wrapping_add(1) << 2) | (word & COPY)
}

/// A copy does not carry what its word promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record is corrupt")]
pub struct Corrupt;

/// Where a record's bytes are; implemented by the mapping and by models.
pub trait Copies {
    /// Writes version, checksum and contents of one copy.
    fn write(&mut self, copy: usize, version: u64, crc: u32, bytes: &[u8]);
    /// Reads them; `into` has the record's length.
    fn read(&self, copy: usize, into: &mut [u8]) -> (u64, u32);
}

/// Commits `bytes`.
pub fn commit(word: &AtomicU64, copies: &mut impl Copies, bytes: &[u8]) {
    let before = word.load(Ordering::Relaxed);
    let after = flipped(before);
    copies.write(
        current(after),
        version(after),
        checksum(version(after), bytes),
        bytes,
    );
    // Tables differ in the length of their records.
    let table = u32::try_from(bytes.len()).unwrap_or(0);
    crash::reach_for(Point::RecordWritten, table);
    // Release: the copy is written before the word names it.
    word.store(after, Ordering::Release);
    crash::reach_for(Point::RecordFlipped, table);
    // The next commit overwrites what was current until here; its writes must not be compiled
    // to before the store. (A killed process has executed a prefix of its instructions, so that
    // is all there is to order.)
    compiler_fence(Ordering::SeqCst);
}

/// Takes the record out of use.
pub fn clear(word: &AtomicU64) {
    word.store(cleared(word.load(Ordering::Relaxed)), Ordering::Release);
    // As in `commit`.
    compiler_fence(Ordering::SeqCst);
}

/// Loads the committed contents into `into`: `Ok(false)` when the record is not in use.
///
/// # Errors
/// [`Corrupt`] when version or checksum do not match: reset this record alone.
pub fn load(word: &AtomicU64, copies: &impl Copies, into: &mut [u8]) -> Result<bool, Corrupt> {
    // Acquire: pairs with the Release of `commit`.
    let w = word.load(Ordering::Acquire);
    if !in_use(w) {
        return Ok(false);
    }
    let (v, crc) = copies.read(current(w), into);
    if v == version(w) && crc == checksum(v, into) {
        Ok(true)
    } else {
        Err(Corrupt)
    }
}

/// Loads what was current before the last commit, whether the record is in use or not; false when
/// that copy does not carry its version. It is no state to go on from: it tells who is concerned
/// when the current copy is [`Corrupt`].
pub fn load_older(word: &AtomicU64, copies: &impl Copies, into: &mut [u8]) -> bool {
    let w = word.load(Ordering::Acquire);
    let (v, crc) = copies.read(1 - current(w), into);
    v == version(w).wrapping_sub(1) && crc == checksum(v, into)
}

fn checksum(version: u64, bytes: &[u8]) -> u32 {
    let mut h = crc32fast::Hasher::new();
    h.update(&version.to_le_bytes());
    h.update(bytes);
    h.finalize()
}
