//! Explicit congestion notification: RFC 3168.

use crate::bench::*;
use abi::config::EcnMode;
use tcpd::engine::ecn::flag;
use tcpd::engine::{Config, State};
use wire::tcp::Flags;

const ECE: Flags = Flags::ECE;
const CWR: Flags = Flags::CWR;

fn config(ecn: EcnMode) -> Config {
    Config { ecn, ..with_sack() }
}

/// Connected by us, and agreed.
fn agreed() -> Bench {
    let mut b = Bench::new(config(EcnMode::On));
    b.connect();
    let mut reply = b.syn_ack();
    reply.flags |= ECE;
    b.now += 100 * MS;
    let out = b.inject(reply);
    assert_eq!(out[0].brief(), (ACK, 1, 1, 0));
    assert!(b.tcb().ecn.is_agreed());
    b
}

// RFC 3168 6.1.1: the offer has both bits, agreement is ECE alone, and only then is data marked.
#[test]
fn negotiation_as_client() {
    for (mode, answer, marked) in [
        (EcnMode::On, ECE, true),
        (EcnMode::On, Flags::empty(), false),
        (EcnMode::On, ECE | CWR, false),
        (EcnMode::Passive, ECE, false),
        (EcnMode::Off, ECE, false),
    ] {
        let mut b = Bench::new(config(mode));
        let out = b.connect();
        let offer = out[0].flags & (ECE | CWR);
        assert_eq!(offer == ECE | CWR, mode == EcnMode::On);
        // SYNs are not marked, nor are bare acknowledgements.
        assert_eq!(out[0].ecn, 0);
        let mut reply = b.syn_ack();
        reply.flags |= answer;
        assert_eq!(b.inject(reply)[0].ecn, 0);
        let out = b.write(100);
        assert_eq!(out[0].ecn == 2, marked, "{mode:?} {answer:?}");
        assert!(!out[0].flags.intersects(ECE | CWR));
    }
}

// RFC 3168 6.1.1: as server; a SYN that is marked itself is no offer.
#[test]
fn negotiation_as_server() {
    for (mode, offer, ce, agrees) in [
        (EcnMode::Passive, ECE | CWR, false, true),
        (EcnMode::On, ECE | CWR, false, true),
        (EcnMode::Off, ECE | CWR, false, false),
        (EcnMode::Passive, ECE, false, false),
        (EcnMode::Passive, Flags::empty(), false, false),
        (EcnMode::Passive, ECE | CWR, true, false),
    ] {
        let mut b = Bench::listening(config(mode), 4);
        let mut syn = seg(SYN | offer, 0, 0);
        syn.ce = ce;
        let out = b.inject(syn);
        let want = if agrees { SYN | ACK | ECE } else { SYN | ACK };
        assert_eq!(out[0].flags, want, "{mode:?} {offer:?}");
        assert_eq!(out[0].ecn, 0);
    }
}

// RFC 3168 6.1.1.1: no answer: the next SYN goes without the offer. If the answer to the first
// comes after all, marks are understood, but own data is not marked (6.1.1).
#[test]
fn the_offer_is_dropped_on_the_way() {
    let mut b = Bench::new(config(EcnMode::On));
    assert_eq!(b.connect()[0].flags, SYN | ECE | CWR);
    let again = b.wait(1_100 * MS);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1.flags, SYN);
    let mut reply = b.syn_ack();
    reply.flags |= ECE;
    b.inject(reply);
    assert_eq!(b.write(100)[0].ecn, 0);
    let out = b.inject(seg(ACK, 1, 101).len(10).ce());
    assert_eq!(out[0].flags, ACK | ECE);
}

// RFC 3168 6.1.3: CE is echoed on every acknowledgement until CWR; CWR and CE on one segment
// leave the echo on. 6.1.4: a mark on a bare acknowledgement means nothing.
#[test]
fn the_receiver_echoes_until_cwr() {
    let mut b = agreed();
    let out = b.inject(seg(ACK, 1, 1).ce());
    assert!(out.is_empty());
    let out = b.inject(seg(ACK, 1, 1).len(100).ce());
    assert_eq!(out[0].brief(), (ACK | ECE, 1, 101, 0));
    let out = b.inject(seg(ACK, 101, 1).len(1460));
    assert_eq!(out[0].flags, ACK | ECE);
    // Data carries it too.
    assert!(b.write(10)[0].flags.contains(ECE));
    let out = b.inject(seg(ACK | CWR, 1561, 11).len(1460).ce());
    assert_eq!(out[0].flags, ACK | ECE);
    let out = b.inject(seg(ACK | CWR, 3021, 11).len(1460));
    assert_eq!(out[0].flags, ACK);
    assert_eq!(b.tcb().ecn.received_ce, 2);
}

// RFC 3168 6.1.5: marks outside of the window are ignored.
#[test]
fn marks_outside_of_the_window() {
    let mut b = agreed();
    b.inject(seg(ACK, 1, 1).len(100));
    let out = b.inject(seg(ACK, 1, 1).len(100).ce());
    assert_eq!(out[0].flags, ACK);
}

// What is owed survives: the echo, and the CWR.
#[test]
fn a_restart_keeps_what_is_owed() {
    let mut b = agreed();
    b.inject(seg(ACK, 1, 1).len(100).ce());
    b.restart();
    let out = b.inject(seg(ACK, 101, 1).len(3000));
    assert!(out[0].flags.contains(ECE));
    b.write(20_000);
    b.inject(seg(ACK | ECE, 3101, 1461));
    assert!(b.tcb().ecn.has(flag::CWR_DUE));
    b.restart();
    let sent = b.inject(seg(ACK, 3101, 14_601));
    assert!(sent.iter().any(|s| s.flags.contains(CWR) && s.len > 0));
}

