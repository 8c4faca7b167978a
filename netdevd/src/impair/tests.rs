use super::*;

fn config() -> Impairment {
    Impairment {
        seed: 42,
        ..Impairment::default()
    }
}

fn number(packet: &Packet) -> u32 {
    u32::from_le_bytes(packet.bytes[14..18].try_into().unwrap())
}

fn frame(n: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[14..18].copy_from_slice(&n.to_le_bytes());
    bytes
}

/// Sends `n` frames a microsecond apart, then lets everything out; what came and the faults.
fn run(config: &Impairment, n: u32) -> (Vec<Packet>, Faults) {
    let mut pipe = Pipe::new(config, 0);
    let mut out = Vec::new();
    for i in 0..n {
        let now = 1000 * u64::from(i);
        pipe.push(now, VirtioNetHdr::default(), &[&frame(i)]);
        out.extend(std::iter::from_fn(|| pipe.pop(now)));
    }
    while let Some(at) = pipe.next() {
        out.extend(std::iter::from_fn(|| pipe.pop(at)));
    }
    assert!(pipe.is_empty());
    (out, pipe.take_faults())
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let c = Impairment {
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        corrupt: 0.1,
        delay_us: 100,
        jitter_us: 50,
        ..config()
    };
    let (a, b) = (run(&c, 2000), run(&c, 2000));
    assert_eq!(a, b);
    assert_ne!(a.0, run(&Impairment { seed: 43, ..c }, 2000).0);
    let f = a.1;
    for hits in [f.lost, f.duplicated, f.reordered, f.corrupted] {
        assert!((120..280).contains(&hits), "{f:?}");
    }
}

#[test]
fn turning_one_fault_on_does_not_move_another() {
    let lost = |c: &Impairment| {
        let out: Vec<u32> = run(c, 500).0.iter().map(number).collect();
        (0..500).filter(|n| !out.contains(n)).collect::<Vec<_>>()
    };
    let plain = Impairment {
        loss: 0.05,
        ..config()
    };
    let more = Impairment {
        duplicate: 0.2,
        reorder: 0.2,
        jitter_us: 10,
        ..plain
    };
    assert!(!lost(&plain).is_empty());
    assert_eq!(lost(&plain), lost(&more));
}

#[test]
fn without_reordering_order_is_kept_whatever_the_jitter() {
    let c = Impairment {
        delay_us: 500,
        jitter_us: 400,
        ..config()
    };
    let out: Vec<u32> = run(&c, 1000).0.iter().map(number).collect();
    assert_eq!(out, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_reordered_frame_comes_one_to_three_places_later() {
    let c = Impairment {
        reorder: 0.05,
        ..config()
    };
    let (out, faults) = run(&c, 2000);
    assert_eq!(out.len(), 2000);
    let late = out
        .iter()
        .enumerate()
        .filter(|(place, p)| *place > number(p) as usize)
        .map(|(place, p)| place - number(p) as usize)
        .collect::<Vec<_>>();
    assert!(
        late.len() > 50 && late.iter().all(|by| *by <= 6),
        "{late:?}"
    );
    assert!(faults.reordered >= late.len() as u64);
}

#[test]
fn a_held_frame_that_nothing_follows_gets_out_in_time() {
    let c = Impairment {
        reorder: 1.0,
        ..config()
    };
    let mut pipe = Pipe::new(&c, 0);
    pipe.push(1000, VirtioNetHdr::default(), &[&frame(0)]);
    assert_eq!(pipe.pop(1000), None);
    let at = pipe.next().unwrap();
    assert!(pipe.pop(at).is_some());
    assert_eq!(pipe.next(), None);
}

#[test]
fn the_rate_is_kept_and_the_queue_bounded() {
    // 64 bytes at 512 kbit/s take a millisecond.
    let c = Impairment {
        rate_kbps: 512,
        queue: 10,
        ..config()
    };
    let mut pipe = Pipe::new(&c, 0);
    for i in 0..20 {
        pipe.push(0, VirtioNetHdr::default(), &[&frame(i)]);
    }
    assert_eq!(pipe.take_faults().overflow, 10);
    let mut times = Vec::new();
    while let Some(at) = pipe.next() {
        assert!(pipe.pop(at).is_some());
        times.push(at);
    }
    assert_eq!(times, (1..=10).map(|ms| ms * 1_000_000).collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_shows_in_the_checksum() {
    // A UDP datagram whose checksum is left to the device.
    let c = Impairment {
        corrupt: 1.0,
        ..config()
    };
    let mut pipe = Pipe::new(&c, 0);
    let mut bytes = vec![0x45u8; 100];
    bytes[40] = 0x12;
    bytes[41] = 0x34;
    let hdr = VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..VirtioNetHdr::default()
    };
    pipe.push(0, hdr, &[&bytes]);
    let packet = pipe.pop(0).unwrap();
    assert_eq!(packet.hdr, VirtioNetHdr::default());
    let mut right = bytes.clone();
    wire::gso::complete_checksum(&mut right, 34, 6).unwrap();
    let different: u32 = packet
        .bytes
        .iter()
        .zip(&right)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(different, 1);
    assert_eq!(packet.bytes[..14], bytes[..14]);
}

#[test]
fn losses_come_in_bursts_of_the_length_asked_for() {
    let c = Impairment {
        loss: 0.02,
        loss_burst: 4.0,
        ..config()
    };
    let mut fates = Fates::new(&c, 0);
    let lost: Vec<bool> = (0..200_000).map(|_| fates.draw().lost).collect();
    let all = lost.iter().filter(|l| **l).count();
    let bursts = lost.windows(2).filter(|w| !w[0] && w[1]).count();
    assert!((3_600..4_400).contains(&all), "{all}");
    assert!((3.6..4.4).contains(&(all as f64 / bursts as f64)));
}

#[test]
fn delay_takes_no_place_in_the_queue_of_a_limited_link() {
    // 64 bytes at 5,120 kbit/s take 100 us; 100 of them are under way at once.
    let c = Impairment {
        rate_kbps: 5_120,
        delay_us: 10_000,
        queue: 2,
        ..config()
    };
    let mut pipe = Pipe::new(&c, 0);
    for i in 0..100 {
        pipe.push(
            u64::from(i) * 100_000,
            VirtioNetHdr::default(),
            &[&frame(i)],
        );
    }
    assert_eq!(pipe.take_faults(), Faults::default());
    for i in 0..100 {
        let at = u64::from(i + 1) * 100_000 + 10_000_000;
        assert_eq!(pipe.next(), Some(at));
        assert_eq!(number(&pipe.pop(at).unwrap()), i);
    }
}

// As the `ecn` of `tc netem`: the same frames are hit, and marked where that is understood.
#[test]
fn losses_become_marks_where_they_are_understood() {
    let c = Impairment {
        loss: 0.1,
        ecn: true,
        ..config()
    };
    let send = |tos: u8| {
        let mut pipe = Pipe::new(&c, 0);
        let mut bytes = vec![0; 64];
        bytes[12..16].copy_from_slice(&[8, 0, 0x45, tos]);
        let mut marked = 0;
        for _ in 0..1000 {
            pipe.push(0, VirtioNetHdr::default(), &[&bytes]);
            let packet = pipe.pop(0);
            marked += packet.map_or(0, |p| u64::from(p.bytes[15] & 3 == 3));
        }
        let faults = pipe.take_faults();
        assert_eq!(marked, faults.marked);
        (faults.lost, faults.marked)
    };
    let (lost, _) = send(0);
    assert!((60..140).contains(&lost));
    assert_eq!(send(0), (lost, 0));
    assert_eq!(send(2), (0, lost));
}
