//! The engine between a device and two transports, on real pools and a hand-driven clock.
//!
//! Every packet changes hands as it does between processes: descriptor written back, slot claimed
//! by the neighbour out of the pools that the neighbour has mapped, and freed.

use crate::engine::{Action, Counter, Engine, Env, StateRecord, Upper};
use abi::config::{
    DeviceConfig, DeviceKind, Impairment, Offload, RouteConfig, StackConfig, TcpConfig, UdpConfig,
};
use abi::skbuff::SkBuffDesc;
use abi::{DevIndex, Endpoint, Handle, Nanos, PoolId, ServiceId};
use shm::{Allocator, Arena, Pool, PoolLayout, SizeClass, SkBuff};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wire::{arp, checksum, ipv4};

pub(crate) const SECOND: Nanos = 1_000_000_000;
pub(crate) const START: Nanos = 1_000 * SECOND;
pub(crate) const UDP: Upper = Upper(0);
pub(crate) const TCP: Upper = Upper(1);
pub(crate) const DEV: DevIndex = DevIndex(1);
pub(crate) const DEV2: DevIndex = DevIndex(2);

/// Us, and a host and the gateway on our network.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const BROADCAST_MAC: [u8; 6] = [0xff; 6];

const NETDEVD: ServiceId = ServiceId(1);
const IPD: ServiceId = ServiceId(2);
const UDPD: ServiceId = ServiceId(3);
const TCPD: ServiceId = ServiceId(4);

const LAYOUT: PoolLayout = PoolLayout {
    small_slots: 600,
    small_size: 2048,
    large_slots: 40,
    large_size: 69_632,
};

/// Where a packet lies, whoever has it at the moment.
pub(crate) type Place = (PoolId, u32);

fn place(handle: Handle) -> Place {
    (handle.pool(), handle.slot())
}

/// A neighbour of ipd: its pool and what it has mapped.
pub(crate) struct Neighbour {
    arena: Arena,
    pub(crate) alloc: Allocator,
}

impl Neighbour {
    fn new(me: ServiceId, own: &'static Pool, mapped: &[&'static Pool]) -> Self {
        let mut arena = Arena::new(me);
        arena.add_pool(own);
        mapped.iter().for_each(|p| arena.add_pool(p));
        Self {
            arena,
            alloc: Allocator::new(own, me),
        }
    }
}

/// A frame that left by a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) device: DevIndex,
    pub(crate) bytes: Vec<u8>,
    pub(crate) desc: SkBuffDesc,
    pub(crate) handle: Place,
}

/// A packet that a transport got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) upper: Upper,
    /// From the IP header on, linear part only.
    pub(crate) network: Vec<u8>,
    /// From the data on, whole.
    pub(crate) data: Vec<u8>,
    pub(crate) desc: SkBuffDesc,
    pub(crate) handle: Place,
}

impl Packet {
    pub(crate) fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(*self.desc.src.first_chunk().unwrap())
    }
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) stack: StackConfig,
    pub(crate) now: Nanos,
    pub(crate) net: Neighbour,
    pub(crate) udp: Neighbour,
    pub(crate) tcp: Neighbour,
    arena: Arena,
    alloc: Allocator,
    out: Vec<Action>,
    /// The state memory.
    pub(crate) records: BTreeMap<u32, StateRecord>,
}

fn device(index: DevIndex, mac: [u8; 6], address: &str) -> DeviceConfig {
    DeviceConfig {
        index,
        name: format!("dev{}", index.0),
        kind: DeviceKind::Tap,
        service: NETDEVD,
        addresses: vec![address.parse().unwrap()],
        mtu: 1500,
        mac,
        offload: Offload::Full,
        impairment: Impairment::default(),
    }
}

