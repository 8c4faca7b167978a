//! A small TCP of its own, honest at heart (it acknowledges, retransmits and compares every byte),
//! with the [`Manners`] that a run prescribes. One connection.

use super::Manners;
use crate::app::pattern;
use crate::packet::{Packet, unwrap};
use crate::plan::Plan;
use crate::script::Stream;
use crate::world::{CLIENT_PORT, PORT, START, endpoint};
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use std::collections::BTreeMap;
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr, Timestamps};

/// Its retransmission timeout, always the same; and how much it has in flight at most.
const TIMEOUT: Nanos = 700_000_000;
const MOST_IN_FLIGHT: u64 = 30_000;
/// Time between two segments that nobody asked for.
const UNASKED: Nanos = 5_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    SynSent,
    SynReceived,
    Open,
    /// It has forgotten, or does not answer.
    Gone,
}

pub(crate) struct Model {
    pub(crate) inbox: Vec<Packet>,
    manners: Manners,
    own: Endpoint,
    near: Endpoint,
    state: State,
    rng: Rng,
    send: Stream,
    receive: Stream,
    iss: u32,
    irs: u32,
    /// Offsets from `iss`: 1 is the first byte.
    snd_una: u64,
    snd_nxt: u64,
    snd_max: u64,
    /// What the engine offers.
    wnd: u64,
    near_scale: u8,
    near_mss: u64,
    /// Receive buffer, and the largest the engine has.
    room: u64,
    near_room: u64,
    scale: Option<u8>,
    timestamps: bool,
    sack: bool,
    /// The engine's timestamp to echo.
    echo: u32,
    rcv_nxt: u64,
    fin_at: Option<u64>,
    ranges: BTreeMap<u64, u64>,
    /// When something is to be sent again.
    again_at: Option<Nanos>,
    /// The window that is offered at the moment, if not `room`.
    opens_at: Nanos,
    /// When it may send again what nobody asked for.
    unasked_at: Nanos,
    late: BTreeMap<(Nanos, u64), Packet>,
    order: u64,
    out: Vec<Packet>,
}

impl Model {
    pub(crate) fn new(plan: &Plan, manners: Manners, opens: bool, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let script = plan.script(0, CLIENT_PORT, !opens, START);
        let (near, own) = if opens {
            (PORT, CLIENT_PORT)
        } else {
            (CLIENT_PORT, PORT)
        };
        let host = &plan.hosts[1];
        let mut model = Self {
            inbox: Vec::new(),
            manners,
            own: endpoint(plan.v6, 2, own),
            near: endpoint(plan.v6, 1, near),
            state: State::Closed,
            send: script.receive,
            receive: script.send,
            iss: rng.u32(..),
            irs: 0,
            snd_una: 0,
            snd_nxt: 0,
            snd_max: 0,
            wnd: 0,
            near_scale: 0,
            near_mss: 536,
            room: host.buffers.1.min(100_000) as u64,
            near_room: 1 << 28,
            scale: host.scaling.then_some(match manners {
                Manners::HugeWindow => 14,
                _ => 2,
            }),
            timestamps: host.timestamps,
            sack: host.sack,
            echo: 0,
            rcv_nxt: 0,
            fin_at: None,
            ranges: BTreeMap::new(),
            again_at: None,
            opens_at: 0,
            unasked_at: 0,
            late: BTreeMap::new(),
            order: 0,
            out: Vec::new(),
            rng,
        };
        if opens {
            model.open();
        }
        model
    }

    fn open(&mut self) {
        if let Manners::HalfOpen(count) = self.manners {
            self.state = State::Gone;
            for i in 0..count {
                let mut syn = self.syn(START, Flags::SYN);
                syn.bytes[..2].copy_from_slice(&(10_000 + i).to_be_bytes());
                self.late
                    .insert((START + u64::from(i) * 100_000, u64::from(i)), syn);
            }
            return;
        }
        self.state = State::SynSent;
        self.snd_nxt = 1;
        self.snd_max = 1;
        self.again_at = Some(START);
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        let late = self.late.keys().next().map(|&(at, _)| at);
        [late, self.again_at].into_iter().flatten().min()
    }

