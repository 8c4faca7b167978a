//! A ring whose index words were scribbled over works again once each side has looked: nobody
//! waits for ever for the other's word to become possible.
#![cfg(not(feature = "loom"))]

use proptest::prelude::*;
use shm::ring::{Consumer, Producer, RingWords};
use shm::sync::{AtomicU32, AtomicU64, Ordering};

/// Turns of both sides after which traffic must pass.
const TURNS: usize = 4;

fn produce(producer: &mut Producer<'_>, value: u64) -> bool {
    let room = producer.room().unwrap_or(0);
    let pushed = room > 0 && producer.push(value);
    producer.publish();
    pushed
}

fn consume(consumer: &mut Consumer<'_>) -> Vec<u64> {
    let mut got = Vec::new();
    if consumer.available().is_ok() {
        while let Some(value) = consumer.pop() {
            got.push(value);
        }
        consumer.advance();
    }
    got
}

proptest! {
    #[test]
    fn scribbled_indices_heal(
        before in 0u64..20,
        head in prop::option::of(any::<u32>()),
        tail in prop::option::of(any::<u32>()),
        near in any::<bool>(),
        consumer_first in any::<bool>(),
    ) {
        let (h, t) = (AtomicU32::new(7), AtomicU32::new(7));
        let slots: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
        let words = RingWords { head: &h, tail: &t, slots: &slots };
        let (mut producer, mut consumer) = (Producer::attach(words), Consumer::attach(words));
        for i in 0..before {
            produce(&mut producer, i);
            if i % 3 == 0 {
                consume(&mut consumer);
            }
        }
        let place = |word: &AtomicU32, value: u32| {
            let now = word.load(Ordering::Relaxed);
            word.store(if near { now.wrapping_add(value % 24).wrapping_sub(12) } else { value }, Ordering::Relaxed);
        };
        if let Some(value) = head {
            place(&h, value);
        }
        if let Some(value) = tail {
            place(&t, value);
        }
        if consumer_first {
            consume(&mut consumer);
        }
        for turn in 0..TURNS as u64 {
            produce(&mut producer, 1000 + turn);
            consume(&mut consumer);
        }
        for value in 2000..2040 {
            prop_assert!(produce(&mut producer, value), "no room for {value}");
            prop_assert_eq!(consume(&mut consumer), vec![value]);
        }
    }
}
