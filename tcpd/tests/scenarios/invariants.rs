//! What must hold after every batch: E1 to E4 at the head of the engine's module.

use std::collections::BTreeMap;
use tcpd::engine::seq::SYN_OFFSET;
use tcpd::engine::{ConnId, Engine, State, Tcb};

/// What is sent for the first time fits what the peer has offered, and the congestion window, be
/// it that of before or of after what came meanwhile. Beyond that are at most a probe of the tail
/// or of the path (two segments), limited transmit (two), and, of the other window, a unit of its
/// scale and the FIN's number.
fn restrained(tcb: &Tcb, before: &Tcb) -> Result<(), String> {
    if tcb.snd_nxt == before.snd_nxt || !tcb.state().is_synchronized() {
        return Ok(());
    }
    let edge = tcb.snd_limit().max(before.snd_limit());
    let unit = 1 << tcb.negotiated.snd_scale;
    if before.state().is_synchronized() && tcb.snd_nxt > edge.max(before.snd_nxt) + unit {
        return Err(format!("E2: sent to {}, offered {edge}", tcb.snd_nxt));
    }
    let new = tcb.snd_nxt - before.snd_nxt;
    let window = u64::from(tcb.cc.cwnd.max(before.cc.cwnd));
    if new > window + 4 * u64::from(tcb.negotiated.mss()) {
        return Err(format!("E2: {new} bytes at once, a window of {window}"));
    }
    Ok(())
}

/// One record as committed, and the one it takes the place of.
pub(crate) fn record(tcb: &Tcb, before: Option<&Tcb>) -> Result<(), String> {
    let check = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(what.to_owned()) }
    };
    check(tcb.is_valid(), "E1: a successor would refuse it")?;
    check(tcb.snd_una <= tcb.snd_nxt, "E2: snd_una > snd_nxt")?;
    check(
        tcb.snd_nxt <= tcb.data_end() + 1,
        "E2: more was sent than there is",
    )?;
    check(
        tcb.written <= tcb.acked_upto() + u64::from(tcb.opts.snd_capacity),
        "E2: more is written than the buffer holds",
    )?;
    let open = tcb.state().has_peer() && tcb.state() != State::SynSent;
    if open {
        check(
            tcb.peer_finished() || tcb.rcv_nxt <= tcb.rcv_adv.max(tcb.rcv_limit()),
            "E3: more was taken than offered",
        )?;
        let room = tcb.consumed + u64::from(tcb.opts.rcv_capacity);
        check(
            tcb.received_upto() <= room,
            "E3: more was taken than the buffer holds",
        )?;
    }
    // A socket that connects again begins again, perhaps with the same number.
    let again = matches!(tcb.state(), State::SynSent | State::Closed) && tcb.rcv_nxt == SYN_OFFSET;
    let same = before.filter(|b| b.generation == tcb.generation && b.iss == tcb.iss && !again);
    if let Some(b) = same {
        check(tcb.snd_una >= b.snd_una, "E2: snd_una went back")?;
        check(tcb.snd_nxt >= b.snd_nxt, "E2: snd_nxt went back")?;
        check(tcb.rcv_nxt >= b.rcv_nxt, "E3: rcv_nxt went back")?;
        check(tcb.rcv_adv >= b.rcv_adv, "E3: rcv_adv went back")?;
        check(tcb.written >= b.written, "written went back")?;
        check(tcb.consumed >= b.consumed, "consumed went back")?;
        restrained(tcb, b)?;
    }
    // E4: what must end or be answered has a timer.
    let armed = tcb.deadlines.earliest().is_some();
    let owed = match tcb.state() {
        // A SYN that waits for the first bytes (RFC 7413) is not in flight yet.
        State::SynSent => tcb.flight() > 0,
        State::SynReceived | State::TimeWait => true,
        state if state.can_transmit() => tcb.flight() > 0,
        State::FinWait2 => tcb.is_orphan(),
        _ => false,
    };
    check(armed || !owed, "E4: something is owed and no timer armed")
}

/// The engine beside its committed records.
pub(crate) fn engine(engine: &Engine, committed: &BTreeMap<ConnId, Tcb>) -> Result<(), String> {
    let mut count = 0;
    for (id, tcb) in engine.records() {
        count += 1;
        let same = committed.get(&id).is_some_and(|c| {
            c.snd_nxt == tcb.snd_nxt
                && c.snd_una == tcb.snd_una
                && c.rcv_nxt == tcb.rcv_nxt
                && c.state == tcb.state
                && c.generation == tcb.generation
        });
        if !same {
            return Err(format!("E1: record {} changed without being named", id.0));
        }
        let armed = tcb.deadlines.earliest().is_some();
        if armed && engine.next_deadline().is_none() {
            return Err(format!("E4: record {} waits for a time nobody knows", id.0));
        }
    }
    if count == committed.len() {
        Ok(())
    } else {
        Err("E1: a record went without being named".to_owned())
    }
}
