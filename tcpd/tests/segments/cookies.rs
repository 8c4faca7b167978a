//! SYN cookies (RFC 4987 3.6), as Linux has them: a listener whose SYN queue is full keeps
//! nothing of a SYN, and a client that completes the handshake gets through all the same.

use crate::bench::*;
use tcpd::engine::{Accept, AppWords, Config, ConnId, Notice, State};
use wire::tcp::Timestamps;

fn syn() -> Seg {
    let mut s = seg(SYN, 0, 0);
    s.options.mss = Some(1400);
    s
}

fn full_syn() -> Seg {
    let mut s = seg(SYN, 0, 0);
    s.options.mss = Some(1460);
    s.options.sack_permitted = true;
    s.options.window_scale = Some(9);
    s.options.timestamps = Some(Timestamps {
        tsval: 7_000,
        tsecr: 0,
    });
    s
}

fn everything() -> Config {
    Config {
        capacity: 64,
        secret: [3; 16],
        max_gso: 0,
        ..Config::default()
    }
}

impl Bench {
    /// Fills the SYN queue with `n` half-open connections.
    fn crowd(&mut self, n: u16) {
        let port = self.remote.port;
        for i in 0..n {
            self.remote.port = 10_000 + i;
            assert_eq!(self.inject(syn()).len(), 1);
        }
        self.remote.port = port;
        assert_eq!(self.engine.stats().cookies_sent, 0);
    }

    /// The connection with the peer's present port.
    fn find(&self) -> Option<ConnId> {
        self.engine
            .records()
            .find(|(_, tcb)| tcb.remote == self.remote)
            .map(|(id, _)| id)
    }

    fn accepted(&mut self) -> ConnId {
        match self.news()[..] {
            [Notice::Accepted { child, .. }, ..] => child,
            ref other => panic!("{other:?}"),
        }
    }
}

// The SYN queue takes one more than the backlog, as in Linux; the next gets a cookie and no
// record. Its acknowledgement makes the connection, with the data that it carries.
#[test]
fn a_full_queue_answers_with_cookies() {
    let mut b = Bench::listening(plain(), 2);
    b.crowd(3);
    let records = b.engine.records().count();
    let out = b.inject(syn());
    assert_eq!(briefs(&out), [(SYN | ACK, 0, 1, 0)]);
    assert_eq!(out[0].options.mss, Some(1460));
    assert_eq!(b.engine.records().count(), records);
    assert_eq!(b.engine.stats().cookies_sent, 1);
    // The SYN again: the same cookie.
    let iss = b.iss();
    b.inject(syn());
    assert_eq!(b.iss(), iss);

    b.now += 900 * MS;
    let out = b.inject(seg(ACK | PSH, 1, 1).len(100));
    assert_eq!(briefs(&out), [(ACK, 1, 101, 0)]);
    b.id = b.accepted();
    assert_eq!(b.state(), State::Established);
    assert_eq!(b.placed.ranges, [(0, 100)]);
    assert_eq!(b.engine.stats().cookies_received, 1);
    // 1400 is not in the table: the next smaller one is.
    assert_eq!(b.tcb().negotiated.peer_mss, 1300);
    assert_eq!(b.tcb().rtt.srtt, 0);
    // It works like any other.
    b.words.accepted = true;
    b.words.consumed = 100;
    b.write(50);
    let out = b.inject(seg(ACK, 101, 51));
    assert!(out.is_empty());
    assert_eq!(b.tcb().snd_una, b.tcb().snd_nxt);
}

// Scale, SACK and ECN come back in the timestamp's low bits.
#[test]
fn timestamps_carry_the_options() {
    let mut b = Bench::listening(everything(), 1);
    b.crowd(2);
    let mut s = full_syn();
    s.flags |= wire::tcp::Flags::ECE | wire::tcp::Flags::CWR;
    let out = b.inject(s);
    assert_eq!(b.engine.stats().cookies_sent, 1);
    let o = &out[0].options;
    assert!(o.sack_permitted && o.window_scale.is_some());
    assert!(out[0].flags.contains(wire::tcp::Flags::ECE));
    let stamp = o.timestamps.unwrap();
    assert_eq!(stamp.tsecr, 7_000);
    let scale = o.window_scale.unwrap();
    b.now += 200 * MS;
    assert!(
        b.inject(seg(ACK, 1, 1).stamp(7_200, stamp.tsval))
            .is_empty()
    );
    b.id = b.accepted();
    let n = b.tcb().negotiated;
    assert_eq!((n.snd_scale, n.rcv_scale, n.flags), (9, scale, 7));
    assert_eq!((n.peer_mss, n.ts_recent), (1460, 7_200));
    assert!(b.tcb().ecn.is_agreed());
    // Own timestamps go on from there.
    b.words.accepted = true;
    let out = b.write(10);
    let next = out[0].options.timestamps.unwrap();
    assert!(next.tsval.wrapping_sub(stamp.tsval).cast_signed() >= 200);
}

