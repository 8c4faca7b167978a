//! smoltcp at the other end: an independent reading of the RFCs, client and server.

use crate::app::pattern;
use crate::packet::Packet;
use crate::plan::Plan;
use crate::script::Stream;
use crate::world::{CLIENT_PORT, PORT, START, endpoint};
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::net::IpAddr;

/// smoltcp's device: two queues of IP packets.
#[derive(Default)]
struct Queues {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let packet = self.rx.pop_front()?;
        Some((Rx(packet), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = 1500;
        caps
    }
}

/// An IP packet around a segment of ours, checksums and all; damaged ones have theirs.
fn to_ip(packet: &Packet) -> Vec<u8> {
    let (src, dst) = (packet.src.ip().unwrap(), packet.dst.ip().unwrap());
    let mut segment = packet.bytes.clone();
    if !packet.damaged {
        wire::tcp::fill_checksum(&mut segment, src, dst).unwrap();
    }
    let mut bytes = vec![0; packet.ip_header()];
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => wire::ipv4::Repr {
            src,
            dst,
            protocol: wire::protocol::TCP,
            ttl: 64,
            tos: packet.tos,
            ident: 0,
            dont_frag: true,
            more_frags: false,
            frag_offset: 0,
            total_len: (20 + segment.len()) as u16,
            options: arrayvec::ArrayVec::new(),
        }
        .emit(&mut bytes)
        .unwrap(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => wire::ipv6::Repr {
            src,
            dst,
            next_header: wire::protocol::TCP,
            hop_limit: 64,
            traffic_class: packet.tos,
            flow_label: 0,
            payload_len: segment.len() as u16,
        }
        .emit(&mut bytes)
        .unwrap(),
        _ => panic!("families mixed"),
    }
    bytes.extend(segment);
    bytes
}

fn from_ip(bytes: &[u8]) -> Packet {
    let (src, dst, tos, segment): (IpAddr, IpAddr, u8, &[u8]) = if bytes[0] >> 4 == 6 {
        let repr = wire::ipv6::Repr::parse(bytes).unwrap();
        let segment = &bytes[40..40 + usize::from(repr.payload_len)];
        (
            repr.src.into(),
            repr.dst.into(),
            repr.traffic_class,
            segment,
        )
    } else {
        let repr = wire::ipv4::Repr::parse(bytes).unwrap();
        let segment = &bytes[repr.header_len()..usize::from(repr.total_len)];
        (repr.src.into(), repr.dst.into(), repr.tos, segment)
    };
    assert!(wire::tcp::verify_checksum(segment, src, dst));
    Packet {
        src: Endpoint::new(src, 0),
        dst: Endpoint::new(dst, 0),
        bytes: segment.to_vec(),
        gso_size: 0,
        tos,
        damaged: false,
    }
}

/// smoltcp's end and what it has done.
pub(crate) struct Peer {
    pub(crate) inbox: Vec<Packet>,
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    queues: Queues,
    send: Stream,
    sent: u64,
    receive: Stream,
    received: u64,
    closed: bool,
    rng: Rng,
}

fn instant(now: Nanos) -> Instant {
    Instant::from_micros((now / 1_000) as i64)
}

impl Peer {
    pub(crate) fn new(plan: &Plan, opens: bool, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        // smoltcp insists on more than its socket needs for a good start.
        let buffers = (1 << rng.u8(12..18), 1 << rng.u8(12..18));
        let script = plan.script(0, CLIENT_PORT, !opens, START);
        let mut queues = Queues::default();
        let mut config = IfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = rng.u64(..);
        let mut iface = Interface::new(config, &mut queues, instant(START));
        let address = |host| IpAddress::from(endpoint(plan.v6, host, 0).ip().unwrap());
        let own = IpCidr::new(address(2), 24);
        iface.update_ip_addrs(|list| list.push(own).unwrap());
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; buffers.1]),
            tcp::SocketBuffer::new(vec![0; buffers.0]),
        );
        if rng.bool() {
            socket.set_congestion_control(tcp::CongestionControl::Reno);
        }
        if rng.bool() {
            socket.set_tsval_generator(Some(|| 77));
        }
        if opens {
            let remote = (address(1), PORT);
            socket
                .connect(iface.context(), remote, CLIENT_PORT)
                .unwrap();
        } else {
            socket.listen(PORT).unwrap();
        }
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(socket);
        Self {
            inbox: Vec::new(),
            iface,
            sockets,
            handle,
            queues,
            send: script.receive,
            sent: 0,
            receive: script.send,
            received: 0,
            closed: false,
            rng,
        }
    }

    pub(crate) fn turn(&mut self, now: Nanos) -> Vec<Packet> {
        for packet in std::mem::take(&mut self.inbox) {
            self.queues.rx.push_back(to_ip(&packet));
        }
        self.iface
            .poll(instant(now), &mut self.queues, &mut self.sockets);
        self.use_socket();
        self.iface
            .poll(instant(now), &mut self.queues, &mut self.sockets);
        self.queues
            .tx
            .drain(..)
            .map(|bytes| from_ip(&bytes))
            .collect()
    }

    fn use_socket(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let mut buffer = [0; 4096];
        while socket.can_recv() {
            let most = self.rng.usize(1..=buffer.len());
            let n = socket.recv_slice(&mut buffer[..most]).unwrap();
            for (i, &byte) in buffer[..n].iter().enumerate() {
                let position = self.received + i as u64;
                assert_eq!(byte, pattern(self.receive.key, position), "byte {position}");
            }
            self.received += n as u64;
        }
        while socket.can_send() && self.sent < self.send.total {
            let most = (self.send.total - self.sent).min(buffer.len() as u64);
            let n = self.rng.u64(1..=most) as usize;
            for (i, byte) in buffer[..n].iter_mut().enumerate() {
                *byte = pattern(self.send.key, self.sent + i as u64);
            }
            self.sent += socket.send_slice(&buffer[..n]).unwrap() as u64;
        }
        let established = matches!(
            socket.state(),
            tcp::State::Established | tcp::State::CloseWait
        );
        if self.sent == self.send.total && established && !self.closed {
            self.closed = true;
            socket.close();
        }
    }

    pub(crate) fn next(&mut self, now: Nanos) -> Option<Nanos> {
        let at = self.iface.poll_at(instant(now), &self.sockets)?;
        Some((at.total_micros() as u64 * 1_000).max(now + 1_000))
    }

    pub(crate) fn is_done(&self) -> bool {
        let state = self.sockets.get::<tcp::Socket<'_>>(self.handle).state();
        self.closed
            && self.received == self.receive.total
            && matches!(state, tcp::State::Closed | tcp::State::TimeWait)
    }

    pub(crate) fn describe(&self) -> String {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.handle);
        format!(
            "smoltcp {:?}: sent {} of {}, received {} of {}\n",
            socket.state(),
            self.sent,
            self.send.total,
            self.received,
            self.receive.total
        )
    }
}
