//! netdevd on its plumbing, with the in-memory device; the test plays ipd.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: what fails should say so at once"
)]

use abi::config::{DaemonConfig, Impairment, Role};
use abi::skbuff::{checksum, flag, gso};
use abi::{DevIndex, RegionId, ServiceId};
use netdevd::Netdevd;
use proptest::prelude::*;
use runtime::Plumbing;
use runtime::testing::{Fabric, Worker};
use shm::{SizeClass, SkBuff};
use std::os::fd::AsFd;

const IPD: ServiceId = ServiceId(1);
const NETDEVD: ServiceId = ServiceId(2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const IPV4: u16 = 0x0800;

struct Pair {
    fabric: Fabric,
    ipd: Plumbing,
    netdevd: Worker<Netdevd>,
}

fn pair() -> Pair {
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
    let ipd = fabric.plumbing(IPD);
    ipd.links[0].link().register(&[IPV4, 0x0806]);
    let netdevd = fabric.worker::<Netdevd>(NETDEVD);
    Pair {
        fabric,
        ipd,
        netdevd,
    }
}

impl Pair {
    fn skb(&mut self, dst: [u8; 6], ethertype: u16, payload: &[u8]) -> SkBuff {
        let mut skb = self
            .ipd
            .alloc
            .as_mut()
            .unwrap()
            .alloc(SizeClass::Small)
            .unwrap();
        let frame = skb.put(14 + payload.len()).unwrap();
        frame[..6].copy_from_slice(&dst);
        frame[6..12].copy_from_slice(&MAC);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[14..].copy_from_slice(payload);
        skb.desc_mut().dev_out = 1;
        skb
    }

    fn send(&mut self, skb: SkBuff) {
        self.ipd.links[0].send(skb).unwrap();
        self.ipd.links[0].flush();
    }

    fn received(&mut self) -> Vec<SkBuff> {
        let mut all = Vec::new();
        let Plumbing { links, arena, .. } = &mut self.ipd;
        while links[0].recv(arena, 64, |skb| all.push(skb)) > 0 {}
        all
    }

    fn count(&self, name: &str) -> u64 {
        self.netdevd.counter(name).unwrap()
    }
}

#[test]
fn the_device_is_announced_to_the_layer_above() {
    let p = pair();
    let device = p.ipd.links[0].link().device();
    assert!(device.present && device.checksum && device.segmentation);
    assert_eq!((device.mtu, device.mac), (1500, MAC));
}

#[test]
fn a_frame_goes_out_and_comes_back_as_the_contract_says() {
    let mut p = pair();
    let skb = p.skb(MAC, IPV4, b"an IPv4 packet, perhaps");
    p.send(skb);
    p.netdevd.settle(1);
    let got = p.received();
    assert_eq!(got.len(), 1);
    let skb = &got[0];
    let d = skb.desc();
    assert_eq!(skb.linear(), b"an IPv4 packet, perhaps");
    assert_eq!(u32::from(d.network), skb.data_offset());
    assert_eq!(u32::from(d.mac) + 14, skb.data_offset());
    assert_eq!((d.ethertype, d.dev_in), (IPV4, 1));
    assert_eq!(d.flags & flag::LINK_BROADCAST, 0);
    assert_eq!(d.ip_summed, checksum::NONE);
    assert_eq!((p.count("rx_packets"), p.count("tx_packets")), (1, 1));
    assert_eq!((p.count("rx_bytes"), p.count("rx_copied_bytes")), (37, 37));
    drop(got);
    assert_eq!(p.fabric.free_slots(IPD), p.fabric.slots());
    drop(p.netdevd);
    assert_eq!(p.fabric.free_slots(NETDEVD), p.fabric.slots());
}

#[test]
fn only_wanted_frames_go_up() {
    let mut p = pair();
    let cases = [
        (MAC, IPV4),
        ([0xff; 6], 0x0806),
        ([1, 0, 0x5e, 0, 0, 1], IPV4),
        ([2, 0, 0, 0, 0, 9], IPV4),
        (MAC, 0x86dd),
        (MAC, 0x88cc),
    ];
    for (dst, ethertype) in cases {
        let skb = p.skb(dst, ethertype, &[1; 46]);
        p.send(skb);
    }
    // Shorter than an Ethernet header.
    let mut runt = p.skb(MAC, IPV4, &[]);
    runt.trim(13);
    p.send(runt);
    p.netdevd.settle(1);
    let flags: Vec<bool> = p
        .received()
        .iter()
        .map(|s| s.desc().flags & flag::LINK_BROADCAST != 0)
        .collect();
    assert_eq!(flags, [false, true, true]);
    assert_eq!(p.count("rx_other_host"), 1);
    assert_eq!(p.count("rx_unregistered"), 2);
    assert_eq!(p.count("rx_malformed"), 1);

    // A level, not a message: who registers later is served from then on.
    p.ipd.links[0].link().register(&[0x86dd]);
    let skb = p.skb(MAC, 0x86dd, &[1; 46]);
    p.send(skb);
    p.netdevd.settle(2);
    assert_eq!(p.received().len(), 1);
}

#[test]
fn a_super_frame_from_session_memory_comes_back_whole() {
    let mut p = pair();
    let fd = shm::mapping::create("session", 1 << 17).unwrap();
    let map = shm::Mapping::map(&fd, 1 << 17, true).unwrap();
    let payload: Vec<u8> = (0..60_000u32)
        .map(|i| u8::try_from(i % 253).unwrap())
        .collect();
    assert!(map.copy_in(1000, &payload));
    let region = RegionId::of_session(IPD, 5);
    let frame = |p: &mut Pair| {
        let mut skb = p.skb(MAC, IPV4, &[0x45; 40]);
        assert!(skb.add_frag(region, 1000, 30_000));
        assert!(skb.add_frag(region, 31_000, 30_000));
        let start = u16::try_from(skb.data_offset()).unwrap() + 34;
        let d = skb.desc_mut();
        (d.ip_summed, d.csum_start, d.csum_offset) = (checksum::PARTIAL, start, 16);
        (d.gso_type, d.gso_size) = (gso::TCPV4, 1448);
        skb
    };
    let skb = frame(&mut p);
    p.send(skb);
    p.netdevd.settle(1);
    assert!(p.received().is_empty());
    p.netdevd.settle(200_000_000);
    assert_eq!(p.count("tx_unknown_region"), 1);

    // The memory is on its way: netdevd finds it when it meets the fragment.
    p.fabric.set_region(region, Some(fd.try_clone().unwrap()));
    let skb = frame(&mut p);
    p.send(skb);
    p.netdevd.settle(2);
    let got = p.received();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].len(), 60_040);
    let mut bytes = vec![0; 60_000];
    p.ipd.arena.copy_out(&got[0], 40, &mut bytes).unwrap();
    assert_eq!(bytes, payload);
    assert_eq!(got[0].desc().gso_size, 1448);
    assert_eq!(
        (p.count("tx_superframes"), p.count("rx_superframes")),
        (1, 1)
    );

    // Taken away, it is not read any more.
    p.fabric.set_region(region, None);
    let skb = frame(&mut p);
    p.send(skb);
    p.netdevd.settle(300_000_000);
    assert!(p.received().is_empty());
    p.netdevd.settle(500_000_000);
    assert!(p.received().is_empty());
    assert_eq!(p.count("tx_unknown_region"), 2);
    let _ = fd.as_fd();
}

