//! A fuzzed run as bytes: a header and operations on one or two engines. Any bytes are a run, and
//! a run has a form as bytes.
//!
//! Numbers of segments are relative to what the connection expects, so that mutations of them
//! stay near what matters.

/// What a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// Bits: two engines, timestamps, window scaling, SACK, ECN, large units, path MTU probes
    /// always, queues of two connections.
    pub(crate) features: u8,
    /// Bits 0 to 3: logarithm of the buffer size less 12; the rest: congestion control.
    pub(crate) sizes: u8,
}

/// One operation. Sockets are record numbers, taken modulo the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A segment arrives; the batch goes on.
    Segment(Seg),
    /// `mantissa << shift` nanoseconds pass, and everything due is served.
    Pass { mantissa: u16, shift: u8 },
    /// An application's words: how much more is written and consumed, and flags (shut_rd,
    /// shut_wr, accepted, urgent, and absurd values).
    Words {
        sock: u8,
        written: u16,
        consumed: u16,
        flags: u8,
    },
    /// A call, by its number in `run.rs`.
    Call { sock: u8, kind: u8, arg: u32 },
    /// An ICMP error about the segment `seq` behind the oldest unacknowledged byte.
    Icmp {
        sock: u8,
        kind: u8,
        seq: i16,
        mtu: u16,
    },
    /// The batch ends after so many segments.
    End { budget: u8 },
    /// Killed, and made again from what was committed.
    Kill,
    /// Of the segments of the other engine, the one at `index` arrives; bit 0 of `how`: it stays
    /// there, bit 1: it is lost.
    Deliver { index: u8, how: u8 },
    /// Receive memory is refused from here on, or is not.
    Refuse { on: u8 },
    /// What follows is for the other engine, if there are two.
    Switch,
}

/// A segment of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seg {
    /// Below 8 one of `run.rs`'s pairs of ends, else those of record `flow - 8`.
    pub(crate) flow: u8,
    /// TCP flags.
    pub(crate) flags: u8,
    /// Low half: what `seq` is relative to (0: the peer's first number, else what is expected
    /// next); high half: `ack` (0: the engine's first number, 1: the next to send, else the
    /// oldest unacknowledged).
    pub(crate) bases: u8,
    /// Sequence number.
    pub(crate) seq: i32,
    /// Acknowledgement.
    pub(crate) ack: i32,
    /// Payload bytes.
    pub(crate) len: u16,
    /// Window.
    pub(crate) win: u16,
    /// Urgent pointer.
    pub(crate) urg: u16,
    /// Bits: MSS, window scale, SACK permitted, timestamps, one SACK block, a second, congestion
    /// experienced, merged from full segments.
    pub(crate) opts: u8,
    /// A number for those: MSS, scale, or the timestamp's step; and where SACK blocks begin.
    pub(crate) value: u16,
}

/// Reads bytes; zeros after their end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let n = N.min(self.0.len());
        let (now, rest) = self.0.split_at(n);
        for (to, from) in out.iter_mut().zip(now) {
            *to = *from;
        }
        self.0 = rest;
        out
    }
    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

/// No run is longer: what a fuzzer makes shall end.
const MAX_OPS: usize = 2_000;

/// The run that bytes are.
pub(crate) fn decode(bytes: &[u8]) -> (Header, Vec<Op>) {
    let mut b = Bytes(bytes);
    let header = Header {
        features: b.u8(),
        sizes: b.u8(),
    };
    let mut ops = vec![];
    while !b.0.is_empty() && ops.len() < MAX_OPS {
        ops.push(match b.u8() % 10 {
            0 => Op::Segment(Seg {
                flow: b.u8(),
                flags: b.u8(),
                bases: b.u8(),
                seq: b.u32().cast_signed(),
                ack: b.u32().cast_signed(),
                len: b.u16(),
                win: b.u16(),
                urg: b.u16(),
                opts: b.u8(),
                value: b.u16(),
            }),
            1 => Op::Pass {
                mantissa: b.u16(),
                shift: b.u8() % 41,
            },
            2 => Op::Words {
                sock: b.u8(),
                written: b.u16(),
                consumed: b.u16(),
                flags: b.u8(),
            },
            3 => Op::Call {
                sock: b.u8(),
                kind: b.u8(),
                arg: b.u32(),
            },
            4 => Op::Icmp {
                sock: b.u8(),
                kind: b.u8(),
                seq: b.u16().cast_signed(),
                mtu: b.u16(),
            },
            5 => Op::End { budget: b.u8() },
            6 => Op::Kill,
            7 => Op::Deliver {
                index: b.u8(),
                how: b.u8(),
            },
            8 => Op::Refuse { on: b.u8() },
            _ => Op::Switch,
        });
    }
    (header, ops)
}

/// The bytes that a run is.
pub(crate) fn encode(header: &Header, ops: &[Op]) -> Vec<u8> {
    let mut out = vec![header.features, header.sizes];
    for op in ops {
        match *op {
            Op::Segment(s) => {
                out.extend([0, s.flow, s.flags, s.bases]);
                out.extend(s.seq.to_le_bytes());
                out.extend(s.ack.to_le_bytes());
                out.extend(s.len.to_le_bytes());
                out.extend(s.win.to_le_bytes());
                out.extend(s.urg.to_le_bytes());
                out.push(s.opts);
                out.extend(s.value.to_le_bytes());
            }
            Op::Pass { mantissa, shift } => {
                out.push(1);
                out.extend(mantissa.to_le_bytes());
                out.push(shift);
            }
            Op::Words {
                sock,
                written,
                consumed,
                flags,
            } => {
                out.extend([2, sock]);
                out.extend(written.to_le_bytes());
                out.extend(consumed.to_le_bytes());
                out.push(flags);
            }
            Op::Call { sock, kind, arg } => {
                out.extend([3, sock, kind]);
                out.extend(arg.to_le_bytes());
            }
            Op::Icmp {
                sock,
                kind,
                seq,
                mtu,
            } => {
                out.extend([4, sock, kind]);
                out.extend(seq.to_le_bytes());
                out.extend(mtu.to_le_bytes());
            }
            Op::End { budget } => out.extend([5, budget]),
            Op::Kill => out.push(6),
            Op::Deliver { index, how } => out.extend([7, index, how]),
            Op::Refuse { on } => out.extend([8, on]),
            Op::Switch => out.push(9),
        }
    }
    out
}
