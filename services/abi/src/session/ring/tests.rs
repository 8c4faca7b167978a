#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use super::*;

/// A deterministic source of numbers (xorshift), enough for a model test.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

/// Writer, reader and decider against a plain memory: whatever is written is read back, whenever
/// the size changes.
fn run(seed: u64, sizes: &[u32], steps: u32) -> u32 {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut memory = vec![0u64; *sizes.iter().max().unwrap() as usize];
    let mut ring = Ring::new(sizes[0]);
    // What the writer was told: it may lag behind.
    let (mut told, mut told_lo) = (ring, 0u64);
    let (mut lo, mut tail) = (0u64, 0u64);
    let mut switches = 0;
    for _ in 0..steps {
        match rng.below(8) {
            0..=2 => {
                let limit = told.limit(told_lo);
                let n = rng.below(limit - tail + 1);
                for p in tail..tail + n {
                    let at = told.stretch(p).unwrap().at as usize;
                    // Nothing in use is overwritten.
                    memory[at] = p + 1;
                }
                tail += n;
            }
            3..=5 => {
                let n = rng.below(tail - lo + 1);
                for p in lo..lo + n {
                    let s = ring.stretch(p).unwrap();
                    assert_eq!(memory[s.at as usize], p + 1, "seed {seed} position {p}");
                    assert!(s.len > 0);
                }
                lo += n;
            }
            6 => {
                let size = sizes[rng.below(sizes.len() as u64) as usize];
                let before = ring.limit(lo);
                let hi = before.max(told.limit(told_lo));
                if ring.switch(lo, hi, size) {
                    switches += 1;
                    assert!(ring.is_valid(*sizes.iter().max().unwrap()));
                    assert!(ring.pending(lo).unwrap() >= hi);
                    // What may be written now does not fall.
                    assert!(ring.limit(lo) >= before, "seed {seed}");
                }
            }
            _ => {
                told = ring;
                told_lo = lo;
            }
        }
        assert!(tail <= ring.limit(lo), "seed {seed}");
    }
    switches
}

#[test]
fn what_is_written_is_read_back_while_the_ring_grows_and_shrinks() {
    let mut switches = 0;
    for seed in 1..400 {
        switches += run(seed, &[4096, 8192, 16384, 65536], 300);
    }
    for seed in 400..430 {
        switches += run(seed, &[8192, 4096], 300);
    }
    assert!(switches > 2_500, "{switches}");
}

#[test]
fn the_limit_never_falls() {
    for (from, to) in [
        (4096u32, 8192u32),
        (4096, 65536),
        (65536, 4096),
        (8192, 16384),
    ] {
        for hi in [1u64, 4095, 4096, 5000, u64::from(from)] {
            let mut ring = Ring::new(from);
            assert!(ring.switch(0, hi, to));
            let mut last = 0;
            for lo in 0..300_000 {
                let limit = ring.limit(lo);
                assert!(limit >= last && limit > lo, "{from} {to} {hi} {lo}");
                last = limit;
            }
            assert_eq!(ring.limit(1 << 20), (1 << 20) + u64::from(to));
        }
    }
}

#[test]
fn growing_begins_in_the_fresh_half() {
    let mut ring = Ring::new(4096);
    assert!(ring.switch(10_000, 14_096, 16_384));
    assert_eq!(ring.pending(10_000), Some(16_384));
    assert_eq!(ring.pending(16_384), None);
    assert_eq!(ring.stretch(16_383).unwrap(), Stretch { at: 4095, len: 1 });
    assert_eq!(
        ring.stretch(16_384).unwrap(),
        Stretch {
            at: 4096,
            len: 12_288
        }
    );
    assert_eq!(ring.stretch(16_384 + 12_288).unwrap().at, 0);
    // Until the switch is within reach, one old ring; then a new one.
    assert_eq!(ring.limit(12_287), 12_287 + 4096);
    assert_eq!(ring.limit(12_288), 12_288 + 16_384);
    // One at a time.
    assert!(!ring.switch(12_288, 28_672, 32_768));
    assert!(ring.switch(16_384, 32_768, 32_768));
}

// Found by `strata compare`: the switch lay at the next place 0, which a stream in slow start
// reached two round trips later; its window stayed as it was until then.
#[test]
fn all_of_a_larger_ring_may_be_used_as_soon_as_it_is_there() {
    const M: u64 = 1 << 17;
    let mut ring = Ring::new(1 << 17);
    let lo = 5 * 4096;
    assert!(ring.switch(lo, lo + M, 1 << 19));
    assert_eq!(ring.pending(lo), Some(lo + M));
    assert_eq!(ring.limit(lo), lo + 4 * M);
    // It waits for what is at place 0 and the next four pages, which come once more before it.
    for (used, limit) in [
        (M - lo, lo + 4 * M),
        (M - 1, 2 * lo - 1 + 4 * M),
        (M, lo + 5 * M),
    ] {
        assert_eq!(ring.limit(lo + used), limit, "{used}");
    }
}

// What an application reads may be anything.
#[test]
fn any_words_are_answered() {
    let mut rng = Rng(99);
    for _ in 0..200_000 {
        let word = |rng: &mut Rng| {
            let w = rng.below(u64::MAX);
            if rng.below(2) == 0 {
                w & 0xfff_f000 | rng.below(4096)
            } else {
                w
            }
        };
        let ring = Ring::from_words([word(&mut rng), word(&mut rng)]);
        let p = rng.below(u64::MAX);
        if let Some(s) = ring.stretch(p) {
            assert!(s.len > 0 && s.at + s.len <= u64::from(RING_MOST));
        }
        let _ = (ring.limit(p), ring.pending(p), ring.size(), ring.span());
    }
    assert!(!Ring::default().is_valid(1 << 20));
    assert!(Ring::new(4096).is_valid(4096));
    assert!(!Ring::new(8192).is_valid(4096));
}
