//! The structures in memfds: what is refused at attaching, and that they hold what they promise.
#![cfg(not(feature = "loom"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests are tests"
)]

use abi::session::{CONTROL_OFFSET, MAX_SOCKETS, Ring, Rings, control, header};
use abi::{Handle, PoolId, ServiceId};
use proptest::prelude::*;
use shm::link::DeviceWords;
use shm::sync::Ordering;
use shm::vitals::{Phase, stage};
use shm::{
    Arena, Bell, Buffer, Link, Mapping, Pool, PoolLayout, Recent, RecordLayout, RecordTable,
    SessionLayout, SessionMemory, ShmError, Side, SizeClass, Vitals, mapping, pool, recent,
    records, session, vitals,
};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

fn layout() -> PoolLayout {
    PoolLayout {
        small_slots: 4,
        small_size: 512,
        large_slots: 1,
        large_size: 1024,
    }
}

/// A sealed memfd with these contents.
fn memfd(contents: &[u8]) -> OwnedFd {
    let fd = mapping::create("test", contents.len()).unwrap();
    let map = Mapping::map(&fd, 0, true).unwrap();
    assert!(map.copy_in(0, contents));
    fd
}

fn bytes_of(fd: &OwnedFd) -> Vec<u8> {
    let map = Mapping::map(fd, 0, false).unwrap();
    let mut bytes = vec![0; map.len()];
    assert!(map.copy_out(0, &mut bytes));
    bytes
}

#[test]
fn unsealed_short_and_foreign_descriptors_are_refused() {
    let unsealed = memfd::MemfdOptions::default()
        .allow_sealing(true)
        .create("x")
        .unwrap();
    unsealed.as_file().set_len(8192).unwrap();
    assert!(matches!(
        Mapping::map(unsealed.as_file(), 1, true),
        Err(ShmError::NotSealed)
    ));
    // Sealed against growing alone, it can still be shrunk.
    unsealed.add_seals(&[memfd::FileSeal::SealGrow]).unwrap();
    assert!(matches!(
        Mapping::map(unsealed.as_file(), 1, true),
        Err(ShmError::NotSealed)
    ));
    unsealed.add_seals(&[memfd::FileSeal::SealShrink]).unwrap();
    assert!(Mapping::map(unsealed.as_file(), 1, true).is_ok());

    let short = mapping::create("short", 100).unwrap();
    assert!(matches!(
        Mapping::map(&short, 101, true),
        Err(ShmError::TooSmall {
            have: 100,
            want: 101
        })
    ));
    let empty = mapping::create("empty", 0).unwrap();
    assert!(matches!(
        Mapping::map(&empty, 0, true),
        Err(ShmError::TooSmall { .. })
    ));
    assert!(matches!(
        Mapping::map(&tempfile(), 1, true),
        Err(ShmError::System { .. } | ShmError::NotSealed)
    ));
    // What was made here cannot be resized or unsealed any more.
    let mut file = File::from(mapping::create("sealed", 4096).unwrap());
    assert!(file.set_len(0).is_err());
    assert!(file.set_len(8192).is_err());
    assert!(file.write_all(&[0; 4096]).is_ok());
}

