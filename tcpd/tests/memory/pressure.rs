//! What buffers that have grown give back when memory runs short, and what is refused when it is
//! used up.

use crate::pair::{BOTH, NOTHING, Pair, READ, SECOND, Use, WRITE};
use tcpd::engine::memory::{Limits, MemoryConfig, RING_BASE};
use tcpd::engine::{AppWords, State};

const MIB: u64 = 1 << 20;
/// Sockets whose data nobody reads.
const STALLED: usize = 80;

/// Room for one socket that has grown, and a little more.
fn room_for_one() -> MemoryConfig {
    MemoryConfig {
        limits: Limits {
            low: 6 * MIB,
            pressure: 9 * MIB,
            high: 40 * MIB,
        },
        session: 1 << 30,
        ..MemoryConfig::default()
    }
}

/// Nothing may be had at all.
fn none() -> MemoryConfig {
    MemoryConfig {
        limits: Limits {
            low: 1,
            pressure: 2,
            high: 3,
        },
        ..MemoryConfig::default()
    }
}

/// The first connection is used as `used` says, the others as `stalled`.
fn first(used: Use, stalled: Use) -> impl Fn(usize) -> Use {
    move |index| if index == 0 { used } else { stalled }
}

/// The receiver: one socket has grown to 8 MiB and stays busy, others fill up.
#[test]
fn a_busy_receiver_gives_back_what_holds_nothing() {
    let mut p = Pair::new(&MemoryConfig::default(), &room_for_one());
    p.run(3 * SECOND, |_| WRITE, |_| READ);
    assert_eq!(p.server.tcb(0).memory.rings.rx.size(), 8 * MIB);
    assert!(!p.server.engine.memory_use().pressure);
    let grown = p.server.charge(0);
    assert_eq!(grown, 8 * MIB, "it has walked through all of it");

    for _ in 0..STALLED {
        p.connect();
    }
    p.run(10 * SECOND, |_| WRITE, first(READ, NOTHING));
    let used = p.server.engine.memory_use();
    assert!(used.pressure && used.pressures > 0, "{used:?}");
    let others: u64 = (1..=STALLED).map(|i| p.server.charge(i)).sum();
    assert!(others > 6 * MIB, "they hold data: {others}");
    // It holds what arrived and half a base at the most.
    assert!(p.server.charge(0) < MIB / 4, "{}", p.server.charge(0));
    assert_eq!(used.bytes, others + p.server.charge(0));
    assert!(used.bytes < grown + others - 7 * MIB);
    // And goes on: all of the ring has been walked through again.
    let before = p.server.tcb(0).received_upto();
    p.run(40 * SECOND, |_| WRITE, first(READ, NOTHING));
    let moved = p.server.tcb(0).received_upto() - before;
    assert!(moved > MIB, "{moved}");
    assert!(p.server.charge(0) < MIB / 4, "{}", p.server.charge(0));
    assert!(p.server.bytes() < 40 * MIB, "the limit holds");

    // Everything is read: the pressure ends, and the first is fast again.
    p.run(5 * SECOND, first(WRITE, NOTHING), |_| READ);
    assert!(!p.server.engine.memory_use().pressure);
    let before = p.server.tcb(0).received_upto();
    p.run(3 * SECOND, first(WRITE, NOTHING), |_| READ);
    let moved = p.server.tcb(0).received_upto() - before;
    assert!(moved > 8 * MIB, "{moved}");
}

/// One that stands still is found by the look at the list.
#[test]
fn a_stalled_receiver_keeps_its_data_alone() {
    let mut p = Pair::new(&MemoryConfig::default(), &room_for_one());
    p.run(3 * SECOND, |_| WRITE, |_| READ);
    p.run(SECOND, |_| NOTHING, |_| READ);
    // What comes last is not read.
    let tcb = p.client.tcb(0);
    let words = AppWords {
        written: tcb.written + 100_000,
        consumed: tcb.consumed,
        accepted: true,
        ..AppWords::default()
    };
    let id = p.client.conns[0];
    p.client.engine.on_app(p.now, id, &words).unwrap();
    p.run(SECOND, |_| NOTHING, |_| NOTHING);
    let unread = p.server.tcb(0).unread();
    assert_eq!(unread, 100_000);
    assert_eq!(p.server.charge(0), 8 * MIB);
    for _ in 0..STALLED {
        p.connect();
    }
    p.run(10 * SECOND, first(NOTHING, WRITE), |_| NOTHING);
    let charge = p.server.charge(0);
    assert!(charge <= unread + 8_192, "{charge} for {unread}");
}

