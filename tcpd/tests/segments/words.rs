//! Words of a hostile application, records of a hostile predecessor.

use crate::bench::*;
use tcpd::engine::{AppWords, Engine, PeerFault};

#[test]
fn impossible_words_change_nothing() {
    let mut b = Bench::established(plain());
    b.write(100);
    b.inject(seg(ACK, 1, 1).len(50));
    let good = b.words;
    let before = b.tcb().written;
    let faults = [
        AppWords {
            written: 99,
            ..good
        },
        AppWords {
            written: u64::MAX,
            ..good
        },
        AppWords {
            written: 65_537,
            ..good
        },
        AppWords {
            consumed: 51,
            ..good
        },
        AppWords {
            consumed: u64::MAX,
            ..good
        },
    ];
    for words in faults {
        assert!(b.engine.on_app(b.now, b.id, &words).is_err(), "{words:?}");
    }
    assert_eq!(b.tcb().written, before);
    assert_eq!(b.engine.stats().peer_faults, 5);
    b.read(50);
    let back = AppWords {
        consumed: 49,
        ..b.words
    };
    let fault = b.engine.on_app(b.now, b.id, &back);
    assert_eq!(fault, Err(PeerFault::ConsumedBack { from: 50, to: 49 }));
}

#[test]
fn nothing_is_written_after_the_end() {
    let mut b = Bench::established(plain());
    b.words.shut_wr = true;
    b.write(10);
    let more = AppWords {
        written: 11,
        ..b.words
    };
    assert_eq!(
        b.engine.on_app(b.now, b.id, &more),
        Err(PeerFault::WrittenAfterShutdown)
    );
    // The same words again are fine: they are levels.
    b.show();
}

#[test]
fn senseless_records_are_refused() {
    let mut b = Bench::established(plain());
    b.write(10);
    let good = *b.tcb();
    let id = b.id;
    let config = b.engine.config().clone();
    let mut broken = vec![good; 6];
    broken[0].layout = 9;
    broken[1].state = 77;
    broken[2].snd_una = broken[2].snd_nxt + 1;
    broken[3].consumed = 1;
    broken[4].remote = abi::Endpoint::NONE;
    broken[5].rcv_nxt = 0;
    for tcb in broken {
        let mut refused = vec![];
        let engine = Engine::restore(config.clone(), b.now, [(id, tcb)], &mut refused);
        assert_eq!(refused, [id]);
        assert_eq!(engine.records().count(), 0);
    }
    // Two that claim the same connection: one of them.
    let mut refused = vec![];
    let two = [(id, good), (tcpd::engine::ConnId(7), good)];
    let engine = Engine::restore(config, b.now, two, &mut refused);
    assert_eq!((engine.records().count(), refused.len()), (1, 1));
}
