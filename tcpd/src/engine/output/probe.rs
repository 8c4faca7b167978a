//! The tail loss probe (RFC 8985 7.3).

use super::build;
use super::data::{segment_size, send_unit};
use super::{arm_retransmit, has_work};
use crate::engine::conn::{Conn, Ctx};
use crate::engine::recovery::Phase;
use crate::engine::seq::clamp;
use crate::engine::tcb::flag;
use crate::engine::timers::Timer;

/// One segment, whatever the congestion window says: new data if there is any and the peer's
/// window allows it, else the last one again. Its acknowledgement shows what is lost below.
///
/// After a restore it also goes out in recovery, and to a peer without SACK: that one can only
/// answer to the first segment.
pub(super) fn tail_probe(conn: &mut Conn, ctx: &mut Ctx<'_>) {
    let mss = segment_size(conn);
    let restored = core::mem::take(&mut conn.rt.restored);
    let tcb = &conn.tcb;
    if tcb.flight() == 0 || !tcb.state().is_synchronized() {
        return;
    }
    let open = tcb.recovery.phase() == Phase::Open;
    let new = clamp(tcb.data_end().saturating_sub(tcb.snd_nxt)).min(mss);
    let window = tcb.snd_limit().saturating_sub(tcb.snd_nxt);
    let has_new = new > 0 && has_work(tcb) && tcb.state().can_transmit();
    // One after a restore is to show whether the last segment left at all.
    let fresh = has_new && !restored && window >= u64::from(new);
    if fresh {
        let last = tcb.snd_nxt + u64::from(new) == tcb.data_end();
        let fin = tcb.has(flag::FIN_QUEUED) && !tcb.fin_sent() && last && window > u64::from(new);
        send_unit(conn, ctx, new, mss, fin);
    } else {
        let sack = tcb.negotiated.has(crate::engine::options::flag::SACK);
        let log = &conn.rt.sent;
        let hole = if sack {
            log.last_hole(u64::from(mss))
        } else {
            let first = log.first_hole();
            first.map(|(start, end)| (start, end.min(start + u64::from(mss))))
        };
        let Some((start, end)) = hole else {
            return;
        };
        build::again(conn, start, end, mss, ctx);
        conn.rt.sent.resend(start, end, ctx.now);
        conn.tcb.sync(&mut conn.rt.sent);
    }
    let tcb = &mut conn.tcb;
    if open {
        tcb.recovery.probe_end = tcb.snd_nxt;
        tcb.recovery.probe_is_retrans = u32::from(!fresh);
    }
    tcb.deadlines.stop(Timer::TailProbe);
    // RFC 8985 7.3: the timeout counts from the probe.
    arm_retransmit(tcb, ctx);
}
