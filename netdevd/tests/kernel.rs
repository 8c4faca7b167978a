//! netdevd against the Linux kernel: a TAP, and a packet socket on a veth, in a network
//! namespace of their own. The test plays ipd and TCP, as far as it takes to see super-frames
//! both ways.
//!
//! Each test runs itself again under `unshare`, with a user namespace when not root; where that
//! is not allowed it says so and passes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test: what fails should say so at once"
)]

use abi::config::{DeviceKind, Offload, Role};
use abi::skbuff::{checksum, gso};
use abi::{DevIndex, RegionId, ServiceId};
use netdevd::Netdevd;
use runtime::testing::{Fabric, Worker};
use runtime::{Plumbing, clock};
use shm::{SizeClass, SkBuff};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::ethernet::{EtherType, Header};
use wire::tcp::Flags;
use wire::{MacAddr, SeqNumber, arp, ipv4, tcp, udp};

const IPD: ServiceId = ServiceId(1);
const NETDEVD: ServiceId = ServiceId(2);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const INSIDE: &str = "STRATA_TEST_IN_NAMESPACE";

/// Runs `body` in a fresh network namespace, in a process of its own.
fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let root = nix::unistd::geteuid().is_root();
    let flags = if root { "-n" } else { "-rn" };
    let allowed = Command::new("unshare").args([flags, "true"]).status();
    if !allowed.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED {test}: `unshare {flags}` is not allowed here");
        return;
    }
    let status = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
}

fn ip(args: &str) {
    let status = Command::new("ip")
        .args(args.split_whitespace())
        .status()
        .unwrap();
    assert!(status.success(), "ip {args}");
}

/// The test in ipd's place.
struct Stack {
    fabric: Fabric,
    ipd: Plumbing,
    netdevd: Worker<Netdevd>,
    peer_mac: MacAddr,
    waiting: Vec<SkBuff>,
}

/// A received TCP segment.
struct Segment {
    tcp: tcp::Repr,
    payload: Vec<u8>,
    gso_size: u16,
}

impl Stack {
    /// Opens the device; none when the machine does not allow it.
    fn open(kind: DeviceKind, offload: Offload) -> Option<Self> {
        let roles = [
            (IPD, Role::Ipd),
            (
                NETDEVD,
                Role::Netdevd {
                    device: DevIndex(1),
                },
            ),
        ];
        let mut fabric = Fabric::new(&roles);
        let device = &mut fabric.stack_mut().devices[0];
        device.name = "strata0".to_owned();
        (device.kind, device.offload) = (kind, offload);
        if kind == DeviceKind::Packet {
            ip("link add strata0 type veth peer name peer0");
            ip("addr add 10.77.1.1/24 dev peer0");
            ip("link set strata0 up");
            ip("link set peer0 up");
        }
        let fd = match netdevd::open_device(device) {
            Ok(fd) => fd,
            Err(e) if format!("{e:#}").contains("no permission on /dev/net/tun") => {
                eprintln!("SKIPPED: {e:#}");
                return None;
            }
            Err(e) => panic!("{e:#}"),
        };
        if kind == DeviceKind::Tap {
            netdevd::configure_host_side("strata0", &["10.77.1.1/24".parse().unwrap()], 1500)
                .unwrap();
        }
        fabric.set_device(NETDEVD, fd);
        let ipd = fabric.plumbing(IPD);
        ipd.links[0]
            .link()
            .register(&[EtherType::IPV4.0, EtherType::ARP.0]);
        let netdevd = fabric.worker::<Netdevd>(NETDEVD);
        let peer_mac = MacAddr::UNSPECIFIED;
        Some(Self {
            fabric,
            ipd,
            netdevd,
            peer_mac,
            waiting: Vec::new(),
        })
    }

    fn turn(&mut self) {
        self.netdevd.turn(clock::now());
    }

    fn send(&mut self, skb: SkBuff) {
        self.ipd.links[0].send(skb).unwrap();
        self.ipd.links[0].flush();
        self.turn();
    }

