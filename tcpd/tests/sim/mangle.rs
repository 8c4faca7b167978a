//! Middleboxes that do worse than to take options off: timestamps garbled, options that nobody
//! knows or that are malformed, sequence numbers moved without the SACK blocks that speak of them.
//! A connection through them may be slow; every byte has to get through all the same.

use crate::packet::Packet;
use abi::Nanos;
use fastrand::Rng;
use wire::tcp::Flags;

/// Kind of an option for experiments (RFC 6994), one that nobody has assigned, and one that some
/// firewalls of old used.
const UNKNOWN: [u8; 3] = [254, 200, 19];

/// What is done to one direction.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Mangling {
    /// Probability that an echoed timestamp becomes some other.
    pub(crate) garble_echo: f64,
    /// Probability that a timestamp becomes one of long ago. What then fails RFC 7323's check is
    /// as good as lost. (One that becomes younger ends the connection at any receiver that keeps
    /// to the RFC.)
    pub(crate) age_stamp: f64,
    /// Added to timestamps of everything but SYNs; what comes back is not changed.
    pub(crate) shift_stamp: u32,
    /// Probability of an option that nobody knows, and of one whose length is wrong.
    pub(crate) unknown: f64,
    pub(crate) malformed: f64,
    /// Added to sequence numbers.
    pub(crate) shift_seq: u32,
    /// Taken off acknowledgement numbers: the other direction's `shift_seq`. SACK blocks stay.
    pub(crate) shift_ack: u32,
}

impl Mangling {
    /// For both directions.
    pub(crate) fn random(rng: &mut Rng) -> [Self; 2] {
        let mut both = [Self::default(), Self::default()];
        for m in &mut both {
            match rng.u8(..6) {
                0 => m.garble_echo = [0.01, 0.2, 1.0][rng.usize(..3)],
                1 => m.age_stamp = [0.01, 0.1][rng.usize(..2)],
                2 => {
                    let most = [100, 100_000, 1 << 30][rng.usize(..3)];
                    m.shift_stamp = rng.u32(1..=most);
                }
                _ => {}
            }
            match rng.u8(..4) {
                0 => m.unknown = [0.1, 1.0][rng.usize(..2)],
                1 => m.malformed = [0.1, 1.0][rng.usize(..2)],
                _ => {}
            }
        }
        if rng.u8(..3) == 0 {
            let most = [2_000, 200_000, u32::MAX][rng.usize(..3)];
            let shift = rng.u32(1..=most);
            let from = rng.usize(..2);
            both[from].shift_seq = shift;
            both[1 - from].shift_ack = shift;
        }
        both
    }

    pub(crate) fn is_active(&self) -> bool {
        *self != Self::default()
    }

    pub(crate) fn apply(&self, _now: Nanos, packet: &mut Packet, rng: &mut Rng) {
        if !self.is_active() {
            return;
        }
        let syn = packet.flags().contains(Flags::SYN);
        if !syn {
            self.mangle_stamps(packet, rng);
        }
        add(packet, 4, self.shift_seq);
        if packet.flags().contains(Flags::ACK) {
            add(packet, 8, self.shift_ack.wrapping_neg());
        }
        if rng.f64() < self.unknown {
            let kind = UNKNOWN[rng.usize(..UNKNOWN.len())];
            let len = rng.u8(2..=10);
            let mut option = vec![kind, len];
            option.resize_with(len.into(), || rng.u8(..));
            insert(packet, option, rng.bool());
        }
        if rng.f64() < self.malformed {
            let option = match rng.u8(..3) {
                // A length that does not even count itself.
                0 => vec![UNKNOWN[1], rng.u8(..2)],
                // One beyond the header.
                1 => vec![UNKNOWN[0], rng.u8(41..), 1],
                // A timestamp of the wrong length.
                _ => vec![8, 6, 1, 2, 3, 4],
            };
            // At the end: nothing behind it can be found.
            insert(packet, option, false);
        }
    }

    fn mangle_stamps(&self, packet: &mut Packet, rng: &mut Rng) {
        let Some(at) = timestamps(packet) else {
            return;
        };
        add(packet, at, self.shift_stamp);
        if rng.f64() < self.age_stamp {
            add(packet, at, rng.u32(1 << 20..1 << 30).wrapping_neg());
        }
        if rng.f64() < self.garble_echo {
            let echo = rng.u32(..);
            packet.bytes[at + 4..at + 8].copy_from_slice(&echo.to_be_bytes());
        }
    }
}

fn add(packet: &mut Packet, at: usize, n: u32) {
    let bytes = &mut packet.bytes[at..at + 4];
    let before = u32::from_be_bytes(bytes.try_into().unwrap());
    bytes.copy_from_slice(&before.wrapping_add(n).to_be_bytes());
}

/// Where the value of a timestamp begins.
fn timestamps(packet: &Packet) -> Option<usize> {
    let end = packet.header_len();
    let mut at = 20;
    while at + 1 < end {
        match packet.bytes[at] {
            0 => return None,
            1 => at += 1,
            8 => return Some(at + 2),
            _ => at += usize::from(packet.bytes[at + 1]).max(2),
        }
    }
    None
}

/// Puts an option before or behind those that are there, if there is room.
fn insert(packet: &mut Packet, mut option: Vec<u8>, in_front: bool) {
    let end = packet.header_len();
    option.resize(option.len().next_multiple_of(4), 1);
    if end + option.len() > 60 {
        return;
    }
    let at = if in_front { 20 } else { end };
    let header = (end + option.len()) / 4;
    packet.bytes.splice(at..at, option);
    packet.bytes[12] = (header as u8) << 4 | packet.bytes[12] & 15;
}
