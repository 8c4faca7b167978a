//! Carries a fuzzed run out and checks the engine's invariants after every batch.

use super::invariants;
use super::ops::{Header, Op, Seg};
use abi::Endpoint;
use abi::config::{EcnMode, MtuProbing};
use abi::session::SockOpt;
use core::net::IpAddr;
use std::collections::BTreeMap;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, Errno, How, IcmpError, IcmpKind,
    OpenParams, Payload, Route, SegmentMeta, SegmentOut, SocketRef, State, Tcb,
};
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr, Timestamps};

/// Records of an engine.
const CAPACITY: u32 = 12;
/// Calls that [`Op::Call`] knows.
pub(crate) const CALLS: u8 = 16;
/// The first number of peers.
pub(crate) const PEER_ISN: u32 = u32::MAX - 500;
/// Segments that wait to be delivered, at most.
const WIRE: usize = 200;

struct Zeros;

impl Payload for Zeros {
    fn copy_to(&self, _: usize, to: &mut [u8]) -> bool {
        to.fill(0);
        true
    }
}

/// Receive memory that checks that what is placed lies in the free part of a buffer.
struct Memory {
    refuse: bool,
    next: u32,
    record: Option<Tcb>,
}

impl Buffers for Memory {
    fn place(
        &mut self,
        _: SocketRef,
        _: &abi::session::Rings,
        at: u64,
        _: &dyn Payload,
        _: usize,
        len: usize,
    ) -> bool {
        if let Some(tcb) = &self.record {
            assert!(at >= tcb.received_upto(), "placed into what can be read");
            let room = tcb.consumed + u64::from(tcb.opts.rcv_capacity);
            assert!(at + len as u64 <= room, "placed beyond the buffer");
        }
        !self.refuse
    }

    fn attach(&mut self, _: ConnId, _: SocketRef, _: ConnId) -> Option<SocketRef> {
        self.next += 1;
        let slot = self.next;
        (!self.refuse).then_some(SocketRef { region: 2, slot })
    }
}

/// The pairs of ends by number: local and remote.
pub(crate) fn ends(flow: u8) -> (Endpoint, Endpoint) {
    let v4 = |last, port| Endpoint::new(IpAddr::from([10, 0, 0, last]), port);
    let v6 =
        |last: u16, port| Endpoint::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]), port);
    match flow & 7 {
        4 => (v4(7, 5_000), v4(2, 80)),
        5 => (v6(1, 5_000), v6(2, 80)),
        6 => (
            v4(1, 5_000),
            Endpoint::new(IpAddr::from([224, 0, 0, 1]), 80),
        ),
        7 => (v4(1, 5_000), v4(2, 100)),
        n => (v4(1, 5_000), v4(2, 80 + u16::from(n))),
    }
}

/// The connection between two ends, else one that was: a record stays until its application has
/// seen how it ended.
fn between(engine: &Engine, local: Endpoint, remote: Endpoint) -> Option<Tcb> {
    let of_both = || {
        let all = engine.records().map(|(_, tcb)| tcb);
        all.filter(|t| t.local == local && t.remote == remote)
    };
    let alive = of_both().find(|t| t.state() != State::Closed);
    alive.or_else(|| of_both().next()).copied()
}

/// An engine with its committed records.
struct Host {
    engine: Engine,
    committed: BTreeMap<ConnId, Tcb>,
    actions: Actions,
    memory: Memory,
    /// Let out and not yet delivered.
    sent: Vec<SegmentOut>,
    /// States that its connections were in.
    states: u16,
}

struct Run {
    hosts: Vec<Host>,
    at: usize,
    now: u64,
    buffer: u32,
}

