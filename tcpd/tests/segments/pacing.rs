//! `SO_MAX_PACING_RATE` and `TCP_NOTSENT_LOWAT` as Linux has them.

use crate::bench::*;
use abi::session::{SockOpt, SockOptName};
use tcpd::engine::{Engine, Notice};

/// Acknowledges all that left; returns what leaves in answer.
fn ack_all(b: &mut Bench) -> Vec<Sent> {
    let upto = (b.tcb().snd_nxt - (1 << 32)) as u32;
    b.inject(seg(ACK, 1, upto))
}

fn bytes(sent: &[Sent]) -> u64 {
    sent.iter().map(|s| u64::from(s.len)).sum()
}

// Linux, socket(7): a bound for any congestion control, one that paces by itself or not.
#[test]
fn the_rate_is_bounded() {
    for name in ["cubic", "bbr", "newreno"] {
        let mut b = Bench::established(with_sack());
        b.set(SockOpt::Congestion(name.to_owned()));
        // 146 kB/s: a segment each 10 ms.
        b.set(SockOpt::MaxPacingRate(146_000));
        let mut sent = bytes(&b.write(60_000));
        let begin = b.now;
        for round in 0..200 {
            sent += bytes(&ack_all(&mut b));
            sent += b
                .wait(MS)
                .iter()
                .map(|(_, s)| u64::from(s.len))
                .sum::<u64>();
            if round == 100 {
                // It is in the record.
                b.restart();
            }
        }
        let most = 146_000 * (b.now - begin) / S;
        assert!(sent <= most + 4 * 1_460, "{name} {sent} {most}");
        assert!(sent >= most * 8 / 10, "{name} {sent} {most}");
        let info = Engine::info(&b.engine, b.now, b.id).unwrap();
        assert_eq!(info.max_pacing_rate, 146_000);
        assert!(info.pacing_rate <= 146_000);
        // Without the bound the rest leaves as the window allows.
        b.set(SockOpt::MaxPacingRate(u64::MAX));
        let got = b.engine.option(b.id, SockOptName::MaxPacingRate).unwrap();
        assert_eq!(got, SockOpt::MaxPacingRate(u64::MAX));
    }
}

// Linux, tcp(7): writable by what is unsent; here nothing beyond the mark is taken either.
#[test]
fn what_is_unsent_is_bounded() {
    let mut b = Bench::established(with_sack());
    assert_eq!(b.tcb().shown_send_limit(), b.tcb().opts.snd_buf);
    b.set(SockOpt::NotSentLowat(10_000));
    assert_eq!(b.tcb().shown_send_limit(), 10_000);
    b.news();
    // Ten segments leave, and make room beyond themselves.
    let sent = bytes(&b.write(10_000));
    assert_eq!((sent, b.tcb().unsent()), (10_000, 0));
    assert!(b.news().iter().any(|n| matches!(n, Notice::Acked(_))));
    assert_eq!(b.tcb().shown_send_limit(), 20_000);
    assert!(b.tcb().is_little_unsent());
    b.write(10_000);
    let (flight, unsent) = (20_000 - b.tcb().unsent(), b.tcb().unsent());
    assert!(unsent > 5_000, "{unsent}");
    assert!(!b.tcb().is_little_unsent());
    assert_eq!(u64::from(b.tcb().shown_send_limit()), flight + 10_000);
    // It survives.
    b.restart();
    assert!(!b.tcb().is_little_unsent());
    ack_all(&mut b);
    assert!(b.tcb().is_little_unsent());
    b.set(SockOpt::NotSentLowat(u32::MAX));
    assert_eq!(b.tcb().shown_send_limit(), b.tcb().opts.snd_buf);
}

// Less than two segments would make all that leaves small.
#[test]
fn a_tiny_mark_is_two_segments() {
    let mut b = Bench::established(with_sack());
    b.set(SockOpt::NotSentLowat(1));
    assert_eq!(b.tcb().shown_send_limit(), 2 * 1_460);
    let got = b.engine.option(b.id, SockOptName::NotSentLowat).unwrap();
    assert_eq!(got, SockOpt::NotSentLowat(1));
}
