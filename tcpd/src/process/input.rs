//! What a batch begins with: events of applications and packets from ipd.

use super::receive::{self, Refused, SkbPayload, SocketBuffers};
use super::socket::Socket;
use super::{Tcpd, counters};
use crate::engine::{AppWords, ConnId, Errno, IcmpError, IcmpKind, SegmentMeta, State};
use abi::session::shut;
use abi::skbuff::{flag, kind};
use abi::suspect::note;
use abi::{DevIndex, Endpoint, Nanos};
use runtime::{Context, Plumbing};
use session::{Event, Known, SocketRef};
use shm::vitals::stage;
use shm::{Arena, SkBuff};
use wire::icmpv4::{self, Embedded};

impl Tcpd {
    /// Requests, changed words, closed descriptors.
    pub(super) fn take_events(&mut self, cx: &mut Context<'_>) -> usize {
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.fresh.drain(..).map(Event::Dirty));
        let n = self.sessions.poll(&mut cx.plumbing.store, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Call(call) => self.call(&call, cx),
                Event::Dirty(place) => {
                    if let Some(id) = self.sessions.owner(place).map(ConnId) {
                        self.look_at_words(id, place, cx);
                        self.touched.push(id);
                    }
                }
                Event::Closed(place) => {
                    if let Some(id) = self.sessions.owner(place).map(ConnId) {
                        // The last bytes count.
                        self.look_at_words(id, place, cx);
                        self.engine.close(cx.now, id);
                    }
                }
            }
        }
        self.events = events;
        n
    }

    /// Shows the engine what the application wrote. What cannot be resets this connection alone.
    pub(super) fn look_at_words(&mut self, id: ConnId, place: SocketRef, cx: &Context<'_>) {
        if !self.show_words(cx.now, id, place) {
            cx.count(counters::APP_FAULTS, 1);
            self.engine.abort(cx.now, id, Errno::ECONNABORTED);
        }
    }

    /// False when the application wrote what cannot be; the engine has taken nothing then.
    pub(super) fn show_words(&mut self, now: Nanos, id: ConnId, place: SocketRef) -> bool {
        let (Some(tcb), Some(words)) = (self.engine.record(id), self.sessions.words(place)) else {
            return true;
        };
        if tcb.state() == State::Listen {
            return true;
        }
        let known = Known {
            tx_tail: tcb.written,
            tx_head: tcb.acked_upto(),
            tx_limit: u32::try_from(tcb.write_limit() - tcb.acked_upto()).unwrap_or(u32::MAX),
            rx_head: tcb.consumed,
            rx_tail: tcb.received_upto(),
        };
        let accepted = self.sessions.accepted(place);
        let Ok(w) = words.load(&known) else {
            return false;
        };
        let words = AppWords {
            written: w.tx_tail,
            consumed: w.rx_head,
            urgent: w.tx_urgent,
            shut_rd: w.shutdown & shut::RD != 0,
            shut_wr: w.shutdown & shut::WR != 0,
            accepted,
        };
        self.engine.on_app(now, id, &words).is_ok()
    }

    /// Finds out which connections have been taken from their listeners' queues, once a turn: a
    /// library that accepts rings no bell, and a backlog that only seems full refuses a SYN.
    fn look_for_accepts(&mut self, now: Nanos) {
        if self.handed.is_empty() || std::mem::replace(&mut self.handed_seen, true) {
            return;
        }
        let mut handed = std::mem::take(&mut self.handed);
        handed.retain(|&id| {
            let Some(place) = self.sockets.get(id).map(|s| s.place) else {
                return false;
            };
            let accepted = self.sessions.accepted(place);
            // What cannot be shows again when the socket is dirty.
            !(accepted && self.show_words(now, id, place))
        });
        self.handed = handed;
    }

    /// Segments and ICMP errors, at most `budget` from each link; before them what waited.
    pub(super) fn take_packets(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        let now = cx.now;
        let mut links = std::mem::take(&mut cx.plumbing.links);
        let plumbing = &*cx.plumbing;
        let mut taken = self.waited.len();
        for skb in std::mem::take(&mut self.waited) {
            self.take_packet(now, plumbing, &skb);
        }
        for link in &mut links {
            taken += link.recv(&plumbing.arena, budget, |skb| {
                if !self.must_wait(&skb) {
                    self.take_packet(now, plumbing, &skb);
                } else if !self.wait(skb) {
                    plumbing.count(counters::LOADING_DROPS, 1);
                }
            });
        }
        cx.plumbing.links = links;
        cx.plumbing.vitals.note(0, 0);
        taken
    }

    fn take_packet(&mut self, now: Nanos, plumbing: &Plumbing, skb: &SkBuff) {
        if plumbing.vitals.tracing() {
            let at = runtime::clock::now();
            plumbing
                .vitals
                .trace(at, stage::TRANSPORT_IN, skb.handle(), skb.len(), 6);
        }
        plumbing.vitals.note_packet(note::TRANSPORT, skb);
        match skb.desc().kind {
            kind::PACKET => {
                let counted = self.take_segment(now, &plumbing.arena, skb);
                for (index, n) in counted {
                    plumbing.count(index, n);
                }
            }
            kind::ICMP_ERROR => {
                plumbing.count(counters::ICMP_IN, 1);
                if let Some(error) = icmp_error(skb, &plumbing.arena) {
                    self.engine.on_icmp_error(now, &error);
                }
            }
            _ => plumbing.count(counters::IN_ERRS, 1),
        }
    }

    fn take_segment(&mut self, now: Nanos, arena: &Arena, skb: &SkBuff) -> [(usize, u64); 3] {
        // RFC 9293 3.9.2 (MUST-57): nobody connects by broadcast.
        if skb.desc().flags & flag::LINK_BROADCAST != 0 {
            return [(counters::IN_ERRS, 1), NOTHING, NOTHING];
        }
        let segment = match receive::parse(skb, arena) {
            Ok(segment) => segment,
            Err(Refused::Malformed) => return [(counters::IN_ERRS, 1), NOTHING, NOTHING],
            Err(Refused::Checksum) => {
                return [(counters::IN_ERRS, 1), (counters::IN_CSUM_ERRS, 1), NOTHING];
            }
        };
        if segment.repr.flags.contains(wire::tcp::Flags::SYN) {
            self.look_for_accepts(now);
        }
        let desc = skb.desc();
        let device = DevIndex(desc.dev_in);
        let mtu = self
            .mtus
            .iter()
            .find(|(d, _)| *d == device)
            .map_or(0, |(_, mtu)| *mtu);
        let meta = SegmentMeta {
            src: segment.src,
            dst: segment.dst,
            repr: &segment.repr,
            payload_len: segment.payload_len,
            gso_size: desc.gso_size,
            ce: segment.ce,
            mtu,
        };
        let packet = || SkbPayload {
            arena,
            skb,
            header_len: segment.header_len,
        };
        let mut buffers = SocketBuffers {
            sessions: &mut self.sessions,
            packet: packet(),
            copied: 0,
            attached: &mut self.attached,
        };
        self.engine.on_segment(now, &meta, &packet(), &mut buffers);
        let copied = buffers.copied;
        for (child, new) in self.attached.drain(..) {
            self.sessions.set_owner(new.socket, child.0);
            self.sockets.insert(child, Socket::new(new));
        }
        [
            (counters::IN_SEGS, 1),
            (counters::RX_PAYLOAD, segment.payload_len.into()),
            (counters::RX_COPIED, copied),
        ]
    }
}

const NOTHING: (usize, u64) = (counters::IN_SEGS, 0);

/// The error that an ICMP packet (data at the ICMP header) reports about one of our segments.
fn icmp_error(skb: &SkBuff, arena: &Arena) -> Option<IcmpError> {
    let mut bytes = [0u8; 128];
    let n = skb.len().min(bytes.len());
    let message = bytes.get_mut(..n)?;
    arena.copy_out(skb, 0, message).ok()?;
    let [kind, code, _, _, _, _, hi, lo] = *message.first_chunk::<{ icmpv4::HEADER_LEN }>()?;
    let quoted = Embedded::parse(message.get(icmpv4::HEADER_LEN..)?).ok()?;
    let (src_port, dst_port) = quoted.ports()?;
    Some(IcmpError {
        local: Endpoint::new(quoted.src.into(), src_port),
        remote: Endpoint::new(quoted.dst.into(), dst_port),
        seq: quoted.tcp_seq()?,
        kind: IcmpKind::from_v4(kind, code, u16::from_be_bytes([hi, lo]))?,
    })
}
