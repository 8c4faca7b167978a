//! The tail loss probe (RFC 8985 7.3).

use super::build;
use super::data::{segment_size, send_unit};
use super::{arm_retransmit, has_work};
use crate::engine::conn::{Conn, Ctx};
use crate::engine::recovery::Phase;
use crate::engine::seq::clamp;
use crate::engine::tcb::flag;
use crate::engine::timers::Timer;

/// Whatever the congestion window says: new data if there is any and the peer's window allows it,
/// else the last segment again. The acknowledgement shows what is lost below.
///
/// As in QUIC (RFC 9002 6.2.4) new data is two segments, where there are two: a peer may hold the
/// acknowledgement of one back for longer than a timeout of ours. And as in QUIC recovery is
/// probed too: when it falls silent, the first segment leaves once more, because its
/// retransmission or the acknowledgement of it may be lost with nothing behind it to show it.
///
/// A probe without an answer is followed by two more, if the timeout is far enough off (see
/// [`super::arm_tail_probe`]).
///
/// After a restore the last segment shows whether it ever left. A peer without SACK is probed
/// only then, and can only answer to the first segment.
pub(super) fn tail_probe(conn: &mut Conn, ctx: &mut Ctx<'_>) {
    let mss = segment_size(conn);
    let restored = core::mem::take(&mut conn.rt.restored);
    let tcb = &conn.tcb;
    if tcb.flight() == 0 || !tcb.state().is_synchronized() {
        return;
    }
    let open = tcb.recovery.phase() == Phase::Open;
    // Not on top of an earlier probe.
    let in_window = tcb.pipe() <= tcb.cc.cwnd;
    let has_new = open && !restored && in_window && tcb.state().can_transmit() && has_work(tcb);
    let end = if let Some(new) = new_data(conn, mss).filter(|_| has_new) {
        let tcb = &conn.tcb;
        let end = tcb.snd_nxt + u64::from(new);
        let window = tcb.snd_limit() > end;
        let fin = tcb.has(flag::FIN_QUEUED) && !tcb.fin_sent() && end == tcb.data_end() && window;
        send_unit(conn, ctx, new, mss, fin);
        conn.tcb.recovery.probe_is_retrans = 0;
        conn.tcb.snd_nxt
    } else {
        let sack = tcb.negotiated.has(crate::engine::options::flag::SACK);
        let log = &conn.rt.sent;
        let hole = if sack && (open || restored) {
            log.last_hole(u64::from(mss))
        } else {
            let first = log.first_hole();
            first.map(|(start, end)| (start, end.min(start + u64::from(mss))))
        };
        let Some((start, end)) = hole else {
            return;
        };
        conn.stamp_sending(ctx.now, end - start);
        build::again(conn, start, end, mss, ctx);
        conn.rt.sent.resend(start, end, ctx.now);
        conn.tcb.sync(&mut conn.rt.sent);
        let r = &mut conn.tcb.recovery;
        r.probe_is_retrans = if r.probe_end == end {
            r.probe_is_retrans.saturating_add(1)
        } else {
            1
        };
        end
    };
    let tcb = &mut conn.tcb;
    tcb.recovery.probe_end = end;
    tcb.deadlines.stop(Timer::TailProbe);
    tcb.recovery.rack.probes = tcb.recovery.rack.probes.saturating_add(1);
    if tcb.recovery.rack.probes == 1 {
        // RFC 8985 7.3: the timeout counts from the probe; not from further ones.
        arm_retransmit(tcb, ctx);
    } else {
        super::arm_tail_probe(tcb, ctx);
    }
}

/// Bytes of new data that a probe may carry: all that there are, or whole segments.
fn new_data(conn: &Conn, mss: u32) -> Option<u32> {
    let tcb = &conn.tcb;
    let avail = clamp(tcb.data_end().saturating_sub(tcb.snd_nxt));
    let window = clamp(tcb.snd_limit().saturating_sub(tcb.snd_nxt));
    let len = avail.min(window).min(2 * mss);
    let len = if len == avail { len } else { len - len % mss };
    Some(len).filter(|&len| len > 0)
}
