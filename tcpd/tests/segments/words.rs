//! Words of a hostile application, records of a hostile predecessor.

use crate::bench::*;
use tcpd::engine::{Engine, State};

#[test]
fn senseless_records_are_refused() {
    let mut b = Bench::established(plain());
    b.write(10);
    let good = *b.tcb();
    let id = b.id;
    let config = b.engine.config().clone();
    let mut broken = vec![good; 6];
    broken[0].layout = 999;
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

// Found by the campaign: the child of a listener whose record was corrupt asked its peer for the
// end of the handshake for a minute, and did not take it.
#[test]
fn a_child_whose_listener_was_lost_is_reset() {
    for is_established in [false, true] {
        let mut b = Bench::listening(plain(), 5);
        let listener = b.id;
        b.inject(seg(SYN, 0, 0));
        if is_established {
            b.inject(seg(ACK, 1, 1));
        }
        let all = b.engine.records().map(|(id, tcb)| (id, *tcb));
        let children: Vec<_> = all.filter(|(id, _)| *id != listener).collect();
        assert_eq!(children.len(), 1);
        let config = b.engine.config().clone();
        b.engine = Engine::restore(config, b.now, children, &mut vec![]);
        let out = b.output();
        assert!(out.iter().any(|s| s.flags.contains(RST)), "{out:?}");
        let left = b.engine.records().map(|(_, tcb)| tcb.state());
        assert!(left.into_iter().all(|state| state == State::Closed));
    }
}
