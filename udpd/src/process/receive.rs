//! From ipd's ring into the receive buffers: the one copy, across the boundary between
//! applications.

use super::Udpd;
use super::counters::Counter;
use crate::engine::demux::{Flow, Space};
use crate::engine::errors;
use crate::engine::queue::HEADER;
use abi::session::{DATAGRAM_SKIP, DatagramHeader};
use abi::skbuff::{checksum, flag, kind};
use abi::suspect::note;
use abi::{Endpoint, Nanos};
use core::net::IpAddr;
use runtime::{Context, Plumbing};
use shm::arena::Piece;
use shm::vitals::stage;
use shm::{Arena, SkBuff};
use wire::checksum::{Checksum, pseudo_header};
use wire::icmpv4::{self, Embedded};
use wire::protocol;
use wire::udp::RawHeader;
use zerocopy::{FromBytes, IntoBytes};

/// Type and code of "port unreachable", as ipd is asked for it.
const PORT_UNREACHABLE: u32 =
    (icmpv4::kind::DEST_UNREACHABLE as u32) << 8 | icmpv4::unreachable::PORT as u32;

/// A received packet as the rest looks at it.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    src: IpAddr,
    dst: IpAddr,
    to_many: bool,
    now: Nanos,
}

impl Udpd {
    /// Takes up to `budget` packets from each link.
    pub(super) fn receive_all(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        let now = cx.now;
        let Plumbing {
            arena,
            links,
            vitals,
            ..
        } = &mut *cx.plumbing;
        let mut handled = 0;
        for link in links.iter_mut() {
            handled += link.recv(arena, budget, |skb| {
                vitals.note_packet(note::TRANSPORT, &skb);
                if vitals.tracing() {
                    let detail = u64::from(skb.desc().protocol);
                    let now = runtime::clock::now();
                    vitals.trace(now, stage::TRANSPORT_IN, skb.handle(), skb.len(), detail);
                }
                self.receive(arena, now, skb);
            });
        }
        if handled > 0 {
            vitals.note(0, 0);
        }
        if let Some(link) = links.first_mut() {
            for skb in self.bounced.drain(..) {
                // Full: an error less, which nobody may rely on.
                let _ = link.send(skb);
            }
        }
        handled
    }

    fn receive(&mut self, arena: &Arena, now: Nanos, mut skb: SkBuff) {
        let d = skb.desc();
        let endpoint = |addr| {
            Endpoint {
                addr,
                family: d.family,
                port: 0,
            }
            .ip()
        };
        let (Some(src), Some(dst)) = (endpoint(d.src), endpoint(d.dst)) else {
            return self.counts.bump(Counter::UdpInErrors);
        };
        let arrival = Arrival {
            src,
            dst,
            to_many: d.flags & flag::LINK_BROADCAST != 0,
            now,
        };
        let is_error = d.kind == kind::ICMP_ERROR;
        // With an error, ipd says whose packet it is about.
        let about = d.protocol;
        let own = if is_error { protocol::ICMP } else { about };
        if self.engine.has_raw(own) {
            self.raw(arena, own, &arrival, &mut skb);
        }
        match (is_error, about) {
            (true, _) => self.icmp_error(about, &skb),
            (false, protocol::UDP) => self.udp(arena, &arrival, skb),
            (false, protocol::ICMP) => self.echo_reply(arena, &arrival, &skb),
            _ => {}
        }
    }