fn tempfile() -> File {
    let mut path = std::env::temp_dir();
    path.push(format!("strata-shm-test-{}", std::process::id()));
    let file = File::create_new(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(4096).unwrap();
    file
}

#[test]
fn nothing_outside_a_mapping_is_reached() {
    let fd = mapping::create("test", 4096).unwrap();
    let map = Mapping::map(&fd, 0, true).unwrap();
    for (offset, len) in [
        (4096, 1),
        (4095, 2),
        (0, 4097),
        (usize::MAX, 1),
        (1, usize::MAX),
    ] {
        assert!(map.pointer(offset, len).is_none());
        let mut bytes = vec![0; len.min(5000)];
        if offset.checked_add(bytes.len()).is_none_or(|end| end > 4096) {
            assert!(!map.copy_in(offset, &bytes));
            assert!(!map.copy_out(offset, &mut bytes));
        }
        assert!(!map.copy_from(offset, &map, 0, len));
        assert!(!map.copy_from(0, &map, offset, len));
    }
    for offset in [4096, 4094, 2, usize::MAX, usize::MAX - 3] {
        assert!(map.u32_at(offset).is_none());
    }
    assert!(map.u64_at(4).is_none() && map.u64_at(4092).is_none());
    assert!(map.u64s_at(0, 513).is_none() && map.u64s_at(0, usize::MAX).is_none());
    assert_eq!(map.u64s_at(0, 512).unwrap().len(), 512);
    let read_only = Mapping::map(&fd, 0, false).unwrap();
    assert!(!read_only.copy_in(0, &[1]) && !read_only.copy_from(0, &map, 0, 1));
}

/// A memory whose header, of `len` bytes with magic and checksum, says something else in both
/// copies.
fn forged(bytes: &[u8], len: usize, at: usize, value: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for copy in [0, 2048] {
        bytes[copy + at..copy + at + 4].copy_from_slice(&value.to_le_bytes());
        let crc = crc32fast::hash(&bytes[copy..copy + len - 4]).to_le_bytes();
        bytes[copy + len - 4..copy + len].copy_from_slice(&crc);
    }
    bytes
}

#[test]
fn a_word_written_over_a_header_keeps_nobody_from_attaching() {
    type Attach = fn(&OwnedFd) -> bool;
    const TABLE: RecordLayout = RecordLayout {
        count: 3,
        len: 40,
        kind: 1,
    };
    let attach: [(OwnedFd, Attach); 3] = [
        (pool::create("pool", layout()).unwrap(), |fd| {
            Pool::attach(PoolId(0), fd).is_ok_and(|pool| pool.layout() == layout())
        }),
        (shm::link::create("link").unwrap(), |fd| {
            Link::attach(fd).is_ok()
        }),
        (records::create("records", TABLE).unwrap(), |fd| {
            RecordTable::attach(fd, TABLE).is_ok()
        }),
    ];
    for (fd, attach) in attach {
        assert!(attach(&fd), "taken into use");
        let before = bytes_of(&fd);
        for at in (0..40).chain(2048..2088).step_by(8) {
            let word = u64::from_le_bytes(before[at..at + 8].try_into().unwrap());
            for value in [0, u64::MAX, word ^ 1, word ^ 1 << 63, word + 1] {
                let mut bytes = before.clone();
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                let fd = memfd(&bytes);
                assert!(attach(&fd), "{value:#x} at {at}");
                let now = bytes_of(&fd);
                assert_eq!(now[..16], before[..16]);
                assert!(attach(&fd));
            }
        }
    }
}

#[test]
fn a_pool_with_an_impossible_header_is_refused() {
    let good = pool::create("pool", layout()).unwrap();
    let bytes = bytes_of(&good);
    let change = |at: usize, value: u32| {
        let bytes = forged(&bytes, 36, at, value);
        Pool::attach(PoolId(0), &memfd(&bytes)).map(|_| ())
    };
    assert!(matches!(
        change(0, 1),
        Err(ShmError::Layout { what: "pool", .. })
    ));
    assert!(matches!(
        change(8, 999),
        Err(ShmError::Layout { what: "pool", .. })
    ));
    for (at, value) in [
        (12, u32::MAX),
        (12, 1 << 21),
        (16, 0),
        (16, 128),
        (16, 513),
        (16, 1 << 21),
        (24, u32::MAX),
    ] {
        assert!(
            matches!(change(at, value), Err(ShmError::BadLayout(_))),
            "{at} {value}"
        );
    }
    assert!(matches!(change(12, 1000), Err(ShmError::TooSmall { .. })));
    assert!(matches!(
        change(24, 1 << 19),
        Err(ShmError::TooSmall { .. })
    ));
    assert!(
        pool::create(
            "none",
            PoolLayout {
                small_slots: 0,
                large_slots: 0,
                ..layout()
            }
        )
        .is_err()
    );
}

#[test]
fn allocation_ends_and_begins_again_with_the_slots() {
    let pool = Pool::attach(PoolId(0), &pool::create("pool", layout()).unwrap()).unwrap();
    let mut alloc = shm::Allocator::new(pool, ServiceId(1));
    for _ in 0..3 {
        let all: Vec<_> = std::iter::from_fn(|| alloc.alloc(SizeClass::Small)).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(pool.free_slots(), 1);
        let large = alloc.alloc(SizeClass::Large).unwrap();
        assert!(alloc.alloc(SizeClass::Large).is_none());
        assert_eq!(large.tailroom(), 1024 - 128);
    }
    assert_eq!(pool.free_slots(), 5);
}

#[test]
fn a_packet_of_two_slots_is_one_packet_of_bytes() {
    let pool = Pool::attach(PoolId(0), &pool::create("pool", layout()).unwrap()).unwrap();
    let (a, b) = (ServiceId(1), ServiceId(2));
    let mut alloc = shm::Allocator::new(pool, a);
    let mut skb = alloc.alloc(SizeClass::Small).unwrap();
    let mut extra = alloc.alloc(SizeClass::Large).unwrap();
    skb.put(100).unwrap().copy_from_slice(&[1; 100]);
    extra.put(200).unwrap().copy_from_slice(&[2; 200]);
    assert!(skb.attach_extra(extra));
    // A third slot is refused and freed.
    assert!(!skb.attach_extra(alloc.alloc(SizeClass::Small).unwrap()));
    assert_eq!(pool.free_slots(), 3);
    skb.push(14).unwrap().copy_from_slice(&[0; 14]);
    let packet = skb.handle().packet();

    let mut arena = Arena::new(b);
    arena.add_pool(pool);
    let mut skb = arena.claim(skb.into_handle(), a).unwrap();
    assert_eq!(skb.handle().packet(), packet);
    assert!(skb.pull(14) && !skb.pull(101));
    skb.trim(250);
    assert_eq!(
        (skb.len(), skb.linear_len(), skb.frag_len()),
        (250, 100, 150)
    );
    let mut bytes = [0; 100];
    arena.copy_out(&skb, 50, &mut bytes).unwrap();
    assert_eq!((&bytes[..50], &bytes[50..]), (&[1; 50][..], &[2; 50][..]));
    let to = Mapping::map(&mapping::create("to", 4096).unwrap(), 0, true).unwrap();
    arena
        .copy_to_mapping(&skb, 99, 151, &to, 4096 - 151)
        .unwrap();
    let mut bytes = [0; 2];
    assert!(to.copy_out(4096 - 151, &mut bytes));
    assert_eq!(bytes, [1, 2]);
    assert!(
        arena
            .copy_to_mapping(&skb, 99, 151, &to, 4096 - 150)
            .is_err()
    );
    assert!(arena.copy_to_mapping(&skb, 99, 152, &to, 0).is_err());
    skb.trim(100);
    assert!(skb.frags().is_empty());
    skb.trim(0);
    assert!(skb.is_empty());
    drop(skb);
    assert_eq!(pool.free_slots(), 5);
}

fn table() -> RecordLayout {
    RecordLayout {
        count: 3,
        len: 40,
        kind: 0x5450_0001,
    }
}

#[test]
fn a_successor_loads_what_was_ever_written() {
    let large = RecordLayout {
        count: 20_000,
        ..table()
    };
    let fd = records::create("records", large).unwrap();
    let t = RecordTable::attach(&fd, large).unwrap();
    assert!(t.written().all(|index| index < 512), "the header's page");
    for index in [3, 700, 19_999] {
        t.commit(index, &[7; 40]);
    }
    t.clear(700);
    drop(t);
    let t = RecordTable::attach(&fd, large).unwrap();
    let written: Vec<u32> = t.written().collect();
    assert!([3, 700, 19_999].iter().all(|index| written.contains(index)));
    assert!(written.iter().all(|&index| index < 20_000) && written.is_sorted());
    assert!(written.len() <= 3 * 512, "{} of 20,000", written.len());
}

#[test]
fn records_survive_their_writer_and_layouts_are_checked() {
    let fd = records::create("records", table()).unwrap();
    let t = RecordTable::attach(&fd, table()).unwrap();
    t.commit(1, &[7; 40]);
    t.commit(1, &[8; 39]);
    t.commit(99, &[9; 40]);
    drop(t);
    let t = RecordTable::attach(&fd, table()).unwrap();
    let mut into = [0; 40];
    assert_eq!(
        (t.load(0, &mut into), t.load(99, &mut into)),
        (Ok(false), Ok(false))
    );
    assert_eq!(t.load(1, &mut into), Ok(true));
    assert_eq!(into, [7; 40]);
    t.clear(1);
    assert_eq!(t.load(1, &mut into), Ok(false));
    for other in [
        RecordLayout { kind: 2, ..table() },
        RecordLayout { len: 48, ..table() },
        RecordLayout {
            count: 2,
            ..table()
        },
    ] {
        let refused = RecordTable::attach(&fd, other);
        assert!(matches!(
            refused,
            Err(ShmError::Layout {
                what: "record table",
                ..
            })
        ));
    }
    let larger = RecordLayout {
        count: 10_000,
        ..table()
    };
    assert!(matches!(
        RecordTable::attach(&fd, larger),
        Err(ShmError::TooSmall { .. })
    ));
}

#[test]
fn any_flipped_bit_of_the_current_copy_is_found_and_of_the_other_is_not() {
    let fd = records::create("records", table()).unwrap();
    let t = RecordTable::attach(&fd, table()).unwrap();
    let raw = Mapping::map(&fd, 0, true).unwrap();
    let mut into = [0; 40];
    let (record, stride, copies) = (1, 64, 8192);
    for n in 1..=2u8 {
        t.commit(record, &[n; 40]);
        let current = usize::from(n % 2);
        for copy in 0..2 {
            let base = copies + (2 * record as usize + copy) * stride;
            // Version, checksum and contents; four bytes between are not used.
            for bit in (0..96).chain(128..(16 + 40) * 8) {
                let mut byte = [0];
                assert!(raw.copy_out(base + bit / 8, &mut byte));
                let flipped = [byte[0] ^ 1 << (bit % 8)];
                assert!(raw.copy_in(base + bit / 8, &flipped));
                assert_eq!(
                    t.load(record, &mut into).is_err(),
                    copy == current,
                    "{copy} {bit}"
                );
                assert!(raw.copy_in(base + bit / 8, &byte));
                assert_eq!(t.load(record, &mut into), Ok(true));
            }
        }
        assert_eq!(into, [n; 40]);
    }
    // A word that names another copy or version is found too.
    let word = raw.u64_at(4096 + record as usize * 8).unwrap();
    let good = word.load(Ordering::Relaxed);
    for bit in 1..64 {
        word.store(good ^ 1 << bit, Ordering::Relaxed);
        assert!(t.load(record, &mut into).is_err(), "{bit}");
    }
    word.store(good, Ordering::Relaxed);
    assert_eq!(t.load(record, &mut into), Ok(true));
    // Only this record was ever concerned.
    assert_eq!(t.load(0, &mut into), Ok(false));
}

fn sockets() -> SessionLayout {
    SessionLayout::fixed(130, 4096, 8192)
}

#[test]
fn dirty_sockets_are_taken_once() {
    let fd = session::create("session", sockets()).unwrap();
    let app = SessionMemory::attach(&fd).unwrap();
    let transport = SessionMemory::attach_as(&fd, sockets()).unwrap();
    let take = || {
        let mut all = Vec::new();
        transport.take_dirty(|slot| all.push(slot));
        all
    };
    assert!(
        app.mark_dirty(3),
        "a transport that never ran wants to be rung"
    );
    transport.set_armed(false);
    for slot in [64, 129, 3, 0] {
        assert!(!app.mark_dirty(slot));
    }
    assert!(!app.mark_dirty(130));
    assert!(transport.is_dirty());
    assert_eq!(take(), [0, 3, 64, 129]);
    assert!(!transport.is_dirty());
    assert_eq!(take(), []);
    transport.set_armed(true);
    assert!(app.mark_dirty(1));
    // Bits of sockets that are not there are the application's nonsense.
    let word = |at| transport.mapping().u64_at(at).unwrap();
    word(header::DIRTY + 16).store(u64::MAX, Ordering::Relaxed);
    word(header::DIRTY + 8 * 63).store(u64::MAX, Ordering::Relaxed);
    word(header::DIRTY_SUMMARY).store(u64::MAX, Ordering::Relaxed);
    assert_eq!(take(), [1, 128, 129]);
    let fd = session::create("session", SessionLayout::fixed(MAX_SOCKETS, 4096, 4096)).unwrap();
    let m = SessionMemory::attach(&fd).unwrap();
    let _ = (m.mark_dirty(16_383), m.mark_dirty(4_096), m.mark_dirty(63));
    let mut all = Vec::new();
    m.take_dirty(|slot| all.push(slot));
    assert_eq!(all, [63, 4_096, 16_383]);
    assert!(!m.is_dirty());
}

#[test]
fn a_session_memory_is_what_its_maker_says() {
    let fd = session::create("session", sockets()).unwrap();
    let map = Mapping::map(&fd, 0, true).unwrap();
    let transport = SessionMemory::attach_as(&fd, sockets()).unwrap();
    map.u32_at(header::TX_CAPACITY)
        .unwrap()
        .store(5000, Ordering::Relaxed);
    assert!(matches!(
        SessionMemory::attach(&fd),
        Err(ShmError::BadLayout(_))
    ));
    map.u32_at(header::TX_CAPACITY)
        .unwrap()
        .store(1 << 26, Ordering::Relaxed);
    assert!(matches!(
        SessionMemory::attach(&fd),
        Err(ShmError::TooSmall { .. })
    ));
    map.u32_at(header::SOCKETS)
        .unwrap()
        .store(u32::MAX, Ordering::Relaxed);
    assert!(matches!(
        SessionMemory::attach(&fd),
        Err(ShmError::BadLayout(_))
    ));
    map.u32_at(header::VERSION)
        .unwrap()
        .store(77, Ordering::Relaxed);
    assert!(matches!(
        SessionMemory::attach(&fd),
        Err(ShmError::Layout { found: 77, .. })
    ));
    assert_eq!(transport.layout(), sockets());
    let last = transport.u64(129, control::RX_URGENT).unwrap();
    last.store(5, Ordering::Relaxed);
    let at = CONTROL_OFFSET + 129 * 256 + control::RX_URGENT;
    assert_eq!(map.u64_at(at).unwrap().load(Ordering::Relaxed), 5);
    assert!(transport.u64(130, 0).is_none() && transport.u32(0, 256).is_none());
    assert!(
        transport.u64(0, 252).is_none(),
        "a word across two control blocks"
    );
    assert!(transport.tx_offset(130).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_are_the_positions_modulo_the_capacity(
        slot in 0u32..130, position in 0u64..1 << 60, len in 0usize..9000, tx in any::<bool>(),
    ) {
        thread_local!(static MEMORY: SessionMemory =
            SessionMemory::attach(&session::create("session", sockets()).unwrap()).unwrap());
        let (m, capacity) = (MEMORY.with(SessionMemory::clone), if tx { 4096u128 } else { 8192 });
        let base = if tx { m.tx_offset(slot) } else { m.rx_offset(slot) }.unwrap();
        let rings = Rings { tx: Ring::new(4096), rx: Ring::new(8192), ..Rings::default() };
        let side = if tx { Buffer::Tx } else { Buffer::Rx };
        let mut runs = Vec::new();
        let whole = m.pieces(slot, side, &rings, position, len, |at, n| {
            runs.push((at, n));
            true
        });
        prop_assert!(whole);
        let places: Vec<_> = runs.iter().flat_map(|&(at, n)| at..at + n).collect();
        let expected: Vec<_> = (0..len)
            .map(|i| base + ((u128::from(position) + i as u128) % capacity) as usize)
            .collect();
        prop_assert_eq!(places, expected);
        prop_assert!(runs.iter().all(|&(at, n)| m.mapping().pointer(at, n).is_some()));
    }
}

/// Each byte of each buffer has one place, in the base or in the window, and none has two.
#[test]
fn growing_buffers_do_not_overlap() {
    let layout = SessionLayout {
        sockets: 3,
        tx_capacity: 16_384,
        rx_capacity: 32_768,
        base: 8_192,
        windows: 2,
    };
    let m = SessionMemory::attach(&session::create("session", layout).unwrap()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for (slot, window) in [(0, 2), (1, 0), (2, 1)] {
        let grown = window > 0;
        let rings = Rings {
            tx: Ring::new(if grown { 16_384 } else { 8_192 }),
            rx: Ring::new(if grown { 32_768 } else { 8_192 }),
            window,
            reserved: 0,
        };
        m.set_rings(slot, &rings);
        assert_eq!(m.rings(slot), rings);
        for (side, len) in [(Buffer::Tx, rings.tx.size()), (Buffer::Rx, rings.rx.size())] {
            assert!(m.pieces(slot, side, &rings, 5, len as usize, |at, n| {
                (at..at + n).all(|byte| byte < layout.size() && seen.insert(byte))
            }));
        }
    }
    assert_eq!(seen.len(), 2 * (16_384 + 32_768) + 2 * 8_192);
    // A window that is not there, or not given, and a ring that is too large.
    for window in [0, 3, u32::MAX] {
        let rings = Rings {
            tx: Ring::new(16_384),
            rx: Ring::new(32_768),
            window,
            reserved: 0,
        };
        assert!(m.piece(0, Buffer::Rx, &rings, 8_191).is_some());
        assert!(m.piece(0, Buffer::Rx, &rings, 8_192).is_none());
    }
    let large = Rings {
        tx: Ring::new(1 << 20),
        window: 1,
        ..Rings::default()
    };
    assert!(m.piece(0, Buffer::Tx, &large, 8_192).is_none());
    assert!(m.piece(0, Buffer::Rx, &large, 0).is_none());
}

#[test]
fn buffers_of_sockets_do_not_overlap() {
    let m = SessionMemory::attach(&session::create("session", sockets()).unwrap()).unwrap();
    let mut end = CONTROL_OFFSET + 130 * 256;
    for slot in 0..130 {
        let (tx, rx) = (m.tx_offset(slot).unwrap(), m.rx_offset(slot).unwrap());
        assert!(tx >= end && rx == tx + 4096 && tx.is_multiple_of(4096));
        end = rx + 8192;
    }
    assert_eq!(end, sockets().size());
}

#[test]
fn links_carry_registrations_and_the_device() {
    let fd = shm::link::create("link").unwrap();
    let (upper, lower) = (Link::attach(&fd).unwrap(), Link::attach(&fd).unwrap());
    assert_eq!(lower.registered().count(), 0);
    upper.register(&[6, 17]);
    assert_eq!(lower.registered().collect::<Vec<_>>(), [6, 17]);
    upper.register(&[1; 20]);
    assert_eq!(lower.registered().count(), 15);
    assert!(!upper.device().present);
    let device = DeviceWords {
        present: true,
        mtu: 9000,
        mac: [2, 0, 0, 0xff, 4, 5],
        checksum: true,
        segmentation: false,
    };
    lower.set_device(device);
    assert_eq!(upper.device(), device);

    // What is written over is not believed, and said again.
    let raw = Mapping::map(&fd, 0, true).unwrap();
    for at in [64, 68, 96, 192] {
        raw.u32_at(at).unwrap().store(u32::MAX, Ordering::Relaxed);
        assert_eq!(lower.registered().collect::<Vec<_>>(), [1; 15]);
        assert!(upper.say_again() && !upper.say_again());
    }
    for at in [128, 136, 200] {
        raw.u32_at(at).unwrap().store(u32::MAX, Ordering::Relaxed);
        assert_eq!(upper.device(), device);
        assert!(lower.say_again() && !lower.say_again());
    }
    let restarted = Link::attach(&fd).unwrap();
    assert_eq!(restarted.registered().count(), 15);
    assert_eq!(restarted.device(), device);

    let mut up = lower.producer(Side::Lower).unwrap();
    assert!(up.push(77));
    up.publish();
    let mut here = upper.consumer(Side::Upper).unwrap();
    assert_eq!((here.available(), here.pop()), (Ok(1), Some(77)));
    assert!(lower.consumer(Side::Lower).unwrap().is_empty());

    for (at, what) in [(0, "magic"), (8, "version")] {
        let bytes = bytes_of(&fd);
        let bytes = forged(&bytes, 20, at, 3);
        let refused = Link::attach(&memfd(&bytes));
        assert!(
            matches!(refused, Err(ShmError::Layout { what: "link", .. })),
            "{what}"
        );
    }
    assert!(matches!(
        Link::attach(&mapping::create("short", 4096).unwrap()),
        Err(ShmError::TooSmall { .. })
    ));
}

#[test]
fn a_bell_rings_for_the_armed_alone() {
    let (memory, event) = shm::bell::create("bell").unwrap();
    let producer = Bell::attach(&memory, event.try_clone().unwrap()).unwrap();
    let mut consumer = Bell::attach(&memory, event.try_clone().unwrap()).unwrap();
    let rung = |c: &Bell| {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(c.event(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!producer.ring() && !rung(&consumer));
    consumer.arm();
    assert!(producer.ring() && rung(&consumer));
    assert!(!producer.ring(), "it was masked by the first ring");
    consumer.mask();
    consumer.drain();
    assert!(!rung(&consumer));
    producer.force();
    assert!(rung(&consumer));
    consumer.drain();
    consumer.arm();
    // A successor takes the count up and is woken as well.
    let mut successor = Bell::attach(&memory, event).unwrap();
    successor.mask();
    assert!(!producer.ring());
    successor.arm();
    assert!(producer.ring() && rung(&successor));
}

#[test]
fn bells_wake_sleepers_under_load() {
    use nix::poll::{PollFd, PollFlags, poll};
    const ROUNDS: u64 = 20_000;
    let link = Link::attach(&shm::link::create("link").unwrap()).unwrap();
    let bells: Vec<_> = (0..2).map(|_| shm::bell::create("bell").unwrap()).collect();
    let attach = |i: usize| Bell::attach(&bells[i].0, bells[i].1.try_clone().unwrap()).unwrap();
    let play = |side: Side, mut own: Bell, other: Bell, first: bool| {
        move || {
            let mut p = link.producer(side).unwrap();
            let mut c = link.consumer(side).unwrap();
            let mut next = u64::from(!first) + 1;
            if first {
                assert!(p.push(1));
                p.publish();
                other.ring();
                next = 2;
            }
            while next <= ROUNDS {
                while c.available().unwrap() > 0 {
                    let got = c.pop().unwrap();
                    c.advance();
                    assert_eq!(got, if first { next } else { next - 1 });
                    assert!(p.push(got + 1));
                    p.publish();
                    other.ring();
                    next += 2;
                }
                own.arm();
                if c.is_empty() && next <= ROUNDS {
                    // A lost wake-up ends here.
                    let mut fds = [PollFd::new(own.event(), PollFlags::POLLIN)];
                    assert_eq!(poll(&mut fds, 10_000u16), Ok(1), "a wake-up was lost");
                }
                own.mask();
                own.drain();
            }
        }
    };
    let one = std::thread::spawn(play(Side::Upper, attach(0), attach(1), true));
    let two = std::thread::spawn(play(Side::Lower, attach(1), attach(0), false));
    one.join().unwrap();
    two.join().unwrap();
}

#[test]
fn vital_signs_are_seen_from_outside() {
    let fd = vitals::create("vitals").unwrap();
    let (daemon, supervisor) = (Vitals::attach(&fd).unwrap(), Vitals::attach(&fd).unwrap());
    daemon.set_phase(Phase::Running, 3);
    daemon.progress();
    daemon.note(4, 99);
    daemon.name_counters(&[
        "packets",
        "a name that is far too long for its thirty-two bytes",
    ]);
    daemon.count(0, 5);
    daemon.count(0, 2);
    daemon.set(1, 9);
    daemon.count(vitals::MAX_COUNTERS, 1);
    assert_eq!((supervisor.turns(), supervisor.noted()), (1, (4, 99)));
    let counters = supervisor.counters();
    assert_eq!(counters[0], ("packets".to_owned(), 7));
    assert_eq!((counters[1].0.len(), counters[1].1), (31, 9));
    assert!(!daemon.tracing());
    supervisor.request_trace(2);
    for n in 0..3 {
        daemon.trace(n, stage::IP_IN, Handle(8), 60, 0);
    }
    assert!(!daemon.tracing());
    assert_eq!(
        supervisor.traces().iter().map(|t| t.at).collect::<Vec<_>>(),
        [0, 1]
    );
}

#[test]
fn what_was_committed_last_is_known_to_a_successor() {
    let fd = mapping::create("recent", 8192 + recent::SIZE).unwrap();
    let attach = || Recent::attach(&fd, 8192, 10_000).unwrap();
    let mut first = attach();
    assert_eq!(first.latest().count(), 0);
    // Few that are busy do not push out one that is at work now and then.
    for round in 0..10_000 {
        first.note(round % 3);
        if round % 2_000 == 0 {
            first.note(77);
        }
    }
    // No record of the table.
    first.note(10_000);
    drop(first);
    let mut second = attach();
    let mut latest: Vec<u32> = second.latest().collect();
    latest.sort_unstable();
    assert_eq!(latest, [0, 1, 2, 77]);
    for index in 100..5_000 {
        second.note(index);
    }
    second.note(0);
    let latest: Vec<u32> = second.latest().collect();
    assert_eq!(latest[..3], [0, 4_999, 4_998]);
    assert_eq!(latest.len(), 512);
    // Many that come and go do not push out those that are at work all the time.
    for index in 5_000..9_000 {
        second.note(index);
        (0..40).for_each(|busy| second.note(busy));
    }
    let latest: Vec<u32> = second.latest().take(128).collect();
    assert!((0..40).all(|busy| latest.contains(&busy)), "{latest:?}");
    // Whatever was written over it, no record that cannot be.
    let map = Mapping::map(&fd, 8192, true).unwrap();
    assert!(map.copy_in(8192, &[0xa5; recent::SIZE]));
    assert_eq!(second.latest().count(), 0);
    second.note(0);
    assert_eq!(second.latest().next(), Some(0));
    assert!(Recent::attach(&fd, 8192 + 4, 10).is_err(), "too small");
}
