//! What can be blamed for a daemon's death, and is quarantined when it is so again and again.
//!
//! A daemon notes in its vital signs what it works on ([`note`] says what a note's number means);
//! the supervisor reads the note of a dead one, names the culprit as a [`Suspect`], and tells the
//! daemons which suspects to leave alone ([`crate::config::DaemonConfig::quarantine`]).

use core::fmt;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// What the number of a noted packet is about, by what its linear data begins with.
pub mod note {
    /// A packet whose linear data begins with the Ethernet header.
    pub const FRAME: u32 = 16;
    /// With the IP header.
    pub const IP: u32 = 17;
    /// With the transport's header; the addresses are in the descriptor.
    pub const TRANSPORT: u32 = 18;
}

/// One direction of a flow: packets that say the same of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// TCP and UDP: the source port. ICMP: type and code. Else, and in fragments but the first, 0.
    pub src_port: u16,
    /// TCP and UDP: the destination port. ICMP echo: the identifier. Else 0.
    pub dst_port: u16,
}

/// What was at work when a daemon died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suspect {
    /// A packet of this flow.
    Flow(Flow),
    /// A packet that is of no flow, by a hash of its first bytes ([`digest`]).
    Packet(u64),
    /// A socket of the transport that died: its record, and which use of the record it is.
    Socket {
        /// The record's number.
        index: u32,
        /// Which use.
        generation: u32,
    },
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(flow) => {
                let Flow { src, dst, .. } = flow;
                let (from, to) = (flow.src_port, flow.dst_port);
                match flow.protocol {
                    6 => write!(f, "TCP {src}:{from} to {dst}:{to}"),
                    17 => write!(f, "UDP {src}:{from} to {dst}:{to}"),
                    1 | 58 => {
                        let [kind, code] = from.to_be_bytes();
                        write!(f, "ICMP {src} to {dst}, type {kind} code {code}, id {to}")
                    }
                    other => write!(f, "protocol {other}, {src} to {dst}"),
                }
            }
            Self::Packet(hash) => write!(f, "packet {hash:016x}"),
            Self::Socket { index, generation } => write!(f, "socket {index}.{generation}"),
        }
    }
}

/// Bytes of a packet that [`digest`] looks at.
pub const DIGESTED: usize = 128;

/// The hash in [`Suspect::Packet`]: FNV-1a of the first [`DIGESTED`] bytes. Who finds two packets
/// with one hash can have his own dropped by it.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(DIGESTED)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(digest(&[1; DIGESTED]), digest(&[1; DIGESTED + 1]));
    }

    #[test]
    fn suspects_read_well() {
        let flow = Flow {
            protocol: 6,
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            src_port: 4711,
            dst_port: 80,
        };
        let text = Suspect::Flow(flow).to_string();
        assert_eq!(text, "TCP 10.0.0.1:4711 to 10.0.0.2:80");
    }
}
