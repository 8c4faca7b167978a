//! A path in one direction: rate, queue, delay, and everything that can go wrong on it.

use crate::packet::Packet;
use crate::trace::{ARRIVED, Trace};
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use std::collections::BTreeMap;
use tcpd::engine::{IcmpError, IcmpKind};
use wire::SeqNumber;
use wire::tcp::Flags;

/// Errors that do not concern size.
const UNREACHABLE: [IcmpKind; 5] = [
    IcmpKind::NetUnreachable,
    IcmpKind::HostUnreachable,
    IcmpKind::ProtocolUnreachable,
    IcmpKind::PortUnreachable,
    IcmpKind::ParameterProblem,
];

/// A bad state ends after this, whether packets came or not.
const LONGEST_BURST: Nanos = 2_000_000_000;

/// Which packets a link loses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Loss {
    None,
    /// Each with a probability.
    Random(f64),
    /// Gilbert and Elliott: a good state without loss and a bad one with.
    Burst {
        /// Good to bad, for each packet.
        worsens: f64,
        /// Bad to good.
        heals: f64,
        /// Loss in the bad state.
        loss: f64,
    },
    /// Only segments without data.
    Acks(f64),
    /// Every so many packets one.
    Every(u64),
}

/// What happens to packets. Times of day count from the start of the run.
#[derive(Debug, Clone)]
pub(crate) struct Impairment {
    pub(crate) loss: Loss,
    pub(crate) duplicate: f64,
    /// Bits flip, with this probability for each packet.
    pub(crate) corrupt: f64,
    pub(crate) reorder: f64,
    pub(crate) delay: Nanos,
    pub(crate) jitter: Nanos,
    /// Bytes a second; 0 for no limit.
    pub(crate) rate: u64,
    /// Bytes that wait at the most when the rate is limited.
    pub(crate) queue: u64,
    /// Bytes waiting from which on ECN-capable packets are marked; 0: never.
    pub(crate) mark_at: u64,
    /// Largest IP packet, from each time on.
    pub(crate) mtu: Vec<(Nanos, u16)>,
    /// Whether a packet that is too big is reported.
    pub(crate) icmp: bool,
    /// Probability that a packet meets a router that does not know the way, and says so. Not a
    /// SYN: that ends the attempt.
    pub(crate) unreachable: f64,
    /// Probability that somebody who knows the ports sends an ICMP error about what is not in
    /// flight.
    pub(crate) forged: f64,
    /// When the link is down.
    pub(crate) outages: Vec<(Nanos, Nanos)>,
    /// Packets arrive in bunches, at multiples of this; 0: as they come.
    pub(crate) bunch: Nanos,
    /// A newer bare acknowledgement replaces an older one that still waits.
    pub(crate) ack_filter: bool,
}

impl Impairment {
    pub(crate) fn none() -> Self {
        Self {
            loss: Loss::None,
            duplicate: 0.0,
            corrupt: 0.0,
            reorder: 0.0,
            delay: 50_000,
            jitter: 0,
            rate: 0,
            queue: 0,
            mark_at: 0,
            mtu: Vec::new(),
            icmp: true,
            unreachable: 0.0,
            forged: 0.0,
            outages: Vec::new(),
            bunch: 0,
            ack_filter: false,
        }
    }

