//! Models of the doorbell and of the dirty bits: no wake-up is lost, whoever dies when.
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

use loom::thread;
use model::{Ring, at_every_step, check};
use shm::dirty::Dirty;
use shm::doorbell::{self, Armings};
use shm::ring::{Consumer, Producer};
use shm::sync::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::Arc;

/// A ring, its consumer's bell word, and the eventfd's count.
struct World {
    ring: Ring,
    word: AtomicU32,
    event: AtomicU32,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ring: Ring::new(4),
            word: AtomicU32::new(0),
            event: AtomicU32::new(0),
        })
    }

    /// Writing the eventfd: a system call, one step.
    fn signal(&self) {
        self.event.fetch_add(1, Ordering::AcqRel);
    }

    fn send(&self, p: &mut Producer<'_>, handle: u64) {
        p.push(handle);
        p.publish();
        doorbell::ring(&self.word, || self.signal());
    }

    fn poll(&self, c: &mut Consumer<'_>) -> usize {
        let mut n = 0;
        if c.available().expect("honest peers") > 0 {
            while c.pop().is_some() {
                n += 1;
            }
            c.advance();
        }
        n
    }

    /// The consumer's turns until it sleeps, or for so many of them.
    fn turns(&self, turns: usize, bell: &mut Armings, c: &mut Consumer<'_>) -> bool {
        for _ in 0..turns {
            bell.mask(&self.word);
            self.event.swap(0, Ordering::AcqRel);
            while self.poll(c) > 0 {}
            bell.arm(&self.word);
            if c.is_empty() && self.event.load(Ordering::Acquire) == 0 {
                return true;
            }
        }
        false
    }

    /// Whether something waits for one that sleeps and will not be woken.
    fn is_lost(&self) -> bool {
        let (head, tail) = self.ring.indices();
        head != tail && self.event.load(Ordering::SeqCst) == 0
    }
}

fn consumer(w: &World, turns: usize) -> bool {
    let mut bell = Armings::attach(&w.word);
    let mut c = Consumer::attach(w.ring.words());
    w.turns(turns, &mut bell, &mut c)
}

#[test]
fn no_wake_up_is_lost_between_arming_and_sleeping() {
    check(3, || {
        let world = World::new();
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            let mut p = Producer::attach(w.ring.words());
            w.send(&mut p, 1);
            w.send(&mut p, 2);
        });
        let asleep = consumer(&world, 2);
        producer.join().unwrap();
        assert!(!(asleep && world.is_lost()));
    });
}

#[test]
fn two_producers_wake_one_consumer() {
    check(3, || {
        let world = World::new();
        let other = Arc::new(Ring::new(4));
        let (w, o) = (Arc::clone(&world), Arc::clone(&other));
        let second = thread::spawn(move || {
            let mut p = Producer::attach(o.words());
            p.push(7);
            p.publish();
            doorbell::ring(&w.word, || w.signal());
        });
        let w = Arc::clone(&world);
        let first = thread::spawn(move || w.send(&mut Producer::attach(w.ring.words()), 1));
        let mut bell = Armings::attach(&world.word);
        let mut c = [
            Consumer::attach(world.ring.words()),
            Consumer::attach(other.words()),
        ];
        bell.arm(&world.word);
        let asleep = c.iter_mut().all(|c| c.is_empty());
        first.join().unwrap();
        second.join().unwrap();
        let waits = c.iter_mut().any(|c| !c.is_empty());
        assert!(!(asleep && waits && world.event.load(Ordering::SeqCst) == 0));
    });
}

#[test]
fn a_producer_that_dies_anywhere_is_made_up_for_by_its_successor() {
    at_every_step(3, |mortal| {
        let world = World::new();
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            mortal.live(|| {
                let mut p = Producer::attach(w.ring.words());
                w.send(&mut p, 1);
                w.send(&mut p, 2);
            });
            // A successor signals whether the consumer is armed or not (`Bell::force`): its
            // predecessor may have died between publishing and ringing.
            w.signal();
        });
        let asleep = consumer(&world, 2);
        producer.join().unwrap();
        assert!(!(asleep && world.is_lost()));
    });
}