fn config(header: &Header) -> Config {
    let has = |bit: u8| header.features >> bit & 1 != 0;
    let names = ["newreno", "cubic", "bbr", "reno"];
    let name = names[usize::from(header.sizes >> 4 & 3)];
    let defaults = Config::default();
    Config {
        capacity: CAPACITY,
        secret: [3; 16],
        timestamps: has(1),
        window_scaling: has(2),
        sack: has(3),
        ecn: if has(4) {
            EcnMode::On
        } else {
            EcnMode::Passive
        },
        max_gso: if has(5) { 65_000 } else { 0 },
        mtu_probing: if has(6) {
            MtuProbing::Always
        } else {
            defaults.mtu_probing
        },
        somaxconn: if has(7) { 2 } else { defaults.somaxconn },
        max_syn_backlog: if has(7) { 2 } else { defaults.max_syn_backlog },
        congestion: tcpd::engine::congestion::Algorithm::by_name(name)
            .unwrap_or(defaults.congestion),
        ..defaults
    }
}

/// Carries a run out. Returns the states that connections were in, a bit each.
///
/// # Errors
/// The invariant that does not hold. A panic of the engine is one too.
pub(crate) fn run(header: &Header, ops: &[Op]) -> Result<u16, String> {
    let count = 1 + usize::from(header.features & 1);
    let host = || Host {
        engine: Engine::new(config(header)),
        committed: BTreeMap::new(),
        actions: Actions::default(),
        memory: Memory {
            refuse: false,
            next: 0,
            record: None,
        },
        sent: vec![],
        states: 0,
    };
    let mut run = Run {
        hosts: (0..count).map(|_| host()).collect(),
        at: 0,
        now: 10_000_000_000,
        buffer: 4_096 << (header.sizes & 15).min(8),
    };
    for (index, op) in ops.iter().enumerate() {
        run.op(op)
            .map_err(|why| format!("operation {index}: {why}"))?;
    }
    run.end(255)?;
    Ok(run.hosts.iter().fold(0, |bits, host| bits | host.states))
}

impl Run {
    fn host(&mut self) -> &mut Host {
        &mut self.hosts[self.at]
    }

    fn op(&mut self, op: &Op) -> Result<(), String> {
        match *op {
            Op::Segment(seg) => self.segment(&seg),
            Op::Pass { mantissa, shift } => return self.pass(u64::from(mantissa) << shift.min(40)),
            Op::Words {
                sock,
                written,
                consumed,
                flags,
            } => {
                self.words(sock, written, consumed, flags);
            }
            Op::Call { sock, kind, arg } => self.call(sock, kind, arg),
            Op::Icmp {
                sock,
                kind,
                seq,
                mtu,
            } => self.icmp(sock, kind, seq, mtu),
            Op::End { budget } => return self.end(budget),
            Op::Kill => return self.kill(),
            Op::Deliver { index, how } => self.deliver(index, how),
            Op::Refuse { on } => self.host().memory.refuse = on & 1 != 0,
            Op::Switch => self.at = (self.at + 1) % self.hosts.len(),
        }
        Ok(())
    }

    fn end(&mut self, budget: u8) -> Result<(), String> {
        let now = self.now;
        let two = self.hosts.len() > 1;
        let host = self.host();
        host.engine.on_timer(now);
        host.engine.output(now, usize::from(budget));
        host.commit(two)
    }

    fn pass(&mut self, nanos: u64) -> Result<(), String> {
        let until = self.now.saturating_add(nanos).min(1 << 62);
        for at in 0..self.hosts.len() {
            let (before, start) = (self.at, self.now);
            self.at = at;
            // Bounded: a year of keepalive shows nothing that a day does not.
            for _ in 0..100 {
                match self.host().engine.next_deadline() {
                    Some(due) if due <= until => self.now = self.now.max(due),
                    _ => break,
                }
                self.end(255)?;
            }
            self.at = before;
            self.now = start;
        }
        self.now = until;
        Ok(())
    }

    fn id(sock: u8) -> ConnId {
        ConnId(u32::from(sock) % CAPACITY)
    }

