//! Which data may leave: retransmissions, new data, the FIN.

use super::build;
use super::unit::unit_size;
use super::{arm_retransmit, has_work};
use crate::engine::config::MILLISECOND;
use crate::engine::conn::{Conn, Ctx};
use crate::engine::pmtu::Probe;
use crate::engine::recovery::Phase;
use crate::engine::seq::clamp;
use crate::engine::sockopt;
use crate::engine::tcb::flag;
use crate::engine::timers::Timer;
use abi::Nanos;

/// Payload of a full segment now: SACK blocks take their part.
pub(super) fn segment_size(conn: &Conn) -> u32 {
    conn.tcb.mss().saturating_sub(build::sack_len(conn)).max(1)
}

/// Sends lost holes again as far as the congestion window allows. Returns whether the budget
/// ended it.
pub(super) fn retransmit(conn: &mut Conn, ctx: &mut Ctx<'_>, budget: &mut usize) -> bool {
    let mss = segment_size(conn);
    let unit = unit_size(conn, ctx.config, mss);
    let mut limited = false;
    conn.tcb.sync(&mut conn.rt.sent);
    while conn.tcb.has_lost() {
        let Some((start, hole_end)) = conn.rt.sent.next_lost() else {
            break;
        };
        if *budget == 0 {
            return true;
        }
        if conn.is_paced_out(ctx.now) {
            break;
        }
        let tcb = &conn.tcb;
        let room = tcb.cc.cwnd.saturating_sub(tcb.pipe());
        let mut len = clamp(hole_end - start).min(unit);
        if room < len.min(mss) {
            limited = true;
            break;
        }
        if room < len {
            len = room - room % mss;
            limited = true;
        }
        // A window that shrank since: only the first segment may probe it (RFC 9293 3.8.6).
        let window = clamp(tcb.snd_limit().saturating_sub(start));
        if window < len {
            if start == tcb.snd_una {
                len = len.min(mss);
            } else if window >= mss {
                len = window - window % mss;
            } else {
                break;
            }
        }
        let end = start + u64::from(len);
        conn.stamp_sending(ctx.now, end - start);
        build::again(conn, start, end, mss, ctx);
        conn.rt.sent.resend(start, end, ctx.now);
        conn.note_paced(ctx.now, end - start);
        conn.tcb.note_retransmit(start, end);
        conn.tcb.sync(&mut conn.rt.sent);
        *budget -= 1;
        // In recovery the timeout counts from when the first segment last left, as in Linux.
        let first = conn.tcb.recovery.phase() == Phase::Recovery && start == conn.tcb.snd_una;
        if first || !conn.tcb.deadlines.is_armed(Timer::Retransmit) {
            arm_retransmit(&mut conn.tcb, ctx);
        } else {
            super::arm_tail_probe(&mut conn.tcb, ctx);
        }
    }
    if limited {
        let pipe = conn.tcb.pipe();
        let (una, nxt) = (conn.tcb.snd_una, conn.tcb.snd_nxt);
        conn.tcb.cc.note_output(una, nxt, pipe, true);
    }
    false
}

/// Why new data stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The congestion window is full.
    Congestion,
    /// The peer's window is full, or so nearly that using the rest would be silly.
    Window,
    /// Nagle or cork waits for more.
    Small,
    /// The next unit's time has not come.
    Pace,
}

