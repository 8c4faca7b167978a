use super::*;
use crate::counters::Counter;
use abi::config::Role;
use abi::skbuff::{checksum, gso};
use abi::{DevIndex, RegionId, ServiceId};
use proptest::prelude::*;
use runtime::Plumbing;
use runtime::testing::Fabric;
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire::ethernet::{EtherType, Header};
use wire::tcp::{Flags, Options};
use wire::vnet::VirtioNetHdr;
use wire::{MacAddr, SeqNumber, ipv4, tcp};

const ME: ServiceId = ServiceId(1);
const SRC: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const DST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

fn fabric() -> Fabric {
    Fabric::new(&[(
        ME,
        Role::Netdevd {
            device: DevIndex(1),
        },
    )])
}

/// Ethernet, IPv4 and TCP headers for `payload` bytes, with a partial checksum.
fn headers(payload: usize) -> Vec<u8> {
    let segment = tcp::Repr {
        src_port: 80,
        dst_port: 4000,
        seq: SeqNumber(1000),
        ack: SeqNumber(2000),
        flags: Flags::ACK | Flags::PSH,
        window: 1000,
        urgent: 0,
        options: Options::default(),
    };
    let packet = ipv4::Repr {
        src: SRC,
        dst: DST,
        protocol: 6,
        ttl: 64,
        tos: 0,
        ident: 7,
        dont_frag: true,
        more_frags: false,
        frag_offset: 0,
        total_len: u16::try_from(20 + segment.header_len() + payload).unwrap(),
        options: Default::default(),
    };
    let mut out = vec![0; 14 + 20 + segment.header_len()];
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let link = Header {
        dst: mac,
        src: mac,
        ethertype: EtherType::IPV4,
    };
    link.emit(&mut out).unwrap();
    packet.emit(&mut out[14..]).unwrap();
    segment.emit(&mut out[34..]).unwrap();
    let len = u32::try_from(segment.header_len() + payload).unwrap();
    tcp::fill_partial_checksum(&mut out[34..], len, SRC.into(), DST.into()).unwrap();
    out
}

fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

fn super_hdr(size: u16) -> VirtioNetHdr {
    VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        gso_type: VirtioNetHdr::GSO_TCPV4,
        hdr_len: 54,
        gso_size: size,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

/// Records what it is given; busy every `busy`th time.
#[derive(Debug, Default)]
struct Recorder {
    offload: Offload,
    sent: Vec<(VirtioNetHdr, Vec<u8>)>,
    busy: usize,
    calls: usize,
}

impl Device for Recorder {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn receive(&mut self, _: &mut Io<'_>, _: usize, _: &mut Vec<SkBuff>) -> usize {
        0
    }

    fn transmit(&mut self, _: &mut Io<'_>, frame: &Frame<'_>) -> Result<(), Busy> {
        self.calls += 1;
        if self.busy > 0 && self.calls.is_multiple_of(self.busy) {
            return Err(Busy);
        }
        let mut bytes = Vec::new();
        frame.copy_to(&mut bytes);
        self.sent.push((*frame.hdr(), bytes));
        Ok(())
    }
}

fn with_io<R>(plumbing: &mut Plumbing, f: impl FnOnce(&mut Io<'_>) -> R) -> (R, Stats) {
    let mut stats = Stats::default();
    let Plumbing { alloc, arena, .. } = plumbing;
    let mut io = Io {
        now: 1,
        alloc: alloc.as_mut().unwrap(),
        arena,
        stats: &mut stats,
    };
    let result = f(&mut io);
    (result, stats)
}

/// Sends a super-frame of 10,000 bytes through `Software`, trying again while it is busy.
fn send_super(offload: Offload, busy: usize) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let mut plumbing = fabric().plumbing(ME);
    let mut device = Software::new(Recorder {
        offload,
        busy,
        ..Recorder::default()
    });
    let (head, body) = (headers(10_000), payload(10_000));
    let frame = Frame::of_slices(super_hdr(1448), &[&head, &body[..3000], &body[3000..]]);
    let ((), stats) = with_io(
        &mut plumbing,
        |io| {
            while device.transmit(io, &frame).is_err() {}
        },
    );
    assert_eq!(
        stats.get(Counter::SwSegmented),
        u64::from(offload != Offload::Full)
    );
    device.inner_for_test().sent.clone()
}

#[test]
fn a_device_without_segmentation_gets_mtu_sized_frames() {
    for (offload, busy) in [
        (Offload::None, 0),
        (Offload::None, 2),
        (Offload::Checksum, 3),
    ] {
        let sent = send_super(offload, busy);
        assert_eq!(sent.len(), 7, "10,000 bytes in segments of 1,448");
        let mut got = Vec::new();
        for (index, (hdr, mut bytes)) in sent.into_iter().enumerate() {
            if offload == Offload::Checksum {
                assert!(hdr.needs_csum());
                wire::gso::complete_checksum(&mut bytes, hdr.csum_start, hdr.csum_offset).unwrap();
            } else {
                assert_eq!(hdr, VirtioNetHdr::default());
            }
            let packet = ipv4::Packet::new(&bytes[14..]).unwrap();
            assert!(packet.verify_checksum());
            assert!(tcp::verify_checksum(packet.payload, SRC.into(), DST.into()));
            let segment = tcp::Segment::new(packet.payload).unwrap();
            let seq = 1000 + u32::try_from(index * 1448).unwrap();
            assert_eq!(segment.raw.seq.get(), seq);
            got.extend_from_slice(segment.payload);
        }
        assert_eq!(got, payload(10_000));
    }
}

#[test]
fn a_device_with_segmentation_gets_the_super_frame_as_it_is() {
    let sent = send_super(Offload::Full, 0);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, super_hdr(1448));
    assert_eq!(sent[0].1, [headers(10_000), payload(10_000)].concat());
}