#[test]
fn a_death_between_signal_and_masking_loses_nothing_to_other_producers() {
    // No successor here: the other producer's rings alone must wake the consumer.
    at_every_step(2, |mortal| {
        let world = World::new();
        let w = Arc::clone(&world);
        let dying = thread::spawn(move || {
            mortal.live(|| {
                doorbell::ring(&w.word, || w.signal());
            });
        });
        let w = Arc::clone(&world);
        let other = thread::spawn(move || w.send(&mut Producer::attach(w.ring.words()), 1));
        let asleep = consumer(&world, 2);
        dying.join().unwrap();
        other.join().unwrap();
        assert!(!(asleep && world.is_lost()));
    });
}

#[test]
fn a_consumer_that_dies_is_succeeded_by_one_that_is_woken() {
    // Fails if the successor's armings begin from the start: a producer that saw the
    // predecessor's number masks the successor's arming.
    at_every_step(3, |mortal| {
        let world = World::new();
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            let mut p = Producer::attach(w.ring.words());
            w.send(&mut p, 1);
            w.send(&mut p, 2);
        });
        mortal.live(|| {
            consumer(&world, 1);
        });
        let asleep = consumer(&world, 2);
        producer.join().unwrap();
        assert!(!(asleep && world.is_lost()));
    });
}

#[test]
fn a_dead_consumers_bell_with_two_producers_wakes_the_successor() {
    // Fails if masking takes the number out of the word: with one producer having masked the
    // predecessor's arming, the other, slow one masks the successor's.
    at_every_step(2, |mortal| {
        let world = World::new();
        let w = Arc::clone(&world);
        let other = thread::spawn(move || {
            doorbell::ring(&w.word, || w.signal());
        });
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            let mut p = Producer::attach(w.ring.words());
            doorbell::ring(&w.word, || w.signal());
            w.send(&mut p, 1);
        });
        mortal.live(|| {
            consumer(&world, 1);
        });
        let asleep = consumer(&world, 2);
        producer.join().unwrap();
        other.join().unwrap();
        assert!(!(asleep && world.is_lost()));
    });
}

/// Dirty bits of two words, and a value a socket that the marks are about.
struct Session {
    summary: AtomicU64,
    bits: Vec<AtomicU64>,
    armed: AtomicU32,
    positions: [AtomicU64; 2],
}

/// Sockets in different words of the bitmap.
const SLOTS: [u32; 2] = [3, 70];

impl Session {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            summary: AtomicU64::new(0),
            bits: (0..2).map(|_| AtomicU64::new(0)).collect(),
            armed: AtomicU32::new(1),
            positions: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    fn dirty(&self) -> Dirty<'_> {
        Dirty {
            summary: std::slice::from_ref(&self.summary),
            bits: &self.bits,
            armed: &self.armed,
        }
    }

    fn look(&self, seen: &mut [u64; 2]) {
        self.dirty().take(|slot| {
            let i = SLOTS
                .iter()
                .position(|&s| s == slot)
                .expect("only what was marked");
            seen[i] = self.positions[i].load(Ordering::Relaxed);
        });
    }
}

#[test]
fn a_transport_that_sleeps_has_seen_every_mark_or_is_woken() {
    check(3, || {
        let session = Session::new();
        let event = Arc::new(AtomicU32::new(0));
        let writers: Vec<_> = (0..2)
            .map(|i| {
                let (s, event) = (Arc::clone(&session), Arc::clone(&event));
                thread::spawn(move || {
                    s.positions[i].store(1, Ordering::Relaxed);
                    if s.dirty().mark(SLOTS[i]) {
                        event.fetch_add(1, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        let mut seen = [0; 2];
        session.dirty().set_armed(false);
        session.look(&mut seen);
        session.dirty().set_armed(true);
        fence(Ordering::SeqCst);
        let asleep = !session.dirty().any();
        for w in writers {
            w.join().unwrap();
        }
        if asleep && event.load(Ordering::SeqCst) == 0 {
            assert_eq!(seen, [1, 1]);
        }
        session.look(&mut seen);
        assert_eq!(seen, [1, 1]);
    });
}
