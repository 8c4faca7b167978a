//! Words of a hostile application, records of a hostile predecessor.

use crate::bench::*;
use tcpd::engine::Engine;

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
