//! The path MTU: RFC 1191, RFC 8201, RFC 4821, RFC 5927 7, over a link whose MTU changes.

use crate::bench::*;
use abi::config::MtuProbing;
use std::collections::{BTreeMap, VecDeque};
use tcpd::engine::recovery::Phase;
use tcpd::engine::{Config, IcmpError, IcmpKind, Route};
use wire::SeqNumber;

/// A link to a peer that acknowledges what fits, 20 ms away.
struct Path {
    mtu: u32,
    /// Whether a router says so when something does not fit.
    icmp: bool,
    /// Every so manieth segment is lost beside that; 0 for none.
    lose: u32,
    /// What the peer has, by first byte.
    have: BTreeMap<u32, u32>,
    next: u32,
    on_the_way: VecDeque<(u64, What)>,
    seen: u32,
    /// Segments that did not fit.
    too_big: u32,
    largest: u32,
    last_gso: u16,
}

enum What {
    Ack(Seg),
    TooBig { seq: u32, mtu: u16 },
}

const ONE_WAY: u64 = 20 * MS;

impl Path {
    fn new(mtu: u32, icmp: bool) -> Self {
        Self {
            mtu,
            icmp,
            lose: 0,
            have: BTreeMap::new(),
            next: 1,
            on_the_way: VecDeque::new(),
            seen: 0,
            too_big: 0,
            largest: 0,
            last_gso: 0,
        }
    }

    /// What the stack sent arrives, or not.
    fn carry(&mut self, now: u64, sent: &Sent) {
        if sent.gso_size > 0 {
            self.last_gso = sent.gso_size;
        }
        let unit = if sent.gso_size > 0 {
            u32::from(sent.gso_size)
        } else {
            sent.len.max(1)
        };
        let mut at = 0;
        while at < sent.len {
            let len = unit.min(sent.len - at);
            self.carry_one(now, sent.seq + at, len);
            at += len;
        }
    }

    fn carry_one(&mut self, now: u64, seq: u32, len: u32) {
        self.seen += 1;
        if len + 40 > self.mtu {
            self.too_big += 1;
            if self.icmp {
                let mtu = self.mtu as u16;
                self.on_the_way
                    .push_back((now + ONE_WAY, What::TooBig { seq, mtu }));
            }
            return;
        }
        if self.lose > 0 && self.seen.is_multiple_of(self.lose) {
            return;
        }
        self.largest = self.largest.max(len);
        let end = self.have.entry(seq).or_insert(0);
        *end = (*end).max(seq + len);
        while let Some((_, &end)) = self.have.range(..=self.next).next_back() {
            if end <= self.next {
                break;
            }
            self.next = end;
        }
        // The block that this segment is part of, then others.
        let mut blocks: Vec<(u32, u32)> = vec![];
        for (&s, &e) in self.have.range(self.next..) {
            match blocks.last_mut() {
                Some(last) if s <= last.1 => last.1 = last.1.max(e),
                _ => blocks.push((s, e)),
            }
        }
        blocks.sort_by_key(|&(s, e)| !(s <= seq && seq < e));
        blocks.truncate(4);
        let ack = seg(ACK, 1, self.next).sack(&blocks);
        self.on_the_way
            .push_back((now + 2 * ONE_WAY, What::Ack(ack)));
    }

    /// Lets `time` pass.
    fn run(&mut self, b: &mut Bench, time: u64) {
        let end = b.now + time;
        for s in b.output() {
            self.carry(b.now, &s);
        }
        loop {
            self.on_the_way.make_contiguous().sort_by_key(|&(at, _)| at);
            let arrival = self.on_the_way.front().map(|&(at, _)| at);
            let timer = b.engine.next_deadline();
            let at = [arrival, timer].into_iter().flatten().min();
            let Some(at) = at.filter(|&at| at <= end) else {
                break;
            };
            b.now = b.now.max(at);
            while self.on_the_way.front().is_some_and(|&(at, _)| at <= b.now) {
                match self.on_the_way.pop_front().unwrap().1 {
                    What::Ack(ack) => b.feed(ack),
                    What::TooBig { seq, mtu } => {
                        let error = IcmpError {
                            local: b.local,
                            remote: b.remote,
                            seq: SeqNumber(b.iss().wrapping_add(seq)),
                            kind: IcmpKind::FragmentationNeeded { mtu },
                        };
                        b.engine.on_icmp_error(b.now, &error);
                    }
                }
            }
            for s in b.output() {
                self.carry(b.now, &s);
            }
        }
        b.now = end;
    }

    /// Writes `n` bytes as room comes, until all is acknowledged. Returns how long it took.
    fn transfer(&mut self, b: &mut Bench, n: u64) -> u64 {
        let start = b.now;
        let end = b.words.written + n;
        while b.words.written < end || b.tcb().acked_upto() < end {
            let room = b.tcb().acked_upto() + 65_536 - b.words.written;
            b.words.written += room.min(end - b.words.written);
            b.show();
            self.run(b, 5 * MS);
            assert!(b.now - start < 300 * S, "stalled: {:?}", b.tcb().pmtu);
        }
        b.now - start
    }
}