// A window scale of 0 is not the same as none.
#[test]
fn options_that_the_peer_did_not_offer() {
    for (scale, sack) in [(Some(0), false), (None, true), (Some(14), true)] {
        let mut b = Bench::listening(everything(), 1);
        b.crowd(2);
        let mut s = full_syn();
        s.options.window_scale = scale;
        s.options.sack_permitted = sack;
        let out = b.inject(s);
        assert_eq!(out[0].options.window_scale.is_some(), scale.is_some());
        let stamp = out[0].options.timestamps.unwrap();
        b.inject(seg(ACK, 1, 1).stamp(7_001, stamp.tsval));
        b.id = b.accepted();
        let n = b.tcb().negotiated;
        assert_eq!(n.has(tcpd::engine::options::flag::SCALING), scale.is_some());
        assert_eq!(n.snd_scale, scale.unwrap_or(0));
        assert_eq!(n.has(tcpd::engine::options::flag::SACK), sack);
        assert!(!b.tcb().ecn.is_agreed());
    }
}

// Without timestamps there is nothing to carry them, so nothing is agreed on.
#[test]
fn without_timestamps_no_options() {
    let mut b = Bench::listening(everything(), 1);
    b.crowd(2);
    let mut s = full_syn();
    s.options.timestamps = None;
    let out = b.inject(s);
    let o = &out[0].options;
    assert_eq!((o.window_scale, o.sack_permitted), (None, false));
    assert_eq!(o.timestamps, None);
    b.inject(seg(ACK, 1, 1));
    b.id = b.accepted();
    assert_eq!(b.tcb().negotiated.flags, 0);
}

// Cookies are good for the minute in which they were made and the next.
#[test]
fn old_and_forged_cookies_are_reset() {
    let mut b = Bench::listening(plain(), 1);
    b.crowd(2);
    b.inject(syn());
    let iss = b.iss();
    let before = b.engine.records().count();
    assert_eq!(briefs(&b.inject(seg(ACK, 1, 99))), [(RST, 99, 0, 0)]);
    assert_eq!(briefs(&b.inject(seg(ACK, 2, 1))), [(RST, 1, 0, 0)]);
    assert_eq!(b.engine.stats().cookies_failed, 2);
    b.now += 130 * S;
    b.output();
    b.set_iss(iss);
    assert_eq!(briefs(&b.inject(seg(ACK, 1, 1))), [(RST, 1, 0, 0)]);
    assert_eq!(b.engine.stats().cookies_received, 0);
    assert!(b.engine.records().count() <= before);
    // A listener that never sent a cookie does not even look.
    let mut b = Bench::listening(plain(), 1);
    b.inject(seg(ACK, 1, 1));
    assert_eq!(b.engine.stats().cookies_failed, 0);
}

// As Linux: while the accept queue is full nobody is answered, and who brings a cookie is dropped
// without a reset, so that its data brings it again.
#[test]
fn a_full_accept_queue_gets_no_cookies() {
    let mut b = Bench::listening(plain(), 0);
    b.crowd(1);
    b.remote.port = 200;
    b.inject(syn());
    let iss = b.iss();
    assert_eq!(b.engine.stats().cookies_sent, 1);
    // Somebody else is first.
    b.remote.port = 10_000;
    let other = b.find().unwrap();
    b.set_iss(b.engine.record(other).unwrap().iss);
    b.inject(seg(ACK, 1, 1));
    assert_eq!(b.accepted(), other);
    b.remote.port = 201;
    assert!(b.inject(syn()).is_empty());
    b.remote.port = 200;
    b.set_iss(iss);
    assert!(b.inject(seg(ACK, 1, 1)).is_empty());
    assert_eq!(b.engine.stats().cookies_sent, 1);
    assert_eq!(b.find(), None);
    // The application takes one.
    b.engine.handed_over(b.now, other);
    let taken = AppWords {
        accepted: true,
        ..Default::default()
    };
    b.engine.on_app(b.now, other, &taken).unwrap();
    assert!(!b.inject(seg(ACK | PSH, 1, 1).len(5)).is_empty());
    let child = b.accepted();
    assert_eq!(b.engine.record(child).unwrap().received_upto(), 5);
}