/// How much new data may leave in the next unit.
fn next_len(conn: &Conn, mss: u32, unit: u32, now: Nanos) -> Result<u32, Held> {
    let tcb = &conn.tcb;
    let avail = tcb.data_end().saturating_sub(tcb.snd_nxt);
    let window = tcb.snd_limit().saturating_sub(tcb.snd_nxt);
    let room = u64::from(tcb.cc.cwnd.saturating_sub(tcb.pipe()));
    let len = clamp(avail.min(window).min(room)).min(unit);
    let whole = u64::from(len) == avail;
    if whole && (len.is_multiple_of(mss) || may_send_small(conn)) {
        return Ok(len);
    }
    if !whole && is_worth_waiting(conn, len, unit, now) {
        return Err(if window <= room {
            Held::Window
        } else {
            Held::Congestion
        });
    }
    // Only full segments, unless this is the end of what there is.
    if len >= mss {
        return Ok(len - len % mss);
    }
    if whole {
        return Err(Held::Small);
    }
    if window <= room {
        // RFC 9293 3.8.6.2.1: less than a segment only if it is half of what the peer ever
        // offered, or after the override timer.
        let worth = len > 0 && (conn.rt.push_now || len >= tcb.max_wnd / 2);
        return if worth { Ok(len) } else { Err(Held::Window) };
    }
    if tcb.flight() == 0 && len > 0 {
        return Ok(len);
    }
    Err(Held::Congestion)
}

/// While most of a window is in flight, acknowledgements that make room for a larger unit are on
/// their way. Sending a small one for each would keep units small for ever, as each of them is
/// acknowledged by itself (Linux's `tcp_tso_should_defer`).
///
/// Not so when nothing was sent for a millisecond: the acknowledgements come one by one then, and
/// each that waits for another leaves a part of a small window unused.
fn is_worth_waiting(conn: &Conn, len: u32, unit: u32, now: Nanos) -> bool {
    let tcb = &conn.tcb;
    if now.saturating_sub(tcb.last_sent_at) > MILLISECOND {
        return false;
    }
    let window = tcb.cc.cwnd.min(tcb.snd_wnd);
    tcb.recovery.phase() == Phase::Open
        && tcb.recovery.dupacks == 0
        && tcb.recovery.sacked == 0
        && !conn.rt.push_now
        && len < unit.min(window / 3)
        && tcb.flight() >= u64::from(window / 2)
}

/// RFC 9293 3.7.4 (Nagle), in Minshall's variant: one small segment may be unacknowledged.
fn may_send_small(conn: &Conn) -> bool {
    let tcb = &conn.tcb;
    let o = &tcb.opts;
    if conn.rt.push_now || tcb.has(flag::FIN_QUEUED) || tcb.snd_up > tcb.snd_nxt {
        return true;
    }
    if o.has(sockopt::flag::CORK) {
        return false;
    }
    o.has(sockopt::flag::NODELAY) || tcb.snd_sml <= tcb.snd_una
}

/// Sends new data and the FIN. Returns whether the budget ended it.
pub(super) fn send_new(conn: &mut Conn, ctx: &mut Ctx<'_>, budget: &mut usize) -> bool {
    if !has_work(&conn.tcb) {
        return false;
    }
    restart_after_idle(conn, ctx);
    conn.tcb.refresh_path_mtu(ctx.now);
    let mss = segment_size(conn);
    let unit = unit_size(conn, ctx.config, mss);
    let mut held = None;
    loop {
        let tcb = &conn.tcb;
        let avail = tcb.data_end().saturating_sub(tcb.snd_nxt);
        let fin_due = tcb.has(flag::FIN_QUEUED) && !tcb.fin_sent();
        if avail == 0 && !fin_due {
            break;
        }
        if *budget == 0 {
            return true;
        }
        if conn.is_paced_out(ctx.now) {
            held = Some(Held::Pace);
            break;
        }
        let tcb = &conn.tcb;
        let window = tcb.snd_limit().saturating_sub(tcb.snd_nxt);
        match tcb.next_probe(mss) {
            Probe::None => {}
            Probe::Send(len) => {
                send_probe(conn, ctx, len, mss);
                *budget -= 1;
                continue;
            }
            Probe::Wait => {
                held = Some(Held::Congestion);
                break;
            }
        }
        let len = if avail == 0 {
            // The FIN takes a number of the window too.
            if window == 0 {
                held = Some(Held::Window);
                break;
            }
            0
        } else {
            match next_len(conn, mss, unit, ctx.now) {
                Ok(0) => {
                    held = Some(Held::Window);
                    break;
                }
                Ok(len) => len,
                Err(why) => {
                    held = Some(why);
                    break;
                }
            }
        };
        let fin = fin_due && u64::from(len) == avail && window > u64::from(len);
        send_unit(conn, ctx, len, mss, fin);
        *budget -= 1;
    }
    after_sending(conn, ctx, held);
    false
}

