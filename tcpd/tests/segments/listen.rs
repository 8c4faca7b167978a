//! Listeners: RFC 9293 3.10.7.1, 3.10.7.2, 3.10.7.4 for SYN_RECEIVED, backlog, hand-over.

use crate::bench::*;
use abi::Endpoint;
use abi::session::SockOpt;
use tcpd::engine::{Accept, ConnId, Errno, Notice, State};

fn child(b: &Bench) -> ConnId {
    b.engine
        .records()
        .map(|(id, _)| id)
        .find(|&id| id != b.id)
        .unwrap()
}

fn syn() -> Seg {
    let mut s = seg(SYN, 0, 0);
    s.options.mss = Some(1460);
    s
}

// RFC 9293 3.5, figure 6, the other side.
#[test]
fn passive_open() {
    let mut b = Bench::listening(plain(), 5);
    let out = b.inject(syn());
    assert_eq!(briefs(&out), [(SYN | ACK, 0, 1, 0)]);
    assert!(b.inject(seg(ACK, 1, 1)).is_empty());
    let listener = b.id;
    b.id = child(&b);
    assert_eq!(b.state(), State::Established);
    let child = b.id;
    assert_eq!(b.news(), [Notice::Accepted { listener, child }]);
    assert!(b.tcb().owner.region == 2);
    // Repeated by a successor until it is handed over.
    b.restart();
    assert_eq!(b.news(), [Notice::Accepted { listener, child }]);
    assert!(b.engine.handed_over(b.now, child));
    assert!(!b.engine.handed_over(b.now, child));
    b.output();
    b.restart();
    assert_eq!(b.news(), []);
}

// Data that comes with the last step of the handshake is taken.
#[test]
fn data_with_the_handshake() {
    let mut b = Bench::listening(plain(), 5);
    b.inject(syn());
    let out = b.inject(seg(ACK | PSH, 1, 1).len(100));
    assert_eq!(briefs(&out), [(ACK, 1, 101, 0)]);
    assert_eq!(b.placed.ranges, [(0, 100)]);
}

// RFC 9293 3.10.7.1.
#[test]
fn closed_port() {
    let mut b = Bench::new(plain());
    assert_eq!(briefs(&b.inject(seg(SYN, 0, 0))), [(RST | ACK, 0, 1, 0)]);
    assert_eq!(
        briefs(&b.inject(seg(FIN, 5, 0).len(3))),
        [(RST | ACK, 0, 9, 0)]
    );
    assert_eq!(briefs(&b.inject(seg(ACK, 5, 44))), [(RST, 44, 0, 0)]);
    assert!(b.inject(seg(RST, 5, 0)).is_empty());
    assert!(b.inject(seg(RST | ACK, 5, 5)).is_empty());
}

// RFC 9293 3.10.7.2.
#[test]
fn listener_ignores_or_resets() {
    let mut b = Bench::listening(plain(), 5);
    assert!(b.inject(seg(RST, 0, 0)).is_empty());
    assert_eq!(briefs(&b.inject(seg(ACK, 5, 44))), [(RST, 44, 0, 0)]);
    assert_eq!(briefs(&b.inject(seg(SYN | ACK, 5, 44))), [(RST, 44, 0, 0)]);
    assert!(b.inject(seg(FIN, 5, 0)).is_empty());
    assert!(b.inject(seg(SYN | FIN, 5, 0)).is_empty());
    assert_eq!(b.engine.records().count(), 1);
}

// RFC 9293 3.10.7.4 for SYN-RECEIVED.
#[test]
fn half_open() {
    let mut b = Bench::listening(plain(), 5);
    b.inject(syn());
    // The SYN,ACK was lost.
    assert_eq!(briefs(&b.inject(syn())), [(SYN | ACK, 0, 1, 0)]);
    // An acknowledgement of nothing we sent.
    assert_eq!(briefs(&b.inject(seg(ACK, 1, 55))), [(RST, 55, 0, 0)]);
    assert_eq!(b.engine.records().count(), 2);
    // Not exactly the expected number: challenged (RFC 5961 3.2).
    assert_eq!(briefs(&b.inject(seg(RST, 2, 0))), [(ACK, 1, 1, 0)]);
    // Back to LISTEN.
    assert!(b.inject(seg(RST, 1, 0)).is_empty());
    assert_eq!(b.engine.records().count(), 1);
}

// RFC 6298 5.5; five retries as Linux, then forgotten without a word.
#[test]
fn half_open_ends() {
    let mut b = Bench::listening(plain(), 5);
    b.inject(syn());
    let sent = b.wait(100 * S);
    let times: Vec<u64> = sent.iter().map(|(t, _)| t / S).collect();
    assert_eq!(times, [1, 3, 7, 15, 31]);
    assert_eq!(b.engine.records().count(), 1);
    assert!(matches!(b.news()[..], [Notice::Closed(_)]));
}

