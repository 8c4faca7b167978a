//! Models of the ownership words: allocation, claiming, freeing and sweeping at once, and a death
//! of any party at any step. Nothing leaks, nothing is freed twice, and no buffer ever has two
//! owners (loom watches them).
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

use abi::ServiceId;
use loom::thread;
use model::{Pool, Ring, at_every_step, check};
use shm::lost::Lost;
use shm::ring::{Consumer, Producer};
use shm::sync::AtomicU64;
use std::sync::Arc;

/// The producer, who allocates.
const P: ServiceId = ServiceId(1);
/// The consumer.
const C: ServiceId = ServiceId(2);

struct World {
    pool: Pool,
    /// P to C.
    down: Ring,
    /// C to P.
    up: Ring,
}

impl World {
    fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::new(slots),
            down: Ring::new(2),
            up: Ring::new(2),
        })
    }

    /// P: allocates a packet, of two slots if it can and should, and publishes it.
    fn send(&self, p: &mut Producer<'_>, two: bool) {
        let Some(head) = self.pool.allocate(P) else {
            return;
        };
        let extra = if two { self.pool.allocate(P) } else { None };
        if p.push(self.pool.seal(head, extra)) {
            p.publish();
        } else {
            self.pool.free(head, P);
            if let Some(extra) = extra {
                self.pool.free(extra, P);
            }
        }
    }

    /// Takes everything from a ring and frees it.
    fn consume(&self, ring: &Ring, from: ServiceId, me: ServiceId) {
        let mut c = Consumer::attach(ring.words());
        c.available().expect("honest peers");
        while let Some(raw) = c.pop() {
            if let Some((head, extra)) = self.pool.claim(raw, from, me) {
                self.pool.free(head, me);
                if let Some(extra) = extra {
                    self.pool.free(extra, me);
                }
            }
        }
        c.advance();
    }

    /// C: takes everything from P and sends it back, as an echo answered in place.
    fn echo(&self) {
        let mut c = Consumer::attach(self.down.words());
        let mut back = Producer::attach(self.up.words());
        c.available().expect("honest peers");
        while let Some(raw) = c.pop() {
            if let Some((head, extra)) = self.pool.claim(raw, P, C) {
                back.push(self.pool.seal(head, extra));
                back.publish();
            }
        }
        c.advance();
    }

    /// Everybody has come to rest: consume what is under way, and nothing may be left.
    fn settle(&self) {
        self.consume(&self.down, P, C);
        self.consume(&self.up, C, P);
        assert!(
            self.pool.owners().iter().all(|&o| o == 0),
            "leaked: {:?}",
            self.pool.owners()
        );
    }
}

#[test]
fn a_freed_slot_is_taken_by_one_and_after_its_last_use() {
    check(4, || {
        let world = World::new(1);
        let of = world.pool.allocate(C).unwrap();
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let w = Arc::clone(&world);
                thread::spawn(move || w.pool.allocate(P).is_some())
            })
            .collect();
        world.pool.free(of, C);
        let taken: Vec<bool> = takers.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(taken != [true, true]);
    });
}

#[test]
fn of_two_claims_of_one_handle_one_succeeds() {
    check(4, || {
        let world = World::new(2);
        let head = world.pool.allocate(P).unwrap();
        let extra = world.pool.allocate(P).unwrap();
        let raw = world.pool.seal(head, Some(extra));
        let w = Arc::clone(&world);
        let other = thread::spawn(move || w.pool.claim(raw, P, ServiceId(3)).is_some());
        let mine = world.pool.claim(raw, P, C).is_some();
        let others = other.join().unwrap();
        // Both may lose: each took one of the two slots, and freed what it had got.
        assert!(!(mine && others));
        let free = world.pool.owners().iter().filter(|&&o| o == 0).count();
        assert_eq!(free, if mine || others { 0 } else { 2 });
    });
}

#[test]
fn a_sweep_spares_what_is_published_while_it_is_being_claimed() {
    check(4, || {
        let world = World::new(4);
        let mut p = Producer::attach(world.down.words());
        world.send(&mut p, true);
        // Allocated, pushed, not published: dies with its owner.
        let lost = world.pool.allocate(P).unwrap();
        p.push(world.pool.seal(lost, None));
        let w = Arc::clone(&world);
        let consumer = thread::spawn(move || {
            let mut c = Consumer::attach(w.down.words());
            assert_eq!(c.available(), Ok(1));
            let (head, extra) = w.pool.claim(c.pop().unwrap(), P, C).expect("published");
            c.advance();
            w.pool.free(head, C);
            w.pool.free(extra.expect("it had two slots"), C);
        });
        assert_eq!(world.pool.sweep(P, [world.down.words()].into_iter()), 1);
        consumer.join().unwrap();
        world.settle();
    });
}