    /// The usual mixture of loss, duplication, reordering, delay and rate.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut pick = |values: &[f64]| values[rng.usize(..values.len())];
        let loss = pick(&[0.0, 0.001, 0.01, 0.03, 0.1]);
        let duplicate = pick(&[0.0, 0.0, 0.01, 0.05]);
        let reorder = pick(&[0.0, 0.0, 0.01, 0.1, 0.3]);
        let delay = pick(&[0.0, 20e3, 500e3, 10e6, 100e6, 500e6]) as Nanos;
        let jitter = pick(&[0.0, 0.0, 0.1, 1.0]) * delay as f64;
        // 10 kbit/s to 10 Gbit/s.
        let rate = pick(&[0.0, 0.0, 1.25e3, 16e3, 125e3, 1.25e6, 12.5e6, 1.25e9]) as u64;
        // A few packets, a sane queue, or more than anybody wants.
        let queue = pick(&[5e3, 20e3, 60e3, 500e3, 5e6]) as u64;
        Self {
            loss: if loss == 0.0 {
                Loss::None
            } else {
                Loss::Random(loss)
            },
            duplicate,
            reorder,
            delay,
            jitter: jitter as Nanos,
            rate,
            queue,
            ..Self::none()
        }
    }

    /// The largest IP packet at a time since the start.
    pub(crate) fn mtu_at(&self, time: Nanos) -> u16 {
        let due = self.mtu.iter().rev().find(|&&(from, _)| from <= time);
        due.map_or(u16::MAX, |&(_, mtu)| mtu)
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Link {
    side: usize,
    start: Nanos,
    impairment: Impairment,
    rng: Rng,
    waiting: BTreeMap<(Nanos, u64), Packet>,
    order: u64,
    /// When the transmitter is free again.
    free_at: Nanos,
    /// The bad state of [`Loss::Burst`].
    bad: bool,
    bad_since: Nanos,
    sent: u64,
    pub(crate) lost: u64,
    /// Reports on their way back.
    icmp: BTreeMap<(Nanos, u64), IcmpError>,
}

impl Link {
    pub(crate) fn new(side: usize, start: Nanos, impairment: Impairment, seed: u64) -> Self {
        Self {
            side,
            start,
            impairment,
            rng: Rng::with_seed(seed),
            waiting: BTreeMap::new(),
            order: 0,
            free_at: 0,
            bad: false,
            bad_since: 0,
            sent: 0,
            lost: 0,
            icmp: BTreeMap::new(),
        }
    }

    fn is_lost(&mut self, now: Nanos, packet: &Packet) -> bool {
        let draw = self.rng.f64();
        match self.impairment.loss {
            Loss::None => false,
            Loss::Random(p) => draw < p,
            Loss::Acks(p) => packet.is_pure_ack() && draw < p,
            Loss::Every(n) => self.sent.is_multiple_of(n),
            Loss::Burst {
                worsens,
                heals,
                loss,
            } => {
                let turn = self.rng.f64();
                // Weather changes also while nobody sends.
                let stays = turn >= heals && now - self.bad_since < LONGEST_BURST;
                let worse = !self.bad && turn < worsens;
                if worse {
                    self.bad_since = now;
                }
                self.bad = worse || (self.bad && stays);
                self.bad && draw < loss
            }
        }
    }

    fn lose(&mut self, now: Nanos, why: &'static str, packet: &Packet, trace: &mut Trace) {
        self.lost += 1;
        trace.note(now, self.side, why, packet);
    }

    /// A packet enters; `late` is how much longer than usual it takes.
    pub(crate) fn send(&mut self, now: Nanos, mut packet: Packet, late: Nanos, trace: &mut Trace) {
        self.sent += 1;
        let time = now - self.start;
        if packet.ip_len() > usize::from(self.impairment.mtu_at(time)) {
            self.report_too_big(now, &packet);
            self.lose(now, "too big", &packet, trace);
            return;
        }
        if self.gets_icmp(now, &packet) {
            self.lose(now, "no way", &packet, trace);
            return;
        }
        let down = |&(from, to): &(Nanos, Nanos)| (from..to).contains(&time);
        if self.impairment.outages.iter().any(down) {
            self.lose(now, "outage", &packet, trace);
            return;
        }
        if self.is_lost(now, &packet) {
            self.lose(now, "lost", &packet, trace);
            return;
        }
        if self.rng.f64() < self.impairment.corrupt {
            packet = self.damage(&packet);
            trace.note(now, self.side, "corrupt", &packet);
        }
        if self.rng.f64() < self.impairment.duplicate {
            self.enqueue(now, packet.clone(), late, trace);
        }
        self.enqueue(now, packet, late, trace);
    }

    /// A bit of it has flipped. It goes on as it is, with the checksum of what it was.
    fn damage(&mut self, packet: &Packet) -> Packet {
        let (src, dst) = (packet.src.ip().unwrap(), packet.dst.ip().unwrap());
        let mut bytes = packet.bytes.clone();
        wire::tcp::fill_checksum(&mut bytes, src, dst).unwrap();
        let at = self.rng.usize(..bytes.len());
        bytes[at] ^= 1 << self.rng.u8(..8);
        Packet {
            bytes,
            gso_size: 0,
            damaged: true,
            ..*packet
        }
    }

    fn report_too_big(&mut self, now: Nanos, packet: &Packet) {
        if self.impairment.icmp {
            let mtu = self.impairment.mtu_at(now - self.start);
            let seq = packet.repr().0.seq;
            self.report(now, packet, seq, IcmpKind::FragmentationNeeded { mtu });
        }
    }

    /// ICMP errors for other reasons than size; returns whether the packet is lost for a true one.
    fn gets_icmp(&mut self, now: Nanos, packet: &Packet) -> bool {
        let (unreachable, forged) = (self.impairment.unreachable, self.impairment.forged);
        let (repr, _) = packet.repr();
        let syn = repr.flags.contains(Flags::SYN);
        if forged > 0.0 && self.rng.f64() < forged {
            let kind = match self.rng.u8(..6) {
                5 => IcmpKind::FragmentationNeeded {
                    mtu: [0, 68, 600, 1_279][self.rng.usize(..4)],
                },
                n => UNREACHABLE[usize::from(n)],
            };
            // Just behind a SYN, or anywhere.
            let seq = if syn {
                repr.seq + 1
            } else {
                SeqNumber(self.rng.u32(..))
            };
            self.report(now, packet, seq, kind);
        }
        let lost = unreachable > 0.0 && !syn && self.rng.f64() < unreachable;
        if lost {
            let kind = UNREACHABLE[self.rng.usize(..UNREACHABLE.len())];
            self.report(now, packet, repr.seq, kind);
        }
        lost
    }

    fn report(&mut self, now: Nanos, packet: &Packet, seq: SeqNumber, kind: IcmpKind) {
        let (repr, _) = packet.repr();
        let error = IcmpError {
            local: Endpoint {
                port: repr.src_port,
                ..packet.src
            },
            remote: Endpoint {
                port: repr.dst_port,
                ..packet.dst
            },
            seq,
            kind,
        };
        self.order += 1;
        let at = now + 2 * self.impairment.delay + 1_000;
        self.icmp.insert((at, self.order), error);
    }

    fn enqueue(&mut self, now: Nanos, mut packet: Packet, late: Nanos, trace: &mut Trace) {
        let i = &self.impairment;
        let mut at = now;
        if i.rate > 0 {
            let time = |bytes: u64| bytes * 1_000_000_000 / i.rate;
            let free_at = self.free_at.max(now);
            let backlog = (u128::from(free_at - now) * u128::from(i.rate) / 1_000_000_000) as u64;
            if backlog > i.queue {
                self.lose(now, "full", &packet, trace);
                return;
            }
            if i.mark_at > 0 && backlog > i.mark_at && matches!(packet.tos & 3, 1 | 2) {
                packet.tos |= 3;
            }
            self.free_at = free_at + time((packet.bytes.len() + packet.ip_header()) as u64);
            at = self.free_at;
        }
        at += i.delay + late;
        if i.jitter > 0 && self.rng.f64() < 0.5 {
            at += self.rng.u64(0..=i.jitter);
        }
        if self.rng.f64() < i.reorder {
            at += self.rng.u64(0..=2 * i.delay + 100_000);
        }
        if i.bunch > 0 {
            at = at.next_multiple_of(i.bunch);
        }
        if i.ack_filter {
            self.filter_acks(now, &packet, trace);
        }
        self.order += 1;
        self.waiting.insert((at, self.order), packet);
    }

    /// What some routers do: an acknowledgement that a newer one makes useless is dropped.
    fn filter_acks(&mut self, now: Nanos, packet: &Packet, trace: &mut Trace) {
        if packet.damaged || !packet.is_pure_ack() {
            return;
        }
        let (repr, _) = packet.repr();
        let useless = self.waiting.iter().rev().take(8).find(|(_, waiting)| {
            if waiting.damaged {
                return false;
            }
            let (older, _) = waiting.repr();
            waiting.is_pure_ack()
                && waiting.ports() == packet.ports()
                && older.ack.lt(repr.ack)
                && older.options.sack.is_empty()
        });
        if let Some((&key, _)) = useless
            && let Some(old) = self.waiting.remove(&key)
        {
            trace.note(now, self.side, "filtered", &old);
        }
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        let packet = self.waiting.keys().next().map(|&(at, _)| at);
        let icmp = self.icmp.keys().next().map(|&(at, _)| at);
        [packet, icmp].into_iter().flatten().min()
    }

    pub(crate) fn arrivals(&mut self, now: Nanos, trace: &mut Trace) -> Vec<Packet> {
        let mut due = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let packet = entry.remove();
            trace.note(now, self.side, ARRIVED, &packet);
            due.push(packet);
        }
        due
    }

    /// Reports for the sender.
    pub(crate) fn reports(&mut self, now: Nanos) -> Vec<IcmpError> {
        let mut due = Vec::new();
        while let Some(entry) = self.icmp.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        due
    }
}
