//! What stingy and lavish peers cost: closed windows on many connections, windows that open and
//! shut by a byte, floods of one-byte segments in order and out of order. Memory, segments sent
//! and time for each segment stay within bounds, and every byte that was taken is the right one.
//! `cargo test -p tcpd --test floods -- --nocapture` prints the figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test: whatever fails shall fail loudly"
)]

use abi::Endpoint;
use abi::session::Rings;
use std::collections::HashMap;
use std::time::Instant;
use tcpd::engine::reassembly::MAX_RANGES;
use tcpd::engine::{
    Actions, AppWords, Buffers, Config, ConnId, Engine, OpenParams, Payload, Route, SegmentMeta,
    SegmentOut, SocketRef, State, Tcb,
};
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr};

const ISN: u32 = 77;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// What each socket has of either buffer to itself.
const BASE: u64 = 128 << 10;

/// A peer's window: some full segments.
const WINDOW: u16 = 14 * 1_460;

/// The byte at a stream position.
fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The payload that begins at a stream position.
struct Stream(u64);

impl Payload for Stream {
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        for (i, byte) in to.iter_mut().enumerate() {
            *byte = byte_at(self.0 + (offset + i) as u64);
        }
        true
    }
}

/// Receive buffers, as large as they are asked for.
#[derive(Default)]
struct Memory {
    rings: HashMap<u32, Vec<u8>>,
}

impl Buffers for Memory {
    fn place(
        &mut self,
        owner: SocketRef,
        rings: &Rings,
        position: u64,
        payload: &dyn Payload,
        offset: usize,
        len: usize,
    ) -> bool {
        let ring = self.rings.entry(owner.slot).or_default();
        for i in 0..len {
            let at = rings.rx.stretch(position + i as u64).unwrap().at as usize;
            if ring.len() <= at {
                ring.resize(at + 1, 0);
            }
            payload.copy_to(offset + i, &mut ring[at..=at]);
        }
        true
    }

    fn attach(&mut self, _: ConnId, owner: SocketRef, _: ConnId) -> Option<SocketRef> {
        Some(owner)
    }
}

/// A connection; the test is its peer.
#[derive(Clone, Copy)]
struct Peer {
    conn: ConnId,
    local: Endpoint,
    remote: Endpoint,
    iss: u32,
    /// Segments that were sent to it.
    got: usize,
    /// What it acknowledges: all it was sent.
    ack: u32,
}

struct Bench {
    engine: Engine,
    memory: Memory,
    actions: Actions,
    now: u64,
    peers: Vec<Peer>,
}

impl Bench {
    fn new() -> Self {
        let config = Config {
            secret: [1; 16],
            timestamps: false,
            ..Config::default()
        };
        Self {
            engine: Engine::new(config),
            memory: Memory::default(),
            actions: Actions::default(),
            now: SECOND,
            peers: Vec::new(),
        }
    }

    /// Connects; the peer's window is `window` from the beginning.
    fn connect(&mut self, window: u16) -> usize {
        let n = self.peers.len();
        let params = OpenParams {
            owner: SocketRef {
                region: 1,
                slot: n as u32,
            },
            v6: false,
            rcv_capacity: 8 << 20,
            snd_capacity: 8 << 20,
        };
        let conn = self.engine.open(self.now, &params).unwrap();
        let remote = Endpoint::new([10, 0, 0, 2].into(), 80);
        let route = Route {
            source: [10, 0, 0, 1].into(),
            mtu: 1_500,
        };
        self.engine.connect(self.now, conn, remote, &route).unwrap();
        let syn = self.output().remove(0);
        self.peers.push(Peer {
            conn,
            local: syn.src,
            remote,
            iss: syn.repr.seq.0,
            got: 0,
            ack: 1,
        });
        self.now += MS;
        let mut answer = self.repr(n, Flags::SYN | Flags::ACK, 0, window);
        answer.options = Options {
            mss: Some(1_460),
            sack_permitted: true,
            ..Options::default()
        };
        self.inject(n, &answer, 0);
        self.turn();
        assert_eq!(self.tcb(n).state(), State::Established);
        n
    }

    fn tcb(&self, n: usize) -> &Tcb {
        self.engine.record(self.peers[n].conn).unwrap()
    }

