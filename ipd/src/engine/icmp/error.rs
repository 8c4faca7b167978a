//! Making ICMP errors: for strangers (RFC 1122 3.2.2, rate-limited), and for this host's own
//! transports about what they sent.

use super::limit::Refused;
use crate::engine::counters::Counter;
use crate::engine::demux::Ingress;
use crate::engine::output::{Outgoing, header_for, push_header};
use crate::engine::route::Kind;
use crate::engine::{Engine, Env, header};
use abi::DevIndex;
use abi::skbuff::{checksum, flag, kind};
use core::net::Ipv4Addr;
use shm::SkBuff;
use wire::icmpv4::{self, MAX_ERROR_LEN, Repr as Message};
use wire::ipv4::{HEADER_LEN, Repr};
use wire::protocol;

/// RFC 1812 4.3.2.5: errors have precedence 6, internetwork control.
const ERROR_TOS: u8 = 0xc0;

impl Engine {
    /// Sends `message` about a received datagram, if that may be done at all. `offending` has
    /// its `network` offset set and `header` is what is there.
    pub(in crate::engine) fn icmp_error(
        &mut self,
        env: &mut Env<'_>,
        message: &Message,
        header: &Repr,
        offending: &SkBuff,
    ) {
        let quoted = offending.from_offset(offending.desc().network);
        let link_broadcast = offending.desc().flags & flag::LINK_BROADCAST != 0;
        if link_broadcast || !self.may_complain(env, header, quoted) {
            return self.counters.bump(Counter::IcmpOutSuppressed);
        }
        let leaves = self
            .route(header.src, env.now)
            .is_none_or(|r| r.kind != Kind::Local);
        if leaves {
            match self.limiter.allow(header.src, env.now) {
                Ok(()) => {}
                Err(Refused::Global) => return self.counters.bump(Counter::IcmpOutRateGlobal),
                Err(Refused::Host) => return self.counters.bump(Counter::IcmpOutRateHost),
            }
        }
        let Some(skb) = self.build_error(env, message, quoted) else {
            return;
        };
        self.counters.bump(Counter::IcmpOutMsgs);
        self.counters.bump(match message {
            Message::TimeExceeded { .. } => Counter::IcmpOutTimeExcds,
            Message::ParameterProblem { .. } => Counter::IcmpOutParmProbs,
            _ => Counter::IcmpOutDestUnreachs,
        });
        let what = Outgoing {
            src: Some(header.dst),
            dst: header.src,
            protocol: protocol::ICMP,
            ttl: 0,
            tos: ERROR_TOS,
            dont_frag: false,
            broadcast_ok: false,
            device: None,
            origin: None,
        };
        self.ipv4_output(env, &what, skb);
    }

    /// RFC 1122 3.2.2: no error about an ICMP error, about what went to many, about a fragment
    /// other than the first, or to a source that is no single host.
    fn may_complain(&mut self, env: &Env<'_>, header: &Repr, quoted: &[u8]) -> bool {
        if header.frag_offset != 0 {
            return false;
        }
        if self
            .route(header.dst, env.now)
            .is_none_or(|r| r.kind != Kind::Local)
        {
            return false;
        }
        let single = !header.src.is_unspecified() && !header.src.is_multicast();
        let reachable = self
            .route(header.src, env.now)
            .is_some_and(|r| matches!(r.kind, Kind::Unicast | Kind::Local));
        single && reachable && !is_icmp_error(header, quoted)
    }

    /// Takes a received packet back from a transport that wants an error sent about it, `mark`
    /// being type and code. A destination port that nobody has open is the common case.
    pub(in crate::engine) fn icmp_requested(&mut self, env: &mut Env<'_>, skb: &SkBuff) {
        let [_, _, kind, code] = skb.desc().mark.to_be_bytes();
        let message = match kind {
            icmpv4::kind::DEST_UNREACHABLE => Message::DestinationUnreachable {
                code,
                next_hop_mtu: 0,
            },
            icmpv4::kind::TIME_EXCEEDED => Message::TimeExceeded { code },
            icmpv4::kind::PARAMETER_PROBLEM => Message::ParameterProblem { code, pointer: 0 },
            _ => return self.counters.bump(Counter::IpOutDiscards),
        };
        // The header was valid when it came in, but has been in others' hands since.
        match header::parse(skb.from_offset(skb.desc().network), usize::MAX) {
            Ok(header) => self.icmp_error(env, &message, &header, skb),
            Err(_) => self.counters.bump(Counter::IpOutDiscards),
        }
    }

    /// Tells the transport that sent `offending` (data at its IP header) what is wrong, with a
    /// message that looks as if a router had sent it.
    pub(in crate::engine) fn local_error(
        &mut self,
        env: &mut Env<'_>,
        message: &Message,
        offending: &SkBuff,
    ) {
        let Ok(sent) = header::parse(offending.linear(), usize::MAX) else {
            return;
        };
        // Of a datagram's fragments the first speaks for all; our own answers have no sender.
        let echo = offending.linear().get(sent.header_len()) == Some(&icmpv4::kind::ECHO_REQUEST);
        if sent.frag_offset != 0 || (sent.protocol == protocol::ICMP && !echo) {
            return;
        }
        let Some(upper) = self.protocols.get(sent.protocol) else {
            return;
        };
        let Some(mut skb) = self.build_error(env, message, offending.linear()) else {
            return;
        };
        skb.desc_mut().ip_summed = checksum::UNNECESSARY;
        let own = if sent.src.is_unspecified() {
            Ipv4Addr::LOCALHOST
        } else {
            sent.src
        };
        let what = Outgoing {
            src: Some(own),
            dst: own,
            protocol: protocol::ICMP,
            ttl: 0,
            tos: ERROR_TOS,
            dont_frag: false,
            broadcast_ok: false,
            device: None,
            origin: None,
        };
        let total_len = u16::try_from(HEADER_LEN + skb.len()).unwrap_or(u16::MAX);
        let header = header_for(&what, 0, total_len);
        if push_header(&mut skb, &header) {
            self.counters.bump(Counter::IcmpOutLocal);
            let ingress = Ingress {
                device: DevIndex(0),
                origin: None,
                looped: true,
                to_many: false,
            };
            self.deliver(
                env,
                ingress,
                upper,
                &header,
                (kind::ICMP_ERROR, sent.protocol),
                skb,
            );
        }
    }

    /// An ICMP error in a fresh sk_buff, data at the ICMP header.
    fn build_error(
        &mut self,
        env: &mut Env<'_>,
        message: &Message,
        quoted: &[u8],
    ) -> Option<SkBuff> {
        let mut skb = self.alloc(env, MAX_ERROR_LEN)?;
        let len = icmpv4::build_error(message, quoted, skb.put(MAX_ERROR_LEN)?).ok()?;
        skb.trim(len);
        Some(skb)
    }
}

/// Whether a datagram is an ICMP message that must not be answered by an error.
fn is_icmp_error(header: &Repr, quoted: &[u8]) -> bool {
    header.protocol == protocol::ICMP
        && quoted
            .get(header.header_len()..)
            .and_then(|m| Message::parse_unchecked(m).ok())
            .is_none_or(|m| m.is_error())
}