    fn alloc(&mut self) -> SkBuff {
        self.ipd
            .alloc
            .as_mut()
            .unwrap()
            .alloc(SizeClass::Small)
            .unwrap()
    }

    /// The next IPv4 packet; answers ARP meanwhile.
    fn recv(&mut self) -> SkBuff {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            assert!(Instant::now() < end, "nothing comes from the kernel");
            if self.waiting.is_empty() {
                self.turn();
                let Plumbing { links, arena, .. } = &mut self.ipd;
                links[0].recv(arena, 64, |skb| self.waiting.insert(0, skb));
            }
            match self.waiting.pop() {
                Some(skb) if skb.desc().ethertype == EtherType::ARP.0 => self.answer_arp(&skb),
                Some(skb) => return skb,
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn answer_arp(&mut self, request: &SkBuff) {
        let request = arp::Repr::parse(request.linear()).unwrap();
        if request.target_ip != OURS {
            return;
        }
        self.peer_mac = request.sender_mac;
        let reply = arp::Repr {
            operation: arp::Operation::Reply,
            sender_mac: MAC,
            sender_ip: OURS,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        };
        let mut skb = self.alloc();
        let frame = skb.put(14 + 28).unwrap();
        let link = Header {
            dst: request.sender_mac,
            src: MAC,
            ethertype: EtherType::ARP,
        };
        link.emit(frame).unwrap();
        reply.emit(&mut frame[14..]).unwrap();
        self.send(skb);
    }

    /// An sk_buff with room for a transport header of `len` bytes behind Ethernet and IPv4
    /// headers for `payload` further bytes.
    fn packet(&mut self, protocol: u8, len: usize, payload: usize) -> SkBuff {
        let link = Header {
            dst: self.peer_mac,
            src: MAC,
            ethertype: EtherType::IPV4,
        };
        let packet = ipv4::Repr {
            src: OURS,
            dst: PEER,
            protocol,
            ttl: 64,
            tos: 0,
            ident: 0,
            dont_frag: true,
            more_frags: false,
            frag_offset: 0,
            total_len: u16::try_from(20 + len + payload).unwrap(),
            options: Default::default(),
        };
        let mut skb = self.alloc();
        let frame = skb.put(34 + len).unwrap();
        link.emit(frame).unwrap();
        packet.emit(&mut frame[14..]).unwrap();
        skb
    }

    /// Leaves the checksum to the device.
    fn partial(skb: &mut SkBuff, offset: u16) {
        let start = u16::try_from(skb.data_offset()).unwrap() + 34;
        let d = skb.desc_mut();
        (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, start, offset);
    }

    fn send_udp(&mut self, from: u16, to: u16, payload: &[u8]) {
        let mut skb = self.packet(17, 8 + payload.len(), 0);
        let datagram = &mut skb.linear_mut()[34..];
        let len = u16::try_from(8 + payload.len()).unwrap();
        udp::Repr {
            src_port: from,
            dst_port: to,
            len,
        }
        .emit(datagram)
        .unwrap();
        datagram[8..].copy_from_slice(payload);
        udp::fill_partial_checksum(datagram, OURS.into(), PEER.into()).unwrap();
        Self::partial(&mut skb, 6);
        self.send(skb);
    }

    /// Sends a segment whose payload lies in session memory, as a super-frame when it is large.
    fn send_tcp(&mut self, segment: &tcp::Repr, payload: Option<(RegionId, u64, u32)>) {
        let len = payload.map_or(0, |(_, _, len)| len);
        let header = segment.header_len();
        let mut skb = self.packet(6, header, usize::try_from(len).unwrap());
        let out = &mut skb.linear_mut()[34..];
        segment.emit(out).unwrap();
        let total = u32::try_from(header).unwrap() + len;
        tcp::fill_partial_checksum(out, total, OURS.into(), PEER.into()).unwrap();
        if let Some((region, at, len)) = payload {
            assert!(skb.add_frag(region, at, len));
        }
        Self::partial(&mut skb, 16);
        if len > 1448 {
            let d = skb.desc_mut();
            (d.gso_type, d.gso_size) = (gso::TCPV4, 1448);
        }
        self.send(skb);
    }

    fn recv_tcp(&mut self) -> Segment {
        loop {
            let skb = self.recv();
            let Ok(packet) = ipv4::Repr::parse_unchecked(skb.linear()) else {
                // Its payload is in a fragment: read the whole.
                let mut all = vec![0; skb.len()];
                self.ipd.arena.copy_out(&skb, 0, &mut all).unwrap();
                return Self::segment(&all, &skb);
            };
            if packet.protocol == 6 {
                let mut all = vec![0; skb.len()];
                self.ipd.arena.copy_out(&skb, 0, &mut all).unwrap();
                return Self::segment(&all, &skb);
            }
        }
    }

    fn segment(all: &[u8], skb: &SkBuff) -> Segment {
        let packet = ipv4::Packet::new(all).unwrap();
        assert!(packet.verify_checksum());
        let (repr, len) = tcp::Repr::parse(packet.payload).unwrap();
        if skb.desc().ip_summed == checksum::NONE {
            assert!(tcp::verify_checksum(
                packet.payload,
                PEER.into(),
                OURS.into()
            ));
        }
        Segment {
            tcp: repr,
            payload: packet.payload[len..].to_vec(),
            gso_size: skb.desc().gso_size,
        }
    }

    /// Nothing may be left in anyone's hands.
    fn finish(mut self) {
        self.waiting.clear();
        for _ in 0..50 {
            self.turn();
            let Plumbing { links, arena, .. } = &mut self.ipd;
            links[0].recv(arena, 64, drop);
        }
        assert_eq!(self.netdevd.counter("rt_peer_faults"), Some(0));
        assert_eq!(self.netdevd.counter("tx_errors"), Some(0));
        drop(self.netdevd);
        assert_eq!(self.fabric.free_slots(IPD), self.fabric.slots());
        assert_eq!(self.fabric.free_slots(NETDEVD), self.fabric.slots());
    }
}

fn udp_both_ways(stack: &mut Stack) {
    let kernel = UdpSocket::bind((PEER, 5000)).unwrap();
    kernel
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    for len in [0usize, 1, 100, 1472] {
        let text = vec![0x5a; len];
        kernel.send_to(&text, (OURS, 6000)).unwrap();
        let skb = stack.recv();
        let mut all = vec![0; skb.len()];
        stack.ipd.arena.copy_out(&skb, 0, &mut all).unwrap();
        let packet = ipv4::Packet::new(&all).unwrap();
        assert_eq!(udp::Datagram::new(packet.payload).unwrap().payload, text);
        if skb.desc().ip_summed == checksum::NONE {
            assert!(udp::verify_checksum(
                packet.payload,
                PEER.into(),
                OURS.into()
            ));
        }
        drop(skb);
        stack.send_udp(6000, 5000, &text);
        let mut buffer = [0; 2000];
        let (n, from) = kernel.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..n], from),
            (&text[..], SocketAddr::from((OURS, 6000)))
        );
    }
}