// RFC 3168 6.1.2: ECE reduces the window once for each window of data, and CWR goes on the first
// new data; nothing is sent again.
#[test]
fn the_sender_reduces_once_a_window() {
    let mut b = agreed();
    assert_eq!(b.write(40_000).len(), 10);
    b.now += 50 * MS;
    let out = b.inject(seg(ACK | ECE, 1, 1461));
    let cwnd = b.tcb().cc.cwnd;
    assert_eq!(cwnd, 5 * MSS);
    assert_eq!(b.tcb().cc.ssthresh, 5 * MSS);
    assert!(
        out.is_empty(),
        "nine segments are out, five may be: {out:?}"
    );
    // More echoes of the same window.
    for i in 2..=5 {
        assert!(b.inject(seg(ACK | ECE, 1, 1 + i * MSS)).is_empty());
    }
    assert_eq!(b.tcb().ecn.reductions, 1);
    let out = b.inject(seg(ACK | ECE, 1, 1 + 6 * MSS));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].flags & (ECE | CWR), CWR);
    assert_eq!((out[0].seq, out[0].ecn), (1 + 10 * MSS, 2));
    let out = b.inject(seg(ACK | ECE, 1, 1 + 7 * MSS));
    assert_eq!(out[0].flags & (ECE | CWR), Flags::empty(), "once");
    // Everything of the window is acknowledged, and the CWR: an echo now is another event.
    let before = b.tcb().cc.cwnd;
    b.inject(seg(ACK | ECE, 1, 1 + 11 * MSS));
    assert_eq!(b.tcb().ecn.reductions, 2);
    assert!(b.tcb().cc.cwnd < before);
    assert_eq!(b.tcb().counters.retrans, 0);
    assert!(b.engine.info(b.now, b.id).unwrap().delivered_ce >= 7);
}

// RFC 3168 6.1.2: a loss and an echo of the same window reduce once; the CWR tells of either.
// 6.1.5: what is sent again is not marked.
#[test]
fn loss_and_echo_of_one_window() {
    let mut b = agreed();
    b.write(40_000);
    b.now += 50 * MS;
    let at = |n: u32| 1 + n * MSS;
    let out = b.inject(seg(ACK | ECE, 1, 1).sack(&[(at(1), at(5))]));
    let again: Vec<_> = out.iter().filter(|s| s.seq == 1).collect();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].ecn, again[0].flags & CWR), (0, Flags::empty()));
    assert_eq!(b.tcb().ecn.reductions, 0);
    let ssthresh = b.tcb().cc.ssthresh;
    let mut out = b.inject(seg(ACK | ECE, 1, at(9)));
    out.extend(b.inject(seg(ACK | ECE, 1, at(10))));
    assert_eq!(b.tcb().cc.ssthresh, ssthresh);
    assert!(out.iter().any(|s| s.flags.contains(CWR)));
}

// RFC 3168 6.1.1: without agreement ECE and CE mean nothing.
#[test]
fn without_agreement() {
    let mut b = Bench::established(config(EcnMode::Passive));
    b.write(40_000);
    let cwnd = b.tcb().cc.cwnd;
    b.inject(seg(ACK | ECE, 1, 1461));
    assert!(b.tcb().cc.cwnd >= cwnd);
    let out = b.inject(seg(ACK | CWR, 1, 1461).len(100).ce());
    assert!(out.iter().all(|s| !s.flags.contains(ECE)));
    assert_eq!(b.state(), State::Established);
}

// RFC 3168 6.1.2: of a large unit only the first segment carries CWR; the unit says so once.
#[test]
fn cwr_is_on_one_unit() {
    let mut b = Bench::new(Config {
        max_gso: 64_000,
        ..config(EcnMode::On)
    });
    b.connect();
    let mut reply = b.syn_ack();
    reply.flags |= ECE;
    b.inject(reply);
    b.write(60_000);
    b.now += 50 * MS;
    b.inject(seg(ACK | ECE, 1, 1461));
    let mut out = vec![];
    for i in 2..=10 {
        out.extend(b.inject(seg(ACK, 1, 1 + i * MSS)));
    }
    assert_eq!(out.iter().filter(|s| s.flags.contains(CWR)).count(), 1);
    assert!(out[0].flags.contains(CWR));
}

// A middlebox that marks everything, always: slow, but alive and whole.
#[test]
fn everything_is_marked_for_ever() {
    let mut b = agreed();
    b.write(60_000);
    let mut acked = 1;
    for _ in 0..400 {
        b.now += 10 * MS;
        let end = 1 + (b.tcb().snd_nxt - b.tcb().snd_una) as u32 + (acked - 1);
        if end == acked {
            break;
        }
        acked = end;
        b.inject(seg(ACK | ECE, 1, acked));
    }
    assert_eq!(acked, 60_001);
    assert!(b.tcb().cc.cwnd >= 2 * MSS);
}

// `TCP_INFO` shows it as Linux does: TCP_CA_CWR until what was in flight is acknowledged.
#[test]
fn a_reduction_shows_in_the_info() {
    let mut b = agreed();
    let state = |b: &Bench| b.engine.info(b.now, b.id).unwrap().ca_state;
    b.write(14_600);
    b.now += 100 * MS;
    b.inject(seg(ACK | ECE, 1, 1_461));
    assert_eq!(state(&b), 2);
    b.inject(seg(ACK | ECE, 1, 14_601));
    assert_eq!(state(&b), 0);
}