#[test]
fn a_checksum_is_completed_for_a_device_without() {
    let mut plumbing = fabric().plumbing(ME);
    let mut device = Software::new(Recorder {
        offload: Offload::None,
        ..Recorder::default()
    });
    let (head, body) = (headers(99), payload(99));
    let hdr = VirtioNetHdr {
        gso_type: 0,
        gso_size: 0,
        hdr_len: 0,
        ..super_hdr(0)
    };
    let frame = Frame::of_slices(hdr, &[&head, &body]);
    let (result, stats) = with_io(&mut plumbing, |io| device.transmit(io, &frame));
    result.unwrap();
    let (hdr, bytes) = &device.inner_for_test().sent[0];
    assert_eq!(*hdr, VirtioNetHdr::default());
    assert!(tcp::verify_checksum(&bytes[34..], SRC.into(), DST.into()));
    assert_eq!(stats.get(Counter::SwChecksums), 1);
}

#[test]
fn small_frames_leave_the_large_slot_alone_and_large_ones_take_both() {
    let mut fabric = fabric();
    let mut plumbing = fabric.plumbing(ME);
    let mut slots = RxSlots::default();
    let alloc = plumbing.alloc.as_mut().unwrap();
    let free = fabric.free_slots(ME);

    let small = slots
        .store(alloc, &VirtioNetHdr::default(), &payload(1514))
        .unwrap();
    assert_eq!((small.linear_len(), small.frags().len()), (1514, 0));
    assert_eq!(fabric.free_slots(ME), free - 1);

    let whole = [headers(60_000), payload(60_000)].concat();
    let large = slots.store(alloc, &super_hdr(1448), &whole).unwrap();
    assert_eq!((large.len(), large.frags().len()), (60_054, 1));
    assert_eq!(large.desc().gso_size, 1448);
    assert_eq!(large.desc().gso_type, gso::TCPV4);
    assert_eq!(large.desc().ip_summed, checksum::PARTIAL);
    assert_eq!(u32::from(large.desc().csum_start), large.data_offset() + 34);
    assert_eq!(fabric.free_slots(ME), free - 3);
    // The IP header is aligned.
    assert_eq!((large.data_offset() + 14) % 16, 0);

    let frame = Frame::gather(&large, &plumbing.arena).unwrap();
    let mut copy = Vec::new();
    frame.copy_to(&mut copy);
    assert_eq!(copy, whole);
    assert_eq!(*frame.hdr(), super_hdr(1448));
    drop((small, large));
    assert_eq!(fabric.free_slots(ME), free);
}

