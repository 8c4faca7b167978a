//! Mutations of runs: operation by operation, so that what follows keeps its meaning, and now and
//! then byte by byte. There is no coverage to go by; the seeds are good ones.

use super::ops::{Header, Op, Seg, decode, encode};
use fastrand::Rng;

fn number(rng: &mut Rng, n: i32) -> i32 {
    match rng.u8(..6) {
        0 => n.wrapping_add(rng.i32(-3..=3)),
        1 => n.wrapping_add(rng.i32(-1_500..=1_500)),
        2 => n.wrapping_add(rng.i32(-70_000..=70_000)),
        3 => 0,
        4 => rng.i32(..),
        _ => n,
    }
}

fn segment(rng: &mut Rng, seg: &mut Seg) {
    match rng.u8(..10) {
        0 => seg.seq = number(rng, seg.seq),
        1 => seg.ack = number(rng, seg.ack),
        2 => seg.len = [0, 1, 10, 1_460, 2_920, 65_000][rng.usize(..6)],
        3 => seg.win = [0, 1, 100, 1_000, 65_535][rng.usize(..5)],
        4 => seg.flags ^= 1 << rng.u8(..8),
        5 => seg.opts ^= 1 << rng.u8(..8),
        6 => seg.value = rng.u16(..),
        7 => seg.urg = rng.u16(..),
        8 => seg.flow = rng.u8(..20),
        _ => seg.bases = [0, 0x11, 0x21, 0x10, 1][rng.usize(..5)],
    }
}

/// A segment that fits in well, for whichever connection.
fn likely(rng: &mut Rng) -> Seg {
    let mut seg = Seg {
        flow: 8 + rng.u8(..4),
        flags: 0x10,
        bases: [0x11, 0x21][rng.usize(..2)],
        win: 65_535,
        len: [0, 0, 100, 1_460][rng.usize(..4)],
        ..Seg::default()
    };
    for _ in 0..rng.usize(..3) {
        segment(rng, &mut seg);
    }
    seg
}

fn any(rng: &mut Rng) -> Op {
    match rng.u8(..14) {
        0..=4 => Op::Segment(likely(rng)),
        5 => Op::Pass {
            mantissa: rng.u16(..),
            shift: rng.u8(..34),
        },
        6 => Op::Words {
            sock: rng.u8(..4),
            written: [0, 1, 100, 3_000, 65_535][rng.usize(..5)],
            consumed: [0, 1, 100, 3_000][rng.usize(..4)],
            flags: [0, 0, 0, 1, 2, 4, 8, 16][rng.usize(..8)],
        },
        7 => Op::Call {
            sock: rng.u8(..4),
            kind: rng.u8(..super::run::CALLS),
            arg: rng.u32(..) >> rng.u32(..32),
        },
        8 => Op::Icmp {
            sock: rng.u8(..4),
            kind: rng.u8(..6),
            seq: rng.i16(-2..3),
            mtu: rng.u16(..2_000),
        },
        9 => Op::Kill,
        10 => Op::Deliver {
            index: rng.u8(..4),
            how: [0, 0, 0, 1, 2, 4][rng.usize(..6)],
        },
        11 => Op::Refuse { on: rng.u8(..2) },
        12 => Op::Switch,
        _ => Op::End { budget: rng.u8(..) },
    }
}

fn once(rng: &mut Rng, ops: &mut Vec<Op>, other: &[Op]) {
    let at = rng.usize(..=ops.len());
    match rng.u8(..10) {
        0..=3 => {
            if let Some(op) = ops.get_mut(at) {
                match op {
                    Op::Segment(seg) => segment(rng, seg),
                    Op::Pass { mantissa, shift } => {
                        *mantissa = rng.u16(..);
                        *shift = rng.u8(..36);
                    }
                    other => *other = any(rng),
                }
            }
        }
        4..=6 => {
            ops.insert(at, any(rng));
            if rng.bool() {
                ops.insert(at + 1, Op::End { budget: 255 });
            }
        }
        7 => {
            if at < ops.len() {
                ops.remove(at);
            }
        }
        8 => {
            if let Some(op) = ops.get(at).copied() {
                let to = rng.usize(..=ops.len());
                ops.insert(to, op);
            }
        }
        _ => {
            // The rest of another run.
            let from = rng.usize(..=other.len());
            ops.truncate(at);
            ops.extend_from_slice(&other[from..]);
        }
    }
}

/// A run made from the corpus.
pub(crate) fn mutated(corpus: &[(String, (Header, Vec<Op>))], rng: &mut Rng) -> (Header, Vec<Op>) {
    let (_, (mut header, ops)) = corpus[rng.usize(..corpus.len())].clone();
    let other = &corpus[rng.usize(..corpus.len())].1.1;
    let mut ops = ops;
    for _ in 0..1 + rng.usize(..12) {
        once(rng, &mut ops, other);
    }
    if rng.u8(..8) == 0 {
        header.features ^= 1 << rng.u8(..8);
    }
    if rng.u8(..16) == 0 {
        header.sizes = rng.u8(..);
    }
    if rng.u8(..8) == 0 {
        let mut bytes = encode(&header, &ops);
        for _ in 0..1 + rng.usize(..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        return decode(&bytes);
    }
    (header, ops)
}
