//! What a packet is for the purposes of blame, and which packets are left alone.
//!
//! Used by the supervisor on what a dead daemon had at work, and by the daemons on every packet
//! they take, but only while something is quarantined. Reads as little as it can: what is
//! quarantined has killed a parser.

use abi::Endpoint;
use abi::skbuff::{SkBuffDesc, kind};
use abi::suspect::{Flow, Suspect, digest, note};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The suspect that a packet is: `begins` ([`note`]) says what its linear data begins with.
#[must_use]
pub fn identify(begins: u32, desc: &SkBuffDesc, linear: &[u8]) -> Suspect {
    let flow = match begins {
        note::FRAME => frame(linear),
        note::IP => ip(linear),
        note::TRANSPORT if desc.kind == kind::PACKET => transport(desc, linear),
        _ => None,
    };
    flow.map_or_else(|| Suspect::Packet(digest(linear)), Suspect::Flow)
}

fn frame(bytes: &[u8]) -> Option<Flow> {
    let [hi, lo] = at(bytes, 12)?;
    match u16::from_be_bytes([hi, lo]) {
        0x0800 | 0x86dd => ip(bytes.get(14..)?),
        _ => None,
    }
}

fn ip(bytes: &[u8]) -> Option<Flow> {
    let [first] = at(bytes, 0)?;
    match first >> 4 {
        4 => {
            let header = usize::from(first & 0xf) * 4;
            let [hi, lo] = at(bytes, 6)?;
            let [protocol] = at(bytes, 9)?;
            let (src, dst): ([u8; 4], [u8; 4]) = (at(bytes, 12)?, at(bytes, 16)?);
            let later = u16::from_be_bytes([hi, lo]) & 0x1fff != 0;
            let rest = bytes.get(header.max(20)..).filter(|_| !later);
            let rest = rest.unwrap_or_default();
            Some(flow(
                protocol,
                Ipv4Addr::from(src).into(),
                Ipv4Addr::from(dst).into(),
                rest,
            ))
        }
        6 => {
            let [next] = at(bytes, 6)?;
            let (src, dst): ([u8; 16], [u8; 16]) = (at(bytes, 8)?, at(bytes, 24)?);
            let rest = bytes.get(40..).unwrap_or_default();
            Some(flow(
                next,
                Ipv6Addr::from(src).into(),
                Ipv6Addr::from(dst).into(),
                rest,
            ))
        }
        _ => None,
    }
}

fn transport(desc: &SkBuffDesc, bytes: &[u8]) -> Option<Flow> {
    let address = |addr| {
        let port = 0;
        let family = desc.family;
        Endpoint { addr, family, port }.ip()
    };
    Some(flow(
        desc.protocol,
        address(desc.src)?,
        address(desc.dst)?,
        bytes,
    ))
}

fn flow(protocol: u8, src: IpAddr, dst: IpAddr, rest: &[u8]) -> Flow {
    let word = |offset| at(rest, offset).map_or(0, u16::from_be_bytes);
    let (src_port, dst_port) = match protocol {
        TCP | UDP => (word(0), word(2)),
        ICMP | ICMPV6 => (word(0), word(4)),
        _ => (0, 0),
    };
    Flow {
        protocol,
        src,
        dst,
        src_port,
        dst_port,
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// What a daemon leaves alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    packets: Vec<Suspect>,
}

impl Quarantine {
    /// Of what the supervisor says; sockets are the transports' own business.
    #[must_use]
    pub fn new(suspects: &[Suspect]) -> Self {
        let packets = suspects.iter().copied();
        Self {
            packets: packets
                .filter(|s| !matches!(s, Suspect::Socket { .. }))
                .collect(),
        }
    }

    /// Whether nothing is quarantined.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether a packet is to be dropped unseen. `down` says that it is on its way to the device:
    /// then the segment that ends a quarantined TCP connection may pass, which is of our own
    /// making, 20 bytes, and what the peer is owed.
    #[must_use]
    pub fn holds(&self, begins: u32, desc: &SkBuffDesc, linear: &[u8], down: bool) -> bool {
        if self.packets.is_empty() || !self.packets.contains(&identify(begins, desc, linear)) {
            return false;
        }
        !(down && is_reset(begins, desc, linear))
    }
}

fn is_reset(begins: u32, desc: &SkBuffDesc, linear: &[u8]) -> bool {
    let (protocol, header): (u8, usize) = match begins {
        note::TRANSPORT => (desc.protocol, 0),
        // Ours have no options.
        note::FRAME => (at(linear, 23).map_or(0, |[p]| p), 34),
        _ => return false,
    };
    let flags = at(linear, header + 13).map_or(0, |[flags]: [u8; 1]| flags);
    protocol == TCP && flags & 4 != 0 && linear.len() <= header + 20 && desc.nr_frags == 0
}

/// Which way packets go that a service takes from a neighbour, and what they begin with.
#[must_use]
pub(crate) fn coming(from_device: bool, is_upper: bool) -> (u32, bool) {
    match (from_device, is_upper) {
        (true, true) => (note::IP, false),
        (true, false) => (note::FRAME, true),
        (false, upper) => (note::TRANSPORT, !upper),
    }
}

/// The flow's other direction.
#[must_use]
pub fn reversed(flow: &Flow) -> Flow {
    Flow {
        protocol: flow.protocol,
        src: flow.dst,
        dst: flow.src,
        src_port: flow.dst_port,
        dst_port: flow.src_port,
    }
}

/// Whether `suspect` says something of the connection whose ends these are.
#[must_use]
pub fn concerns(suspect: &Suspect, protocol: u8, local: Endpoint, remote: Endpoint) -> bool {
    let Suspect::Flow(flow) = suspect else {
        return false;
    };
    let (Some(here), Some(there)) = (local.ip(), remote.ip()) else {
        return false;
    };
    let incoming = Flow {
        protocol,
        src: there,
        dst: here,
        src_port: remote.port,
        dst_port: local.port,
    };
    *flow == incoming || *flow == reversed(&incoming)
}

#[cfg(test)]
mod tests;