    fn output(&mut self) -> Vec<SegmentOut> {
        self.engine.output(self.now, 1 << 20);
        self.engine.drain(&mut self.actions);
        std::mem::take(&mut self.actions.segments)
    }

    /// Timers and output; answers who was sent how many bytes (of sequence space).
    fn turn(&mut self) -> Vec<(usize, u32)> {
        self.engine.on_timer(self.now);
        self.engine.trim_idle(self.now);
        let mut wanting = Vec::new();
        self.engine.take_wanting(&mut wanting);
        for id in wanting {
            self.engine.give_window(self.now, id, 1);
        }
        let mut seen = Vec::new();
        for s in self.output() {
            let Some(n) = self.peers.iter().position(|p| p.local == s.src) else {
                continue;
            };
            let len = s.payload.map_or(0, |p| p.len) + u32::from(s.repr.flags.contains(Flags::FIN));
            let peer = &mut self.peers[n];
            let end = s.repr.seq.0.wrapping_add(len).wrapping_sub(peer.iss);
            peer.ack = peer.ack.max(end);
            peer.got += 1;
            seen.push((n, len));
        }
        seen
    }

    fn repr(&self, n: usize, flags: Flags, seq: u32, window: u16) -> Repr {
        let peer = &self.peers[n];
        Repr {
            src_port: peer.remote.port,
            dst_port: peer.local.port,
            seq: SeqNumber(ISN.wrapping_add(seq)),
            ack: SeqNumber(peer.iss.wrapping_add(peer.ack)),
            flags,
            window,
            urgent: 0,
            options: Options::default(),
        }
    }

    fn inject(&mut self, n: usize, repr: &Repr, len: u32) {
        let peer = self.peers[n];
        let meta = SegmentMeta {
            src: peer.remote,
            dst: peer.local,
            repr,
            payload_len: len,
            gso_size: 0,
            ce: false,
            mtu: 1_500,
        };
        let position = u64::from(repr.seq.0.wrapping_sub(ISN).wrapping_sub(1));
        self.engine
            .on_segment(self.now, &meta, &Stream(position), &mut self.memory);
    }

    /// The peer's word: an acknowledgement of all with this window.
    fn ack(&mut self, n: usize, window: u16) {
        let repr = self.repr(n, Flags::ACK, 1, window);
        self.inject(n, &repr, 0);
    }

    /// `len` bytes of the peer's stream from `position` on.
    fn data(&mut self, n: usize, position: u64, len: u32) {
        let repr = self.repr(n, Flags::ACK, 1 + position as u32, u16::MAX);
        self.inject(n, &repr, len);
    }

    /// The application writes as much as it may, and reads so far.
    fn app(&mut self, n: usize, write: bool, consumed: u64) {
        let tcb = self.tcb(n);
        let words = AppWords {
            written: if write {
                tcb.write_limit()
            } else {
                tcb.written
            },
            consumed,
            accepted: true,
            ..AppWords::default()
        };
        let conn = self.peers[n].conn;
        self.engine.on_app(self.now, conn, &words).unwrap();
    }

    /// Reads all there is, comparing it.
    fn read(&mut self, n: usize) {
        let tcb = *self.tcb(n);
        let ring = &self.memory.rings[&(n as u32)];
        for position in tcb.consumed..tcb.received_upto() {
            let at = tcb.memory.rings.rx.stretch(position).unwrap().at as usize;
            assert_eq!(ring[at], byte_at(position), "at {position}");
        }
        self.app(n, false, tcb.received_upto());
    }
}

