//! A hostile peer floods: one-byte segments in order and out of order, windows that never open.
//! What it costs is bounded, other connections go on, and every byte that was taken is right.

use crate::hostile::{interface_address, pids, stack_mac};
use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, recv, sendto, socket,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};
use wire::arp;
use wire::ethernet::MacAddr;
use wire::tcp::{Flags, Repr};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("a_flooding_peer_leaves_the_others_alone", flood);
    trials.add("a_segment_with_a_wrong_checksum_is_dropped", damaged);
}

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
/// Connections of the peer whose windows never open.
const SHUT: u16 = 20;
const FIRST_PORT: u16 = 5_000;
/// The port of the connection whose application reads.
const READ: u16 = FIRST_PORT + SHUT;
/// And of one whose application does not.
const UNREAD: u16 = READ + 1;
const ISN: u32 = 1_000;

fn byte_at(position: u32) -> u8 {
    (position.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// One of its connections, by its port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    window: u16,
    /// What it has of ours: acknowledged.
    pub(crate) ack: u32,
    /// What we have of it.
    acked: u32,
    connected: bool,
}

/// A host that does not exist, on the lab's link.
pub(crate) struct Peer {
    fd: OwnedFd,
    to: LinkAddr,
    mac: [u8; 6],
    own: Ipv4Addr,
    stack: Ipv4Addr,
    port: u16,
    pub(crate) flows: HashMap<u16, Flow>,
    buffer: Vec<u8>,
    answers: u32,
    /// What it sends has a wrong checksum.
    damages: bool,
}

impl Peer {
    pub(crate) fn new(lab: &Lab, port: u16) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?;
        let to = interface_address(&lab.host_interface, all)?;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        bind(fd.as_raw_fd(), &to)?;
        let [a, b, c, _] = lab.host.octets();
        Ok(Self {
            fd,
            to,
            mac: stack_mac(lab)?,
            own: Ipv4Addr::new(a, b, c, 77),
            stack: lab.stack,
            port,
            flows: HashMap::new(),
            buffer: vec![0; 1 << 17],
            answers: 0,
            damages: false,
        })
    }

    fn frame(&self, kind: u16, body: &[u8]) {
        let mut frame = self.mac.to_vec();
        frame.extend_from_slice(&MAC.0);
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(body);
        // A full queue of the device is a lost frame.
        let _ = sendto(
            self.fd.as_raw_fd(),
            &frame,
            &self.to,
            MsgFlags::MSG_DONTWAIT,
        );
    }

    pub(crate) fn send(&self, from: u16, flags: Flags, seq: u32, payload: &[u8]) -> Result<()> {
        let flow = self.flows.get(&from).context("no such flow")?;
        let repr = Repr {
            src_port: from,
            dst_port: self.port,
            seq: wire::SeqNumber(ISN.wrapping_add(seq)),
            ack: wire::SeqNumber(flow.ack),
            flags,
            window: flow.window,
            urgent: 0,
            options: Default::default(),
        };
        let len = 20 + repr.header_len() + payload.len();
        let mut packet = vec![0; len];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
        packet[2..4].copy_from_slice(&u16::try_from(len)?.to_be_bytes());
        packet[12..16].copy_from_slice(&self.own.octets());
        packet[16..20].copy_from_slice(&self.stack.octets());
        let sum = wire::checksum::of(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let segment = &mut packet[20..];
        repr.emit(segment)?;
        segment[repr.header_len()..].copy_from_slice(payload);
        wire::tcp::fill_checksum(segment, self.own.into(), self.stack.into())?;
        // The checksum's own bytes.
        segment[17] ^= u8::from(self.damages);
        self.frame(0x0800, &packet);
        Ok(())
    }

    /// Takes what has come.
    fn pump(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Ok(n) = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            let frame = &buffer[..n];
            if n < 34 || frame[6..12] == MAC.0 {
                continue;
            }
            match u16::from_be_bytes([frame[12], frame[13]]) {
                0x0806 => self.on_arp(&frame[14..]),
                0x0800 if frame[30..34] == self.own.octets() => self.on_segment(&frame[34..])?,
                _ => {}
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn on_arp(&self, packet: &[u8]) {
        let Ok(asked) = arp::Repr::parse(packet) else {
            return;
        };
        if asked.operation == arp::Operation::Request && asked.target_ip == self.own {
            let mut reply = [0; 28];
            let _ = arp::Repr {
                operation: arp::Operation::Reply,
                sender_mac: MAC,
                sender_ip: self.own,
                target_mac: asked.sender_mac,
                target_ip: asked.sender_ip,
            }
            .emit(&mut reply);
            self.frame(0x0806, &reply);
        }
    }

    fn on_segment(&mut self, segment: &[u8]) -> Result<()> {
        let Ok((repr, header)) = Repr::parse(segment) else {
            return Ok(());
        };
        let Some(flow) = self.flows.get_mut(&repr.dst_port) else {
            return Ok(());
        };
        ensure!(!repr.flags.contains(Flags::RST), "reset");
        self.answers += 1;
        let acked = repr.ack.0.wrapping_sub(ISN);
        if !flow.connected && !repr.flags.contains(Flags::SYN) {
            // RFC 9293 3.5.2: of an older connection, whose reset was lost.
            return self.send(repr.dst_port, Flags::RST, acked, &[]);
        }
        flow.acked = acked;
        let payload = u32::try_from(segment.len() - header)?;
        let first = repr.flags.contains(Flags::SYN);
        if first {
            flow.connected = true;
            flow.ack = repr.seq.0.wrapping_add(1);
        } else if payload > 0 && flow.ack == repr.seq.0 {
            flow.ack = flow.ack.wrapping_add(payload);
            flow.window = flow
                .window
                .saturating_sub(u16::try_from(payload).unwrap_or(0xffff));
        }
        if first || flow.window == 0 {
            self.send(repr.dst_port, Flags::ACK, 1, &[])?;
        }
        Ok(())
    }

    pub(crate) fn connect(&mut self, from: u16, window: u16) -> Result<()> {
        let flow = Flow {
            window,
            ack: 0,
            acked: 0,
            connected: false,
        };
        self.flows.insert(from, flow);
        for _ in 0..20 {
            self.send(from, Flags::SYN, 0, &[])?;
            for _ in 0..50 {
                self.pump()?;
                if self.flows[&from].connected {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        anyhow::bail!("the stack does not answer port {from}")
    }

    /// `count` one-byte segments, as `position` says which.
    fn bytes(&mut self, from: u16, count: u32, mut position: impl FnMut(u32) -> u32) -> Result<()> {
        for i in 0..count {
            let at = position(i);
            self.send(from, Flags::ACK | Flags::PSH, 1 + at, &[byte_at(at)])?;
            if i % 256 == 255 {
                self.pump()?;
                // The other processes have to run, too.
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.pump()
    }
}

/// RFC 9293 3.1 (MUST-3): the receiver checks the checksum.
fn damaged() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    // The kernel learns the stack's address with it.
    drop(connect(&lab, &stack, false)?);
    let mut peer = Peer::new(&lab, listener.local_addr()?.port())?;
    peer.connect(READ, 60_000)?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let errors = || lab.counter("tcpd", "tcp_in_csum_errors");
    let before = errors()?;
    peer.damages = true;
    peer.send(READ, Flags::ACK | Flags::PSH, 1, b"wrong")?;
    let begin = Instant::now();
    while errors()? == before {
        ensure!(begin.elapsed() < Duration::from_secs(10), "not counted");
        thread::sleep(Duration::from_millis(2));
    }
    peer.damages = false;
    peer.send(READ, Flags::ACK | Flags::PSH, 1, b"right")?;
    let mut got = [0; 5];
    stream.read_exact(&mut got)?;
    ensure!(&got == b"right", "{got:?}");
    Ok(())
}

/// Bytes of memory that tcpd has touched.
fn resident(lab: &Lab) -> Result<u64> {
    let pid = lab.layer("tcpd")?.pid.context("tcpd runs")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|l| l.starts_with("VmRSS:"));
    let kib = line
        .and_then(|l| l.split_whitespace().nth(1))
        .context("VmRSS")?;
    Ok(kib.parse::<u64>()? << 10)
}

fn flood() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    // The kernel learns the stack's address with it.
    let (theirs, ours) = connect(&lab, &stack, false)?;
    let mut peer = Peer::new(&lab, listener.local_addr()?.port())?;
    let mut shut = Vec::new();
    for i in 0..SHUT {
        peer.connect(FIRST_PORT + i, 2_000)?;
        let (mut stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        // As much as goes into the buffer.
        while stream.write(&[7; 4096]).is_ok() {}
        shut.push(stream);
    }
    peer.connect(READ, 60_000)?;
    let (mut read, _) = listener.accept()?;
    peer.connect(UNREAD, 60_000)?;
    let (unread, _) = listener.accept()?;
    let before = (pids(&lab)?, resident(&lab)?);
    let quiet = both_ways(ours, theirs, 64 << 20, Writes::BIG)?;

    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, 64 << 20, Writes::BIG));
    let begin = Instant::now();
    let old = lab.counter("tcpd", "tcp_in_segs")?;
    let mut random = fastrand::Rng::with_seed(3);
    let mut sent = 0;
    while !transfer.is_finished() || sent < 100_000 {
        // Every second byte of the window, again and again; the first never comes. In order, and
        // far more than fits.
        peer.bytes(READ, 4_096, |_| 1 + 2 * random.u32(0..30_000))?;
        peer.bytes(UNREAD, 4_096, |i| (sent / 2 + i) % 200_000)?;
        sent += 8_192;
        ensure!(
            begin.elapsed() < Duration::from_secs(60),
            "the transfer hangs"
        );
    }
    let took = begin.elapsed();
    let silence = transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .context("the transfer beside")?;
    let after = (pids(&lab)?, resident(&lab)?);
    ensure!(after.0 == before.0, "somebody died:\n{}", lab.log());
    let grown = after.1.saturating_sub(before.1) >> 20;
    let taken = lab.counter("tcpd", "tcp_in_segs")? - old;
    ensure!(taken > 20_000, "only {taken} segments came to tcpd");
    println!(
        "{sent} one-byte segments ({taken} came to tcpd) in {took:?}, {} answers; a transfer's longest silence {silence:?} \
         (before: {quiet:?}); tcpd {grown} MiB larger",
        peer.answers
    );
    ensure!(grown <= 64, "tcpd has {grown} MiB more");

    // All that was missing comes: the bytes are right, and in order.
    let reader = thread::spawn(move || -> Result<()> {
        read.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut got = vec![0; 60_000];
        read.read_exact(&mut got)?;
        let right = (0..60_000).zip(&got).all(|(at, &byte)| byte_at(at) == byte);
        ensure!(right, "other bytes");
        Ok(())
    });
    let begin = Instant::now();
    while peer.flows[&READ].acked <= 60_000 {
        ensure!(
            begin.elapsed() < Duration::from_secs(20),
            "not acknowledged"
        );
        let from = peer.flows[&READ].acked.max(1) - 1;
        for at in (from..60_000).step_by(1_000).take(8) {
            let bytes: Vec<u8> = (at..(at + 1_000).min(60_000)).map(byte_at).collect();
            peer.send(READ, Flags::ACK, 1 + at, &bytes)?;
        }
        thread::sleep(Duration::from_millis(5));
        peer.pump()?;
    }
    reader.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    drop((unread, shut));
    let (theirs, ours) = connect(&lab, &stack, false)?;
    both_ways(ours, theirs, 1 << 20, Writes::MIXED).context("afterwards")?;
    Ok(())
}
