//! Reassembly (RFC 791 3.2, RFC 815): fragments are copied to their places in a large slot of
//! the own pool.
//!
//! ```text
//!   slot:  headroom | header room 64 | payload, each fragment at its offset
//! ```
//!
//! Bounds: 30 s from the first fragment, [`MAX_DATAGRAMS`] at once (and never more than half of
//! the pool's large slots), [`MAX_PER_SOURCE`] of one source, so that one sender cannot push out
//! everybody else's. What is being assembled is lost in a crash, as if a fragment had been.

mod ranges;

use super::counters::Counter;
use super::demux::Ingress;
use super::{Engine, Env};
use abi::Nanos;
use abi::skbuff::{HEADROOM, checksum, flag};
use core::net::Ipv4Addr;
use ranges::{Added, Ranges};
use shm::{SizeClass, SkBuff};
use wire::icmpv4::{self, exceeded};
use wire::ipv4::{HEADER_LEN, Repr};

/// Datagrams under reassembly at the most.
const MAX_DATAGRAMS: usize = 32;
/// Of one source.
const MAX_PER_SOURCE: usize = 8;
/// As Linux; RFC 1122 3.3.2 would have 60 to 120 s, from when a network was slower.
const TIMEOUT: Nanos = 30_000_000_000;
/// Place for the first fragment's header, options included.
const HEADER_ROOM: u32 = 64;

/// RFC 791 3.2: what fragments of one datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    ident: u16,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    expires: Nanos,
    ranges: Ranges,
    /// Bytes of payload, once the last fragment has come.
    total: Option<u32>,
    /// The header of the first fragment, which becomes the datagram's.
    first: Option<Repr>,
    /// Which of the four ECN codepoints have come, as bits (RFC 3168 5.3).
    ecn: u8,
    link_broadcast: bool,
    skb: SkBuff,
}

/// Datagrams of which some fragments have come, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    datagrams: Vec<Datagram>,
}

impl Reassembly {
    /// When the oldest is given up.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.datagrams.first().map(|d| d.expires)
    }

    /// Datagrams under way.
    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Which one gives way before another one of `src` is begun.
    fn victim(&self, src: Ipv4Addr, large_slots: u32) -> Option<usize> {
        let most = MAX_DATAGRAMS.min((large_slots / 2) as usize).max(1);
        let of_source = |d: &&Datagram| d.key.src == src;
        if self.datagrams.iter().filter(of_source).count() >= MAX_PER_SOURCE {
            return self.datagrams.iter().position(|d| d.key.src == src);
        }
        (self.datagrams.len() >= most).then_some(0)
    }
}

/// What a fragment did.
enum Step {
    Waiting,
    Whole,
    GiveUp(Option<Counter>),
}

impl Datagram {
    fn take(&mut self, env: &Env<'_>, header: &Repr, skb: &SkBuff) -> Step {
        let (start, len) = (u32::from(header.frag_offset), header.payload_len());
        let Ok(end) = u32::try_from(len).map(|len| start + len) else {
            return Step::GiveUp(None);
        };
        let known_end = self.total.unwrap_or(u32::MAX);
        let contradicts = if header.more_frags {
            end > known_end
        } else {
            self.ranges.end() > end || (self.total.is_some() && known_end != end)
        };
        if contradicts {
            return Step::GiveUp(Some(Counter::IpReasmOverlaps));
        }
        match self.ranges.add(start, end) {
            Added::Fresh => {}
            Added::Duplicate => return Step::GiveUp(Some(Counter::IpReasmDuplicates)),
            Added::Refused => return Step::GiveUp(Some(Counter::IpReasmOverlaps)),
        }
        let have = self.skb.linear_len();
        let (from, to) = (start as usize, end as usize);
        if to > have && self.skb.put(to - have).is_none() {
            return Step::GiveUp(None);
        }
        let Some(place) = self.skb.linear_mut().get_mut(from..to) else {
            return Step::GiveUp(None);
        };
        if env.arena.copy_out(skb, header.header_len(), place).is_err() {
            return Step::GiveUp(None);
        }
        self.ecn |= 1 << (header.tos & 3);
        self.link_broadcast |= skb.desc().flags & flag::LINK_BROADCAST != 0;
        if start == 0 {
            self.first = Some(header.clone());
        }
        if !header.more_frags {
            self.total = Some(end);
        }
        match self.total {
            Some(total) if self.ranges.is_whole(total) => Step::Whole,
            _ => Step::Waiting,
        }
    }

