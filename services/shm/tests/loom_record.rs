//! Model of the record commit: whoever reads after a death at any step finds the old contents or
//! the new, never a mixture.
#![cfg(feature = "loom")]
#![allow(
    clippy::arc_with_non_send_sync,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests may panic, and loom asks for no Send"
)]

mod model;

use model::at_every_step;
use shm::record::{self, Copies};
use shm::sync::{AtomicU64, Ordering};
use std::sync::Arc;

const WORDS: usize = 3;

/// A record of three words in two copies, written word by word.
struct Memory {
    word: AtomicU64,
    copies: [[AtomicU64; WORDS + 2]; 2],
}

struct Place<'a>(&'a Memory);

impl Copies for Place<'_> {
    fn write(&mut self, copy: usize, version: u64, crc: u32, bytes: &[u8]) {
        let [v, c, words @ ..] = &self.0.copies[copy];
        v.store(version, Ordering::Relaxed);
        c.store(crc.into(), Ordering::Relaxed);
        for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
            word.store(
                u64::from_le_bytes(bytes.try_into().unwrap()),
                Ordering::Relaxed,
            );
        }
    }

    fn read(&self, copy: usize, into: &mut [u8]) -> (u64, u32) {
        let [v, c, words @ ..] = &self.0.copies[copy];
        for (word, bytes) in words.iter().zip(into.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let crc = c.load(Ordering::Relaxed);
        (v.load(Ordering::Relaxed), u32::try_from(crc).unwrap())
    }
}

fn contents(n: u8) -> [u8; WORDS * 8] {
    [n; WORDS * 8]
}

impl Memory {
    fn new() -> Arc<Self> {
        let copy = || std::array::from_fn(|_| AtomicU64::new(0));
        Arc::new(Self {
            word: AtomicU64::new(0),
            copies: [copy(), copy()],
        })
    }

    fn commit(&self, n: u8) {
        record::commit(&self.word, &mut Place(self), &contents(n));
    }

    /// What is committed; none when the record is free.
    fn read(&self) -> Option<u8> {
        let mut bytes = [0; WORDS * 8];
        let used = record::load(&self.word, &Place(self), &mut bytes).expect("torn record");
        if !used {
            return None;
        }
        assert_eq!(bytes, contents(bytes[0]));
        Some(bytes[0])
    }
}

#[test]
fn a_reader_after_a_death_finds_old_or_new() {
    at_every_step(2, |mortal| {
        let memory = Memory::new();
        // What is committed one after the other; the third time, nothing is: the record is freed.
        let history = [None, Some(1), Some(2), None, Some(4), Some(5)];
        let mut done = 0;
        mortal.live(|| {
            for what in &history[1..] {
                match what {
                    Some(n) => memory.commit(*n),
                    None => record::clear(&memory.word),
                }
                done += 1;
            }
        });
        let found = memory.read();
        let next = history.get(done + 1);
        assert!(
            found == history[done] || Some(&found) == next,
            "{found:?} after {done}"
        );
        // A successor goes on from there, and dies too.
        memory.commit(50);
        assert_eq!(memory.read(), Some(50));
    });
}

#[test]
fn a_successor_that_dies_in_its_first_commit_loses_nothing() {
    at_every_step(2, |mortal| {
        let memory = Memory::new();
        memory.commit(1);
        memory.commit(2);
        // The predecessor died somewhere in this one: its copy is torn and never current.
        let _ = shm::sync::model::mortal(6, || memory.commit(3));
        let before = memory.read();
        assert_eq!(before, Some(2));
        mortal.live(|| memory.commit(4));
        assert!(matches!(memory.read(), Some(2 | 4)));
    });
}