/// The sender: its buffer's free part goes, and it may write no more than the base.
#[test]
fn a_busy_sender_gives_back_what_is_acknowledged_and_writes_less() {
    let mut p = Pair::new(&room_for_one(), &MemoryConfig::default());
    p.run(3 * SECOND, |_| WRITE, |_| READ);
    assert_eq!(p.client.tcb(0).memory.rings.tx.size(), 8 * MIB);
    assert_eq!(p.client.charge(0), 8 * MIB);
    for _ in 0..STALLED {
        p.connect();
    }
    // The others write what nobody reads.
    p.run(10 * SECOND, |_| WRITE, first(READ, NOTHING));
    assert!(p.client.engine.memory_use().pressure);
    let tcb = p.client.tcb(0);
    assert_eq!(tcb.opts.snd_buf, 8 << 20, "it may grow back");
    assert_eq!(tcb.send_buffer(), RING_BASE);
    assert!(tcb.shown_send_limit() <= RING_BASE);
    let held = tcb.written - tcb.acked_upto();
    assert!(held <= RING_BASE.into(), "{held}");
    assert!(p.client.charge(0) < MIB / 2, "{}", p.client.charge(0));
    let before = tcb.acked_upto();
    p.run(10 * SECOND, |_| WRITE, first(READ, NOTHING));
    let moved = p.client.tcb(0).acked_upto() - before;
    assert!(moved > 8 * MIB, "a base each round trip: {moved}");
    assert!(p.client.charge(0) < MIB / 2, "{}", p.client.charge(0));
}

/// A write that was under way when the limit fell is no fault: the ring has room for it.
#[test]
fn what_was_written_by_an_earlier_limit_is_taken() {
    let mut p = Pair::new(&none(), &MemoryConfig::default());
    p.run(SECOND, |_| BOTH, |_| READ);
    assert!(p.client.engine.memory_use().pressure);
    let tcb = p.client.tcb(0);
    let words = AppWords {
        written: tcb.write_limit(),
        consumed: tcb.consumed,
        accepted: true,
        ..AppWords::default()
    };
    assert_eq!(
        p.client.engine.on_app(p.now, p.client.conns[0], &words),
        Ok(())
    );
    p.run(SECOND, |_| NOTHING, |_| READ);
    assert_eq!(p.server.tcb(0).received_upto(), words.written);
}

/// Above `high`: what is out of order is not kept, and comes again.
#[test]
fn nothing_is_taken_out_of_order_when_memory_is_used_up() {
    for (memory, refuses) in [(none(), true), (MemoryConfig::default(), false)] {
        let mut p = Pair::new(&MemoryConfig::default(), &memory);
        p.run(SECOND, |_| WRITE, |_| READ);
        let refused = p.server.engine.stats().no_room;
        p.lose = 1;
        p.run(SECOND / 10, |_| WRITE, |_| READ);
        assert_eq!(p.lose, 0);
        assert_eq!(p.server.tcb(0).reassembly.is_empty(), refuses);
        assert_eq!(p.server.engine.stats().no_room > refused, refuses);
        let before = p.server.tcb(0).received_upto();
        p.run(3 * SECOND, |_| WRITE, |_| READ);
        assert!(p.server.tcb(0).received_upto() > before, "it went on");
    }
}

/// Above `high`, an orphan that makes no progress is given up.
#[test]
fn orphans_that_hold_data_are_given_up_when_memory_is_used_up() {
    for (memory, dies) in [(none(), true), (MemoryConfig::default(), false)] {
        let mut p = Pair::new(&memory, &MemoryConfig::default());
        p.run(SECOND, |_| WRITE, |_| READ);
        p.run(SECOND, |_| WRITE, |_| NOTHING);
        p.cut = true;
        let id = p.client.conns[0];
        p.client.engine.close(p.now, id);
        p.run(SECOND / 2, |_| NOTHING, |_| NOTHING);
        assert!(p.client.tcb(0).is_orphan(), "it has some time");
        p.run(2 * SECOND, |_| NOTHING, |_| NOTHING);
        assert_eq!(p.client.engine.record(id).is_none(), dies);
        if dies {
            assert_eq!(p.client.bytes(), 0);
        }
    }
}

/// Above `high`, a SYN is not answered; when memory is there again, its next one is.
#[test]
fn no_connection_is_opened_when_memory_is_used_up() {
    let mut p = Pair::new(&MemoryConfig::default(), &none());
    p.run(SECOND, |_| WRITE, |_| NOTHING);
    assert!(p.server.bytes() > 3, "unread");
    p.connect();
    p.run(SECOND, |_| NOTHING, |_| NOTHING);
    assert_eq!(p.client.tcb(1).state(), State::SynSent);
    // Everything is read, and given back after a while.
    p.run(10 * SECOND, |_| NOTHING, |_| READ);
    assert_eq!(p.server.bytes(), 0);
    assert_eq!(p.client.tcb(1).state(), State::Established);
    assert_eq!(p.client.tcb(1).error, 0);
}
