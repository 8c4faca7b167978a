//! ICMP for IPv4 (RFC 792, RFC 1122 3.2.2): what comes in. Making errors is in [`error`].

mod error;
mod limit;

pub(super) use limit::Limiter;

use super::counters::Counter;
use super::demux::Ingress;
use super::output::Outgoing;
use super::route::Kind;
use super::{Engine, Env, checksum};
use abi::skbuff::checksum::{NONE, PARTIAL};
use abi::skbuff::{gso, kind};
use core::net::IpAddr;
use shm::SkBuff;
use wire::checksum::Checksum;
use wire::icmpv4::{self, Embedded, Repr as Message, unreachable};
use wire::ipv4::Repr;
use wire::protocol;

/// The upper six bits of TOS: an answer has the request's class, but not its congestion marks.
const DSCP_MASK: u8 = 0xfc;

impl Engine {
    /// Takes an ICMP message, data at its IP header.
    pub(super) fn icmp_input(
        &mut self,
        env: &mut Env<'_>,
        ingress: Ingress,
        header: &Repr,
        skb: SkBuff,
    ) {
        self.counters.bump(Counter::IcmpInMsgs);
        let at = header.header_len();
        let Ok(message) = Message::parse_unchecked(skb.linear().get(at..).unwrap_or_default())
        else {
            return self.counters.bump(Counter::IcmpInErrors);
        };
        if skb.desc().ip_summed == NONE {
            let mut sum = Checksum::new();
            let whole = checksum::add(&mut sum, env.arena, &skb, at, header.payload_len());
            if whole.is_err() || sum.finish() != 0 {
                return self.counters.bump(Counter::IcmpInCsumErrors);
            }
        }
        match message {
            Message::EchoRequest { .. } => {
                self.counters.bump(Counter::IcmpInEchos);
                if ingress.to_many {
                    // RFC 1122 3.2.2.6: may be ignored, and is, against smurf attacks.
                    return self.counters.bump(Counter::IcmpInEchoBcast);
                }
                self.echo_reply(env, ingress, header, skb);
            }
            Message::EchoReply { .. } => {
                self.counters.bump(Counter::IcmpInEchoReps);
                match self.protocols.get(protocol::ICMP) {
                    Some(upper) => {
                        let what = (kind::PACKET, protocol::ICMP);
                        self.deliver(env, ingress, upper, header, what, skb);
                    }
                    None => self.counters.bump(Counter::IcmpInUnmatched),
                }
            }
            Message::DestinationUnreachable { .. }
            | Message::TimeExceeded { .. }
            | Message::ParameterProblem { .. } => {
                self.error_input(env, ingress, header, &message, skb);
            }
            // RFC 6633 1: source quench is ignored. Redirects are, too: a stranger's word is not
            // enough to send traffic elsewhere.
            Message::Other { .. } => self.counters.bump(Counter::IcmpInIgnored),
        }
    }

    /// RFC 1122 3.2.2.6: every host must answer echo requests. The request's own buffer goes
    /// back, its payload untouched.
    fn echo_reply(&mut self, env: &mut Env<'_>, ingress: Ingress, header: &Repr, mut skb: SkBuff) {
        // A buffer of one device's pool cannot be read by another device's driver.
        let leaves = self
            .route(header.src, env.now)
            .filter(|r| r.kind != Kind::Local);
        let elsewhere = leaves.is_some_and(|r| r.device != ingress.device);
        if elsewhere && !Self::is_own(env, &skb) {
            let Some(copy) = self.copy_to_own(env, &skb) else {
                return;
            };
            skb = copy;
        }
        if !skb.pull(header.header_len()) {
            return self.counters.bump(Counter::IcmpInErrors);
        }
        let partial = skb.desc().ip_summed == PARTIAL;
        let answered = if partial {
            // The field holds no sum yet; whoever completes it will see the new type.
            skb.linear_mut()
                .first_mut()
                .map(|kind| *kind = icmpv4::kind::ECHO_REPLY)
        } else {
            icmpv4::reply_in_place(skb.linear_mut()).ok()
        };
        if answered.is_none() {
            return self.counters.bump(Counter::IcmpInErrors);
        }
        let desc = skb.desc_mut();
        if !partial {
            desc.ip_summed = NONE;
        }
        (desc.gso_type, desc.gso_size) = (gso::NONE, 0);
        (desc.flags, desc.dev_in) = (0, 0);
        self.counters.bump(Counter::IcmpOutMsgs);
        self.counters.bump(Counter::IcmpOutEchoReps);
        let what = Outgoing {
            src: Some(header.dst),
            dst: header.src,
            protocol: protocol::ICMP,
            ttl: 0,
            tos: header.tos & DSCP_MASK,
            dont_frag: false,
            broadcast_ok: false,
            device: None,
            origin: ingress.origin,
        };
        self.ipv4_output(env, &what, skb);
    }

    /// An error about what this host sent, or so it says.
    fn error_input(
        &mut self,
        env: &mut Env<'_>,
        ingress: Ingress,
        header: &Repr,
        message: &Message,
        skb: SkBuff,
    ) {
        let counter = match message {
            Message::TimeExceeded { .. } => Counter::IcmpInTimeExcds,
            Message::ParameterProblem { .. } => Counter::IcmpInParmProbs,
            _ => Counter::IcmpInDestUnreachs,
        };
        self.counters.bump(counter);
        let at = header.header_len() + icmpv4::HEADER_LEN;
        let quoted = skb.linear().get(at..).unwrap_or_default();
        let Ok(embedded) = Embedded::parse(quoted) else {
            return self.counters.bump(Counter::IcmpInErrors);
        };
        // Anybody can send errors: at least it must be about something of ours.
        if ingress.to_many || !self.fib.is_local(IpAddr::V4(embedded.src)) {
            return self.counters.bump(Counter::IcmpInUnmatched);
        }
        if let &Message::DestinationUnreachable {
            code: unreachable::FRAG_NEEDED,
            next_hop_mtu,
        } = message
        {
            self.learn_path_mtu(env, &embedded, next_hop_mtu);
        }
        // RFC 1122 3.2.2.1: must be passed to the transport.
        match self.protocols.get(embedded.protocol) {
            Some(upper) => {
                let what = (kind::ICMP_ERROR, embedded.protocol);
                self.deliver(env, ingress, upper, header, what, skb);
            }
            None => self.counters.bump(Counter::IcmpInUnmatched),
        }
    }

    /// RFC 1191 3: the path to the quoted destination carries less than was thought.
    fn learn_path_mtu(&mut self, env: &mut Env<'_>, embedded: &Embedded, reported: u16) {
        let route = self
            .route(embedded.dst, env.now)
            .filter(|r| r.kind == Kind::Unicast);
        let Some(route) = route else { return };
        let (dst, len) = (IpAddr::V4(embedded.dst), embedded.total_len);
        if self
            .pmtu
            .update(dst, reported, len, route.mtu, env.now)
            .is_some()
        {
            self.counters.bump(Counter::PmtuUpdates);
            self.cache.forget(dst);
        }
    }
}