    fn udp(&mut self, arena: &Arena, arrival: &Arrival, mut skb: SkBuff) {
        let mut bytes = [0u8; wire::udp::HEADER_LEN];
        if arena.copy_out(&skb, 0, &mut bytes).is_err() {
            return self.counts.bump(Counter::UdpInErrors);
        }
        let Ok(header) = RawHeader::read_from_bytes(&bytes) else {
            return;
        };
        let len = usize::from(header.len.get());
        if len < wire::udp::HEADER_LEN || len > skb.len() {
            return self.counts.bump(Counter::UdpInErrors);
        }
        if skb.desc().ip_summed == checksum::NONE
            && !self.sum_is_right(arena, arrival, &skb, len, header.checksum.get())
        {
            self.counts.bump(Counter::UdpInCsumErrors);
            return self.counts.bump(Counter::UdpInErrors);
        }
        let flow = Flow {
            local: Endpoint::new(arrival.dst, header.dst_port.get()),
            peer: Endpoint::new(arrival.src, header.src_port.get()),
        };
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        self.engine
            .receivers(Space::Udp, &flow, arrival.to_many, &mut targets);
        if targets.is_empty() {
            self.counts.bump(Counter::UdpNoPorts);
            if !arrival.to_many {
                // RFC 1122 4.1.3.1: should be answered with a port unreachable.
                self.counts.bump(Counter::Unreachables);
                let d = skb.desc_mut();
                d.kind = kind::ICMP_ERROR;
                d.mark = PORT_UNREACHABLE;
                self.bounced.push(skb);
            }
        } else {
            for &index in &targets {
                let at = wire::udp::HEADER_LEN;
                if self.deliver(arena, arrival, index, &flow, &skb, at, len - at) {
                    self.counts.bump(Counter::UdpInDatagrams);
                }
            }
        }
        self.targets = targets;
    }

    /// RFC 768: no checksum is 0, over IPv4 only (RFC 8200 8.1).
    fn sum_is_right(
        &self,
        arena: &Arena,
        arrival: &Arrival,
        skb: &SkBuff,
        len: usize,
        field: u16,
    ) -> bool {
        if field == 0 {
            return arrival.src.is_ipv4();
        }
        let Ok(len32) = u32::try_from(len) else {
            return false;
        };
        let mut sum = pseudo_header(arrival.src, arrival.dst, protocol::UDP, len32);
        add(&mut sum, arena, skb, len) && sum.finish() == 0
    }

    fn echo_reply(&mut self, arena: &Arena, arrival: &Arrival, skb: &SkBuff) {
        let Ok(icmpv4::Repr::EchoReply { ident, .. }) = icmpv4::Repr::parse_unchecked(skb.linear())
        else {
            return self.counts.bump(Counter::PingUnmatched);
        };
        let flow = Flow {
            local: Endpoint::new(arrival.dst, ident),
            peer: Endpoint::new(arrival.src, 0),
        };
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        self.engine
            .receivers(Space::Ping, &flow, false, &mut targets);
        if targets.is_empty() {
            self.counts.bump(Counter::PingUnmatched);
        }
        for &index in &targets {
            if self.deliver(arena, arrival, index, &flow, skb, 0, skb.len()) {
                self.counts.bump(Counter::PingIn);
            }
        }
        self.targets = targets;
    }

    /// Raw sockets get the packet with its IP header.
    fn raw(&mut self, arena: &Arena, protocol: u8, arrival: &Arrival, skb: &mut SkBuff) {
        let network = u32::from(skb.desc().network);
        let Some(header) = skb.data_offset().checked_sub(network).map(|n| n as usize) else {
            return;
        };
        // 20 to 60 bytes; anything else is no IPv4 header in front of the data.
        if !(20..=60).contains(&header) || skb.push(header).is_none() {
            return;
        }
        let flow = Flow {
            local: Endpoint::new(arrival.dst, 0),
            peer: Endpoint::new(arrival.src, 0),
        };
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        self.engine
            .raw_receivers(protocol, arrival.dst, arrival.src, &mut targets);
        for &index in &targets {
            if self.deliver(arena, arrival, index, &flow, skb, 0, skb.len()) {
                self.counts.bump(Counter::RawIn);
            }
        }
        self.targets = targets;
        skb.pull(header);
    }