    /// The whole datagram, data at its IP header.
    fn finish(self) -> Option<(Repr, SkBuff)> {
        let mut header = self.first?;
        let mut skb = self.skb;
        header.more_frags = false;
        header.frag_offset = 0;
        header.total_len = u16::try_from(header.header_len() + skb.len()).ok()?;
        // RFC 3168 5.3: congestion experienced by one fragment was experienced by the datagram;
        // together with a fragment that is not ECN-capable it cannot be honest.
        if self.ecn & 0b1000 != 0 {
            if self.ecn & 0b0001 != 0 {
                return None;
            }
            header.tos |= 3;
        }
        let place = skb.push(header.header_len())?;
        header.emit(place).ok()?;
        let desc = skb.desc_mut();
        // Each fragment was verified by nobody: the transport must look at the whole.
        desc.ip_summed = checksum::NONE;
        desc.flags = if self.link_broadcast {
            flag::LINK_BROADCAST
        } else {
            0
        };
        Some((header, skb))
    }
}

impl Engine {
    /// Takes a fragment, data at its IP header; answers the datagram when it is whole.
    pub(super) fn reassemble(
        &mut self,
        env: &mut Env<'_>,
        ingress: Ingress,
        header: &Repr,
        skb: SkBuff,
    ) -> Option<(Repr, SkBuff)> {
        self.counters.bump(Counter::IpReasmReqds);
        let len = header.payload_len();
        let end = usize::from(header.frag_offset) + len;
        // RFC 791 3.2: all but the last are multiples of 8. No datagram exceeds 65,535 bytes,
        // whatever offset and length say together.
        let odd = header.more_frags && !len.is_multiple_of(8);
        if odd || len == 0 || HEADER_LEN + end > usize::from(u16::MAX) {
            self.counters.bump(Counter::IpInHdrErrors);
            return None;
        }
        let key = Key {
            src: header.src,
            dst: header.dst,
            protocol: header.protocol,
            ident: header.ident,
        };
        let known = self.reassembly.datagrams.iter().position(|d| d.key == key);
        let at = match known {
            Some(at) => at,
            None => self.begin(env, key, ingress, &skb)?,
        };
        let datagram = self.reassembly.datagrams.get_mut(at)?;
        match datagram.take(env, header, &skb) {
            Step::Waiting => {
                self.counters.add(Counter::IpCopiedBytes, len as u64);
                None
            }
            // Linux, too: an exact duplicate harms nobody; the datagram lives.
            Step::GiveUp(Some(Counter::IpReasmDuplicates)) => {
                self.counters.bump(Counter::IpReasmDuplicates);
                None
            }
            Step::GiveUp(cause) => {
                self.reassembly.datagrams.remove(at);
                self.counters.bump(Counter::IpReasmFails);
                if let Some(cause) = cause {
                    self.counters.bump(cause);
                }
                None
            }
            Step::Whole => {
                self.counters.add(Counter::IpCopiedBytes, len as u64);
                let whole = self.reassembly.datagrams.remove(at).finish();
                let counter = if whole.is_some() {
                    Counter::IpReasmOks
                } else {
                    Counter::IpReasmFails
                };
                self.counters.bump(counter);
                whole
            }
        }
    }

    fn begin(
        &mut self,
        env: &mut Env<'_>,
        key: Key,
        ingress: Ingress,
        fragment: &SkBuff,
    ) -> Option<usize> {
        if let Some(victim) = self
            .reassembly
            .victim(key.src, env.alloc.pool().layout().large_slots)
        {
            self.reassembly.datagrams.remove(victim);
            self.counters.bump(Counter::IpReasmEvicted);
            self.counters.bump(Counter::IpReasmFails);
        }
        let Some(mut skb) = env.alloc.alloc(SizeClass::Large) else {
            self.counters.bump(Counter::NoBuffers);
            return None;
        };
        skb.reserve(HEADROOM + HEADER_ROOM);
        let desc = skb.desc_mut();
        (desc.dev_in, desc.stamp) = (ingress.device.0, fragment.desc().stamp);
        self.reassembly.datagrams.push(Datagram {
            key,
            expires: env.now + TIMEOUT,
            ranges: Ranges::default(),
            total: None,
            first: None,
            ecn: 0,
            link_broadcast: false,
            skb,
        });
        Some(self.reassembly.datagrams.len() - 1)
    }

    /// Gives up what has taken too long.
    pub(super) fn expire_reassembly(&mut self, env: &mut Env<'_>) {
        while self.reassembly.deadline().is_some_and(|at| at <= env.now) {
            let old = self.reassembly.datagrams.remove(0);
            self.counters.bump(Counter::IpReasmTimeout);
            self.counters.bump(Counter::IpReasmFails);
            // RFC 1122 3.3.2: "if the first fragment has been received, an ICMP Time Exceeded
            // message" is sent, quoting it.
            let (Some(first), mut skb) = (old.first, old.skb) else {
                continue;
            };
            if super::output::push_header(&mut skb, &first) {
                if old.link_broadcast {
                    skb.desc_mut().flags |= flag::LINK_BROADCAST;
                }
                let error = icmpv4::Repr::TimeExceeded {
                    code: exceeded::REASSEMBLY,
                };
                self.icmp_error(env, &error, &first, &skb);
            }
        }
    }
}
