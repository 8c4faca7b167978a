//! What stands in the way and thinks that it knows better: options stripped or rewritten, segments
//! cut and put together, ECN cleared, old packets let out again.

use crate::mangle::Mangling;
use crate::packet::{Packet, coalesce};
use abi::Nanos;
use fastrand::Rng;
use std::collections::VecDeque;
use wire::tcp::{Flags, Repr};

/// What a middlebox does to one direction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meddling {
    /// Options that are taken off SYNs.
    pub(crate) syn_strips: SynStrips,
    /// Timestamps vanish from everything but SYNs, from this time on.
    pub(crate) strip_timestamps_from: Option<Nanos>,
    /// SACK blocks vanish, though SACK was agreed on.
    pub(crate) strip_sack_blocks: bool,
    /// The MSS of SYNs is lowered to this.
    pub(crate) clamp_mss: Option<u16>,
    /// The window scale of SYNs becomes this.
    pub(crate) rewrite_scale: Option<u8>,
    /// Segments are cut into such pieces.
    pub(crate) split: Option<usize>,
    /// Segments are put together up to this size.
    pub(crate) coalesce: Option<usize>,
    /// ECN-capable packets are so no more.
    pub(crate) clear_ecn: bool,
    /// Probability, for each packet, that a copy of an older one follows; at most this late.
    pub(crate) replay: f64,
    pub(crate) replay_delay: Nanos,
    /// Probability that a SYN comes again, up to five seconds later.
    pub(crate) duplicate_syn: f64,
    /// Probability, for each packet, of a reset with a guessed sequence number.
    pub(crate) blind_reset: f64,
    /// What it does beside that.
    pub(crate) mangling: Mangling,
}

/// Options that a middlebox takes off SYNs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SynStrips {
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) scale: bool,
    pub(crate) mss: bool,
    /// Whatever is not one of these.
    pub(crate) others: bool,
}

impl Meddling {
    /// Whether both ends may disagree about the meaning of windows.
    pub(crate) fn spoils_windows(&self) -> bool {
        self.syn_strips.scale || self.rewrite_scale.is_some()
    }

    /// Whether it does anything.
    pub(crate) fn is_active(&self) -> bool {
        format!("{self:?}") != format!("{:?}", Self::default())
    }
}

/// Old packets kept.
const MEMORY: usize = 48;
/// Nothing is older than this when it arrives (RFC 9293's MSL is two minutes; TIME_WAIT here
/// lasts a minute and so stands for half of that).
pub(crate) const LIFETIME: Nanos = 25_000_000_000;

/// One direction's box.
#[derive(Debug)]
pub(crate) struct Middlebox {
    start: Nanos,
    plan: Meddling,
    memory: VecDeque<(Nanos, Packet)>,
    rng: Rng,
}

impl Middlebox {
    pub(crate) fn new(start: Nanos, plan: Meddling, seed: u64) -> Self {
        Self {
            start,
            plan,
            memory: VecDeque::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// What becomes of packets that came together, each with how late it is.
    pub(crate) fn pass(&mut self, now: Nanos, packets: Vec<Packet>) -> Vec<(Packet, Nanos)> {
        let mut pieces = Vec::new();
        for packet in packets {
            let packet = self.rewrite(now, packet);
            match self.plan.split {
                Some(size) => packet.split(size, &mut pieces),
                None => pieces.push(packet),
            }
        }
        if let Some(size) = self.plan.coalesce {
            pieces = coalesce(pieces, size);
        }
        let mut out = Vec::with_capacity(pieces.len());
        for packet in pieces {
            let mut packet = packet;
            let mangling = &self.plan.mangling;
            mangling.apply(now, &mut packet, &mut self.rng);
            let before = packet.clone();
            out.push((packet, 0));
            self.haunt(now, before, &mut out);
        }
        out
    }

    fn rewrite(&mut self, now: Nanos, mut packet: Packet) -> Packet {
        let p = &self.plan;
        if p.clear_ecn {
            packet.tos &= !3;
        }
        let (mut repr, header) = packet.repr();
        let before = repr.clone();
        let o = &mut repr.options;
        if before.flags.contains(Flags::SYN) {
            let strips = &p.syn_strips;
            if strips.timestamps {
                o.timestamps = None;
            }
            o.sack_permitted &= !strips.sack;
            if strips.scale {
                o.window_scale = None;
            }
            if strips.mss {
                o.mss = None;
            }
            if strips.others {
                o.user_timeout = None;
                o.fast_open = None;
            }
            o.mss = match (o.mss, p.clamp_mss) {
                (Some(mss), Some(most)) => Some(mss.min(most)),
                (mss, _) => mss,
            };
            if let (Some(_), Some(scale)) = (o.window_scale, p.rewrite_scale) {
                o.window_scale = Some(scale);
            }
        } else {
            if p.strip_timestamps_from
                .is_some_and(|at| now - self.start >= at)
            {
                o.timestamps = None;
            }
            if p.strip_sack_blocks {
                o.sack.clear();
            }
        }
        if repr == before {
            return packet;
        }
        packet.rebuilt(&repr, &packet.bytes[header..])
    }

    /// Copies of what passed before, duplicate SYNs, guessed resets.
    fn haunt(&mut self, now: Nanos, packet: Packet, out: &mut Vec<(Packet, Nanos)>) {
        let p = self.plan.clone();
        if packet.flags().contains(Flags::SYN) && self.rng.f64() < p.duplicate_syn {
            out.push((packet.clone(), self.rng.u64(0..5_000_000_000)));
        }
        if self.rng.f64() < p.blind_reset {
            out.push((self.guessed_reset(&packet), 0));
        }
        if p.replay == 0.0 {
            return;
        }
        if self.rng.f64() < p.replay && !self.memory.is_empty() {
            let (born, old) = &self.memory[self.rng.usize(..self.memory.len())];
            let late = self.rng.u64(0..=p.replay_delay);
            if now + late - born < LIFETIME {
                out.push((old.clone(), late));
            }
        }
        // The beginning, and some of the rest, are kept.
        if self.memory.len() < MEMORY {
            self.memory.push_back((now, packet));
        } else if self.rng.u8(..8) == 0 {
            let at = self.rng.usize(..MEMORY);
            self.memory[at] = (now, packet);
        }
    }

    /// RFC 5961 3: somewhere near, but not where it would be believed.
    fn guessed_reset(&mut self, packet: &Packet) -> Packet {
        let (repr, _) = packet.repr();
        let off = self.rng.u32(100_000..2_000_000_000);
        let reset = Repr {
            src_port: repr.src_port,
            dst_port: repr.dst_port,
            seq: repr.seq
                + if self.rng.bool() {
                    off
                } else {
                    off.wrapping_neg()
                },
            flags: Flags::RST,
            ..Repr::default()
        };
        packet.rebuilt(&reset, &[])
    }
}