fn config(mode: MtuProbing) -> Config {
    Config {
        mtu_probing: mode,
        max_gso: 65_000,
        ..with_sack()
    }
}

fn mtu(b: &Bench) -> u16 {
    b.tcb().path_mtu()
}

// RFC 1191 3, 6.3: the MTU falls in mid-connection; one round trip later everything is smaller,
// super-segments included, without a congestion response and without a timeout.
#[test]
fn the_mtu_falls_and_icmp_says_so() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    let mut path = Path::new(1500, true);
    path.transfer(&mut b, 300_000);
    let cwnd = b.tcb().cc.cwnd;
    path.mtu = 1400;
    path.largest = 0;
    let took = path.transfer(&mut b, 300_000);
    assert_eq!(mtu(&b), 1400);
    assert_eq!((path.largest, path.last_gso), (1360, 1360));
    assert_eq!(b.tcb().counters.timeouts, 0);
    assert_eq!(b.engine.stats().black_holes, 0);
    assert!(b.tcb().cc.cwnd >= cwnd);
    assert!(took < 2 * S, "{took}");
}

// RFC 1191 6.3: after ten minutes the larger size is tried again, and taken if it fits.
#[test]
fn the_mtu_rises_again() {
    let mut b = Bench::established(config(MtuProbing::Off));
    let mut path = Path::new(1400, true);
    path.transfer(&mut b, 100_000);
    assert_eq!(mtu(&b), 1400);
    path.mtu = 1500;
    path.run(&mut b, 590 * S);
    path.transfer(&mut b, 10_000);
    assert_eq!(mtu(&b), 1400);
    path.run(&mut b, 11 * S);
    path.transfer(&mut b, 10_000);
    assert_eq!(mtu(&b), 1500);
    // And if it does not fit after all, ICMP says so again.
    path.mtu = 1300;
    path.transfer(&mut b, 10_000);
    assert_eq!(mtu(&b), 1300);
    path.run(&mut b, 601 * S);
    path.transfer(&mut b, 10_000);
    assert_eq!(mtu(&b), 1300);
    assert_eq!(b.tcb().counters.timeouts, 0);
}

// RFC 4821 7.7: no ICMP. Full segments time out three times, then the size is reduced, and the
// search finds what fits to within eight bytes; the losses of probes are no congestion.
#[test]
fn a_black_hole_is_found_and_measured() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    let mut path = Path::new(1500, true);
    path.transfer(&mut b, 300_000);
    (path.mtu, path.icmp) = (1400, false);
    path.transfer(&mut b, 60_000);
    assert_eq!(b.engine.stats().black_holes, 1);
    let timeouts = b.tcb().counters.timeouts;
    assert_eq!(timeouts, 3);
    path.transfer(&mut b, 3_000_000);
    assert!((1392..=1400).contains(&mtu(&b)), "{}", mtu(&b));
    assert_eq!(b.tcb().counters.timeouts, timeouts);
    assert!(b.engine.stats().probes_lost >= 2);
    let recoveries = b.tcb().counters.recoveries;
    assert!(b.tcb().cc.cwnd > 20_000, "{}", b.tcb().cc.cwnd);
    // It is settled: nothing is risked for ten minutes.
    let lost = b.engine.stats().probes_lost;
    path.transfer(&mut b, 1_000_000);
    assert_eq!(b.engine.stats().probes_lost, lost);
    assert_eq!(b.tcb().counters.recoveries, recoveries);
    // Then the rise is found.
    path.mtu = 1500;
    path.run(&mut b, 601 * S);
    path.transfer(&mut b, 1_000_000);
    assert!(mtu(&b) >= 1492, "{}", mtu(&b));
}

// With `off` a black hole stays one, as RFC 1191 alone has it.
#[test]
fn a_black_hole_without_probing() {
    let mut b = Bench::established(config(MtuProbing::Off));
    let mut path = Path::new(1400, false);
    for s in b.write(20_000) {
        path.carry(b.now, &s);
    }
    path.run(&mut b, 60 * S);
    assert_eq!(mtu(&b), 1500);
    assert_eq!(path.next, 1);
    assert!(path.too_big > 10);
}

// A peer that is gone for a while looks like a black hole; the old size is back soon, because it
// is what is tried first.
#[test]
fn an_outage_is_mistaken_for_a_black_hole() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    let mut path = Path::new(1500, false);
    path.transfer(&mut b, 200_000);
    path.mtu = 0;
    b.words.written += 40_000;
    b.show();
    path.run(&mut b, 5 * S);
    assert!(mtu(&b) < 1500);
    path.mtu = 1500;
    path.transfer(&mut b, 200_000);
    assert_eq!(mtu(&b), 1500);
    assert_eq!(b.engine.stats().probes_lost, 0);
}

