//! What must hold of the segments an engine lets out, judged from the wire alone: nothing is
//! acknowledged that was not sent, nothing is sent that was not asked for, an offered window is
//! not taken back, timestamps do not run backwards. An engine that was killed and restored is held
//! to all of it.

use crate::packet::{Packet, unwrap};
use abi::Nanos;
use std::collections::HashMap;
use wire::tcp::Flags;

/// One direction of a connection as it was emitted.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    iss: u32,
    /// Behind the highest sequence number sent, from `iss`.
    sent: u64,
    /// Behind the highest byte that the other side may send, from its own `iss`.
    edge: u64,
    scale: Option<u8>,
    stamp: Option<u32>,
    /// The last acknowledgement number, to unwrap by.
    acked: u64,
    /// A SYN was seen.
    open: bool,
    /// The other side's initial sequence number that `edge`, `acked` and `stamp` belong to.
    partner: Option<u32>,
}

/// Both hosts' flows.
#[derive(Debug, Default)]
pub(crate) struct Wiretap {
    flows: HashMap<(usize, u16, u16), Flow>,
    /// Hosts that are held to the rules.
    judged: [bool; 2],
    /// Window scales arrive as they were sent.
    scales_hold: bool,
    /// Bare acknowledgements and data segments of each side.
    pub(crate) bare: [u64; 2],
    pub(crate) data: [u64; 2],
}

impl Wiretap {
    pub(crate) fn new(judged: [bool; 2], scales_hold: bool) -> Self {
        Self {
            judged,
            scales_hold,
            ..Self::default()
        }
    }

    /// `side` lets `packet` out.
    pub(crate) fn emitted(&mut self, _now: Nanos, side: usize, packet: &Packet) {
        let (repr, header) = packet.repr();
        let len = (packet.bytes.len() - header) as u64;
        let key = (side, repr.src_port, repr.dst_port);
        let back = (1 - side, repr.dst_port, repr.src_port);
        if len > 0 {
            self.data[side] += 1;
        } else {
            self.bare[side] += 1;
        }
        if repr.flags.contains(Flags::RST) {
            return;
        }
        let other = self.flows.get(&back).copied().unwrap_or_default();
        let flow = self.flows.entry(key).or_default();
        let judged = self.judged[side];
        if repr.flags.contains(Flags::SYN) {
            if flow.open && flow.iss != repr.seq.0 && !judged {
                // A peer of one connection, with bad manners.
                return;
            }
            if !flow.open || flow.iss != repr.seq.0 {
                *flow = Flow {
                    iss: repr.seq.0,
                    open: true,
                    ..Flow::default()
                };
            }
            flow.sent = flow.sent.max(1 + len);
            flow.scale = repr.options.window_scale;
            let acked = u64::from(repr.ack.0.wrapping_sub(other.iss));
            let answers = other.open && repr.flags.contains(Flags::ACK) && acked <= other.sent;
            // RFC 7413 4.2.2: it may acknowledge data that came with the SYN, too.
            let from = if answers { acked } else { 1 };
            flow.edge = flow.edge.max(from + u64::from(repr.window));
            flow.partner = answers.then_some(other.iss);
        } else if !flow.open {
            return;
        }
        let start = unwrap(flow.iss, flow.sent, repr.seq);
        let end = start
            + len
            + u64::from(repr.flags.contains(Flags::FIN))
            + u64::from(repr.flags.contains(Flags::SYN));
        flow.sent = flow.sent.max(end);
        if !other.open || !repr.flags.contains(Flags::ACK) {
            return;
        }
        if flow.partner != Some(other.iss) {
            // The other side began anew. Until this one means that, it speaks of earlier things.
            if u64::from(repr.ack.0.wrapping_sub(other.iss)) > other.sent {
                return;
            }
            *flow = Flow {
                partner: Some(other.iss),
                edge: 0,
                acked: 0,
                stamp: None,
                ..*flow
            };
        }
        let ack = unwrap(other.iss, flow.acked, repr.ack);
        if judged {
            assert!(ack <= other.sent, "wire: acknowledged what was not sent");
        }
        flow.acked = flow.acked.max(ack);
        if let Some(ts) = repr.options.timestamps
            && let Some(before) = flow.stamp.replace(ts.tsval)
            && judged
        {
            let step = ts.tsval.wrapping_sub(before).cast_signed();
            assert!(step >= 0, "wire: timestamps ran backwards");
        }
        for &(left, right) in &repr.options.sack {
            let end = unwrap(other.iss, ack, right);
            assert!(
                !judged || (left.lt(right) && end <= other.sent),
                "wire: SACK of what was not sent"
            );
        }
        if repr.flags.contains(Flags::SYN) || !self.scales_hold {
            return;
        }
        let scale = match (flow.scale, other.scale) {
            (Some(own), Some(_)) => own.min(14),
            _ => 0,
        };
        let edge = ack + (u64::from(repr.window) << scale);
        if judged {
            assert!(
                edge + (1 << scale) > flow.edge,
                "wire: the window shrank by {}",
                flow.edge - edge
            );
            assert!(
                end <= other.edge.max(1) || len == 0 && end <= other.edge + 1,
                "wire: sent {} beyond the window",
                end - other.edge
            );
        }
        flow.edge = flow.edge.max(edge);
    }
}
