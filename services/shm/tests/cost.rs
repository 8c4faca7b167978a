//! What the pieces of a hop cost, in nanoseconds:
//! `cargo test --release -p shm --test cost -- --ignored --nocapture`.
//!
//! One thread plays both sides, so this is the work alone, without cache lines moving between
//! cores and without wake-ups. The aim is 60 ns for a hop (57 on the machine it was written on).
#![cfg(not(feature = "loom"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests are tests"
)]

use abi::{Handle, PoolId, ServiceId};
use shm::{
    Allocator, Arena, Link, Pool, PoolLayout, RecordLayout, RecordTable, Side, SizeClass, link,
    pool, records,
};
use std::hint::black_box;
use std::time::Instant;

const A: ServiceId = ServiceId(1);
const B: ServiceId = ServiceId(2);
const BATCH: usize = 64;

/// Best of many short runs (a longer one is cut in pieces on a busy machine), in nanoseconds for
/// each of `per` things.
fn measure(what: &str, per: usize, mut run: impl FnMut()) {
    let rounds = 2048 / u32::try_from(per).unwrap_or(1).clamp(1, 2048);
    let mut best = f64::MAX;
    for _ in 0..500 {
        let start = Instant::now();
        for _ in 0..rounds {
            run();
        }
        let things = f64::from(rounds) * f64::from(u32::try_from(per).unwrap_or(1));
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / things);
    }
    println!("{what:44} {best:7.1} ns");
}

#[test]
#[ignore = "a measurement, for a release build"]
fn cost() {
    let fd = pool::create("pool", PoolLayout::RECEIVE).unwrap();
    let pool = Pool::attach_for(PoolId(1), A, &fd).unwrap();
    let theirs = Pool::attach_for(PoolId(1), A, &fd).unwrap();
    let mut arena = Arena::new(B);
    arena.add_pool(theirs);
    let mut alloc = Allocator::new(pool, A);
    let link = Link::attach(&link::create("link").unwrap()).unwrap();
    let mut p = link.producer(Side::Lower).unwrap();
    let mut c = link.consumer(Side::Upper).unwrap();

    measure("alloc and free", 1, || {
        drop(black_box(alloc.alloc(SizeClass::Small)))
    });
    let mut skbs = Vec::with_capacity(BATCH);
    measure("alloc and free, batches of 64", BATCH, || {
        skbs.extend(std::iter::from_fn(|| alloc.alloc(SizeClass::Small)).take(BATCH));
        skbs.clear();
    });
    measure("push and pop of a handle, batches of 64", BATCH, || {
        for n in 0..BATCH as u64 {
            black_box(p.push(n));
        }
        p.publish();
        let _ = black_box(c.available());
        while let Some(h) = c.pop() {
            black_box(h);
        }
        c.advance();
    });
    measure(
        "hop: alloc, send, claim, free, batches of 64",
        BATCH,
        || {
            for _ in 0..BATCH {
                let Some(mut skb) = alloc.alloc(SizeClass::Small) else {
                    break;
                };
                black_box(skb.put(60));
                black_box(p.push(skb.into_handle().0));
            }
            p.publish();
            let _ = black_box(c.available());
            while let Some(h) = c.pop() {
                let claimed = arena.claim(Handle(h), A);
                black_box(&claimed);
            }
            c.advance();
        },
    );
    measure("the same with an extra slot", 8, || {
        for _ in 0..8 {
            let Some(mut skb) = alloc.alloc(SizeClass::Small) else {
                break;
            };
            let Some(mut extra) = alloc.alloc(SizeClass::Large) else {
                break;
            };
            black_box(skb.put(60));
            black_box(extra.put(60_000));
            black_box(skb.attach_extra(extra));
            black_box(p.push(skb.into_handle().0));
        }
        p.publish();
        let _ = black_box(c.available());
        while let Some(h) = c.pop() {
            let claimed = arena.claim(Handle(h), A);
            black_box(&claimed);
        }
        c.advance();
    });
    let layout = RecordLayout {
        count: 1024,
        len: 768,
        kind: 1,
    };
    let table = RecordTable::attach(&records::create("records", layout).unwrap(), layout).unwrap();
    let mut bytes = [7; 768];
    let mut index = 0;
    measure("record commit of 768 bytes, one record", 1, || {
        table.commit(0, black_box(&bytes))
    });
    measure("record commit of 768 bytes, 1024 records", 1, || {
        table.commit(index % 1024, black_box(&bytes));
        index += 1;
    });
    measure("record load of 768 bytes", 1, || {
        let _ = black_box(table.load(0, &mut bytes));
    });
}
