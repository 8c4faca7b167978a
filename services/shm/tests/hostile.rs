//! What a hostile neighbour can write into a pool, a descriptor or a ring: it is refused with the
//! right fault, what was its to give is freed, and nobody panics.
#![cfg(not(feature = "loom"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests are tests"
)]

use abi::skbuff::{Frag, MAX_FRAGS, OFFSET_NONE, SkBuffDesc, checksum, gso};
use abi::{Handle, PoolId, RegionId, ServiceId};
use proptest::prelude::*;
use shm::ring::{Consumer, Producer, RingWords};
use shm::sync::{AtomicU32, AtomicU64, Ordering};
use shm::{Allocator, Arena, Mapping, PeerFault, Pool, PoolLayout, SizeClass, SkBuff, pool, sweep};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

const EVIL: ServiceId = ServiceId(1);
const ME: ServiceId = ServiceId(2);
const OTHER: ServiceId = ServiceId(3);
const LAYOUT: PoolLayout = PoolLayout {
    small_slots: 6,
    small_size: 512,
    large_slots: 2,
    large_size: 2048,
};
const WORDS: usize = 4096;
const DESCS: usize = WORDS + 64;
const BUFFERS: u64 = 8192;

/// EVIL's pool, as EVIL writes it and as ME sees it.
struct Attack {
    raw: Mapping,
    alloc: Allocator,
    mine: &'static Pool,
    arena: Arena,
    session: RegionId,
}

impl Attack {
    fn new() -> Self {
        let fd = pool::create("pool", LAYOUT).unwrap();
        let evil = Pool::attach_for(PoolId(4), EVIL, &fd).unwrap();
        let mine = Pool::attach_for(PoolId(4), EVIL, &fd).unwrap();
        assert_eq!(mine.buffer_range(0).unwrap().0 as u64, BUFFERS);
        let mut arena = Arena::new(ME);
        arena.add_pool(mine);
        let session = RegionId::of_session(EVIL, 1);
        let memory = shm::mapping::create("session", 4096).unwrap();
        arena.add_region(
            session,
            Arc::new(Mapping::map(&memory, 4096, false).unwrap()),
        );
        let raw = Mapping::map(&fd, 1, true).unwrap();
        Self {
            raw,
            alloc: Allocator::new(evil, EVIL),
            mine,
            arena,
            session,
        }
    }

    /// A packet of EVIL's with whatever descriptor it likes.
    fn send(&mut self, change: impl FnOnce(&mut SkBuffDesc)) -> Handle {
        let mut skb = self.alloc.alloc(SizeClass::Small).expect("a free slot");
        skb.put(64).unwrap().fill(7);
        let mut desc = *skb.desc();
        change(&mut desc);
        let handle = skb.into_handle();
        self.write(handle.slot(), &desc);
        handle
    }

    fn write(&self, slot: u32, desc: &SkBuffDesc) {
        assert!(
            self.raw
                .copy_in(DESCS + slot as usize * 192, desc.as_bytes())
        );
    }

    fn claim(&self, handle: Handle) -> Result<SkBuff, PeerFault> {
        self.arena.claim(handle, EVIL)
    }

    fn all_free(&self) -> bool {
        self.mine.free_slots() == LAYOUT.slots()
    }
}