/// dev1 10.77.0.2/24, dev2 10.88.0.2/24, default by 10.77.0.1.
pub(crate) fn stack() -> StackConfig {
    StackConfig {
        name: "test".to_owned(),
        devices: vec![
            device(DEV, OWN_MAC, "10.77.0.2/24"),
            device(DEV2, [2, 0, 0, 0, 2, 2], "10.88.0.2/24"),
        ],
        routes: vec![RouteConfig {
            to: "0.0.0.0/0".parse().unwrap(),
            via: Some(PEER.into()),
            device: DEV,
            source: None,
            metric: 0,
        }],
        links: Vec::new(),
        dns: Vec::new(),
        tcp: TcpConfig::default(),
        udp: UdpConfig::default(),
        secret: [9; 16],
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(stack())
    }

    /// One in which nothing is announced and the peer's address is known.
    pub(crate) fn acquainted() -> Self {
        let mut w = Self::new();
        w.rx(&arp_frame(1, PEER_MAC, PEER, [0; 6], OWN));
        w.frames();
        w.engine.counters.take(|_, _| ());
        w
    }

    pub(crate) fn with(stack: StackConfig) -> Self {
        let pool = |id: ServiceId| {
            let fd = shm::pool::create("test", LAYOUT).unwrap();
            Pool::attach(PoolId(id.0), &fd).unwrap()
        };
        let (net, ipd, udp, tcp) = (pool(NETDEVD), pool(IPD), pool(UDPD), pool(TCPD));
        let mut arena = Arena::new(IPD);
        [net, ipd, udp, tcp]
            .into_iter()
            .for_each(|p| arena.add_pool(p));
        let mut w = Self {
            engine: Engine::new(&stack, START, false),
            stack,
            now: START,
            net: Neighbour::new(NETDEVD, net, &[ipd, udp, tcp]),
            udp: Neighbour::new(UDPD, udp, &[ipd, net]),
            tcp: Neighbour::new(TCPD, tcp, &[ipd, net]),
            arena,
            alloc: Allocator::new(ipd, IPD),
            out: Vec::new(),
            records: BTreeMap::new(),
        };
        w.register();
        w
    }

    /// The transports register, as they do at their start and after ipd's restart.
    pub(crate) fn register(&mut self) {
        self.engine.register(UDP, [1, 17].into_iter());
        self.engine.register(TCP, [6].into_iter());
    }

    /// Kills the engine and starts a successor on what was committed.
    pub(crate) fn restart(&mut self) {
        self.restart_empty();
        for (index, record) in &self.records {
            assert!(self.engine.restore(*index, record, self.now));
        }
    }

    /// A successor that finds nothing.
    pub(crate) fn restart_empty(&mut self) {
        self.engine = Engine::new(&self.stack, self.now, false);
        self.register();
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.engine.counters.get(counter)
    }

    /// Free slots of all pools together.
    pub(crate) fn free_slots(&self) -> u32 {
        self.arena.pools().map(Pool::free_slots).sum()
    }

    pub(crate) fn all_slots() -> u32 {
        4 * LAYOUT.slots()
    }

    fn env<R>(&mut self, f: impl FnOnce(&mut Engine, &mut Env<'_>) -> R) -> R {
        let mut env = Env {
            now: self.now,
            arena: &self.arena,
            alloc: &mut self.alloc,
            out: &mut self.out,
        };
        f(&mut self.engine, &mut env)
    }

    /// Lets time pass; timers go off at their times.
    pub(crate) fn advance(&mut self, by: Nanos) {
        let end = self.now + by;
        while let Some(at) = self.engine.deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.env(Engine::expire);
        }
        self.now = end;
    }

    /// A frame arrives at dev1, as netdevd hands it up.
    pub(crate) fn rx(&mut self, frame: &[u8]) -> Place {
        self.rx_with(DEV, frame, |_| ())
    }

    /// The same at `device`, with the descriptor changed by `f`.
    pub(crate) fn rx_with(
        &mut self,
        device: DevIndex,
        frame: &[u8],
        f: impl FnOnce(&mut SkBuffDesc),
    ) -> Place {
        let mut skb = self.net.alloc.alloc(SizeClass::Small).unwrap();
        let n = frame.len().min(1700);
        skb.put(n).unwrap().copy_from_slice(&frame[..n]);
        if n < frame.len() {
            // As readv does: what does not fit the small slot is in a large one.
            let mut large = self.net.alloc.alloc(SizeClass::Large).unwrap();
            large.reserve(0);
            large
                .put(frame.len() - n)
                .unwrap()
                .copy_from_slice(&frame[n..]);
            assert!(skb.attach_extra(large));
        }
        skb.desc_mut().mac = u16::try_from(skb.data_offset()).unwrap();
        let broadcast = skb.linear().first().is_some_and(|b| b & 1 == 1);
        let ethertype = skb
            .linear()
            .get(12..14)
            .map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        skb.pull(14);
        let desc = skb.desc_mut();
        desc.ethertype = ethertype;
        desc.flags = if broadcast {
            abi::skbuff::flag::LINK_BROADCAST
        } else {
            0
        };
        f(desc);
        let handle = skb.into_handle();
        // What no descriptor may say is refused here already.
        if let Ok(skb) = self.arena.claim(handle, NETDEVD) {
            self.env(|engine, env| engine.input(env, device, skb));
        }
        place(handle)
    }

    /// A transport sends `payload`, which is its header and data.
    pub(crate) fn tx(
        &mut self,
        upper: Upper,
        dst: Ipv4Addr,
        payload: &[u8],
        f: impl FnOnce(&mut SkBuff),
    ) -> Place {
        let from = if upper == UDP {
            &mut self.udp
        } else {
            &mut self.tcp
        };
        let class = if payload.len() > 1800 {
            SizeClass::Large
        } else {
            SizeClass::Small
        };
        let mut skb = from.alloc.alloc(class).unwrap();
        skb.put(payload.len()).unwrap().copy_from_slice(payload);
        let desc = skb.desc_mut();
        desc.protocol = if upper == UDP { 17 } else { 6 };
        desc.dst = Endpoint::new(dst.into(), 0).addr;
        desc.family = abi::endpoint::FAMILY_V4;
        f(&mut skb);
        self.hand_down(upper, skb)
    }

    fn hand_down(&mut self, upper: Upper, skb: SkBuff) -> Place {
        let id = if upper == UDP { UDPD } else { TCPD };
        let handle = skb.into_handle();
        if let Ok(skb) = self.arena.claim(handle, id) {
            self.env(|engine, env| engine.output(env, upper, skb));
        }
        place(handle)
    }

    /// All that came out, as the neighbours see it; what changed is committed before.
    pub(crate) fn take(&mut self) -> (Vec<Frame>, Vec<Packet>) {
        let records = &mut self.records;
        self.engine.commit(|index, record| match record {
            Some(record) => drop(records.insert(index, record)),
            None => drop(records.remove(&index)),
        });
        let (mut frames, mut packets) = (Vec::new(), Vec::new());
        for action in std::mem::take(&mut self.out) {
            let (skb, at) = match action {
                Action::Transmit { device, skb } => (skb, Err(device)),
                Action::Deliver { upper, skb } => (skb, Ok(upper)),
            };
            let handle = skb.into_handle();
            let claimer = match at {
                Err(_) => &self.net,
                Ok(UDP) => &self.udp,
                Ok(_) => &self.tcp,
            };
            let skb = claimer
                .arena
                .claim(handle, IPD)
                .expect("the neighbour can take it");
            let mut data = vec![0; skb.len()];
            claimer.arena.copy_out(&skb, 0, &mut data).unwrap();
            let (desc, handle) = (*skb.desc(), place(handle));
            match at {
                Err(device) => frames.push(Frame {
                    device,
                    bytes: data,
                    desc,
                    handle,
                }),
                Ok(upper) => {
                    let network = skb.from_offset(desc.network).to_vec();
                    packets.push(Packet {
                        upper,
                        network,
                        data,
                        desc,
                        handle,
                    });
                }
            }
        }
        (frames, packets)
    }

    pub(crate) fn frames(&mut self) -> Vec<Frame> {
        let (frames, packets) = self.take();
        assert_eq!(packets, [], "nothing for transports");
        frames
    }

    pub(crate) fn packets(&mut self) -> Vec<Packet> {
        let (frames, packets) = self.take();
        assert_eq!(frames, [], "nothing for devices");
        packets
    }

    pub(crate) fn nothing(&mut self) {
        assert_eq!(self.take(), (vec![], vec![]));
    }

    /// The last packet a transport got, handed back with the wish for an ICMP error.
    pub(crate) fn complain(&mut self, upper: Upper, mark: u32) {
        let Some(Action::Deliver { skb, .. }) = self.out.pop() else {
            panic!("no delivery")
        };
        let to = if upper == UDP { &self.udp } else { &self.tcp };
        let mut skb = to.arena.claim(skb.into_handle(), IPD).unwrap();
        skb.desc_mut().kind = abi::skbuff::kind::ICMP_ERROR;
        skb.desc_mut().mark = mark;
        self.hand_down(upper, skb);
    }
}