pub(super) fn send_unit(conn: &mut Conn, ctx: &mut Ctx<'_>, len: u32, mss: u32, fin: bool) {
    let start = conn.tcb.snd_nxt;
    let data_end = start + u64::from(len);
    let end = data_end + u64::from(fin);
    conn.stamp_sending(ctx.now, end - start);
    build::fresh(conn, start, end, mss, ctx);
    conn.rt.sent.cover(conn.tcb.snd_una, start, ctx.now);
    conn.rt.sent.push(start, end, ctx.now);
    conn.note_paced(ctx.now, end - start);
    if conn.tcb.limits_unsent() {
        conn.notice_acked(ctx);
    }
    let tcb = &mut conn.tcb;
    if tcb.flight() == 0 {
        tcb.progress_at = ctx.now;
    }
    tcb.snd_nxt = end;
    tcb.last_sent_at = ctx.now;
    if !len.is_multiple_of(mss) {
        tcb.snd_sml = data_end;
    }
    if tcb.recovery.phase() == Phase::Recovery {
        tcb.recovery.prr_out = tcb.recovery.prr_out.saturating_add(len);
    }
    if !tcb.deadlines.is_armed(Timer::Retransmit) {
        arm_retransmit(tcb, ctx);
    } else {
        super::arm_tail_probe(tcb, ctx);
    }
}

/// RFC 4821 7: one segment of new data that is larger than the path is known to take.
fn send_probe(conn: &mut Conn, ctx: &mut Ctx<'_>, len: u32, mss: u32) {
    let start = conn.tcb.snd_nxt;
    send_unit(conn, ctx, len, len, false);
    conn.tcb.note_probe(start, start + u64::from(len), mss, ctx);
}

/// RFC 5681 4.1: nothing was sent for a while.
fn restart_after_idle(conn: &mut Conn, ctx: &Ctx<'_>) {
    let mss = conn.tcb.mss();
    let app_limited = conn.is_app_limited();
    let tcb = &mut conn.tcb;
    if tcb.flight() > 0 || tcb.last_sent_at == 0 {
        return;
    }
    let control = tcb.cc.control();
    if control.has_model() {
        if app_limited {
            control.on_idle(&mut tcb.cc, ctx.now);
        }
        return;
    }
    control.on_idle(&mut tcb.cc, ctx.now);
    let idle = ctx.now.saturating_sub(tcb.last_sent_at);
    let timeouts = idle / tcb.rtt.timeout(ctx.config).max(1);
    if timeouts > 0 {
        tcb.cc
            .restart_after_idle(mss, ctx.config.initial_window, timeouts);
    }
}

/// Window accounting, and a timer where no acknowledgement will come.
fn after_sending(conn: &mut Conn, ctx: &Ctx<'_>, held: Option<Held>) {
    let pipe = conn.tcb.pipe();
    if matches!(held, None | Some(Held::Small)) && pipe < conn.tcb.cc.cwnd && !conn.tcb.has_lost() {
        conn.mark_app_limited();
    }
    let tcb = &mut conn.tcb;
    tcb.cc.note_output(
        tcb.snd_una,
        tcb.snd_nxt,
        pipe,
        held == Some(Held::Congestion),
    );
    tcb.note_held(held == Some(Held::Window), ctx.now);
    // RFC 9293 3.8.6.1 and the override of 3.8.6.2.1; a cork opens after the same time (Linux:
    // 200 ms).
    if held.is_some_and(|why| why != Held::Pace)
        && tcb.flight() == 0
        && !tcb.deadlines.is_armed(Timer::Persist)
    {
        let wait = match held {
            Some(Held::Small) => ctx.config.rto_min,
            _ => tcb.rtt.timeout(ctx.config),
        };
        tcb.deadlines.arm(Timer::Persist, ctx.now + wait);
    }
}
