//! Models of the ring: both sides at once, and a death of either at any step.
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
#![allow(unsafe_code, reason = "reads and writes loom's cells")]

mod model;

use loom::cell::UnsafeCell;
use loom::thread;
use model::{Ring, at_every_step, check};
use shm::ring::{Consumer, Producer};
use std::sync::Arc;

/// A ring of two places, and what the handles 1, 2, 3, ... name: written before they are pushed,
/// read after they are popped, watched by loom.
struct World {
    ring: Ring,
    packets: Vec<UnsafeCell<u64>>,
}

impl World {
    fn new() -> Arc<Self> {
        let packets = (0..10).map(|_| UnsafeCell::new(0)).collect();
        Arc::new(Self {
            ring: Ring::new(2),
            packets,
        })
    }

    fn push(&self, p: &mut Producer<'_>, handle: u64) -> bool {
        self.packets[handle as usize].with_mut(|packet| {
            // SAFETY: only the pusher writes; loom fails the model if the popper reads unordered.
            unsafe { *packet = handle * 100 }
        });
        p.push(handle)
    }

    /// Takes what is there now.
    fn drain(&self, c: &mut Consumer<'_>, got: &mut Vec<u64>) {
        c.available()
            .expect("no honest peer leaves impossible indices");
        while let Some(handle) = c.pop() {
            // SAFETY: as above.
            self.packets[handle as usize].with(|p| assert_eq!(unsafe { *p }, handle * 100));
            got.push(handle);
        }
        c.advance();
    }
}

#[test]
fn handles_arrive_once_in_order_and_complete() {
    check(4, || {
        let world = World::new();
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            let mut p = Producer::attach(w.ring.words());
            let mut pushed = Vec::new();
            for handle in 1..=4 {
                if w.push(&mut p, handle) {
                    pushed.push(handle);
                }
                if handle % 2 == 0 {
                    p.publish();
                }
            }
            pushed
        });
        let mut c = Consumer::attach(world.ring.words());
        let mut got = Vec::new();
        for _ in 0..2 {
            world.drain(&mut c, &mut got);
        }
        let pushed = producer.join().unwrap();
        world.drain(&mut c, &mut got);
        assert_eq!(got, pushed);
        assert!(c.is_empty());
    });
}

#[test]
fn a_place_is_written_again_after_it_was_read() {
    check(4, || {
        let world = World::new();
        // What a place stands for, reused with the place and not with the handle.
        let places: Arc<[_; 2]> = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        let (w, cells) = (Arc::clone(&world), Arc::clone(&places));
        let producer = thread::spawn(move || {
            let mut p = Producer::attach(w.ring.words());
            for handle in 1..=3u64 {
                if p.room() == Ok(0) {
                    break;
                }
                // SAFETY: loom fails the model when a read is not ordered with this.
                cells[handle as usize % 2].with_mut(|cell| unsafe { *cell = handle });
                assert!(p.push(handle));
                p.publish();
            }
        });
        let mut c = Consumer::attach(world.ring.words());
        for _ in 0..3 {
            c.available().expect("honest peer");
            while let Some(handle) = c.pop() {
                // SAFETY: as above.
                places[handle as usize % 2].with(|cell| assert_eq!(unsafe { *cell }, handle));
            }
            c.advance();
        }
        producer.join().unwrap();
    });
}

#[test]
fn a_producer_that_dies_has_published_a_prefix() {
    at_every_step(4, |mortal| {
        let world = World::new();
        let w = Arc::clone(&world);
        let producer = thread::spawn(move || {
            mortal.live(|| {
                let mut p = Producer::attach(w.ring.words());
                w.push(&mut p, 1);
                p.publish();
                w.push(&mut p, 2);
                w.push(&mut p, 3);
                p.publish();
            });
            let mut successor = Producer::attach(w.ring.words());
            let pushed = w.push(&mut successor, 9);
            successor.publish();
            pushed
        });
        let mut c = Consumer::attach(world.ring.words());
        let mut got = Vec::new();
        world.drain(&mut c, &mut got);
        let last = producer.join().unwrap();
        world.drain(&mut c, &mut got);
        assert_eq!(got.last() == Some(&9), last, "{got:?}");
        got.retain(|&h| h != 9);
        // 3 finds the ring full unless 1 was consumed before.
        assert!(
            [&[][..], &[1], &[1, 2], &[1, 2, 3]].contains(&&got[..]),
            "{got:?}"
        );
    });
}

#[test]
fn a_consumer_that_dies_overlooks_nothing() {
    at_every_step(4, |mortal| {
        let world = World::new();
        let w = Arc::clone(&world);
        let consumer = thread::spawn(move || {
            let mut before = Vec::new();
            mortal.live(|| {
                let mut c = Consumer::attach(w.ring.words());
                w.drain(&mut c, &mut before);
                w.drain(&mut c, &mut before);
            });
            let mut after = Vec::new();
            w.drain(&mut Consumer::attach(w.ring.words()), &mut after);
            (before, after)
        });
        let mut p = Producer::attach(world.ring.words());
        let mut pushed = Vec::new();
        for handle in 1..=3 {
            if world.push(&mut p, handle) {
                pushed.push(handle);
            }
            p.publish();
        }
        let (before, mut after) = consumer.join().unwrap();
        world.drain(&mut Consumer::attach(world.ring.words()), &mut after);
        // What was popped and not given back is met again (the ownership words refuse it then).
        assert!(pushed.starts_with(&before) && pushed.ends_with(&after));
        assert!(
            before.len() + after.len() >= pushed.len(),
            "{before:?} {after:?} {pushed:?}"
        );
    });
}