    fn segment(&mut self, seg: &Seg) {
        let now = self.now;
        let host = self.host();
        let (local, remote) = match seg.flow.checked_sub(8) {
            Some(sock) => match host.engine.record(Self::id(sock)) {
                Some(tcb) if tcb.remote.is_some() => (tcb.local, tcb.remote),
                _ => ends(seg.flow),
            },
            None => ends(seg.flow),
        };
        let tcb = between(&host.engine, local, remote);
        let (irs, next, iss, nxt, una) = tcb.map_or((PEER_ISN, PEER_ISN, 0, 0, 0), |t| {
            let own = |offset: u64| t.iss.wrapping_add(offset as u32);
            let fresh = t.irs == 0 && t.rcv_nxt == tcpd::engine::seq::SYN_OFFSET;
            let irs = if fresh { PEER_ISN } else { t.irs };
            (
                irs,
                irs.wrapping_add(t.rcv_nxt as u32),
                t.iss,
                own(t.snd_nxt),
                own(t.snd_una),
            )
        });
        let seq_base = if seg.bases & 15 == 0 { irs } else { next };
        let ack_base = match seg.bases >> 4 {
            0 => iss,
            1 => nxt,
            _ => una,
        };
        let has = |bit: u8| seg.opts >> bit & 1 != 0;
        let mut options = Options {
            mss: has(0).then_some(seg.value.max(1)),
            window_scale: has(1).then_some((seg.value & 15) as u8),
            sack_permitted: has(2),
            ..Options::default()
        };
        if has(3) {
            let recent = tcb.map_or(0, |t| t.negotiated.ts_recent);
            options.timestamps = Some(Timestamps {
                tsval: recent.wrapping_add(u32::from(seg.value)).wrapping_sub(2),
                tsecr: tcb
                    .map_or(0, |t| t.negotiated.clock(now))
                    .wrapping_sub(u32::from(seg.value)),
            });
        }
        for (bit, from) in [(4, 0), (5, 4 * u32::from(seg.value))] {
            if has(bit) {
                let left = una.wrapping_add(u32::from(seg.value)).wrapping_add(from);
                let right = left.wrapping_add(u32::from(seg.value).max(1_460));
                options.sack.push((SeqNumber(left), SeqNumber(right)));
            }
        }
        let repr = Repr {
            src_port: remote.port,
            dst_port: local.port,
            seq: SeqNumber(seq_base.wrapping_add_signed(seg.seq)),
            ack: SeqNumber(ack_base.wrapping_add_signed(seg.ack)),
            flags: Flags::from_bits_truncate(u16::from(seg.flags)),
            window: seg.win,
            urgent: seg.urg,
            options,
        };
        let meta = SegmentMeta {
            src: remote,
            dst: local,
            repr: &repr,
            payload_len: u32::from(seg.len),
            gso_size: if has(7) { 1_460 } else { 0 },
            ce: has(6),
            mtu: 1_500,
        };
        host.memory.record = tcb;
        host.engine.on_segment(now, &meta, &Zeros, &mut host.memory);
    }

    fn words(&mut self, sock: u8, written: u16, consumed: u16, flags: u8) {
        let now = self.now;
        let id = Self::id(sock);
        let host = self.host();
        let Some(tcb) = host.engine.record(id) else {
            return;
        };
        let absurd = flags & 16 != 0;
        let words = AppWords {
            written: if absurd {
                u64::from(written) << 48
            } else {
                tcb.written + u64::from(written)
            },
            consumed: tcb.consumed + u64::from(consumed),
            urgent: if flags & 8 != 0 {
                tcb.written + u64::from(written)
            } else {
                0
            },
            shut_rd: flags & 1 != 0,
            shut_wr: flags & 2 != 0,
            accepted: flags & 4 != 0,
        };
        // Positions that only a broken application would show are refused; that is the test.
        let _ = host.engine.on_app(now, id, &words);
    }