const LEN: usize = 60_000;

fn pattern() -> Vec<u8> {
    (0..LEN).map(|i| u8::try_from(i % 241).unwrap()).collect()
}

fn reply(segment: &Segment, flags: Flags, seq: u32) -> tcp::Repr {
    let mut ack = segment.tcp.seq + u32::try_from(segment.payload.len()).unwrap();
    if segment.tcp.flags.contains(Flags::SYN) {
        ack += 1;
    }
    tcp::Repr {
        src_port: segment.tcp.dst_port,
        dst_port: segment.tcp.src_port,
        seq: SeqNumber(seq),
        ack,
        flags,
        window: u16::MAX,
        urgent: 0,
        options: Default::default(),
    }
}

/// The kernel connects to us and sends 60,000 bytes; then we send as many from session memory.
fn tcp_both_ways(stack: &mut Stack) -> u16 {
    let kernel = std::thread::spawn(|| {
        let mut stream = TcpStream::connect((OURS, 80)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(&pattern()).unwrap();
        let mut back = vec![0; LEN];
        stream.read_exact(&mut back).unwrap();
        back
    });
    let syn = stack.recv_tcp();
    assert!(syn.tcp.flags.contains(Flags::SYN));
    let mut answer = reply(&syn, Flags::SYN | Flags::ACK, 5000);
    answer.options.mss = Some(1460);
    answer.options.window_scale = syn.tcp.options.window_scale.map(|_| 7);
    stack.send_tcp(&answer, None);

    let mut got = Vec::new();
    let mut largest = 0;
    while got.len() < LEN {
        let segment = stack.recv_tcp();
        let expected = syn.tcp.seq + 1 + u32::try_from(got.len()).unwrap();
        if segment.payload.is_empty() || segment.tcp.seq != expected {
            continue;
        }
        if segment.payload.len() > 1460 {
            largest = largest.max(segment.gso_size);
        }
        got.extend_from_slice(&segment.payload);
        stack.send_tcp(&reply(&segment, Flags::ACK, 5001), None);
    }
    assert!(got == pattern(), "what came from the kernel differs");

    let fd = shm::mapping::create("session", 1 << 17).unwrap();
    let map = shm::Mapping::map(&fd, 1 << 17, true).unwrap();
    assert!(map.copy_in(300, &pattern()));
    let region = RegionId::of_session(IPD, 1);
    stack.fabric.set_region(region, Some(fd));
    let ack = syn.tcp.seq + 1 + u32::try_from(LEN).unwrap();
    let mut sent = 0;
    while sent < LEN {
        // The kernel's first window is what it announced; stay inside of it.
        let n = (LEN - sent).min(30_000);
        let segment = tcp::Repr {
            src_port: 80,
            dst_port: syn.tcp.src_port,
            seq: SeqNumber(5001) + u32::try_from(sent).unwrap(),
            ack,
            flags: Flags::ACK | Flags::PSH,
            window: u16::MAX,
            urgent: 0,
            options: Default::default(),
        };
        let at = u64::try_from(300 + sent).unwrap();
        stack.send_tcp(&segment, Some((region, at, u32::try_from(n).unwrap())));
        sent += n;
        let until = SeqNumber(5001) + u32::try_from(sent).unwrap();
        while stack.recv_tcp().tcp.ack != until {}
    }
    assert!(
        kernel.join().unwrap() == pattern(),
        "what the kernel got differs"
    );
    largest
}

#[test]
fn tap_with_full_offload_carries_super_frames_both_ways() {
    in_namespace(
        "tap_with_full_offload_carries_super_frames_both_ways",
        || {
            let Some(mut stack) = Stack::open(DeviceKind::Tap, Offload::Full) else {
                return;
            };
            udp_both_ways(&mut stack);
            assert_eq!(tcp_both_ways(&mut stack), 1460);
            assert!(stack.netdevd.counter("rx_superframes").unwrap() > 0);
            assert!(stack.netdevd.counter("tx_superframes").unwrap() > 0);
            assert_eq!(stack.netdevd.counter("sw_segmented"), Some(0));
            // No copies but the device's own.
            let count = |name| stack.netdevd.counter(name).unwrap();
            assert_eq!(count("tx_bytes"), count("tx_copied_bytes"));
            stack.finish();
        },
    );
}

#[test]
fn tap_without_offload_works_in_software() {
    in_namespace("tap_without_offload_works_in_software", || {
        let Some(mut stack) = Stack::open(DeviceKind::Tap, Offload::None) else {
            return;
        };
        udp_both_ways(&mut stack);
        assert_eq!(tcp_both_ways(&mut stack), 0, "no super-frame may come");
        assert!(stack.netdevd.counter("sw_segmented").unwrap() > 0);
        assert!(stack.netdevd.counter("sw_checksums").unwrap() > 0);
        stack.finish();
    });
}

#[test]
fn tap_with_checksum_offload_segments_in_software() {
    in_namespace("tap_with_checksum_offload_segments_in_software", || {
        let Some(mut stack) = Stack::open(DeviceKind::Tap, Offload::Checksum) else {
            return;
        };
        udp_both_ways(&mut stack);
        assert_eq!(tcp_both_ways(&mut stack), 0, "no super-frame may come");
        assert!(stack.netdevd.counter("sw_segmented").unwrap() > 0);
        assert_eq!(stack.netdevd.counter("sw_checksums"), Some(0));
        stack.finish();
    });
}

#[test]
fn packet_socket_on_a_veth_carries_super_frames_both_ways() {
    in_namespace(
        "packet_socket_on_a_veth_carries_super_frames_both_ways",
        || {
            let Some(mut stack) = Stack::open(DeviceKind::Packet, Offload::Full) else {
                return;
            };
            udp_both_ways(&mut stack);
            assert_eq!(tcp_both_ways(&mut stack), 1460);
            assert!(stack.netdevd.counter("rx_superframes").unwrap() > 0);
            assert!(stack.netdevd.counter("tx_superframes").unwrap() > 0);
            stack.finish();
        },
    );
}

#[test]
fn packet_socket_without_offload_works_in_software() {
    in_namespace("packet_socket_without_offload_works_in_software", || {
        let Some(mut stack) = Stack::open(DeviceKind::Packet, Offload::None) else {
            return;
        };
        udp_both_ways(&mut stack);
        tcp_both_ways(&mut stack);
        assert!(stack.netdevd.counter("sw_segmented").unwrap() > 0);
        stack.finish();
    });
}

/// We connect to the kernel, and netdevd is killed and replaced in the middle.
#[test]
fn the_device_outlives_netdevd() {
    in_namespace("the_device_outlives_netdevd", || {
        let Some(mut stack) = Stack::open(DeviceKind::Tap, Offload::Full) else {
            return;
        };
        udp_both_ways(&mut stack);
        let listener = TcpListener::bind((PEER, 9000)).unwrap();
        let syn = tcp::Repr {
            src_port: 1234,
            dst_port: 9000,
            seq: SeqNumber(1),
            ack: SeqNumber(0),
            flags: Flags::SYN,
            window: u16::MAX,
            urgent: 0,
            options: Default::default(),
        };
        stack.send_tcp(&syn, None);
        let netdevd = std::mem::replace(
            &mut stack.netdevd,
            Fabric::new(&[(
                NETDEVD,
                Role::Netdevd {
                    device: DevIndex(1),
                },
            )])
            .worker(NETDEVD),
        );
        netdevd.kill();
        stack.netdevd = stack.fabric.worker::<Netdevd>(NETDEVD);
        let syn_ack = stack.recv_tcp();
        assert!(syn_ack.tcp.flags.contains(Flags::SYN | Flags::ACK));
        stack.send_tcp(&reply(&syn_ack, Flags::ACK, 2), None);
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from, SocketAddr::from((OURS, 1234)));
        stack.finish();
    });
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    in_namespace("what_cannot_be_opened_says_what_to_do", || {
        let mut fabric = Fabric::new(&[(
            NETDEVD,
            Role::Netdevd {
                device: DevIndex(1),
            },
        )]);
        let device = &mut fabric.stack_mut().devices[0];
        (device.kind, device.name) = (DeviceKind::Packet, "nope0".to_owned());
        let text = |device: &abi::config::DeviceConfig| {
            format!("{:#}", netdevd::open_device(device).unwrap_err())
        };
        assert!(
            text(device).contains("interface nope0: there is none"),
            "{}",
            text(device)
        );
        ip("link add strata0 type veth peer name peer0");
        "strata0".clone_into(&mut device.name);
        assert!(
            text(device).contains("it is down: `ip link set strata0 up`"),
            "{}",
            text(device)
        );
        device.mtu = 9000;
        assert!(
            text(device).contains("`ip link set strata0 mtu 9000`"),
            "{}",
            text(device)
        );
        device.kind = DeviceKind::Tap;
        let tap = text(device);
        assert!(
            tap.contains("is no single-queue TAP") || tap.contains("no permission on"),
            "{tap}"
        );
        "a-name-that-is-too-long".clone_into(&mut device.name);
        assert!(!text(device).is_empty());
    });
}
