//! A scenario's run in the fuzzer's form: the seeds of its corpus.

use crate::config::Setup;
use crate::fuzzed::ends;
use crate::lang::{Call, Opt, Seg};
use crate::ops::{self, Header, Op};
use crate::run::Run;
use abi::config::{EcnMode, MtuProbing};
use tcpd::engine::{ConnId, How, IcmpKind};
use wire::tcp::Repr;

impl Run {
    /// What the run is made of so far, as the fuzzer reads it.
    pub(crate) fn recorded(&self) -> Vec<u8> {
        ops::encode(&header(&self.setup), &self.ops)
    }

    pub(crate) fn record(&mut self, op: Op) {
        let is_end = |op: &Op| matches!(op, Op::End { .. });
        if !(is_end(&op) && self.ops.last().is_none_or(is_end)) {
            self.ops.push(op);
        }
    }

    pub(crate) fn record_pass(&mut self, nanos: u64) {
        let shift = (0..41u8).find(|s| nanos >> s <= 0xffff).unwrap_or(40);
        let mantissa = u16::try_from(nanos >> shift).unwrap_or(u16::MAX);
        // Rounded up, so that what was due is due.
        let mantissa = mantissa.saturating_add(u16::from(shift > 0));
        self.record(Op::Pass { mantissa, shift });
    }

    pub(crate) fn record_segment(&mut self, flow: &str, seg: &Seg, repr: &Repr) {
        let Some(ends_of) = self.flows.get(flow) else {
            return;
        };
        let (local, remote, irs, iss) = (ends_of.local, ends_of.remote, ends_of.irs, ends_of.iss);
        let known = (0..8).find(|n| ends(*n) == (local, remote));
        let of_record = || {
            let mut records = self.world_ref()?.engine.records();
            let found = records.find(|(_, t)| t.local == local && t.remote == remote);
            found.map(|(id, _)| 8 + (id.0 as u8))
        };
        let (mut opts, mut value) = (0, 2);
        for opt in seg.opts.iter().flatten() {
            match opt {
                Opt::Mss(_) => {
                    opts |= 1;
                    value = repr.options.mss.unwrap_or(2);
                }
                Opt::Scale(_) => opts |= 2,
                Opt::SackOk => opts |= 4,
                Opt::Stamps(..) => opts |= 8,
                Opt::Sack(blocks) => {
                    opts |= if blocks.len() > 1 { 48 } else { 16 };
                    let left = repr
                        .options
                        .sack
                        .first()
                        .map_or(0, |b| b.0.0.wrapping_sub(repr.ack.0));
                    value = left as u16;
                }
                _ => {}
            }
        }
        opts |= u8::from(seg.ecn == Some(3)) << 6 | u8::from(seg.gso.is_some()) << 7;
        self.record(Op::Segment(ops::Seg {
            flow: known.or_else(of_record).unwrap_or(0),
            flags: repr.flags.bits() as u8,
            bases: 0,
            seq: repr.seq.0.wrapping_sub(irs).cast_signed(),
            ack: repr.ack.0.wrapping_sub(iss).cast_signed(),
            len: seg.len.unwrap_or(0) as u16,
            win: repr.window,
            urg: repr.urgent,
            opts,
            value,
        }));
    }

    /// A call on a socket, after it was made.
    pub(crate) fn record_call(&mut self, name: &str, call: &Call) {
        let sock = |run: &Self, name: &str| run.socks.get(name).map_or(0, |s| s.id.0 as u8);
        let id = sock(self, name);
        let words = |written: u64, consumed: u64, flags| Op::Words {
            sock: id,
            written: written as u16,
            consumed: consumed as u16,
            flags,
        };
        let plain = |kind, arg| Op::Call {
            sock: id,
            kind,
            arg,
        };
        let of_flow = |run: &Self, name: &str| {
            let flow = run.flows.get(name);
            flow.map_or(0, |f| {
                (0..8).find(|n| ends(*n).1 == f.remote).map_or(0, u32::from)
            })
        };
        let shut = |how: &How| match how {
            How::Read => 1,
            How::Write => 2,
            How::Both => 3,
        };
        let op = match call {
            Call::Socket { v6, .. } => plain(0, u32::from(*v6)),
            Call::Bind(_, port) => match port {
                Some(port) => plain(1, u32::from(*port) << 16 | 0x100),
                None => plain(1, 0),
            },
            Call::Listen(n) => plain(2, *n),
            Call::Connect {
                flow,
                mtu: _,
                data: Some(n),
            } => plain(14, (*n as u32) << 8 | of_flow(self, flow)),
            Call::Connect { flow, mtu, .. } => {
                plain(3, u32::from(*mtu) << 16 | 0x100 | of_flow(self, flow))
            }
            Call::Accept(child) | Call::HandOver(child) => {
                let sock = sock(self, child);
                self.record(Op::Call {
                    sock,
                    kind: 11,
                    arg: 0,
                });
                Op::Words {
                    sock,
                    written: 0,
                    consumed: 0,
                    flags: 4,
                }
            }
            Call::Taken => words(0, 0, 4),
            Call::Write(n) => words(*n, 0, 0),
            Call::Read(n) => words(0, *n, 0),
            Call::Urgent(n) => words(*n, 0, 8),
            Call::Words(_) => words(10, 1, 0),
            Call::ShutWords(how) => words(0, 0, shut(how)),
            Call::Shutdown(how) => plain(4, [0, 0, 1, 2][usize::from(shut(how))]),
            Call::Close => plain(5, 0),
            Call::Abort => plain(6, 0),
            Call::Set(option) => plain(7, crate::fuzzed::option_number(option)),
            Call::TakeError => plain(10, 0),
            Call::Icmp {
                kind: Some(kind), ..
            } => {
                let (kind, mtu) = match kind {
                    IcmpKind::NetUnreachable => (0, 0),
                    IcmpKind::HostUnreachable => (1, 0),
                    IcmpKind::ProtocolUnreachable => (2, 0),
                    IcmpKind::PortUnreachable => (3, 0),
                    IcmpKind::ParameterProblem => (4, 0),
                    IcmpKind::FragmentationNeeded { mtu } => (5, *mtu),
                };
                Op::Icmp {
                    sock: self.first().0 as u8,
                    kind,
                    seq: 0,
                    mtu,
                }
            }
            Call::Refuse(on) => Op::Refuse { on: u8::from(*on) },
            Call::Restore => Op::Kill,
            Call::Output(n) => Op::End { budget: *n as u8 },
            _ => return,
        };
        self.record(op);
    }

    fn first(&self) -> ConnId {
        self.socks.get("s").map_or(ConnId(0), |s| s.id)
    }
}

fn header(setup: &Setup) -> Header {
    let c = &setup.engine;
    let bits = [
        false,
        c.timestamps,
        c.window_scaling,
        c.sack,
        c.ecn == EcnMode::On,
        c.max_gso > 0,
        c.mtu_probing == MtuProbing::Always,
    ];
    let features = bits
        .iter()
        .enumerate()
        .map(|(i, on)| u8::from(*on) << i)
        .sum();
    let sizes = (0..9).find(|n| 4_096 << n >= setup.buffer).unwrap_or(8);
    Header { features, sizes }
}
