//! ICMP errors as sockets see them.

use super::Errno;
use super::demux::Flow;
use super::record::Kind;
use super::socket::Socket;
use abi::Endpoint;
use core::net::IpAddr;
use wire::icmpv4::{Embedded, Repr, unreachable};

/// An ICMP error about something that a socket sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// What it is about: own and peer's address; of a ping the own port is the identifier.
    pub flow: Flow,
    /// What the socket is told.
    pub errno: Errno,
    /// Will not go away by trying again (RFC 1122 4.2.3.9 calls them hard).
    pub hard: bool,
}

impl Trouble {
    /// Whether a socket is told. As Linux without `IP_RECVERR`: only of hard errors, and only if
    /// it is connected, so that it is clear what they are about. Ping sockets are told of all,
    /// since to learn them is what they are for.
    #[must_use]
    pub fn concerns(&self, socket: &Socket) -> bool {
        match socket.kind {
            Kind::Ping => true,
            Kind::Udp | Kind::Raw(_) => self.hard && socket.is_connected(),
        }
    }
}

/// The meaning of an error message; none for those that sockets are not told of.
#[must_use]
pub fn meaning(message: &Repr, about: &Embedded) -> Option<Trouble> {
    let (errno, hard) = match *message {
        Repr::DestinationUnreachable { code, .. } => unreachable_errno(code)?,
        Repr::TimeExceeded { .. } => (libc::EHOSTUNREACH, false),
        Repr::ParameterProblem { .. } => (libc::EPROTO, true),
        _ => return None,
    };
    let (src_port, dst_port) = match about.protocol {
        wire::protocol::ICMP if about.frag_offset == 0 => {
            let [_, _, _, _, a, b, ..] = about.transport;
            (u16::from_be_bytes([a, b]), 0)
        }
        _ => about.ports()?,
    };
    let flow = Flow {
        local: Endpoint::new(IpAddr::V4(about.src), src_port),
        peer: Endpoint::new(IpAddr::V4(about.dst), dst_port),
    };
    Some(Trouble { flow, errno, hard })
}

/// Linux's `icmp_err_convert`: errno, and whether it is hard.
fn unreachable_errno(code: u8) -> Option<(Errno, bool)> {
    Some(match code {
        unreachable::NET => (libc::ENETUNREACH, false),
        unreachable::HOST => (libc::EHOSTUNREACH, false),
        unreachable::PROTOCOL => (libc::ENOPROTOOPT, true),
        unreachable::PORT => (libc::ECONNREFUSED, true),
        // Path MTU discovery: the sender is to make its datagrams smaller.
        unreachable::FRAG_NEEDED => (libc::EMSGSIZE, true),
        unreachable::SOURCE_ROUTE => (libc::EOPNOTSUPP, false),
        6 | 9 => (libc::ENETUNREACH, true),
        7 => (libc::EHOSTDOWN, true),
        8 => (libc::ENONET, true),
        10 | 13..=15 => (libc::EHOSTUNREACH, true),
        11 => (libc::ENETUNREACH, false),
        12 => (libc::EHOSTUNREACH, false),
        _ => return None,
    })
}