#[test]
fn forged_handles_are_refused_and_nothing_moves() {
    let mut a = Attack::new();
    let good = a.send(|_| {});
    let (slot, g) = (good.slot(), good.generation());
    let before: Vec<_> = (0..LAYOUT.slots()).map(|s| a.mine.owner_of(s)).collect();
    let h = |pool, slot, generation| Handle::new(PoolId(pool), slot, generation);
    for pool in [0, 3, 5, 63, 64, 200, 255] {
        let handle = h(pool, slot, g);
        assert_eq!(
            a.claim(handle).unwrap_err(),
            PeerFault::UnknownPool(PoolId(pool))
        );
    }
    for bad in [LAYOUT.slots(), LAYOUT.slots() + 1, 1 << 20, (1 << 24) - 1] {
        let handle = h(4, bad, g);
        assert_eq!(a.claim(handle).unwrap_err(), PeerFault::BadSlot(handle));
    }
    let free_slot = h(4, slot + 1, a.mine.owner_of(slot + 1).unwrap().0);
    let stale = [
        h(4, slot, g + 1),
        h(4, slot, g - 1),
        h(4, slot, 0),
        h(4, 0, 0),
        free_slot,
    ];
    for handle in stale {
        assert_eq!(a.claim(handle).unwrap_err(), PeerFault::Stale(handle));
    }
    // The right handle by the wrong neighbour, by nobody and by oneself.
    for from in [OTHER, ServiceId::NOBODY, ME, ServiceId(255)] {
        assert_eq!(
            a.arena.claim(good, from).unwrap_err(),
            PeerFault::Stale(good)
        );
    }
    let after: Vec<_> = (0..LAYOUT.slots()).map(|s| a.mine.owner_of(s)).collect();
    assert_eq!(before, after);
    let skb = a.claim(good).unwrap();
    assert_eq!(
        a.claim(good).unwrap_err(),
        PeerFault::Stale(good),
        "a handle is good once"
    );
    drop(skb);
    assert!(a.all_free());
}

#[test]
fn a_slot_of_mine_cannot_be_given_by_another() {
    let mut a = Attack::new();
    let sent = a.send(|_| {});
    let skb = a.claim(sent).unwrap();
    // EVIL names the slot as it is now.
    let handle = skb.handle();
    assert_eq!(a.claim(handle).unwrap_err(), PeerFault::Stale(handle));
    assert_eq!(skb.linear(), [7; 64]);
}

#[test]
fn malformed_descriptors_are_refused_and_their_slots_freed() {
    let buffer = |slot: u32| BUFFERS + u64::from(slot) * 512;
    let pool = RegionId::of_pool(PoolId(4)).0;
    let session = RegionId::of_session(EVIL, 1).0;
    let frag = move |region, offset, len| {
        move |d: &mut SkBuffDesc| {
            d.nr_frags = 1;
            d.frags[0] = Frag {
                region,
                len,
                offset,
            };
        }
    };
    type Change = Box<dyn Fn(&mut SkBuffDesc)>;
    let bad: Vec<(&str, Change)> = vec![
        ("data behind tail", Box::new(|d| d.data = d.tail + 1)),
        ("tail behind end", Box::new(|d| d.tail = 513)),
        (
            "both huge",
            Box::new(|d| (d.data, d.tail) = (u32::MAX, u32::MAX)),
        ),
        ("mac", Box::new(|d| d.mac = 513)),
        ("network", Box::new(|d| d.network = OFFSET_NONE - 1)),
        ("transport", Box::new(|d| d.transport = 513)),
        ("ip_summed 2", Box::new(|d| d.ip_summed = 2)),
        ("ip_summed 255", Box::new(|d| d.ip_summed = 255)),
        (
            "checksum start",
            Box::new(|d| {
                (d.ip_summed, d.csum_start) = (checksum::PARTIAL, u16::MAX);
            }),
        ),
        (
            "checksum offset",
            Box::new(|d| {
                (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, 128, 63);
            }),
        ),
        (
            "gso type",
            Box::new(|d| (d.gso_type, d.gso_size) = (2, 1000)),
        ),
        (
            "gso size 0",
            Box::new(|d| (d.gso_type, d.gso_size) = (gso::TCPV4, 0)),
        ),
        ("too many fragments", Box::new(|d| d.nr_frags = 7)),
        ("255 fragments", Box::new(|d| d.nr_frags = 255)),
        ("fragment in the header", Box::new(frag(pool, 0, 64))),
        (
            "fragment in the words",
            Box::new(frag(pool, WORDS as u64, 64)),
        ),
        (
            "fragment in another slot",
            Box::new(frag(pool, buffer(3), 64)),
        ),
        (
            "fragment past its slot",
            Box::new(frag(pool, buffer(0) + 500, 13)),
        ),
        ("fragment past the pool", Box::new(frag(pool, 1 << 40, 64))),
        ("fragment that wraps", Box::new(frag(pool, u64::MAX, 64))),
        (
            "fragment in another pool",
            Box::new(frag(pool + 1, buffer(0), 64)),
        ),
        (
            "session fragment that wraps",
            Box::new(frag(session, u64::MAX - 3, 64)),
        ),
        (
            "fragment in another's session",
            Box::new(frag(RegionId::of_session(OTHER, 1).0, 0, 64)),
        ),
        (
            "too long a fragment",
            Box::new(frag(session, 0, 65_536 + 128)),
        ),
        (
            "too long together",
            Box::new(move |d| {
                d.nr_frags = 6;
                d.frags = [Frag {
                    region: session,
                    len: 11_000,
                    offset: 0,
                }; MAX_FRAGS];
            }),
        ),
    ];
    for (what, change) in bad {
        let mut a = Attack::new();
        let handle = a.send(change);
        let fault = a.claim(handle).unwrap_err();
        assert_eq!(fault, PeerFault::Descriptor(handle), "{what}");
        assert!(a.all_free(), "{what}");
    }
}

