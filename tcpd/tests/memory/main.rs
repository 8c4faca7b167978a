//! Buffers that grow, pressure, idle sockets: the engine alone, with applications that read and
//! write at once, over a path of 100 ms.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod pair;
mod pressure;

use abi::session::{SockOpt, SockOptName};
use pair::{BOTH, NOTHING, Pair, READ, SECOND, WRITE};
use tcpd::engine::memory::{Limits, MemoryConfig};

#[test]
fn buffers_follow_the_path_and_the_pages_of_idle_ones_go_back() {
    let usual = MemoryConfig::default();
    let mut p = Pair::new(&usual, &usual);
    p.run(3 * SECOND, |_| BOTH, |_| READ);
    let (client, server) = (p.client.tcb(0), p.server.tcb(0));
    // 100 ms without a limit: as large as they can be.
    assert_eq!(client.memory.rings.tx.size(), 8 << 20);
    assert_eq!(server.memory.rings.rx.size(), 8 << 20);
    assert_eq!(server.memory.rings.tx.size(), 1 << 17, "nothing was sent");
    assert!(
        server.received_upto() > 50 << 20,
        "{}",
        server.received_upto()
    );
    assert!(p.server.bytes() >= 8 << 20);
    // Nothing more is written: at first there is nothing to give back, then everything.
    p.run(5 * SECOND, |_| READ, |_| READ);
    assert!(p.server.idle.is_empty() && p.client.idle.is_empty());
    p.run(30 * SECOND, |_| READ, |_| READ);
    assert_eq!(p.server.idle, p.server.conns);
    assert_eq!(p.client.idle, p.client.conns);
    assert_eq!(p.server.bytes(), 0);
    assert_eq!(p.client.bytes(), 0);
    assert_eq!(p.server.engine.next_trim(), None);
}

#[test]
fn under_pressure_nothing_grows_and_windows_are_small() {
    let usual = MemoryConfig::default();
    let tight = MemoryConfig {
        limits: Limits {
            low: 200_000,
            pressure: 300_000,
            high: 600_000,
        },
        session: 1 << 30,
        ..usual.clone()
    };
    let mut p = Pair::new(&usual, &tight);
    p.run(3 * SECOND, |_| BOTH, |_| READ);
    let used = p.server.engine.memory_use();
    assert!(used.bytes <= 300_000 && used.refused > 0, "{used:?}");
    let tcb = p.server.tcb(0);
    assert!(tcb.memory.rings.rx.size() <= 1 << 18);
    // Who does not read keeps no more than what was offered.
    p.run(5 * SECOND, |_| WRITE, |_| NOTHING);
    assert!(p.server.bytes() <= 300_000);
    // And goes on afterwards.
    let before = tcb.received_upto();
    p.run(3 * SECOND, |_| BOTH, |_| READ);
    let after = p.server.tcb(0).received_upto();
    assert!(after > before + (1 << 20), "{before} {after}");
}

#[test]
fn a_size_that_was_set_stays_and_is_doubled_when_read() {
    let usual = MemoryConfig::default();
    let mut p = Pair::new(&usual, &usual);
    let set = SockOpt::RecvBuffer(50_000);
    p.server.engine.set_option(p.now, p.listener, &set).unwrap();
    p.run(2 * SECOND, |_| BOTH, |_| READ);
    let tcb = p.server.tcb(0);
    assert_eq!(tcb.opts.rcv_buf, 50_000);
    assert_eq!(
        p.server
            .engine
            .option(p.server.conns[0], SockOptName::RecvBuffer),
        Ok(SockOpt::RecvBuffer(100_000))
    );
    assert!(tcb.rcv_adv - tcb.rcv_nxt <= 50_000);
}