// listen(2), as Linux: the queue takes one more than the backlog; then SYNs are dropped, and
// handshakes under way do not end.
#[test]
fn backlog() {
    let mut b = Bench::listening(plain(), 1);
    let listener = b.id;
    for port in [100, 101] {
        b.remote.port = port;
        assert_eq!(b.inject(syn()).len(), 1);
    }
    b.remote.port = 100;
    b.inject_ack_of(100);
    b.remote.port = 102;
    assert_eq!(b.inject(syn()).len(), 1);
    b.remote.port = 101;
    b.inject_ack_of(101);
    assert_eq!(b.news().len(), 2);
    // The queue is full.
    b.remote.port = 102;
    b.inject_ack_of(102);
    assert_eq!(b.news(), []);
    b.remote.port = 103;
    assert!(b.inject(syn()).is_empty());
    assert_eq!(b.engine.stats().listen_drops, 1);
    assert_eq!(b.engine.stats().accept_drops, 1);
    // The application takes one.
    let first = b
        .engine
        .records()
        .find(|(_, tcb)| tcb.accept() == Accept::Ready)
        .map(|(id, _)| id)
        .unwrap();
    b.engine.handed_over(b.now, first);
    let taken = tcpd::engine::AppWords {
        accepted: true,
        ..Default::default()
    };
    b.engine.on_app(b.now, first, &taken).unwrap();
    b.output();
    b.remote.port = 102;
    b.inject_ack_of(102);
    let child = match b.news()[..] {
        [Notice::Accepted { listener: l, child }] if l == listener => child,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(b.engine.record(child).unwrap().remote.port, 102);
}

impl Bench {
    fn inject_ack_of(&mut self, port: u16) {
        let iss = self
            .engine
            .records()
            .find(|(_, tcb)| tcb.remote.port == port)
            .map(|(_, tcb)| tcb.iss)
            .unwrap();
        self.set_iss(iss);
        self.inject(seg(ACK, 1, 1));
    }
}

// No buffers for the child: as if the last step had been lost.
#[test]
fn no_memory_for_a_child() {
    let mut b = Bench::listening(plain(), 5);
    b.inject(syn());
    b.placed.refuse = true;
    assert!(b.inject(seg(ACK, 1, 1)).is_empty());
    assert_eq!(b.news(), []);
    b.placed.refuse = false;
    b.inject(seg(ACK, 1, 1));
    assert_eq!(b.news().len(), 1);
}

// TCP_DEFER_ACCEPT.
#[test]
fn deferred_accept_waits_for_data() {
    let mut b = Bench::listening(plain(), 5);
    b.set(SockOpt::DeferAccept(5_000));
    b.inject(syn());
    b.inject(seg(ACK, 1, 1));
    assert_eq!(b.news(), []);
    b.inject(seg(ACK, 1, 1).len(10));
    assert_eq!(b.news().len(), 2);
}

// Closing a listener resets what nobody has taken.
#[test]
fn close_with_children() {
    let mut b = Bench::listening(plain(), 5);
    b.inject(syn());
    b.inject(seg(ACK, 1, 1));
    assert_eq!(briefs(&b.close()), [(RST | ACK, 1, 1, 0)]);
    assert_eq!(b.engine.records().count(), 0);
    // The port is free again.
    assert_eq!(briefs(&b.inject(syn())), [(RST | ACK, b.rel(0), 1, 0)]);
}

impl Bench {
    /// 0 on the wire, relative to the last initial sequence number.
    fn rel(&self, n: u32) -> u32 {
        n.wrapping_sub(self.iss())
    }
}

// bind(2).
#[test]
fn ports_conflict() {
    let mut b = Bench::listening(plain(), 5);
    let params = tcpd::engine::OpenParams {
        owner: tcpd::engine::SocketRef { region: 1, slot: 2 },
        v6: false,
        rcv_capacity: 4096,
        snd_capacity: 4096,
    };
    let other = b.engine.open(b.now, &params).unwrap();
    assert_eq!(b.engine.bind(b.now, other, b.local), Err(Errno::EADDRINUSE));
    let any = Endpoint::new([0, 0, 0, 0].into(), 0);
    let got = b.engine.bind(b.now, other, any).unwrap();
    assert!((32_768..61_000).contains(&got.port));
    assert_eq!(b.engine.bind(b.now, other, any), Err(Errno::EINVAL));
}

// RFC 9293 3.9.2.3 (MUST-57): SYNs to or from multicast and broadcast are ignored.
#[test]
fn multicast_is_ignored() {
    let mut b = Bench::listening(plain(), 5);
    b.remote = Endpoint::new([224, 0, 0, 1].into(), 80);
    assert!(b.inject(syn()).is_empty());
    assert_eq!(b.engine.records().count(), 1);
}