#[test]
fn good_descriptors_pass() {
    let mut a = Attack::new();
    let session = a.session.0;
    let handle = a.send(|d| {
        (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, 128, 62);
        (d.gso_type, d.gso_size) = (gso::TCPV4, 1448);
        d.nr_frags = 1;
        d.frags[0] = Frag {
            region: session,
            len: 4096,
            offset: 0,
        };
    });
    let skb = a.claim(handle).unwrap();
    assert_eq!(skb.len(), 64 + 4096);
    let mut all = vec![0; skb.len()];
    a.arena.copy_out(&skb, 0, &mut all).unwrap();
    assert!(a.arena.copy_out(&skb, 1, &mut all).is_err());
}

#[test]
fn session_fragments_are_checked_when_they_are_read() {
    let mut a = Attack::new();
    let session = a.session.0;
    let handle = a.send(|d| {
        d.nr_frags = 1;
        d.frags[0] = Frag {
            region: session,
            len: 64,
            offset: 4090,
        };
    });
    let skb = a.claim(handle).unwrap();
    assert!(a.arena.frag_ptr(&skb.frags()[0]).is_err());
    assert!(a.arena.copy_out(&skb, 0, &mut [0; 128]).is_err());
    a.arena.remove_region(a.session);
    let gone = PeerFault::UnknownRegion(a.session);
    assert_eq!(a.arena.frag_ptr(&skb.frags()[0]).unwrap_err(), gone);
}

#[test]
fn impossible_extra_slots_are_refused_and_the_head_freed() {
    let g = shm::owner::FIRST_GENERATION;
    let h = |pool, slot, generation| Handle::new(PoolId(pool), slot, generation).0;
    // Itself, another pool's, past the end, free, of generation 0, and noise.
    for extra in [
        h(4, 0, g),
        h(5, 1, g),
        h(4, 99, g),
        h(4, 3, g),
        h(4, 3, 0),
        1,
        u64::MAX,
    ] {
        let mut a = Attack::new();
        let handle = a.send(|d| d.extra = extra);
        assert_eq!(
            a.claim(handle).unwrap_err(),
            PeerFault::Descriptor(handle),
            "{extra:#x}"
        );
        assert!(a.all_free(), "{extra:#x}");
    }
}

#[test]
fn two_packets_with_one_extra_slot_get_it_once() {
    let mut a = Attack::new();
    let shared = a.alloc.alloc(SizeClass::Large).unwrap().into_handle();
    let [one, two] = [(); 2].map(|()| a.send(|d| d.extra = shared.0));
    let first = a.claim(one).unwrap();
    assert_eq!(a.claim(two).unwrap_err(), PeerFault::Descriptor(two));
    drop(first);
    assert!(a.all_free());
}

