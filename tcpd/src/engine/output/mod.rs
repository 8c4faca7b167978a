//! Output: once a batch, for each connection that has something to send.
//!
//! ```text
//!   SYN states          SYN or SYN,ACK
//!   then                what is lost  ->  new data, FIN  ->  probe  ->  a bare ACK if still owed
//! ```
//!
//! Any segment carries the acknowledgement, so that a whole batch costs at most one bare ACK.
//! What keeps data back (window, congestion window, Nagle) is decided in [`data`]; how large a
//! unit may be in [`unit`]; how a segment looks in [`build`].

pub(crate) mod build;
mod data;
mod probe;
mod unit;

use super::conn::{Conn, Ctx, Probe};
use super::recovery::Phase;
use super::state::State;
use super::tcb::{Tcb, flag};
use super::timers::Timer;

/// Whether there is unsent or lost data, or an unsent FIN; whether it may leave is another
/// question.
pub(crate) fn has_work(tcb: &Tcb) -> bool {
    tcb.data_end() > tcb.snd_nxt || (tcb.has(flag::FIN_QUEUED) && !tcb.fin_sent()) || tcb.has_lost()
}

/// Makes the segments of one connection. Returns whether it stopped for the budget's sake.
pub(crate) fn transmit(conn: &mut Conn, ctx: &mut Ctx<'_>, budget: &mut usize) -> bool {
    let state = conn.tcb.state();
    let mut more = false;
    match state {
        State::Closed | State::Listen => {
            conn.rt.ack_now = false;
            conn.rt.push_now = false;
            conn.rt.probe = Probe::None;
        }
        State::SynSent | State::SynReceived => {
            conn.rt.push_now = false;
            if conn.rt.syn_now {
                build::syn(conn, ctx);
                *budget = budget.saturating_sub(1);
            }
            if conn.tcb.is_early() {
                // RFC 7413 4.2.2: answers need not wait for the handshake's end.
                more = data::send_new(conn, ctx, budget);
            }
        }
        _ => {
            conn.rt.syn_now = false;
            let nxt = conn.tcb.snd_nxt;
            if state.can_transmit() {
                more = data::retransmit(conn, ctx, budget) || data::send_new(conn, ctx, budget);
                conn.rt.push_now &= more;
            } else {
                conn.rt.push_now = false;
            }
            let asked = core::mem::take(&mut conn.rt.probe);
            match asked {
                Probe::None => {}
                Probe::Window => build::window_probe(conn, ctx),
                // New data serves as well.
                Probe::Tail if conn.tcb.snd_nxt == nxt => probe::tail_probe(conn, ctx),
                Probe::Tail => {}
            }
            if asked != Probe::None {
                // Thousands of connections may be probed at once (keepalive with equal timers).
                *budget = budget.saturating_sub(1);
            }
        }
    }
    if conn.rt.ack_now && state != State::SynSent {
        build::ack(conn, ctx);
        *budget = budget.saturating_sub(1);
    }
    more
}

/// Tail loss probes in a row, each after twice as long a wait as the one before (RFC 9002 6.2.1).
/// On a path of a millisecond a timeout is a hundred round-trip times away: one lost probe, or one
/// lost answer, must not cost them.
const MAX_PROBES: u32 = 3;

/// RFC 6298 5.1, 5.3: (re)starts the retransmission timer, and the probe for the tail.
pub(crate) fn arm_retransmit(tcb: &mut Tcb, ctx: &Ctx<'_>) {
    let at = ctx.now + tcb.rtt.timeout(ctx.config);
    tcb.deadlines.arm(Timer::Retransmit, at);
    arm_tail_probe(tcb, ctx);
}

/// RFC 8985 7.2: two round-trip times after the last news, the end of the flight is probed, so
/// that the loss of a tail shows without a timeout; in recovery too (see [`probe`]). After a
/// timeout the probe stays as it is: only a restore sets it then.
pub(crate) fn arm_tail_probe(tcb: &mut Tcb, ctx: &Ctx<'_>) {
    let phase = tcb.recovery.phase();
    if phase == Phase::Loss {
        return;
    }
    tcb.deadlines.stop(Timer::TailProbe);
    // Outside of recovery, what was selectively acknowledged has set the reordering timer; but
    // not where it was known before a timeout that was then taken back: RACK has no news of it.
    let awaited =
        phase == Phase::Open && tcb.recovery.sacked > 0 && tcb.deadlines.is_armed(Timer::Reorder);
    if tcb.rtt.srtt == 0
        || tcb.rtt.backoff > 0
        || tcb.recovery.rack.probes >= MAX_PROBES
        || awaited
        || tcb.flight() == 0
        || !tcb.negotiated.has(super::options::flag::SACK)
    {
        return;
    }
    let mut wait = 2 * tcb.rtt.srtt + 2 * super::config::MILLISECOND;
    if tcb.flight() <= u64::from(tcb.mss()) {
        // One segment: the peer may hold its acknowledgement back. In recovery it is one that was
        // lost before, and a copy too many costs less than a timeout: peers like ours are given
        // their time then, but not the slowest.
        wait += match phase {
            Phase::Recovery => ctx.config.delayed_ack.min(ctx.config.rto_min),
            _ => ctx.config.rto_min,
        };
    }
    let probes = tcb.recovery.rack.probes;
    let mut at = ctx.now + (wait << probes);
    if let Some(rto) = tcb.deadlines.get(Timer::Retransmit) {
        if at >= rto && probes > 0 {
            return;
        }
        at = at.min(rto);
    }
    tcb.deadlines.arm(Timer::TailProbe, at);
}