/// An Ethernet frame.
pub(crate) fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 datagram with a header of its own making.
pub(crate) fn datagram(repr: &ipv4::Repr, payload: &[u8]) -> Vec<u8> {
    let mut repr = repr.clone();
    let len = repr.header_len() + payload.len();
    repr.total_len = u16::try_from(len).unwrap();
    let mut bytes = vec![0; len];
    repr.emit(&mut bytes).unwrap();
    bytes[repr.header_len()..].copy_from_slice(payload);
    bytes
}

/// A frame from the peer with a datagram for us.
pub(crate) fn ip_frame(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let repr = ipv4::Repr {
        src,
        dst,
        protocol,
        ttl: 61,
        ..ipv4::Repr::default()
    };
    ethernet(OWN_MAC, PEER_MAC, 0x0800, &datagram(&repr, payload))
}

/// A UDP header and payload, without checksum.
pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = Vec::from(len.to_be_bytes());
    bytes.splice(0..0, [0x13, 0x88, 0x00, 0x35]);
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// An ICMP message with its checksum.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(payload);
    let sum = checksum::of(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ARP packet in a frame, by broadcast if a request.
pub(crate) fn arp_frame(
    operation: u16,
    sender_mac: [u8; 6],
    sender: Ipv4Addr,
    target_mac: [u8; 6],
    target: Ipv4Addr,
) -> Vec<u8> {
    let repr = arp::Repr {
        operation: operation.into(),
        sender_mac: wire::MacAddr(sender_mac),
        sender_ip: sender,
        target_mac: wire::MacAddr(target_mac),
        target_ip: target,
    };
    let mut bytes = [0; arp::PACKET_LEN];
    repr.emit(&mut bytes).unwrap();
    let dst = if operation == 1 {
        BROADCAST_MAC
    } else {
        OWN_MAC
    };
    ethernet(dst, sender_mac, 0x0806, &bytes)
}

/// The reading of a frame's ARP packet.
pub(crate) fn arp_of(frame: &Frame) -> arp::Repr {
    assert_eq!(frame.bytes[12..14], [0x08, 0x06]);
    arp::Repr::parse(&frame.bytes[14..]).unwrap()
}

/// The reading of a frame's IPv4 header, checksum verified, and its payload.
pub(crate) fn ip_of(frame: &Frame) -> (ipv4::Repr, &[u8]) {
    assert_eq!(frame.bytes[12..14], [0x08, 0x00]);
    let repr = ipv4::Repr::parse(&frame.bytes[14..]).unwrap();
    assert_eq!(usize::from(repr.total_len), frame.bytes.len() - 14);
    (repr.clone(), &frame.bytes[14 + repr.header_len()..])
}