#[test]
fn packets_that_name_each_other_as_extra_are_taken_once() {
    let mut a = Attack::new();
    let [one, two] = [(); 2].map(|()| a.send(|_| {}));
    for (head, extra) in [(one, two), (two, one)] {
        a.write(
            head.slot(),
            &SkBuffDesc {
                extra: extra.0,
                ..SkBuffDesc::default()
            },
        );
    }
    let skb = a.claim(one).unwrap();
    assert_eq!(a.claim(two).unwrap_err(), PeerFault::Stale(two));
    drop(skb);
    assert!(a.all_free());
}

#[test]
fn scribbled_ownership_words_are_repaired_by_a_sweep() {
    let a = Attack::new();
    for slot in 0..u64::from(LAYOUT.slots()) {
        let word = a.raw.u64_at(WORDS + slot as usize * 8).unwrap();
        word.store(
            [0, u64::MAX, 77, 1 << 9, 99 << 32 | 200][slot as usize % 5],
            Ordering::SeqCst,
        );
    }
    sweep::sweep(ME, &[ME], [a.mine].into_iter(), std::iter::empty());
    assert!(a.all_free());
}

#[test]
fn an_sk_buff_ignores_what_its_owner_writes_over_extra() {
    let mut a = Attack::new();
    let sent = [(); 2].map(|()| a.send(|_| {}));
    let [mut one, two] = sent.map(|h| a.claim(h).unwrap());
    one.desc_mut().extra = two.handle().0;
    drop(one);
    assert_eq!(a.mine.owner_of(two.handle().slot()).unwrap().1, ME);
}

