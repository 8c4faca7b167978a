//! A TCP segment between two hosts, and what devices and proxies make of several: cut, merge.

use abi::Endpoint;
use wire::SeqNumber;
use wire::tcp::{Flags, Repr};

/// A segment on the wire: header and payload, and what IP and the device say about it.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) src: Endpoint,
    pub(crate) dst: Endpoint,
    pub(crate) bytes: Vec<u8>,
    /// Payload of each wire segment in a merged one, else 0.
    pub(crate) gso_size: u16,
    /// TOS or traffic class; the low two bits are ECN's.
    pub(crate) tos: u8,
    /// Bits have flipped on the way: the bytes have a checksum, and it is wrong.
    pub(crate) damaged: bool,
}

impl Packet {
    /// The header's meaning and its length.
    pub(crate) fn repr(&self) -> (Repr, usize) {
        Repr::parse(&self.bytes).unwrap()
    }

    /// Bytes of the TCP header.
    pub(crate) fn header_len(&self) -> usize {
        let len = usize::from(self.bytes[12] >> 4) * 4;
        len.min(self.bytes.len())
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.header_len()..]
    }

    pub(crate) fn flags(&self) -> Flags {
        Flags::from_bits_truncate(u16::from(self.bytes[13]))
    }

    pub(crate) fn ports(&self) -> (u16, u16) {
        let word = |at| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        (word(0), word(2))
    }

    /// The same addresses around another header and payload.
    pub(crate) fn rebuilt(&self, repr: &Repr, payload: &[u8]) -> Self {
        let mut bytes = vec![0; repr.header_len()];
        repr.emit(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        Self { bytes, ..*self }
    }

    /// Bytes of the IP header in front.
    pub(crate) fn ip_header(&self) -> usize {
        if self.src.family == abi::endpoint::FAMILY_V6 {
            40
        } else {
            20
        }
    }

    /// Size of the largest IP packet that it is on the wire.
    pub(crate) fn ip_len(&self) -> usize {
        let payload = self.payload().len();
        let piece = match usize::from(self.gso_size) {
            0 => payload,
            size => size.min(payload),
        };
        self.ip_header() + self.header_len() + piece
    }

    /// Neither data nor SYN, FIN or RST.
    pub(crate) fn is_pure_ack(&self) -> bool {
        self.payload().is_empty()
            && !self
                .flags()
                .intersects(Flags::SYN | Flags::FIN | Flags::RST)
    }

    /// Cut into pieces of at most `size` bytes of payload.
    pub(crate) fn split(&self, size: usize, out: &mut Vec<Self>) {
        let (repr, header) = self.repr();
        let payload = &self.bytes[header..];
        if payload.len() <= size {
            out.push(self.clone());
            return;
        }
        let last = payload.len().div_ceil(size) - 1;
        for (i, piece) in payload.chunks(size).enumerate() {
            let mut repr = repr.clone();
            repr.seq += (i * size) as u32;
            if i != last {
                repr.flags.remove(Flags::FIN | Flags::PSH);
            }
            let mut packet = self.rebuilt(&repr, piece);
            packet.gso_size = 0;
            out.push(packet);
        }
    }
}

/// Whether `b` continues `a` as a device merges it: same everything but place and PSH.
fn continues(a: &Packet, a_repr: &Repr, b: &Packet, b_repr: &Repr) -> bool {
    let special = Flags::SYN | Flags::FIN | Flags::RST | Flags::URG | Flags::CWR;
    a.src == b.src
        && a.dst == b.dst
        && a.tos == b.tos
        && !a.payload().is_empty()
        && !b.payload().is_empty()
        && a.ports() == b.ports()
        && a_repr.seq + a.payload().len() as u32 == b_repr.seq
        && !(a_repr.flags | b_repr.flags).intersects(special)
        && a_repr.ack == b_repr.ack
        && a_repr.window == b_repr.window
        && a_repr.options == b_repr.options
}

/// Generic receive offload: what arrives together and belongs together becomes one.
pub(crate) fn merge_received(packets: Vec<Packet>) -> Vec<Packet> {
    let mut out: Vec<Packet> = Vec::new();
    // A short segment ends a merge.
    let mut open = false;
    for packet in packets {
        let (repr, _) = packet.repr();
        let size = packet.payload().len();
        if open && let Some(last) = out.last_mut() {
            let (before, _) = last.repr();
            let unit = match usize::from(last.gso_size) {
                0 => last.payload().len(),
                n => n,
            };
            let fits = size <= unit && last.payload().len() + size <= 65_000;
            if packet.gso_size == 0 && fits && continues(last, &before, &packet, &repr) {
                let payload: Vec<u8> = [last.payload(), packet.payload()].concat();
                let flags = before.flags | repr.flags;
                let merged = last.rebuilt(&Repr { flags, ..before }, &payload);
                *last = Packet {
                    gso_size: unit as u16,
                    ..merged
                };
                open = size == unit;
                continue;
            }
        }
        open = size > 0 && packet.gso_size == 0;
        out.push(packet);
    }
    out
}

/// A proxy that puts small segments together, up to `size` bytes of payload.
pub(crate) fn coalesce(packets: Vec<Packet>, size: usize) -> Vec<Packet> {
    let mut out: Vec<Packet> = Vec::new();
    for packet in packets {
        let (repr, _) = packet.repr();
        if let Some(last) = out.last_mut() {
            let (before, _) = last.repr();
            let len = last.payload().len();
            let special = Flags::SYN | Flags::FIN | Flags::RST | Flags::URG;
            if len > 0
                && !packet.payload().is_empty()
                && last.ports() == packet.ports()
                && last.gso_size == 0
                && packet.gso_size == 0
                && before.seq + len as u32 == repr.seq
                && !before.flags.intersects(special)
                && !repr.flags.intersects(special)
                && len + packet.payload().len() <= size
            {
                // The later header knows more.
                let header = Repr {
                    seq: before.seq,
                    flags: before.flags | repr.flags,
                    ..repr
                };
                let payload = [last.payload(), packet.payload()].concat();
                *last = last.rebuilt(&header, &payload);
                continue;
            }
        }
        out.push(packet);
    }
    out
}

/// `number` as an offset from `base`, near `reference`.
pub(crate) fn unwrap(base: u32, reference: u64, number: SeqNumber) -> u64 {
    let near = base.wrapping_add(reference as u32);
    let diff = number.0.wrapping_sub(near).cast_signed();
    reference.saturating_add_signed(i64::from(diff))
}
