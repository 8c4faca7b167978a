//! What was on the wire, for people: the last packets of a failed run, or all of a repeated one.

use crate::packet::Packet;
use abi::Nanos;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use wire::tcp::{Flags, Repr};

/// Packets kept of a run that nobody asked about.
const KEPT: usize = 60;

#[derive(Debug)]
struct Entry {
    at: Nanos,
    side: usize,
    what: &'static str,
    header: Vec<u8>,
    len: usize,
    gso_size: u16,
    tos: u8,
    /// Initial sequence numbers: the sender's, the other's.
    base: (u32, u32),
}

/// The recorder.
#[derive(Debug)]
pub(crate) struct Trace {
    entries: VecDeque<Entry>,
    keep: usize,
    start: Nanos,
    /// By sending side and ports.
    bases: HashMap<(usize, u16, u16), u32>,
    dropped: u64,
}

impl Trace {
    pub(crate) fn new(start: Nanos, full: bool) -> Self {
        Self {
            entries: VecDeque::new(),
            keep: if full { usize::MAX } else { KEPT },
            start,
            bases: HashMap::new(),
            dropped: 0,
        }
    }

    /// Something happened to a packet that `side` sent.
    pub(crate) fn note(&mut self, at: Nanos, side: usize, what: &'static str, packet: &Packet) {
        let (src, dst) = packet.ports();
        let header = packet.bytes[..packet.header_len()].to_vec();
        if packet.flags().contains(Flags::SYN) && what == SENT {
            let iss = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            self.bases.insert((side, src, dst), iss);
        }
        let base = |side, src, dst| self.bases.get(&(side, src, dst)).copied().unwrap_or(0);
        let entry = Entry {
            at,
            side,
            what,
            len: packet.payload().len(),
            gso_size: packet.gso_size,
            tos: packet.tos,
            base: (base(side, src, dst), base(1 - side, dst, src)),
            header,
        };
        if self.entries.len() >= self.keep {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(entry);
    }

    /// As text, one line for each packet.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if self.dropped > 0 {
            let _ = writeln!(text, "({} earlier lines)", self.dropped);
        }
        for entry in &self.entries {
            let _ = writeln!(text, "{}", self.line(entry));
        }
        text
    }

    fn line(&self, e: &Entry) -> String {
        let Ok((repr, _)) = Repr::parse(&e.header) else {
            return "?".to_owned();
        };
        let time = (e.at - self.start) as f64 / 1e9;
        let arrow = [">", "<"][e.side];
        let seq = repr.seq.0.wrapping_sub(e.base.0);
        let mut line = format!(
            "{time:>12.6} {arrow} {:<9} {}>{} {:<2} {seq}",
            e.what,
            repr.src_port,
            repr.dst_port,
            letters(repr.flags)
        );
        if e.len > 0 {
            let _ = write!(line, "..{} ({})", seq.wrapping_add(e.len as u32), e.len);
        }
        if e.gso_size > 0 {
            let _ = write!(line, "/{}", e.gso_size);
        }
        if repr.flags.contains(Flags::ACK) {
            let _ = write!(line, " ack {}", repr.ack.0.wrapping_sub(e.base.1));
        }
        let _ = write!(line, " win {}", repr.window);
        let o = &repr.options;
        if let Some(mss) = o.mss {
            let _ = write!(line, " mss {mss}");
        }
        if let Some(scale) = o.window_scale {
            let _ = write!(line, " scale {scale}");
        }
        if o.sack_permitted {
            line += " sackok";
        }
        for (left, right) in &o.sack {
            let at = |n: u32| n.wrapping_sub(e.base.1);
            let _ = write!(line, " sack {}..{}", at(left.0), at(right.0));
        }
        if let Some(ts) = o.timestamps {
            let _ = write!(line, " ts {}/{}", ts.tsval, ts.tsecr);
        }
        if repr.flags.contains(Flags::URG) {
            let _ = write!(line, " urg {}", repr.urgent);
        }
        match e.tos & 3 {
            0 => {}
            3 => line += " CE",
            _ => line += " ECT",
        }
        line
    }
}

/// A host let it out.
pub(crate) const SENT: &str = "sent";
/// It reached the other host.
pub(crate) const ARRIVED: &str = "arrived";

fn letters(flags: Flags) -> String {
    let all = [
        (Flags::SYN, 'S'),
        (Flags::FIN, 'F'),
        (Flags::RST, 'R'),
        (Flags::PSH, 'P'),
        (Flags::URG, 'U'),
        (Flags::ECE, 'E'),
        (Flags::CWR, 'W'),
        (Flags::ACK, '.'),
    ];
    all.into_iter()
        .filter(|&(flag, _)| flags.contains(flag))
        .map(|(_, letter)| letter)
        .collect()
}