    fn call(&mut self, sock: u8, kind: u8, arg: u32) {
        let (now, buffer) = (self.now, self.buffer);
        let id = Self::id(sock);
        let mirrored = self.at == 1;
        let low = (arg & 0xff) as u8;
        let (mut local, mut remote) = ends(low);
        if mirrored {
            core::mem::swap(&mut local, &mut remote);
        }
        let e = &mut self.host().engine;
        match kind % CALLS {
            0 => {
                let params = OpenParams {
                    owner: SocketRef {
                        region: 1,
                        slot: 1 + u32::from(low),
                    },
                    v6: arg & 1 != 0,
                    rcv_capacity: buffer,
                    snd_capacity: buffer,
                };
                {
                    let _ = e.open(now, &params);
                }
            }
            1 => {
                let port = if arg & 0x100 != 0 {
                    (arg >> 16) as u16
                } else {
                    local.port
                };
                {
                    let _ = e.bind(now, id, Endpoint { port, ..local });
                }
            }
            2 => {
                let _ = e.listen(now, id, arg);
            }
            3 => {
                let Some(source) = local.ip() else { return };
                let mtu = if arg & 0x100 != 0 {
                    (arg >> 16) as u16
                } else {
                    1_500
                };
                {
                    let _ = e.connect(now, id, remote, &Route { source, mtu });
                }
            }
            4 => {
                let _ = e.shutdown(
                    now,
                    id,
                    [How::Read, How::Write, How::Both][arg as usize % 3],
                );
            }
            5 => e.close(now, id),
            6 => e.abort(now, id, Errno::ECONNABORTED),
            7..=9 => {
                let _ = e.set_option(now, id, &option(arg));
            }
            10 => {
                let _ = e.take_error(now, id);
            }
            11 => {
                let _ = e.handed_over(now, id);
            }
            12 => {
                let _ = e.info(now, id);
            }
            13 => e.note_request(now, id, u64::from(arg)),
            14 => {
                let Some(source) = local.ip() else { return };
                let route = Route { source, mtu: 1_500 };
                let _ = e.connect_with_data(now, id, remote, &route, u64::from(arg >> 8));
            }
            _ => {}
        }
    }

    fn icmp(&mut self, sock: u8, kind: u8, seq: i16, mtu: u16) {
        let now = self.now;
        let e = &mut self.host().engine;
        let Some(tcb) = e.record(Self::id(sock)) else {
            return;
        };
        let una = tcb.iss.wrapping_add(tcb.snd_una as u32);
        let error = IcmpError {
            local: tcb.local,
            remote: tcb.remote,
            seq: SeqNumber(una.wrapping_add_signed(i32::from(seq))),
            kind: match kind % 6 {
                0 => IcmpKind::NetUnreachable,
                1 => IcmpKind::HostUnreachable,
                2 => IcmpKind::ProtocolUnreachable,
                3 => IcmpKind::PortUnreachable,
                4 => IcmpKind::ParameterProblem,
                _ => IcmpKind::FragmentationNeeded { mtu },
            },
        };
        e.on_icmp_error(now, &error);
    }

    fn kill(&mut self) -> Result<(), String> {
        let now = self.now;
        let host = self.host();
        let config = host.engine.config().clone();
        let mut refused = vec![];
        let records = host.committed.iter().map(|(id, tcb)| (*id, *tcb));
        host.engine = Engine::restore(config, now, records, &mut refused);
        if !refused.is_empty() {
            return Err(format!("a successor refused the records {refused:?}"));
        }
        self.end(255)
    }

    fn deliver(&mut self, index: u8, how: u8) {
        if self.hosts.len() < 2 {
            return;
        }
        let now = self.now;
        let from = &mut self.hosts[1 - self.at];
        if from.sent.is_empty() {
            return;
        }
        let index = usize::from(index) % from.sent.len();
        let seg = if how & 1 != 0 {
            from.sent[index].clone()
        } else {
            from.sent.remove(index)
        };
        if how & 2 != 0 {
            return;
        }
        let host = self.host();
        host.memory.record = between(&host.engine, seg.dst, seg.src);
        let meta = SegmentMeta {
            src: seg.src,
            dst: seg.dst,
            repr: &seg.repr,
            payload_len: seg.payload.map_or(0, |p| p.len),
            gso_size: seg.gso_size,
            ce: how & 4 != 0,
            mtu: 1_500,
        };
        host.engine.on_segment(now, &meta, &Zeros, &mut host.memory);
    }
}