    fn icmp_error(&mut self, about: u8, skb: &SkBuff) {
        self.counts.bump(Counter::IcmpErrors);
        let bytes = skb.linear();
        let message = icmpv4::Repr::parse_unchecked(bytes);
        let quoted = bytes.get(icmpv4::HEADER_LEN..).map(Embedded::parse);
        let (Ok(message), Some(Ok(quoted))) = (message, quoted) else {
            return self.counts.bump(Counter::IcmpUnmatched);
        };
        let space = match about {
            protocol::UDP => Space::Udp,
            protocol::ICMP => Space::Ping,
            _ => return,
        };
        let found = errors::meaning(&message, &quoted)
            .filter(|_| quoted.protocol == about)
            .and_then(|t| Some((t, self.engine.find(space, &t.flow)?)));
        let Some((trouble, index)) = found else {
            return self.counts.bump(Counter::IcmpUnmatched);
        };
        if self.engine.get(index).is_some_and(|s| trouble.concerns(s)) {
            self.post_error(index, trouble.errno);
        }
    }

    /// Copies `len` bytes of the packet, from `at` on, behind the socket's last datagram; shown
    /// to the application by `release`.
    #[allow(clippy::too_many_arguments, reason = "one packet's facts, used once")]
    fn deliver(
        &mut self,
        arena: &Arena,
        arrival: &Arrival,
        index: u32,
        flow: &Flow,
        skb: &SkBuff,
        at: usize,
        len: usize,
    ) -> bool {
        let capacity = u64::from(self.engine.capacity().1);
        let place = |this: &Self| {
            let s = this.engine.get(index)?;
            s.rx.place(len as u64, capacity, s.record.rx_limit.into())
        };
        let mut found = place(self);
        if found.is_none() && self.load_words(index) {
            // The application may have taken some meanwhile.
            found = place(self);
        }
        let Some(socket) = self.engine.get_mut(index) else {
            return false;
        };
        let Some(place) = found else {
            socket.drops += 1;
            self.counts.bump(Counter::RcvbufErrors);
            return false;
        };
        let Some(memory) = self.sessions.memory(socket.place().region) else {
            return false;
        };
        let Some(base) = memory.rx_offset(socket.record.slot) else {
            return false;
        };
        let d = skb.desc();
        let peer = Endpoint::new(socket.shown(arrival.src), flow.peer.port);
        let local = Endpoint::new(socket.shown(arrival.dst), flow.local.port);
        let len32 = u32::try_from(len).unwrap_or(0);
        let header = DatagramHeader {
            len: len32,
            wire_len: len32,
            peer,
            local,
            device: d.dev_in,
            ttl: d.ttl,
            tos: d.tos,
            stamp: arrival.now.to_ne_bytes(),
            reserved: 0,
        };
        let map = memory.mapping();
        let offset = |o: u64| base + usize::try_from(o).unwrap_or(usize::MAX / 2);
        let written = place
            .filler
            .is_none_or(|f| map.copy_in(offset(f), &DATAGRAM_SKIP.to_ne_bytes()))
            && map.copy_in(offset(place.at), header.as_bytes())
            && arena
                .copy_to_mapping(skb, at, len, map, offset(place.at + HEADER))
                .is_ok();
        if !written {
            self.counts.bump(Counter::UdpInErrors);
            return false;
        }
        socket.rx.tail = place.tail;
        self.counts.add(Counter::RxPayload, len as u64);
        self.counts.add(Counter::RxCopied, len as u64);
        self.touch(index);
        true
    }
}

/// Adds the packet's first `len` bytes to a sum.
fn add(sum: &mut Checksum, arena: &Arena, skb: &SkBuff, len: usize) -> bool {
    arena
        .for_each_piece(skb, 0, len, |piece| match piece {
            Piece::Private(bytes) => {
                sum.add(bytes);
                true
            }
            Piece::Shared { map, at, len } => {
                let mut chunk = [0u8; 2048];
                (0..len).step_by(chunk.len()).all(|done| {
                    let n = chunk.len().min(len - done);
                    chunk.get_mut(..n).is_some_and(|chunk| {
                        let there = map.copy_out(at + done, chunk);
                        sum.add(chunk);
                        there
                    })
                })
            }
        })
        .is_ok()
}