// Killed between the cookie and its return: the successor knows it, although nothing of it was
// in any record.
#[test]
fn cookies_survive() {
    let mut b = Bench::listening(plain(), 1);
    b.crowd(2);
    b.inject(syn());
    b.restart();
    b.inject(seg(ACK, 1, 1));
    let child = b.accepted();
    // Killed right after: the connection is in its record, and waits for the application.
    b.restart();
    assert_eq!(b.accepted(), child);
    assert_eq!(b.engine.record(child).unwrap().accept(), Accept::Ready);
}

// No buffers for the child: as if the acknowledgement had been lost, and nothing is kept.
#[test]
fn no_memory_for_a_child_of_a_cookie() {
    let mut b = Bench::listening(plain(), 1);
    b.crowd(2);
    b.inject(syn());
    b.placed.refuse = true;
    assert!(b.inject(seg(ACK, 1, 1)).is_empty());
    assert_eq!(b.find(), None);
    b.news();
    b.placed.refuse = false;
    b.inject(seg(ACK, 1, 1));
    b.accepted();
}

// tcp_syncookies = 0: SYNs that do not fit are dropped.
#[test]
fn without_cookies() {
    let mut config = plain();
    config.open.syn_cookies = false;
    let mut b = Bench::listening(config, 1);
    b.crowd(2);
    assert!(b.inject(syn()).is_empty());
    assert_eq!(b.engine.stats().listen_drops, 1);
}

// Listeners together take no more than a quarter of the records for what is half open.
#[test]
fn several_floods() {
    let mut b = Bench::listening(plain(), 1_000);
    for port in 0..200 {
        b.remote.port = 1_000 + port;
        assert_eq!(b.inject(syn()).len(), 1);
    }
    assert_eq!(b.engine.records().count(), 1 + 16);
    assert_eq!(b.engine.stats().cookies_sent, 184);
    // They go with the listener, and the next one has the room.
    b.close();
    assert_eq!(b.engine.records().count(), 0);
    let params = tcpd::engine::OpenParams {
        owner: tcpd::engine::SocketRef { region: 1, slot: 1 },
        v6: false,
        rcv_capacity: 65_536,
        snd_capacity: 65_536,
    };
    b.id = b.engine.open(b.now, &params).unwrap();
    b.engine.bind(b.now, b.id, b.local).unwrap();
    b.engine.listen(b.now, b.id, 1_000).unwrap();
    for port in 0..20 {
        b.remote.port = 1_000 + port;
        b.inject(syn());
    }
    assert_eq!(b.engine.records().count(), 1 + 16);
}

// A flood of 100,000 SYNs takes a bounded number of records, and a client gets through.
#[test]
fn a_flood_is_survived() {
    let mut b = Bench::listening(everything(), 8);
    let client = b.remote;
    for i in 0..100_000u32 {
        let [_, hi, mid, lo] = i.to_be_bytes();
        b.remote = abi::Endpoint::new([10, 9, hi, mid].into(), 1_024 + u16::from(lo));
        assert_eq!(b.inject(full_syn()).len(), 1);
        // The listener, its SYN queue, and the client below.
        assert!(b.engine.records().count() <= 1 + 9 + 1);
        if i == 50_000 {
            b.remote = client;
            let out = b.inject(full_syn());
            let stamp = out[0].options.timestamps.unwrap();
            b.inject(seg(ACK, 1, 1).stamp(7_001, stamp.tsval));
            let child = b.accepted();
            b.engine.handed_over(b.now, child);
            b.id = child;
        }
    }
    assert_eq!(b.state(), State::Established);
    assert!(b.engine.stats().cookies_sent > 99_000);
}