fn option(arg: u32) -> SockOpt {
    let value = arg >> 8;
    let on = value & 1 != 0;
    match arg & 0xff {
        0 => SockOpt::NoDelay(on),
        1 => SockOpt::Cork(on),
        2 => SockOpt::KeepAlive(on),
        3 => SockOpt::KeepIdle(value),
        4 => SockOpt::KeepInterval(value),
        5 => SockOpt::KeepCount(value),
        6 => SockOpt::Linger(on.then_some(value >> 1)),
        7 => SockOpt::RecvBuffer(value),
        8 => SockOpt::SendBuffer(value),
        9 => SockOpt::UserTimeout(value),
        10 => SockOpt::MaxSegment(value),
        11 => SockOpt::ReuseAddr(on),
        12 => SockOpt::ReusePort(on),
        13 => SockOpt::DeferAccept(value),
        14 => SockOpt::QuickAck(on),
        15 => SockOpt::V6Only(on),
        16 => SockOpt::Tos((value & 0xff) as u8),
        17 => SockOpt::Ttl((value & 0xff) as u8),
        18 => SockOpt::FastOpen(value),
        19 => SockOpt::FastOpenConnect(on),
        128 => SockOpt::MaxPacingRate(u64::from(value) << (value & 31)),
        129 => SockOpt::NotSentLowat(value),
        n => SockOpt::Congestion(["reno", "cubic", "bbr"][n as usize % 3].to_owned()),
    }
}

/// The number by which [`Op::Call`] sets this option, with its value.
#[allow(dead_code, reason = "for those who make a corpus")]
pub(crate) fn option_number(option: &SockOpt) -> u32 {
    let (kind, value) = match *option {
        SockOpt::NoDelay(on) => (0, u32::from(on)),
        SockOpt::Cork(on) => (1, u32::from(on)),
        SockOpt::KeepAlive(on) => (2, u32::from(on)),
        SockOpt::KeepIdle(ms) => (3, ms),
        SockOpt::KeepInterval(ms) => (4, ms),
        SockOpt::KeepCount(n) => (5, n),
        SockOpt::Linger(time) => (6, time.map_or(0, |ms| ms << 1 | 1)),
        SockOpt::RecvBuffer(n) => (7, n),
        SockOpt::SendBuffer(n) => (8, n),
        SockOpt::UserTimeout(ms) => (9, ms),
        SockOpt::MaxSegment(n) => (10, n),
        SockOpt::ReuseAddr(on) => (11, u32::from(on)),
        SockOpt::ReusePort(on) => (12, u32::from(on)),
        SockOpt::DeferAccept(ms) => (13, ms),
        SockOpt::QuickAck(on) => (14, u32::from(on)),
        SockOpt::V6Only(on) => (15, u32::from(on)),
        SockOpt::Tos(n) => (16, u32::from(n)),
        SockOpt::Ttl(n) => (17, u32::from(n)),
        SockOpt::FastOpen(n) => (18, n),
        SockOpt::FastOpenConnect(on) => (19, u32::from(on)),
        _ => (20, 0),
    };
    value << 8 | kind
}

impl Host {
    fn commit(&mut self, keep: bool) -> Result<(), String> {
        self.engine.drain(&mut self.actions);
        for &id in &self.actions.dirty {
            match self.engine.record(id) {
                Some(record) => {
                    self.states |= 1 << record.state;
                    let before = self.committed.insert(id, *record);
                    invariants::record(record, before.as_ref())
                        .map_err(|why| format!("record {}: {why}", id.0))?;
                }
                None => drop(self.committed.remove(&id)),
            }
        }
        invariants::engine(&self.engine, &self.committed)?;
        for seg in &self.actions.segments {
            let len = seg.payload.map_or(0, |p| p.len);
            if seg.repr.header_len() > 60 || len > 65_495 || seg.payload.is_some_and(|p| p.len == 0)
            {
                return Err(format!("an impossible segment: {seg:?}"));
            }
            let Some((payload, tcb)) = seg
                .payload
                .zip(seg.id.and_then(|id| self.engine.record(id)))
            else {
                continue;
            };
            if payload.position + u64::from(len) > tcb.written {
                return Err(format!("more is sent than was written: {seg:?}"));
            }
        }
        if keep {
            self.sent.append(&mut self.actions.segments);
            let excess = self.sent.len().saturating_sub(WIRE);
            self.sent.drain(..excess);
        }
        Ok(())
    }
}
