//! What reading from and writing to a TAP costs, alone and through netdevd's whole service, to
//! hold against the kernel's own figures. Needs root, or `unshare -rn` and a TAP that one may
//! open:
//!
//! ```text
//! unshare -n cargo run --release -p netdevd --example cost
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: what fails should say so at once"
)]

use abi::config::{DeviceKind, Offload, Role};
use abi::skbuff::{checksum, gso};
use abi::{DevIndex, RegionId, ServiceId};
use netdevd::Netdevd;
use netdevd::counters::Stats;
use netdevd::device::{Device, Frame, Io, VnetDevice};
use runtime::testing::{Fabric, Worker};
use runtime::{Plumbing, clock};
use shm::{SizeClass, SkBuff};
use wire::vnet::VirtioNetHdr;

const IPD: ServiceId = ServiceId(1);
const NETDEVD: ServiceId = ServiceId(2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SIZES: [usize; 3] = [64, 1514, 65_226];
const BATCH: usize = 16;
const ROUNDS: u64 = 2000;

/// A TCP segment over IPv4 of `size` bytes in all, as a super-frame when it is large; nobody
/// wants it, so that the kernel drops it at once.
fn frame(size: usize, dst: [u8; 6]) -> (VirtioNetHdr, Vec<u8>) {
    let mut bytes = vec![0; size];
    bytes[..6].copy_from_slice(&dst);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    bytes[12..14].copy_from_slice(&[8, 0]);
    let packet = wire::ipv4::Repr {
        src: [10, 77, 1, 1].into(),
        dst: [10, 77, 1, 2].into(),
        protocol: 6,
        ttl: 64,
        tos: 0,
        ident: 0,
        dont_frag: true,
        more_frags: false,
        frag_offset: 0,
        total_len: u16::try_from(size - 14).unwrap(),
        options: Default::default(),
    };
    packet.emit(&mut bytes[14..]).unwrap();
    bytes[46] = 5 << 4;
    let mut hdr = VirtioNetHdr::default();
    if size > 1514 {
        hdr = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso_type: VirtioNetHdr::GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        };
    }
    (hdr, bytes)
}

fn report(what: &str, size: usize, began: u64, count: u64) {
    let ns = (clock::now() - began) / count.max(1);
    println!("{what:<28} {size:>6} B  {ns:>6} ns  ({count} frames)");
}

/// Sends from the kernel's side of the TAP, `BATCH` frames at a time, and lets `read` take them.
fn reading(what: &str, peer: &mut VnetDevice, io: &mut Io<'_>, mut read: impl FnMut() -> usize) {
    for size in SIZES {
        let (hdr, bytes) = frame(size, MAC);
        let (mut spent, mut count) = (0, 0);
        for _ in 0..ROUNDS {
            for _ in 0..BATCH {
                let _ = peer.transmit(io, &Frame::of_slices(hdr, &[&bytes]));
            }
            let began = clock::now();
            count += read();
            spent += clock::now() - began;
        }
        report(what, size, clock::now() - spent, count as u64);
    }
}

fn main() {
    let mut fabric = Fabric::new(&[
        (IPD, Role::Ipd),
        (
            NETDEVD,
            Role::Netdevd {
                device: DevIndex(1),
            },
        ),
    ]);
    let device = &mut fabric.stack_mut().devices[0];
    (device.name, device.kind) = ("cost0".to_owned(), DeviceKind::Tap);
    let tap = netdevd::open_device(device).unwrap();
    netdevd::configure_host_side("cost0", &["10.77.1.1/24".parse().unwrap()], 1500).unwrap();
    let mut peer = device.clone();
    peer.kind = DeviceKind::Packet;
    let peer = netdevd::open_device(&peer).unwrap();
    let mut peer = VnetDevice::new(peer, DeviceKind::Packet, Offload::Full, 1500);
    fabric.set_device(NETDEVD, tap.try_clone().unwrap());

    // The device alone.
    let mut plumbing = fabric.plumbing(NETDEVD);
    let mut other = fabric.plumbing(IPD);
    let mut device = VnetDevice::new(tap, DeviceKind::Tap, Offload::Full, 1500);
    let (mut stats, mut peer_stats) = (Stats::default(), Stats::default());
    let Plumbing { alloc, arena, .. } = &mut plumbing;
    let mut io = Io {
        now: 0,
        alloc: alloc.as_mut().unwrap(),
        arena,
        stats: &mut stats,
    };
    for size in SIZES {
        let (hdr, bytes) = frame(size, [2, 0, 0, 0, 0, 7]);
        let began = clock::now();
        for _ in 0..ROUNDS * BATCH as u64 {
            device
                .transmit(&mut io, &Frame::of_slices(hdr, &[&bytes]))
                .unwrap();
        }
        report("TAP write", size, began, ROUNDS * BATCH as u64);
    }
    let mut out: Vec<SkBuff> = Vec::new();
    device.receive(&mut io, 10_000, &mut out);
    out.clear();
    let mut peer_io = Io {
        now: 0,
        alloc: other.alloc.as_mut().unwrap(),
        arena: &other.arena,
        stats: &mut peer_stats,
    };
    reading("TAP read", &mut peer, &mut peer_io, || {
        let mut count = 0;
        while device.receive(&mut io, 64, &mut out) > 0 {
            count += out.len();
            out.clear();
        }
        count
    });
    let began = clock::now();
    for _ in 0..100_000 {
        device.receive(&mut io, 1, &mut out);
    }
    report("TAP read that would block", 0, began, 100_000);
    drop((device, plumbing));

    // The service: ring in, claim, gather, write; read, filter, ring out.
    let mut ipd = fabric.plumbing(IPD);
    ipd.links[0].link().register(&[0x0800]);
    let mut netdevd: Worker<Netdevd> = fabric.worker(NETDEVD);
    let fd = shm::mapping::create("session", 1 << 20).unwrap();
    let region = RegionId::of_session(IPD, 1);
    fabric.set_region(region, Some(fd));
    for size in SIZES {
        let (hdr, bytes) = frame(size, [2, 0, 0, 0, 0, 7]);
        let (head, rest) = bytes.split_at(size.min(54));
        let began = clock::now();
        for _ in 0..ROUNDS {
            for _ in 0..BATCH {
                let mut skb = ipd.alloc.as_mut().unwrap().alloc(SizeClass::Small).unwrap();
                skb.put(head.len()).unwrap().copy_from_slice(head);
                if !rest.is_empty() {
                    skb.add_frag(region, 4096, u32::try_from(rest.len()).unwrap());
                }
                let start = u16::try_from(skb.data_offset()).unwrap() + 34;
                if hdr.is_gso() {
                    let d = skb.desc_mut();
                    (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, start, 16);
                    (d.gso_type, d.gso_size) = (gso::TCPV4, 1448);
                }
                ipd.links[0].send(skb).unwrap();
            }
            ipd.links[0].flush();
            netdevd.turn(clock::now());
        }
        report(
            "ring to TAP, whole service",
            size,
            began,
            ROUNDS * BATCH as u64,
        );
    }
    reading(
        "TAP to ring, whole service",
        &mut peer,
        &mut peer_io,
        || {
            let mut count = 0;
            while netdevd.turn(clock::now()) > 0 {
                let Plumbing { links, arena, .. } = &mut ipd;
                links[0].recv(arena, 64, |skb| {
                    count += 1;
                    drop(skb);
                });
            }
            count
        },
    );
    for (name, value) in netdevd.plumbing.vitals.counters() {
        if value > 0 {
            println!("{name:<24} {value}");
        }
    }
}