#[test]
fn a_used_up_pool_is_no_error_and_recovers() {
    let mut fabric = fabric();
    let mut plumbing = fabric.plumbing(ME);
    let mut slots = RxSlots::default();
    let alloc = plumbing.alloc.as_mut().unwrap();
    let hold: Vec<SkBuff> = std::iter::from_fn(|| alloc.alloc(shm::SizeClass::Small)).collect();
    assert!(
        slots
            .store(alloc, &VirtioNetHdr::default(), &[0; 60])
            .is_none()
    );
    drop(hold);
    assert!(
        slots
            .store(alloc, &VirtioNetHdr::default(), &[0; 60])
            .is_some()
    );
}

#[test]
fn payload_is_gathered_from_session_memory_and_only_from_inside() {
    let mut fabric = fabric();
    let mut plumbing = fabric.plumbing(ME);
    let fd = shm::mapping::create("session", 8192).unwrap();
    let map = shm::Mapping::map(&fd, 8192, true).unwrap();
    assert!(map.copy_in(4000, &payload(4192)));
    let region = RegionId::of_session(ServiceId(9), 1);
    let mut skb = plumbing
        .alloc
        .as_mut()
        .unwrap()
        .alloc(shm::SizeClass::Small)
        .unwrap();
    let head = headers(4192);
    skb.put(head.len()).unwrap().copy_from_slice(&head);
    assert!(skb.add_frag(region, 4000, 4192));

    let unknown = Frame::gather(&skb, &plumbing.arena).unwrap_err();
    assert_eq!(unknown, shm::PeerFault::UnknownRegion(region));
    let read_only = Arc::new(shm::Mapping::map(&fd, 1, false).unwrap());
    plumbing.arena.add_region(region, read_only);
    let mut copy = Vec::new();
    Frame::gather(&skb, &plumbing.arena)
        .unwrap()
        .copy_to(&mut copy);
    assert_eq!(copy, [head, payload(4192)].concat());

    skb.trim(skb.linear_len());
    assert!(skb.add_frag(region, 4001, 4192), "one byte past the end");
    assert!(Frame::gather(&skb, &plumbing.arena).is_err());
}

#[test]
fn offload_words_that_point_before_the_frame_are_refused() {
    let mut plumbing = fabric().plumbing(ME);
    let mut skb = plumbing
        .alloc
        .as_mut()
        .unwrap()
        .alloc(shm::SizeClass::Small)
        .unwrap();
    skb.put(100).unwrap().fill(0);
    skb.desc_mut().ip_summed = checksum::PARTIAL;
    for start in [0, 127, 229, u16::MAX] {
        skb.desc_mut().csum_start = start;
        assert!(Frame::gather(&skb, &plumbing.arena).is_err(), "{start}");
    }
    skb.desc_mut().csum_start = 128;
    assert!(Frame::gather(&skb, &plumbing.arena).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a device hands up, it becomes a sound sk_buff or is dropped, and leaks nothing.
    #[test]
    fn hostile_frames_are_described_or_dropped(
        words in prop::array::uniform10(any::<u8>()),
        frame in prop::collection::vec(any::<u8>(), 0..4000),
    ) {
        let mut fabric = fabric();
        let mut plumbing = fabric.plumbing(ME);
        let free = fabric.free_slots(ME);
        let hdr = VirtioNetHdr::parse(&words).unwrap();
        let mut slots = RxSlots::default();
        let stored = slots.store(plumbing.alloc.as_mut().unwrap(), &hdr, &frame);
        if let Some(skb) = stored {
            prop_assert_eq!(skb.len(), frame.len());
            let mut device = Software::new(Recorder::default());
            let gathered = Frame::gather(&skb, &plumbing.arena).unwrap();
            let mut stats = Stats::default();
            let mut alloc = Allocator::new(plumbing.alloc.as_ref().unwrap().pool(), ME);
            let mut io = Io { now: 0, alloc: &mut alloc, arena: &plumbing.arena, stats: &mut stats };
            for offload in [Offload::None, Offload::Checksum, Offload::Full] {
                device.inner_for_test().offload = offload;
                let _ = device.transmit(&mut io, &gathered);
            }
        }
        drop(slots);
        prop_assert_eq!(fabric.free_slots(ME), free);
    }
}
