//! Frames on their way through an impaired direction.

use super::fate::Fates;
use super::line::Line;
use super::mark::mark;
use crate::device::earlier;
use abi::Nanos;
use abi::config::Impairment;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use wire::vnet::VirtioNetHdr;

/// Frames that wait at the most, unless configured.
const QUEUE: usize = 1000;

/// Frames under way at the most, waiting or delayed: what a hostile configuration can make us keep.
const UNDER_WAY: usize = 1 << 16;

/// Longest time a frame is held back for others to pass it, should none come.
const HOLD: Nanos = 20_000_000;

/// A frame in private memory with its offload words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packet {
    /// Offload words.
    pub hdr: VirtioNetHdr,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Faults since they were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lost.
    pub lost: u64,
    /// Marked instead of lost.
    pub marked: u64,
    /// Doubled.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// A bit flipped.
    pub corrupted: u64,
    /// Found the queue full.
    pub overflow: u64,
}

#[derive(Debug)]
struct Held {
    packet: u64,
    /// Frames that still have to pass.
    behind: u32,
    until: Nanos,
}

/// One direction.
#[derive(Debug)]
pub struct Pipe {
    direction: u64,
    fates: Fates,
    line: Line,
    rate_kbps: u64,
    limit: usize,
    /// Losses become marks, where the transport understands them.
    ecn: bool,
    /// When the last frame gets out: delays vary, order is the business of reordering.
    last: Nanos,
    /// When which packet gets out; packets of one time in their order.
    order: BinaryHeap<Reverse<(Nanos, u64)>>,
    packets: BTreeMap<u64, Packet>,
    held: Vec<Held>,
    next: u64,
    faults: Faults,
    spare: Vec<Vec<u8>>,
}

fn limit(config: &Impairment) -> usize {
    match config.queue {
        0 => QUEUE,
        n => usize::try_from(n).unwrap_or(QUEUE),
    }
}

impl Pipe {
    /// An empty direction, 0 or 1.
    #[must_use]
    pub fn new(config: &Impairment, direction: u64) -> Self {
        Self {
            direction,
            fates: Fates::new(config, direction),
            line: Line::default(),
            rate_kbps: config.rate_kbps,
            limit: limit(config),
            ecn: config.ecn,
            last: 0,
            order: BinaryHeap::new(),
            packets: BTreeMap::new(),
            held: Vec::new(),
            next: 0,
            faults: Faults::default(),
            spare: Vec::new(),
        }
    }

    /// Changes the faults.
    pub fn set(&mut self, config: &Impairment) {
        self.fates.set(config, self.direction);
        self.rate_kbps = config.rate_kbps;
        self.limit = limit(config);
        self.ecn = config.ecn;
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Sends a frame on its way.
    pub fn push(&mut self, now: Nanos, hdr: VirtioNetHdr, pieces: &[&[u8]]) {
        let len = pieces.iter().map(|p| p.len()).sum();
        // Drawn before the queue is looked at: a full queue must not move later fates.
        let fate = self.fates.draw();
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        pieces.iter().for_each(|p| frame.extend_from_slice(p));
        if fate.lost {
            if !(self.ecn && mark(&mut frame)) {
                self.faults.lost += 1;
                self.keep(frame);
                return;
            }
            self.faults.marked += 1;
        }
        let copies = if fate.twice { 2 } else { 1 };
        self.faults.duplicated += copies - 1;
        for copy in 1..=copies {
            let Some(out) = self.admit(now, len) else {
                self.faults.overflow += 1;
                self.keep(frame);
                return;
            };
            let at = out.saturating_add(fate.delay).max(self.last);
            self.last = at;
            let bytes = if copy == copies {
                std::mem::take(&mut frame)
            } else {
                frame.clone()
            };
            let mut packet = Packet { hdr, bytes };
            if let Some(bit) = fate.flip {
                flip(&mut packet, bit);
                self.faults.corrupted += 1;
            }
            let id = self.next;
            self.next += 1;
            self.packets.insert(id, packet);
            if fate.behind > 0 {
                self.faults.reordered += 1;
                self.held.push(Held {
                    packet: id,
                    behind: fate.behind,
                    until: at.saturating_add(HOLD),
                });
            } else {
                self.order.push(Reverse((at, id)));
            }
        }
    }

    /// When a frame is out on the wire; none if there is no room for it. With a rate the queue is
    /// what waits for the link, and delay comes after it, as on a long cable; without one it is
    /// whatever is under way.
    fn admit(&mut self, now: Nanos, len: usize) -> Option<Nanos> {
        let room = match self.rate_kbps {
            0 => self.limit,
            _ => UNDER_WAY,
        };
        if self.packets.len() >= room {
            return None;
        }
        self.line.admit(now, len, self.rate_kbps, self.limit)
    }

    /// The next frame that gets out by `now`.
    pub fn pop(&mut self, now: Nanos) -> Option<Packet> {
        let expired = self.held.iter().position(|h| h.until <= now);
        if let Some(index) = expired {
            let held = self.held.swap_remove(index);
            return self.packets.remove(&held.packet);
        }
        let &Reverse((at, id)) = self.order.peek()?;
        if at > now {
            return None;
        }
        self.order.pop();
        // It passes those that are held back.
        let mut index = 0;
        while let Some(held) = self.held.get_mut(index) {
            if held.packet < id {
                held.behind -= 1;
            }
            if held.behind == 0 {
                self.order.push(Reverse((at, held.packet)));
                self.held.swap_remove(index);
            } else {
                index += 1;
            }
        }
        self.packets.remove(&id)
    }

    /// When the next frame gets out.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        let first = self.order.peek().map(|Reverse((at, _))| *at);
        earlier(first, self.held.iter().map(|h| h.until).min())
    }

    /// Takes a packet's buffer back for later ones.
    pub fn recycle(&mut self, packet: Packet) {
        self.keep(packet.bytes);
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 64 {
            self.spare.push(buffer);
        }
    }

    /// The faults since the last call.
    pub fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }
}

/// Flips a bit behind the Ethernet header. A checksum that is still to be completed is completed
/// first: afterwards it would come out right, and no receiver could tell.
fn flip(packet: &mut Packet, bit: u64) {
    let hdr = packet.hdr;
    if hdr.needs_csum() {
        let _ = wire::gso::complete_checksum(&mut packet.bytes, hdr.csum_start, hdr.csum_offset);
    }
    packet.hdr = VirtioNetHdr::default();
    let behind = packet
        .bytes
        .get_mut(wire::ethernet::HEADER_LEN..)
        .unwrap_or_default();
    let bits = (behind.len() as u64) * 8;
    if let Some(bit) = bit.checked_rem(bits)
        && let Ok(byte) = usize::try_from(bit / 8)
        && let Some(byte) = behind.get_mut(byte)
    {
        *byte ^= 1 << (bit % 8);
    }
}