    pub(crate) fn turn(&mut self, now: Nanos) -> Vec<Packet> {
        for packet in std::mem::take(&mut self.inbox) {
            self.receive_one(now, &packet);
        }
        self.forget();
        if self.again_at.is_some_and(|at| at <= now) {
            self.send_again(now);
        }
        let fresh = std::mem::take(&mut self.out);
        let Manners::Late(late) = self.manners else {
            let mut out = fresh;
            while let Some(entry) = self.late.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                out.push(entry.remove());
            }
            return out;
        };
        for packet in fresh {
            self.order += 1;
            self.late.insert((now + late, self.order), packet);
        }
        let mut out = Vec::new();
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now {
                break;
            }
            out.push(entry.remove());
        }
        out
    }

    /// The end of its memory.
    fn forget(&mut self) {
        let moved = self.rcv_nxt + self.snd_una;
        let over = match self.manners {
            Manners::Vanish(after) | Manners::Reborn(after) => moved > after,
            _ => false,
        };
        if over && self.state != State::Gone {
            self.state = State::Gone;
            self.again_at = None;
            self.out.clear();
        }
    }

    fn receive_one(&mut self, now: Nanos, packet: &Packet) {
        if packet.damaged {
            return;
        }
        let (repr, header) = packet.repr();
        if repr.dst_port != self.own.port {
            return;
        }
        let payload = &packet.bytes[header..];
        if self.state == State::Gone {
            self.answer_for_the_dead(&repr);
            return;
        }
        if repr.flags.contains(Flags::RST) {
            // RFC 5961 3: those that its own nonsense provokes are elsewhere.
            let expected = self.irs.wrapping_add(self.rcv_nxt as u32);
            if self.state != State::SynSent && repr.seq.0 != expected {
                return;
            }
            self.state = State::Closed;
            self.again_at = None;
            return;
        }
        if repr.flags.contains(Flags::SYN) {
            self.on_syn(now, &repr);
            return;
        }
        if matches!(self.state, State::Closed | State::SynSent) {
            return;
        }
        self.on_ack(now, &repr);
        let start = unwrap(self.irs, self.rcv_nxt, repr.seq);
        self.take(start, payload);
        if let Some(ts) = repr.options.timestamps
            && start <= self.rcv_nxt
        {
            self.echo = ts.tsval;
        }
        let end = start + payload.len() as u64;
        if repr.flags.contains(Flags::FIN) {
            self.fin_at = Some(end);
        }
        if self.fin_at == Some(self.rcv_nxt) {
            self.rcv_nxt += 1;
        }
        let wants_answer = !payload.is_empty()
            || repr.flags.contains(Flags::FIN)
            || start < self.rcv_nxt.saturating_sub(1);
        if wants_answer || start + 1 == self.rcv_nxt {
            self.acknowledge(now, payload.len() as u64);
        }
        self.transmit(now);
    }

    /// RFC 9293 3.10.7.1, if it is alive at all.
    fn answer_for_the_dead(&mut self, repr: &Repr) {
        if !matches!(self.manners, Manners::Reborn(_)) || repr.flags.contains(Flags::RST) {
            return;
        }
        let mut reset = Repr {
            src_port: self.own.port,
            dst_port: self.near.port,
            seq: repr.ack,
            flags: Flags::RST,
            ..Repr::default()
        };
        if !repr.flags.contains(Flags::ACK) {
            reset.seq = SeqNumber(0);
            reset.ack = repr.seq + 1;
            reset.flags |= Flags::ACK;
        }
        self.emit(&reset, &[]);
    }

    fn on_syn(&mut self, now: Nanos, repr: &Repr) {
        let with_ack = repr.flags.contains(Flags::ACK);
        match self.state {
            State::Closed if !with_ack && self.rcv_nxt == 0 => {
                self.state = State::SynReceived;
                self.snd_nxt = 1;
                self.snd_max = 1;
            }
            State::SynSent if with_ack => {
                self.state = State::Open;
                self.snd_una = 1;
            }
            State::SynReceived if !with_ack && repr.seq.0 == self.irs => {}
            State::Open | State::SynReceived => {
                self.acknowledge(now, 0);
                return;
            }
            _ => return,
        }
        self.irs = repr.seq.0;
        self.rcv_nxt = 1;
        self.wnd = u64::from(repr.window);
        let o = &repr.options;
        self.near_mss = u64::from(o.mss.unwrap_or(536));
        match (o.window_scale, self.scale) {
            (Some(scale), Some(_)) => self.near_scale = scale,
            _ => self.scale = None,
        }
        self.sack &= o.sack_permitted;
        match o.timestamps {
            Some(ts) if self.timestamps => self.echo = ts.tsval,
            _ => self.timestamps = false,
        }
        if with_ack {
            self.acknowledge(now, 0);
            self.transmit(now);
        } else {
            self.again_at = Some(now);
        }
    }

    fn on_ack(&mut self, now: Nanos, repr: &Repr) {
        let ack = unwrap(self.iss, self.snd_una, repr.ack);
        if ack > self.snd_max && self.manners == Manners::StraySyns {
            // One of its SYNs came after the end, and means another connection by now.
            return;
        }
        assert!(
            ack <= self.snd_max,
            "acknowledged what the peer did not send"
        );
        if ack >= self.snd_una {
            self.wnd = u64::from(repr.window) << self.near_scale;
        }
        if ack > self.snd_una {
            self.snd_una = ack;
            self.snd_nxt = self.snd_nxt.max(ack);
            self.again_at = Some(now + TIMEOUT);
        }
        if self.state == State::SynReceived && ack >= 1 {
            self.state = State::Open;
        }
    }

    /// Takes what is new and has room, and compares every byte that comes.
    fn take(&mut self, start: u64, payload: &[u8]) {
        for (i, &byte) in payload.iter().enumerate() {
            let position = start + i as u64 - 1;
            assert!(position < self.receive.total, "beyond the end");
            assert_eq!(byte, pattern(self.receive.key, position), "byte {position}");
        }
        let from = start.max(self.rcv_nxt);
        let to = (start + payload.len() as u64).min(self.rcv_nxt + self.room);
        if from >= to {
            return;
        }
        if from > self.rcv_nxt && self.manners == Manners::Renege && self.rng.u8(..8) == 0 {
            self.ranges.clear();
            return;
        }
        self.ranges
            .entry(from)
            .and_modify(|end| *end = (*end).max(to))
            .or_insert(to);
        while let Some(entry) = self.ranges.first_entry() {
            if *entry.key() > self.rcv_nxt {
                break;
            }
            self.rcv_nxt = self.rcv_nxt.max(entry.remove());
        }
    }

    fn window(&mut self, now: Nanos) -> u16 {
        let scale = self.scale.unwrap_or(0);
        let bytes = match self.manners {
            Manners::HugeWindow => return u16::MAX,
            Manners::ShrinkingWindow => self.rng.u64(0..=self.room),
            Manners::ZeroForever => 0,
            Manners::ZeroWindow(time) => {
                if self.opens_at == 0 {
                    self.opens_at = now + time;
                }
                if now < self.opens_at { 0 } else { self.room }
            }
            Manners::TinyWindow => self.rng.u64(1..300),
            _ => self.room,
        };
        (bytes >> scale).clamp(u64::from(bytes > 0), 0xffff) as u16
    }

    fn header(&mut self, now: Nanos, seq: u64, flags: Flags) -> Repr {
        let mut sack = arrayvec::ArrayVec::new();
        if self.sack {
            let wire = |o: u64| SeqNumber(self.irs.wrapping_add(o as u32));
            for (&start, &end) in self.ranges.iter().take(3) {
                sack.push((wire(start), wire(end)));
            }
            if self.manners == Manners::WildSack && sack.len() < 3 {
                let at = self.rng.u32(..);
                let wild = SeqNumber(at);
                sack.push((wild, wild + self.rng.u32(0..100_000)));
            }
        }
        let window = self.window(now);
        Repr {
            src_port: self.own.port,
            dst_port: self.near.port,
            seq: SeqNumber(self.iss.wrapping_add(seq as u32)),
            ack: SeqNumber(self.irs.wrapping_add(self.rcv_nxt as u32)),
            flags: flags | Flags::ACK,
            window,
            urgent: 0,
            options: Options {
                timestamps: self.stamp(now),
                sack,
                ..Options::default()
            },
        }
    }

    fn stamp(&self, now: Nanos) -> Option<Timestamps> {
        self.timestamps.then_some(Timestamps {
            tsval: (now / 1_000_000) as u32,
            tsecr: self.echo,
        })
    }

    fn syn(&mut self, now: Nanos, flags: Flags) -> Packet {
        let mut repr = self.header(now, 0, flags);
        if !flags.contains(Flags::ACK) {
            repr.flags.remove(Flags::ACK);
            repr.ack = SeqNumber(0);
        }
        repr.window = repr.window.min(10_000);
        repr.options = Options {
            mss: Some(1_400),
            window_scale: self.scale,
            sack_permitted: self.sack,
            timestamps: self.stamp(now),
            ..Options::default()
        };
        self.packet(&repr, &[])
    }

    fn packet(&self, repr: &Repr, payload: &[u8]) -> Packet {
        let frame = Packet {
            src: self.own,
            dst: self.near,
            bytes: Vec::new(),
            gso_size: 0,
            tos: 0,
            damaged: false,
        };
        frame.rebuilt(repr, payload)
    }

    fn emit(&mut self, repr: &Repr, payload: &[u8]) {
        let packet = self.packet(repr, payload);
        self.out.push(packet);
    }

    fn acknowledge(&mut self, now: Nanos, len: u64) {
        let seq = self.snd_nxt;
        let repr = self.header(now, seq, Flags::empty());
        let mut times = 1;
        match self.manners {
            Manners::AckFlood => times = 20,
            Manners::AckDivision if len > 1 => {
                for part in (1..8).rev() {
                    let back = len.min(self.rcv_nxt - 1) * part / 8;
                    let mut repr = repr.clone();
                    repr.ack = SeqNumber(repr.ack.0.wrapping_sub(back as u32));
                    self.emit(&repr, &[]);
                }
            }
            Manners::AckUnsent if self.rng.bool() => {
                let mut repr = repr.clone();
                repr.ack += self.rng.u32(0x10_0000..0x4000_0000);
                self.emit(&repr, &[]);
            }
            Manners::Optimistic if len > 0 => {
                let mut repr = repr.clone();
                repr.ack += self.rng.u32(0..30_000);
                self.emit(&repr, &[]);
            }
            Manners::Resets if self.rng.u8(..4) == 0 => {
                let mut reset = repr.clone();
                reset.seq = SeqNumber(self.iss.wrapping_add(self.snd_max as u32));
                reset.seq += self.rng.u32(1..100_000);
                reset.flags = Flags::RST | Flags::ACK;
                self.emit(&reset, &[]);
            }
            Manners::StraySyns if self.rng.u8(..4) == 0 => {
                let mut syn = self.syn(now, Flags::SYN);
                if self.rng.bool() {
                    let seq = self.rng.u32(..);
                    syn.bytes[4..8].copy_from_slice(&seq.to_be_bytes());
                }
                self.out.push(syn);
            }
            _ => {}
        }
        for _ in 0..times {
            self.emit(&repr, &[]);
        }
        if self.opens_at > now && self.again_at.is_none() {
            self.again_at = Some(self.opens_at);
        }
    }

    /// Offset behind the last byte to send; the FIN's place.
    fn end(&self) -> u64 {
        1 + self.send.total
    }

    fn segment(&mut self, now: Nanos, start: u64, end: u64) {
        let fin = end > self.end();
        let payload: Vec<u8> = (start - 1..end.min(self.end()) - 1)
            .map(|position| pattern(self.send.key, position))
            .collect();
        let mut flags = Flags::PSH;
        flags.set(Flags::FIN, fin);
        let repr = self.header(now, start, flags);
        self.emit(&repr, &payload);
        self.snd_max = self.snd_max.max(end);
    }

    /// New data, as far as the window goes.
    fn transmit(&mut self, now: Nanos) {
        if self.state != State::Open {
            return;
        }
        let window = self.wnd.min(MOST_IN_FLIGHT);
        if self.manners == Manners::Crumbs {
            if self.again_at.is_none() && self.snd_una <= self.end() {
                self.again_at = Some(now + TIMEOUT / 7);
            }
            return;
        }
        let mss = self.near_mss.min(1_400) - 40;
        let last = self.end() + 1;
        while self.snd_nxt < last {
            let room = (self.snd_una + window).saturating_sub(self.snd_nxt);
            let len = room.min(mss).min(last - self.snd_nxt);
            if len == 0 {
                break;
            }
            self.segment(now, self.snd_nxt, self.snd_nxt + len);
            self.snd_nxt += len;
        }
        let unasked = now >= self.unasked_at;
        if unasked && self.manners == Manners::BeyondWindow {
            self.unasked_at = now + UNASKED;
            self.send_beyond(now);
        }
        if unasked && self.manners == Manners::AfterFin && self.snd_una > self.end() {
            self.unasked_at = now + UNASKED;
            let seq = self.end() + self.rng.u64(0..3);
            self.garbage(now, seq);
        }
        if self.snd_una < last && self.again_at.is_none() {
            self.again_at = Some(now + TIMEOUT);
        }
    }

    /// Right bytes that were not asked for, and wrong ones that never can be.
    fn send_beyond(&mut self, now: Nanos) {
        let from = self.snd_una + self.wnd;
        if from < self.end() && self.rng.bool() {
            let len = self.rng.u64(1..1_000).min(self.end() - from);
            let max = self.snd_max;
            self.segment(now, from, from + len);
            if self.wnd > 0 && from > max {
                // Should the engine take it after all, that is its right.
                self.snd_max = self.snd_max.max(from + len);
            }
        }
        let far = self.snd_max + self.near_room + self.rng.u64(0..1_000_000);
        self.garbage(now, far);
    }

    fn garbage(&mut self, now: Nanos, seq: u64) {
        let payload = vec![0xee; self.rng.usize(1..500)];
        let repr = self.header(now, seq, Flags::empty());
        self.emit(&repr, &payload);
    }

    /// The timer.
    fn send_again(&mut self, now: Nanos) {
        self.again_at = Some(now + TIMEOUT);
        match self.state {
            State::SynSent => {
                let syn = self.syn(now, Flags::SYN);
                self.out.push(syn);
            }
            State::SynReceived => {
                let syn = self.syn(now, Flags::SYN | Flags::ACK);
                self.out.push(syn);
            }
            State::Open => {
                if self.manners == Manners::Crumbs && self.snd_una < self.end() {
                    self.send_crumbs(now);
                    return;
                }
                let last = self.end() + 1;
                if self.snd_una >= last {
                    self.again_at = (self.opens_at > now).then_some(self.opens_at);
                    if self.opens_at != 0 && self.opens_at <= now {
                        self.acknowledge(now, 0);
                    }
                    return;
                }
                // RFC 9293 3.8.6.1: one byte into the closed window.
                self.snd_nxt = self.snd_una;
                let len = self.wnd.clamp(1, 1_000).min(last - self.snd_una);
                self.segment(now, self.snd_una, self.snd_una + len);
                self.snd_nxt += len;
            }
            State::Closed | State::Gone => self.again_at = None,
        }
    }

    fn send_crumbs(&mut self, now: Nanos) {
        let upto = (self.snd_una + self.wnd.clamp(1, 3_000)).min(self.end());
        let mut crumbs = Vec::new();
        let mut at = self.snd_una;
        while at < upto {
            let end = (at + self.rng.u64(1..40)).min(upto);
            if self.rng.u8(..8) != 0 {
                crumbs.push((at, end));
            }
            at = end;
        }
        self.rng.shuffle(&mut crumbs);
        for (start, end) in crumbs {
            self.segment(now, start, end);
        }
        self.snd_nxt = self.snd_nxt.max(upto);
        self.again_at = Some(now + TIMEOUT / 7);
    }

    /// Nothing more will come of it.
    pub(crate) fn is_idle(&self) -> bool {
        self.late.is_empty() && !matches!(self.state, State::SynSent)
    }

    /// At the end: everything arrived that was meant to.
    pub(crate) fn assert_complete(&self) {
        if self.manners.delivers() {
            let finished = self.fin_at.is_some_and(|at| self.rcv_nxt > at);
            assert!(finished, "the peer did not get the end");
            assert_eq!(
                self.rcv_nxt,
                self.receive.total + 2,
                "the peer missed bytes"
            );
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "model {:?} {:?}: una {} nxt {} max {} end {} wnd {} | rcv_nxt {} of {} {:?} fin {:?} \
             again {:?}\n",
            self.manners,
            self.state,
            self.snd_una,
            self.snd_nxt,
            self.snd_max,
            self.end(),
            self.wnd,
            self.rcv_nxt,
            self.receive.total,
            self.ranges,
            self.fin_at,
            self.again_at,
        )
    }
}