// Timeouts of segments that fit every path do not speak of their size.
#[test]
fn small_segments_are_no_evidence() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    let mut path = Path::new(0, false);
    b.write(500);
    path.run(&mut b, 30 * S);
    assert!(b.tcb().counters.timeouts > 3);
    assert_eq!((mtu(&b), b.engine.stats().black_holes), (1500, 0));
}

// Larger ones do, also if they fit the first size that is tried: found by the simulation.
#[test]
fn a_segment_that_is_not_full_may_be_too_large() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    let mut path = Path::new(576, false);
    path.transfer(&mut b, 900);
    assert_eq!((mtu(&b), b.engine.stats().black_holes), (552, 1));
}

// RFC 4821 7.2: from the start at a base size, and up.
#[test]
fn always_searching() {
    for limit in [1500, 1492, 1280, 1100] {
        let mut b = Bench::established(config(MtuProbing::Always));
        let mut path = Path::new(limit, false);
        assert_eq!(mtu(&b), 1064);
        path.transfer(&mut b, 2_000_000);
        let found = u32::from(mtu(&b));
        assert!((limit - 8..=limit).contains(&found), "{found} of {limit}");
        assert_eq!(b.tcb().counters.timeouts, 0);
    }
}

// RFC 4821 7.6.2: losses beside the probe's are congestion, and say nothing about it.
#[test]
fn searching_while_segments_are_lost() {
    let mut b = Bench::established(config(MtuProbing::Always));
    let mut path = Path::new(1400, false);
    path.lose = 61;
    path.transfer(&mut b, 4_000_000);
    let found = mtu(&b);
    assert!((1380..=1400).contains(&found), "{found}");
    // The random ones do reduce the window.
    assert!(b.tcb().cc.ssthresh < 200_000);
}

// Without SACK a probe's loss shows by duplicate acknowledgements alone.
#[test]
fn searching_without_sack() {
    let mut b = Bench::established(Config {
        sack: false,
        ..config(MtuProbing::Always)
    });
    let mut path = Path::new(1400, false);
    path.transfer(&mut b, 3_000_000);
    assert!((1392..=1400).contains(&mtu(&b)), "{}", mtu(&b));
}

// A restart in the middle of the search, with a probe in flight, goes on with it.
#[test]
fn a_restart_while_searching() {
    let mut b = Bench::established(config(MtuProbing::Always));
    let mut path = Path::new(1450, false);
    for _ in 0..60 {
        path.transfer(&mut b, 40_000);
        for s in b.restart() {
            path.carry(b.now, &s);
        }
    }
    assert!((1442..=1450).contains(&mtu(&b)), "{}", mtu(&b));
}

// RFC 5927 7.2, RFC 8201 4: too big by a claim that cannot be, for a stranger's numbers, or below
// the least: not believed.
#[test]
fn claims_that_cannot_be() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    b.write(5_000);
    let icmp = |b: &mut Bench, seq: u32, mtu: u16| {
        let error = IcmpError {
            local: b.local,
            remote: b.remote,
            seq: SeqNumber(b.iss().wrapping_add(seq)),
            kind: IcmpKind::FragmentationNeeded { mtu },
        };
        b.engine.on_icmp_error(b.now, &error);
        b.output()
    };
    assert!(icmp(&mut b, 1, 1500).is_empty());
    assert!(icmp(&mut b, 1, 9000).is_empty());
    assert!(icmp(&mut b, 5_001, 1000).is_empty());
    assert!(icmp(&mut b, 0, 1000).is_empty());
    assert_eq!((mtu(&b), b.engine.stats().icmp_ignored), (1500, 4));
    assert!(!icmp(&mut b, 1, 68).is_empty());
    assert_eq!(mtu(&b), 552);
    assert_eq!(b.tcb().recovery.phase(), Phase::Loss);
}

// The route's device changes its size in mid-connection.
#[test]
fn the_route_changes() {
    let mut b = Bench::established(config(MtuProbing::Blackhole));
    let mut path = Path::new(1500, false);
    path.transfer(&mut b, 50_000);
    let change = |b: &mut Bench, mtu: u16| {
        let source = b.local.ip().unwrap();
        b.engine
            .routes_changed(b.now, |_, _| Some(Route { source, mtu }));
    };
    change(&mut b, 1300);
    assert_eq!(mtu(&b), 1300);
    path.mtu = 1300;
    path.transfer(&mut b, 50_000);
    assert_eq!(b.tcb().counters.retrans, 0);
    change(&mut b, 1500);
    path.mtu = 1500;
    path.transfer(&mut b, 50_000);
    assert_eq!(mtu(&b), 1500);
    // Larger than the peer takes: no use.
    change(&mut b, 9000);
    path.transfer(&mut b, 50_000);
    assert_eq!(b.tcb().negotiated.mss(), 1460);
    // No route, for a while: the connection waits.
    b.engine.routes_changed(b.now, |_, _| None);
    path.transfer(&mut b, 50_000);
    assert_eq!(b.tcb().counters.retrans, 0);
}