/// Nanoseconds for each call: the median of batches, so that it does not count when others have
/// the processor meanwhile.
fn of_each(calls: u32, mut f: impl FnMut(u32)) -> f64 {
    let mut batches = Vec::new();
    for first in (0..calls).step_by(64) {
        let start = Instant::now();
        (first..first + 64).for_each(&mut f);
        batches.push(start.elapsed().as_nanos() as f64 / 64.0);
    }
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

/// A cost that grew with what came before would be sixteen times as large, or more.
fn same_cost(what: &str, cost: impl Fn(u32) -> f64) {
    let least = |n| (0..3).map(|_| cost(n)).fold(f64::INFINITY, f64::min);
    let (few, many) = (least(2_048), least(32_768));
    eprintln!("{what}: {few:.0} and {many:.0} ns each");
    assert!(many < 6.0 * few, "{what}: {few:.0} and {many:.0} ns");
}

// RFC 9293 3.8.6.1: probed at growing intervals, for as long as they answer. RFC 6429: nobody's
// connection is not.
#[test]
fn many_peers_that_never_read_cost_a_buffer_each_and_few_probes() {
    const PEERS: usize = 300;
    let mut b = Bench::new();
    for _ in 0..PEERS {
        b.connect(WINDOW);
    }
    (0..PEERS).for_each(|n| b.app(n, true, 0));
    // All is acknowledged until the first window is used up; from then on it is shut.
    let mut left = [u32::from(WINDOW); PEERS];
    for _ in 0..200 {
        b.now += MS;
        for (n, len) in b.turn() {
            left[n] = left[n].saturating_sub(len);
            b.ack(n, left[n] as u16);
        }
    }
    for n in 0..PEERS {
        assert_eq!(b.tcb(n).snd_wnd, 0);
        assert_eq!(b.tcb(n).flight(), 0);
        b.peers[n].got = 0;
        b.app(n, true, 0);
    }
    let begin = b.now;
    let mut probes = 0;
    while b.now < begin + 1_800 * SECOND {
        b.now = b.engine.next_deadline().unwrap().max(b.now + 1);
        for (n, len) in b.turn() {
            assert_eq!(len, 0, "a probe takes no window");
            b.ack(n, 0);
            probes += 1;
        }
        assert!(b.engine.footprint().heap <= 4 * PEERS + 48);
    }
    let most = b.peers.iter().map(|p| p.got).max().unwrap();
    eprintln!("closed windows: {probes} probes of {PEERS} connections in half an hour");
    assert!(most <= 30, "{most} probes of one");
    let used = b.engine.memory_use().bytes;
    assert!(used <= PEERS as u64 * 2 * BASE, "{used} bytes");
    // The applications give up: so does the engine, soon.
    for n in 0..PEERS {
        b.engine.close(b.now, b.peers[n].conn);
        b.peers[n].got = 0;
    }
    let begin = b.now;
    while let Some(at) = b.engine.next_deadline() {
        b.now = at.max(b.now + 1);
        for (n, _) in b.turn() {
            if b.engine.record(b.peers[n].conn).is_some() {
                b.ack(n, 0);
            }
        }
        assert!(b.now < begin + 3_600 * SECOND, "orphans stay for ever");
    }
    eprintln!("orphans ended after {} s", (b.now - begin) / SECOND);
    assert_eq!(b.engine.footprint(), Default::default());
    assert_eq!(b.engine.memory_use().bytes, 0);
    assert!(b.peers.iter().all(|p| p.got <= 20));
}

// RFC 9293 3.8.6.2.1: a window that opens by a byte is no reason to send a byte.
#[test]
fn windows_that_open_and_shut_by_a_byte_draw_few_segments() {
    const TIMES: usize = 20_000;
    let mut b = Bench::new();
    let n = b.connect(WINDOW);
    b.app(n, true, 0);
    let mut left = u32::from(WINDOW);
    for _ in 0..50 {
        b.now += MS;
        for (_, len) in b.turn() {
            left -= len;
            b.ack(n, left as u16);
        }
    }
    assert_eq!(b.tcb(n).snd_wnd, 0);
    b.peers[n].got = 0;
    let (begin, before) = (b.now, b.tcb(n).acked_upto());
    for i in 0..TIMES {
        b.now += MS;
        b.ack(n, (i & 1) as u16);
        for (_, len) in b.turn() {
            assert!(len <= 1);
        }
        b.app(n, true, 0);
        assert!(b.tcb(n).flight() <= 1);
    }
    let (got, bytes) = (b.peers[n].got, b.tcb(n).acked_upto() - before);
    let seconds = (b.now - begin) / SECOND;
    eprintln!("{TIMES} windows of a byte or none in {seconds} s: {got} segments, {bytes} bytes");
    assert!(
        got <= 10 * seconds as usize,
        "{got} segments in {seconds} s"
    );
    assert_eq!(
        b.tcb(n).memory.rings.tx.size(),
        BASE,
        "nothing grows for that"
    );
    // It is not punished for it: a real window moves data again.
    b.ack(n, WINDOW);
    let sent: u32 = b.turn().iter().map(|s| s.1).sum();
    assert!(sent >= 1_460, "{sent}");
}

#[test]
fn a_peer_whose_window_is_always_one_byte_gets_one_for_each_acknowledgement() {
    same_cost("windows of one byte", |times| {
        let mut b = Bench::new();
        let n = b.connect(1);
        b.app(n, true, 0);
        let nanos = of_each(times, |_| {
            b.now += MS;
            let sent = b.turn();
            assert!(sent.len() <= 1 && sent.iter().all(|s| s.1 <= 1));
            b.ack(n, 1);
            assert!(b.tcb(n).flight() <= 1);
        });
        let acked = b.tcb(n).acked_upto();
        assert!(acked > 0 && acked <= u64::from(times));
        nanos
    });
}

/// As Linux's truesize: what a segment holds is charged. Here it holds its bytes, as they are
/// copied to their place in the ring at once, so a window's worth of tiny ones is a window's.
#[test]
fn one_byte_segments_in_order_fill_the_window_and_no_more() {
    let mut b = Bench::new();
    let n = b.connect(u16::MAX);
    let offered = b.tcb(n).rcv_adv - b.tcb(n).rcv_nxt;
    let mut answers = 0;
    let flood = 3 * BASE;
    for position in 0..flood {
        b.now += MS / 100;
        b.data(n, position, 1);
        answers += b.turn().len() as u64;
        assert!(b.tcb(n).unread() <= u64::from(b.tcb(n).opts.rcv_buf));
    }
    let tcb = *b.tcb(n);
    let used = b.engine.memory_use().bytes;
    eprintln!(
        "{flood} bytes one by one, unread: {} taken ({offered} offered at first), {used} charged, \
         {answers} answers",
        tcb.unread()
    );
    // Not grown for a reader who does not read; all of the buffer is used, and nothing lost.
    assert!(tcb.memory.rings.rx.size() == BASE && tcb.opts.rcv_buf as u64 <= BASE);
    assert!(tcb.unread() >= offered);
    assert!(used <= BASE, "{used}");
    assert!(tcb.reassembly.is_empty());
    assert!(answers <= flood);
    // And it goes on, with the right bytes.
    for _ in 0..4 {
        b.read(n);
        b.turn();
        let from = b.tcb(n).received_upto();
        let window = b.tcb(n).rcv_adv - b.tcb(n).rcv_nxt;
        assert!(window > 0);
        for position in from..from + window {
            b.now += MS / 100;
            b.data(n, position, 1);
            b.turn();
        }
        assert_eq!(b.tcb(n).received_upto(), from + window);
    }
    b.read(n);
}

#[test]
fn one_byte_segments_to_a_reader_cost_the_same_each_and_make_nothing_grow() {
    same_cost("one byte in order", |times| {
        let mut b = Bench::new();
        let n = b.connect(u16::MAX);
        let mut answers = 0;
        let nanos = of_each(times, |position| {
            b.now += MS / 100;
            b.data(n, position.into(), 1);
            b.read(n);
            answers += b.turn().len();
        });
        assert_eq!(b.tcb(n).received_upto(), u64::from(times));
        assert_eq!(b.tcb(n).memory.rings.rx.size(), BASE);
        assert!(answers <= times as usize);
        nanos
    });
}

#[test]
fn one_byte_ranges_without_end_cost_a_record() {
    same_cost("one byte out of order", |times| {
        let mut b = Bench::new();
        let n = b.connect(u16::MAX);
        let window = b.tcb(n).rcv_adv - b.tcb(n).rcv_nxt;
        // Every second byte of the window, in an order without order, again and again; the first
        // byte never comes.
        let mut random = fastrand::Rng::with_seed(u64::from(times));
        let nanos = of_each(times, |_| {
            b.now += MS / 100;
            let position = 1 + 2 * random.u64(0..window / 2 - 1);
            b.data(n, position, 1);
            assert!(b.turn().len() <= 1);
        });
        let tcb = b.tcb(n);
        assert_eq!(tcb.received_upto(), 0);
        assert!(tcb.reassembly.len() <= MAX_RANGES);
        assert!(b.engine.memory_use().bytes <= BASE);
        // What was not kept counts as lost: sent again, all is there.
        for position in (0..window).step_by(1_000) {
            let len = (window - position).min(1_000);
            b.data(n, position, len as u32);
            b.turn();
        }
        assert_eq!(b.tcb(n).received_upto(), window);
        b.read(n);
        nanos
    });
}