/// Uses an sk_buff in every way with numbers from anywhere.
fn exercise(arena: &Arena, mut skb: SkBuff, numbers: &[u32]) -> SkBuff {
    for (i, &n) in numbers.iter().enumerate() {
        let size = n as usize;
        match i % 9 {
            0 => drop(skb.push(size).map(|b| b.fill(1))),
            1 => drop(skb.pull(size)),
            2 => drop(skb.put(size).map(|b| b.fill(2))),
            3 => skb.trim(size),
            4 => skb.reserve(n),
            5 => drop(skb.from_offset(u16::try_from(n % 65_536).unwrap()).to_vec()),
            6 => drop(arena.copy_out(&skb, size % 4096, &mut vec![0; size % 4096])),
            7 => drop(skb.add_frag(RegionId(n % 8), n.into(), n)),
            _ => {
                let _ = skb
                    .frags()
                    .iter()
                    .map(|f| arena.frag_ptr(f))
                    .collect::<Vec<_>>();
            }
        }
        assert!(skb.linear().len() + skb.headroom() + skb.tailroom() <= 2048);
    }
    skb
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn arbitrary_descriptors_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 184),
        plausible in any::<[u8; 8]>(),
        numbers in proptest::collection::vec(any::<u32>().prop_map(|n| n >> (n % 32)), 0..40),
    ) {
        thread_local!(static ATTACK: std::cell::RefCell<Attack> = Attack::new().into());
        ATTACK.with_borrow_mut(|a| {
            let handle = a.send(|d| {
                let kept = *d;
                *d = SkBuffDesc::read_from_bytes(&bytes).unwrap();
                // Each field is random in some cases and as it was in the others.
                let keep = |i: usize| plausible[i] < 200;
                if keep(0) { (d.data, d.tail) = (kept.data, kept.tail) }
                if keep(1) { (d.mac, d.network) = (kept.mac, kept.network) }
                if keep(2) { d.transport = kept.transport }
                if keep(3) { d.ip_summed = kept.ip_summed }
                if keep(4) { d.gso_type = kept.gso_type }
                if keep(5) { d.nr_frags = kept.nr_frags }
                if keep(6) { d.extra = kept.extra }
            });
            match a.claim(handle) {
                Ok(skb) => drop(exercise(&a.arena, skb, &numbers)),
                Err(fault) => prop_assert_eq!(fault, PeerFault::Descriptor(handle)),
            }
            prop_assert!(a.all_free());
            Ok(())
        })?;
    }

    #[test]
    fn arbitrary_handles_do_no_harm(raw in any::<u64>(), from in any::<u8>(), near in any::<bool>()) {
        thread_local!(static ATTACK: std::cell::RefCell<Attack> = Attack::new().into());
        ATTACK.with_borrow_mut(|a| {
            let raw = if near { raw & 0x0000_0007_0000_000f | 4 << 56 } else { raw };
            if let Ok(skb) = a.arena.claim(Handle(raw), ServiceId(from)) {
                panic!("claimed {skb:?}");
            }
            prop_assert!(a.all_free());
            Ok(())
        })?;
    }

    #[test]
    fn arbitrary_indices_do_no_harm(
        scribbles in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<bool>()), 1..30),
    ) {
        let (head, tail) = (AtomicU32::new(0), AtomicU32::new(0));
        let slots: Vec<_> = (0..8).map(AtomicU64::new).collect();
        let words = RingWords { head: &head, tail: &tail, slots: &slots };
        let (mut p, mut c) = (Producer::attach(words), Consumer::attach(words));
        for (which, value, restart) in scribbles {
            if which { &head } else { &tail }.store(value, Ordering::SeqCst);
            if restart {
                if which { c = Consumer::attach(words) } else { p = Producer::attach(words) }
            }
            prop_assert!(p.room().unwrap_or(0) <= 8);
            for h in 0..10 {
                let _ = p.push(h);
            }
            prop_assert!(p.publish() <= 8);
            let mut n = 0;
            let waits = c.available();
            while c.pop().is_some() {
                n += 1;
            }
            prop_assert_eq!(n, waits.unwrap_or(0));
            prop_assert!(n <= 8);
            c.advance();
            prop_assert!(Producer::published(words).len() <= 8);
        }
        // Once both sides have been restarted, the ring works again.
        let mut p = Producer::attach(words);
        let mut c = Consumer::attach(words);
        let _ = c.available();
        while c.pop().is_some() {}
        c.advance();
        prop_assert!(p.room().is_ok());
        prop_assert!(p.push(42));
        p.publish();
        prop_assert_eq!((c.available(), c.pop(), c.pop()), (Ok(1), Some(42), None));
    }
}

#[test]
fn a_scribbled_tail_costs_one_fault_and_not_a_spin() {
    let (head, tail) = (AtomicU32::new(0), AtomicU32::new(0));
    let slots: Vec<_> = (0..8).map(AtomicU64::new).collect();
    let words = RingWords {
        head: &head,
        tail: &tail,
        slots: &slots,
    };
    let mut c = Consumer::attach(words);
    tail.store(1000, Ordering::SeqCst);
    assert!(!c.is_empty());
    assert_eq!(
        c.available(),
        Err(PeerFault::RingIndex {
            head: 0,
            tail: 1000
        })
    );
    assert_eq!(c.available(), Ok(0));
    assert!(c.is_empty());
}

#[test]
fn a_consumer_that_finds_a_scribbled_head_overlooks_nothing() {
    let (head, tail) = (AtomicU32::new(0), AtomicU32::new(0));
    let slots: Vec<_> = (0..8).map(AtomicU64::new).collect();
    let words = RingWords {
        head: &head,
        tail: &tail,
        slots: &slots,
    };
    let mut p = Producer::attach(words);
    for h in 1..=3 {
        assert!(p.push(h));
    }
    p.publish();
    head.store(12_345, Ordering::SeqCst);
    let mut c = Consumer::attach(words);
    assert_eq!(c.available(), Ok(8));
    let all: Vec<_> = std::iter::from_fn(|| c.pop()).collect();
    assert_eq!(all[5..], [1, 2, 3]);
    c.advance();
    assert_eq!(p.room(), Ok(8));
}
