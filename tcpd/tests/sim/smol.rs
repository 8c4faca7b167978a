//! smoltcp at the other end: an independent reading of the RFCs, client and server.

use crate::app::{App, Habits, pattern};
use crate::host::Host;
use crate::link::{Impairment, Link, Packet};
use abi::{Endpoint, Nanos};
use fastrand::Rng;
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use tcpd::engine::Config;

const OURS: [u8; 4] = [10, 0, 0, 1];
const THEIRS: [u8; 4] = [10, 0, 0, 2];
const START: Nanos = 5_000_000_000;

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

/// An IPv4 packet around a segment of ours, checksums and all.
fn to_ip(packet: &Packet) -> Vec<u8> {
    let (src, dst) = (packet.src.ip().unwrap(), packet.dst.ip().unwrap());
    let mut segment = packet.bytes.clone();
    wire::tcp::fill_checksum(&mut segment, src, dst).unwrap();
    let mut bytes = vec![0; 20];
    let repr = wire::ipv4::Repr {
        src: OURS.into(),
        dst: THEIRS.into(),
        protocol: wire::protocol::TCP,
        ttl: 64,
        tos: 0,
        ident: 0,
        dont_frag: true,
        more_frags: false,
        frag_offset: 0,
        total_len: (20 + segment.len()) as u16,
        options: arrayvec::ArrayVec::new(),
    };
    repr.emit(&mut bytes).unwrap();
    bytes.extend(segment);
    bytes
}

fn from_ip(bytes: &[u8]) -> Packet {
    let repr = wire::ipv4::Repr::parse(bytes).unwrap();
    let segment = bytes[repr.header_len()..usize::from(repr.total_len)].to_vec();
    assert!(wire::tcp::verify_checksum(
        &segment,
        repr.src.into(),
        repr.dst.into()
    ));
    Packet {
        src: Endpoint::new(repr.src.into(), 0),
        dst: Endpoint::new(repr.dst.into(), 0),
        bytes: segment,
        gso_size: 0,
    }
}

/// smoltcp's end and what it has done.
struct Peer {
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    queues: Queues,
    sent: u64,
    send_total: u64,
    received: u64,
    receive_total: u64,
    closed: bool,
    rng: Rng,
}

fn instant(now: Nanos) -> Instant {
    Instant::from_micros((now / 1_000) as i64)
}

impl Peer {
    fn new(buffers: (usize, usize), send_total: u64, receive_total: u64, mut rng: Rng) -> Self {
        let mut queues = Queues::default();
        let mut config = IfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = rng.u64(..);
        let mut iface = Interface::new(config, &mut queues, instant(START));
        let address = IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24);
        iface.update_ip_addrs(|list| list.push(address).unwrap());
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
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(socket);
        Self {
            iface,
            sockets,
            handle,
            queues,
            sent: 0,
            send_total,
            received: 0,
            receive_total,
            closed: false,
            rng,
        }
    }

    fn step(&mut self, now: Nanos, arrived: Vec<Packet>) -> Vec<Packet> {
        for packet in arrived {
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
                assert_eq!(byte, pattern(1, position), "smoltcp: byte {position}");
            }
            self.received += n as u64;
        }
        while socket.can_send() && self.sent < self.send_total {
            let most = (self.send_total - self.sent).min(buffer.len() as u64);
            let n = self.rng.u64(1..=most) as usize;
            for (i, byte) in buffer[..n].iter_mut().enumerate() {
                *byte = pattern(2, self.sent + i as u64);
            }
            self.sent += socket.send_slice(&buffer[..n]).unwrap() as u64;
        }
        let established = matches!(
            socket.state(),
            tcp::State::Established | tcp::State::CloseWait
        );
        if self.sent == self.send_total && established && !self.closed {
            self.closed = true;
            socket.close();
        }
    }

    fn next(&mut self, now: Nanos) -> Option<Nanos> {
        let at = self.iface.poll_at(instant(now), &self.sockets)?;
        Some((at.total_micros() as u64 * 1_000).max(now + 1_000))
    }

    fn is_done(&self) -> bool {
        let state = self.sockets.get::<tcp::Socket<'_>>(self.handle).state();
        self.closed
            && self.received == self.receive_total
            && matches!(state, tcp::State::Closed | tcp::State::TimeWait)
    }
}

pub(crate) fn run(seed: u64) {
    let outcome = std::panic::catch_unwind(|| run_seed(seed));
    if let Err(panic) = outcome {
        eprintln!("failed: again with SIM_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

fn run_seed(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut impairment = Impairment::random(&mut rng);
    // smoltcp's recovery is slow: keep runs short.
    impairment.loss = impairment.loss.min(0.03);
    let most = [300, 30_000, 200_000][rng.usize(..3)];
    let (up, down) = (rng.u64(0..=most), rng.u64(0..=most));
    let buffers = (1 << rng.u8(12..18), 1 << rng.u8(12..18));
    let kill = [0.0, 0.03][rng.usize(..2)];
    let active = rng.bool();
    let habits = Habits {
        slow: [0.0, 0.02][rng.usize(..2)],
        bulk: false,
        pause: 2_000_000,
    };
    let config = Config {
        capacity: 16,
        secret: [9; 16],
        max_gso: [0, 65_000][rng.usize(..2)],
        ..Config::default()
    };
    let app_seed = rng.u64(..);
    let app =
        move |conn, generation| App::new(conn, generation, (1, up), (2, down), habits, app_seed);
    let mut host = Host::new(
        "engine",
        config,
        buffers,
        kill,
        rng.u64(..),
        Box::new(move |conn, record| app(conn, record.generation)),
    );
    let buffers = (1 << rng.u8(12..18), 1 << rng.u8(12..18));
    let mut peer = Peer::new(buffers, down, up, rng.fork());
    let ours = Endpoint::new(OURS.into(), 80);
    let theirs = Endpoint::new(THEIRS.into(), 90);
    let socket = peer.sockets.get_mut::<tcp::Socket<'_>>(peer.handle);
    if active {
        socket.listen(90).unwrap();
        host.connect(START, None, ours, theirs, app);
    } else {
        host.listen(START, ours);
        let remote = (IpAddress::v4(10, 0, 0, 1), 80);
        socket.connect(peer.iface.context(), remote, 4_000).unwrap();
    }
    let mut there = Link::new(impairment, rng.u64(..));
    let mut back = Link::new(impairment, rng.u64(..));
    let mut now = START;
    for _ in 0..2_000_000u32 {
        for packet in host.batch(now, 1_000) {
            there.send(now, packet);
        }
        let arrived = there.arrivals(now);
        for packet in peer.step(now, arrived) {
            back.send(now, packet);
        }
        if host.is_idle() && peer.is_done() {
            return;
        }
        let next = [host.next(), peer.next(now), there.next(), back.next()]
            .into_iter()
            .flatten()
            .min()
            .expect("nothing will ever happen again");
        now = next.max(now + 1);
        host.inbox.extend(back.arrivals(now));
        assert!(
            now - START < 8 * 3_600 * 1_000_000_000,
            "too late: {:?} {}/{} {}/{} {:?}",
            host.committed,
            peer.sent,
            peer.send_total,
            peer.received,
            peer.receive_total,
            host.apps
        );
    }
    panic!("too many steps: {:?}", host.committed);
}