#[test]
fn frames_wait_for_a_session_memory_that_comes_later_and_hold_up_no_others() {
    let mut p = pair();
    let fd = shm::mapping::create("session", 1 << 16).unwrap();
    let map = shm::Mapping::map(&fd, 1 << 16, true).unwrap();
    assert!(map.copy_in(0, &[7; 1000]));
    let (region, never) = (RegionId::of_session(IPD, 5), RegionId::of_session(IPD, 6));
    let frame = |p: &mut Pair, region: RegionId, len: u32| {
        let mut skb = p.skb(MAC, IPV4, &[0x45; 40]);
        assert!(skb.add_frag(region, 0, len));
        skb
    };
    for len in [100, 200, 300] {
        let skb = frame(&mut p, region, len);
        p.send(skb);
    }
    let skb = frame(&mut p, never, 50);
    p.send(skb);
    let skb = p.skb(MAC, IPV4, &[0x45; 46]);
    p.send(skb);
    p.netdevd.settle(1);
    let lens = |got: Vec<SkBuff>| got.iter().map(|skb| skb.len()).collect::<Vec<_>>();
    assert_eq!(lens(p.received()), [46]);

    p.fabric.set_region(region, Some(fd));
    p.netdevd.settle(50_000_000);
    assert_eq!(lens(p.received()), [140, 240, 340]);
    assert_eq!(p.count("tx_unknown_region"), 0);

    // The memory of the last one never comes; of more such frames only so many are kept.
    p.netdevd.settle(200_000_000);
    assert_eq!(p.count("tx_unknown_region"), 1);
    for turn in 0..20 {
        for _ in 0..10 {
            let skb = frame(&mut p, never, 50);
            p.send(skb);
        }
        p.netdevd.settle(200_000_001 + turn);
    }
    assert_eq!(p.count("tx_unknown_region"), 1 + 200 - 128);
    let skb = p.skb(MAC, IPV4, &[0x45; 46]);
    p.send(skb);
    p.netdevd.settle(201_000_000);
    assert_eq!(lens(p.received()), [46]);
    p.netdevd.settle(400_000_000);
    assert_eq!(p.count("tx_unknown_region"), 201);
    assert!(p.received().is_empty());
    assert_eq!(p.fabric.free_slots(IPD), p.fabric.slots());
}