#[test]
fn a_producer_that_dies_anywhere_leaks_nothing() {
    at_every_step(3, |mortal| {
        // The second packet finds room only where the first was, when that is freed and its
        // handle perhaps still on the ring.
        let world = World::new(2);
        let w = Arc::clone(&world);
        let consumer = thread::spawn(move || {
            w.consume(&w.down, P, C);
            w.consume(&w.down, P, C);
        });
        mortal.live(|| {
            let mut p = Producer::attach(world.down.words());
            world.send(&mut p, true);
            world.send(&mut p, true);
        });
        world.pool.sweep(P, [world.down.words()].into_iter());
        world.send(&mut Producer::attach(world.down.words()), false);
        consumer.join().unwrap();
        world.settle();
    });
}

#[test]
fn a_consumer_that_dies_anywhere_leaks_nothing() {
    at_every_step(3, |mortal| {
        let world = World::new(3);
        world.send(&mut Producer::attach(world.down.words()), true);
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            w.send(&mut Producer::attach(w.down.words()), false);
        });
        mortal.live(|| world.consume(&world.down, P, C));
        world.pool.sweep(C, [world.up.words()].into_iter());
        world.consume(&world.down, P, C);
        producer.join().unwrap();
        world.settle();
    });
}

#[test]
fn an_echo_whose_sender_dies_is_not_claimed_twice() {
    // Fails if the generation stays the same from hop to hop: C's successor meets the handle of a
    // packet that C sent back and P has claimed, and takes it away from under P.
    at_every_step(3, |mortal| {
        let world = World::new(2);
        world.send(&mut Producer::attach(world.down.words()), true);
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || w.consume(&w.up, C, P));
        mortal.live(|| world.echo());
        world.pool.sweep(C, [world.up.words()].into_iter());
        world.echo();
        producer.join().unwrap();
        world.settle();
    });
}

#[test]
fn a_sweeper_that_dies_is_succeeded_by_another() {
    at_every_step(3, |mortal| {
        let world = World::new(3);
        let mut p = Producer::attach(world.down.words());
        world.send(&mut p, true);
        world.pool.allocate(P).unwrap();
        let w = Arc::clone(&world);
        let consumer = thread::spawn(move || w.consume(&w.down, P, C));
        mortal.live(|| {
            world.pool.sweep(P, [world.down.words()].into_iter());
        });
        world.pool.sweep(P, [world.down.words()].into_iter());
        consumer.join().unwrap();
        world.settle();
    });
}

#[test]
fn a_look_for_lost_slots_takes_what_is_nobodys_while_the_rest_is_claimed() {
    check(3, || {
        let world = World::new(4);
        let mut p = Producer::attach(world.down.words());
        world.send(&mut p, true);
        // Named as P's, and P knows nothing of it; and as one's who never was there.
        world.pool.allocate(P).unwrap();
        world.pool.allocate(ServiceId(9)).unwrap();
        let w = Arc::clone(&world);
        let consumer = thread::spawn(move || {
            let mut c = Consumer::attach(w.down.words());
            assert_eq!(c.available(), Ok(1));
            let (head, extra) = w.pool.claim(c.pop().unwrap(), P, C).expect("published");
            c.advance();
            w.pool.free(head, C);
            w.pool.free(extra.expect("it had two slots"), C);
        });
        let mut lost = Lost::default();
        let down = || [world.down.words()].into_iter();
        assert_eq!(world.pool.look(&mut lost, P, 1, &[P, C], down()), 0);
        assert_eq!(world.pool.look(&mut lost, P, 2, &[P, C], down()), 2);
        consumer.join().unwrap();
        world.settle();
    });
}

#[test]
fn one_who_looks_for_lost_slots_and_dies_is_succeeded() {
    at_every_step(3, |mortal| {
        let world = World::new(3);
        let mut p = Producer::attach(world.down.words());
        world.send(&mut p, true);
        world.pool.allocate(P).unwrap();
        let w = Arc::clone(&world);
        let consumer = thread::spawn(move || w.consume(&w.down, P, C));
        mortal.live(|| {
            let mut lost = Lost::default();
            for now in 0..2 {
                let down = [world.down.words()].into_iter();
                world.pool.look(&mut lost, P, now, &[P, C], down);
            }
        });
        world.pool.sweep(P, [world.down.words()].into_iter());
        consumer.join().unwrap();
        world.settle();
    });
}

#[test]
fn a_scribbled_word_is_repaired_once() {
    check(4, || {
        let words = Arc::new([AtomicU64::new(77)]);
        let w = Arc::clone(&words);
        let sweep = |w: &[AtomicU64]| shm::slots::Slots::new(w).sweep(P, |_| false);
        let other = thread::spawn(move || sweep(&*w));
        let mine = sweep(&*words);
        assert_eq!(mine + other.join().unwrap(), 1);
    });
}