#[test]
fn a_full_ring_upwards_drops_and_leaks_nothing() {
    let mut p = pair();
    for turn in 0..40 {
        for _ in 0..20 {
            let skb = p.skb(MAC, IPV4, &[0; 46]);
            p.send(skb);
        }
        p.netdevd.settle(turn);
    }
    // ipd has taken nothing: the pool ran out before the ring did, and frames were refused.
    let delivered = p.received();
    assert!(delivered.len() >= 200);
    assert_eq!(delivered.len() as u64 + p.count("tx_errors"), 800);
    drop(delivered);
    assert_eq!(p.fabric.free_slots(IPD), p.fabric.slots());
    let skb = p.skb(MAC, IPV4, &[0; 46]);
    p.send(skb);
    p.netdevd.settle(50);
    assert_eq!(p.received().len(), 1);
}

#[test]
fn a_killed_netdevd_leaves_lost_packets_and_nothing_else() {
    let mut p = pair();
    for _ in 0..10 {
        let skb = p.skb(MAC, IPV4, &[0; 46]);
        p.send(skb);
    }
    // In one turn frames are taken and looped; then it dies with them in its hands.
    p.netdevd.turn(1);
    p.netdevd.kill();
    p.netdevd = p.fabric.worker::<Netdevd>(NETDEVD);
    let skb = p.skb(MAC, IPV4, b"after");
    p.send(skb);
    p.netdevd.settle(2);
    let got = p.received();
    assert_eq!(got.last().unwrap().linear(), b"after");
    drop(got);
    drop(p.netdevd);
    assert_eq!(p.fabric.free_slots(IPD), p.fabric.slots());
    assert_eq!(p.fabric.free_slots(NETDEVD), p.fabric.slots());
}

fn impaired(p: &Pair, impairment: Impairment) -> DaemonConfig {
    let mut config = p.fabric.config(NETDEVD);
    config.stack.devices[0].impairment = impairment;
    config
}

#[test]
fn impairment_is_switched_on_and_off_while_running() {
    let mut p = pair();
    let all_lost = Impairment {
        loss: 1.0,
        ..Impairment::default()
    };
    let config = impaired(&p, all_lost);
    p.netdevd.reconfigure(&config, 1);
    let skb = p.skb(MAC, IPV4, &[0; 46]);
    p.send(skb);
    p.netdevd.settle(1);
    assert!(p.received().is_empty());
    assert_eq!(p.count("impair_lost"), 1);

    let delayed = Impairment {
        delay_us: 1000,
        ..Impairment::default()
    };
    let config = impaired(&p, delayed);
    p.netdevd.reconfigure(&config, 2);
    let skb = p.skb(MAC, IPV4, &[0; 46]);
    p.send(skb);
    p.netdevd.settle(1_000_000);
    assert!(p.received().is_empty());
    use runtime::Service;
    // A millisecond out, and another in.
    assert_eq!(p.netdevd.service.deadline(), Some(2_000_000));
    p.netdevd.settle(2_000_000);
    assert_eq!(p.netdevd.service.deadline(), Some(3_000_000));
    p.netdevd.settle(3_000_000);
    assert_eq!(p.received().len(), 1);

    let config = impaired(&p, Impairment::default());
    p.netdevd.reconfigure(&config, 4_000_000);
    let skb = p.skb(MAC, IPV4, &[0; 46]);
    p.send(skb);
    p.netdevd.settle(4_000_000);
    assert_eq!(p.received().len(), 1);
    assert_eq!(p.netdevd.service.deadline(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever descriptors ipd writes, netdevd neither dies nor leaks.
    #[test]
    fn hostile_descriptors_are_survived(
        frames in prop::collection::vec(
            (any::<[u16; 8]>(), any::<[u8; 5]>(), 0usize..1500, any::<(u64, u32)>()), 1..20),
    ) {
        let mut p = pair();
        for (words, bytes, len, (offset, frag)) in frames {
            let mut skb = p.skb(MAC, IPV4, &vec![0x45; len]);
            skb.add_frag(RegionId::of_pool(abi::PoolId(IPD.0)), offset % (1 << 20), frag % 70_000);
            let d = skb.desc_mut();
            [d.mac, d.network, d.transport, d.gso_size, d.csum_start, d.csum_offset, d.dev_out, _] =
                words;
            [d.ip_summed, d.gso_type, d.flags, d.kind, _] = bytes;
            d.ip_summed %= 4;
            d.gso_type %= 6;
            p.send(skb);
        }
        p.netdevd.settle(1);
        // Still there.
        let skb = p.skb(MAC, IPV4, b"alive");
        p.send(skb);
        p.netdevd.settle(2);
        let got = p.received();
        prop_assert_eq!(got.last().unwrap().linear(), b"alive");
        drop(got);
        drop(p.netdevd);
        prop_assert_eq!(p.fabric.free_slots(IPD), p.fabric.slots());
        prop_assert_eq!(p.fabric.free_slots(NETDEVD), p.fabric.slots());
    }
}
