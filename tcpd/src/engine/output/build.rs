//! How segments look: header, options, window.

use crate::engine::actions::{PayloadRef, SegmentOut};
use crate::engine::conn::{Conn, Ctx};
use crate::engine::demux::Flow;
use crate::engine::ecn::ECT_0;
use crate::engine::events::SegmentMeta;
use crate::engine::listen::stray_len;
use crate::engine::options::{self, SackBlocks};
use crate::engine::seq::{DATA_OFFSET, Offset, SYN_OFFSET, clamp, stream_position, to_wire};
use crate::engine::state::State;
use crate::engine::tcb::Tcb;
use crate::engine::timers::Timer;
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr};

/// Bytes that SACK blocks take of the next segment, padding included.
pub(super) fn sack_len(conn: &Conn) -> u32 {
    let tcb = &conn.tcb;
    if !tcb.negotiated.has(options::flag::SACK) {
        return 0;
    }
    let blocks = tcb.reassembly.len() + usize::from(conn.rt.dsack.is_some());
    match blocks.min(max_blocks(tcb)) {
        0 => 0,
        n => 4 + 8 * n as u32,
    }
}

/// SACK blocks that fit beside the other options.
pub(crate) fn max_blocks(tcb: &Tcb) -> usize {
    if tcb.negotiated.has(options::flag::TIMESTAMPS) {
        3
    } else {
        4
    }
}

/// RFC 2018 4 and RFC 2883 4: what arrived twice first, then the ranges, the latest first.
fn sack_blocks(conn: &mut Conn) -> SackBlocks {
    let mut blocks = SackBlocks::new();
    let dsack = conn.rt.dsack.take();
    let tcb = &conn.tcb;
    if !tcb.negotiated.has(options::flag::SACK) {
        return blocks;
    }
    let wire = |o: Offset| to_wire(tcb.irs, o);
    let ranges = dsack.into_iter().chain(tcb.reassembly.iter(tcb.rcv_nxt));
    for (start, end) in ranges.take(max_blocks(tcb)) {
        // Never more than the option holds.
        let _ = blocks.try_push((wire(start), wire(end)));
    }
    blocks
}

/// The window to offer (RFC 9293 3.8.6.2.2, RFC 7323 2.4), at most up to `limit`. Moves `rcv_adv`.
///
/// The edge moves by at least a segment or half the buffer. It never moves back: where the scale
/// would round it down, it is rounded up if there is room. Only when there is none (the window
/// is all but used up) less than one unit of the scale is taken back on the wire; what was
/// offered before is still accepted.
fn window(tcb: &mut Tcb, limit: Offset) -> u16 {
    let step = u64::from((tcb.opts.rcv_buf / 2).min(tcb.rcv_mss.max(1)));
    let mut edge = tcb.rcv_adv;
    if limit >= edge + step {
        edge = limit;
    }
    let scale = tcb.negotiated.rcv_scale;
    let open = edge.saturating_sub(tcb.rcv_nxt);
    let mut units = open >> scale;
    let rounded_up = tcb.rcv_nxt + ((units + 1) << scale);
    if tcb.rcv_nxt + (units << scale) < tcb.rcv_adv && rounded_up <= limit {
        units += 1;
    }
    let units = units.min(0xffff);
    tcb.rcv_adv = tcb.rcv_adv.max(tcb.rcv_nxt + (units << scale));
    u16::try_from(units).unwrap_or(u16::MAX)
}

/// Header of a segment of a synchronized connection; also notes that it acknowledges.
fn header(conn: &mut Conn, seq: Offset, flags: Flags, ctx: &Ctx<'_>) -> Repr {
    let sack = sack_blocks(conn);
    let limit = conn.rcv_edge();
    let tcb = &mut conn.tcb;
    let window = window(tcb, limit);
    let options = Options {
        timestamps: tcb.negotiated.timestamps(ctx.now, true),
        user_timeout: tcb.take_user_timeout(),
        sack,
        ..Options::default()
    };
    let mut repr = Repr {
        src_port: tcb.local.port,
        dst_port: tcb.remote.port,
        seq: to_wire(tcb.iss, seq),
        ack: to_wire(tcb.irs, tcb.rcv_nxt),
        flags: flags | Flags::ACK | tcb.ecn.echo(),
        window,
        urgent: 0,
        options,
    };
    if let Some(urgent) = tcb.urgent_pointer(seq) {
        repr.flags |= Flags::URG;
        repr.urgent = urgent;
    }
    if tcb.rcv_nxt > tcb.last_ack_sent && conn.rt.quickack > 0 {
        conn.rt.quickack -= 1;
    }
    tcb.last_ack_sent = tcb.rcv_nxt;
    tcb.unacked_segs = 0;
    tcb.deadlines.stop(Timer::DelayedAck);
    conn.rt.ack_now = false;
    conn.rt.untold = 0;
    repr
}

fn push(
    conn: &mut Conn,
    repr: Repr,
    payload: Option<PayloadRef>,
    gso_size: u16,
    ecn: u8,
    ctx: &mut Ctx<'_>,
) {
    let tcb = &mut conn.tcb;
    let count = match (&payload, gso_size) {
        (Some(p), size) if size > 0 => p.len.div_ceil(u32::from(size)),
        _ => 1,
    };
    tcb.counters.segs_out = tcb.counters.segs_out.wrapping_add(count);
    ctx.stats.segs_out += u64::from(count);
    if let Some(p) = &payload {
        tcb.counters.data_segs_out = tcb.counters.data_segs_out.wrapping_add(count);
        ctx.stats.bytes_out += u64::from(p.len);
    }
    ctx.actions.segments.push(SegmentOut {
        id: Some(conn.id),
        src: tcb.local,
        dst: tcb.remote,
        repr,
        payload,
        gso_size,
        tos: tcb.opts.tos | ecn,
        ttl: tcb.opts.ttl,
    });
}

/// A segment of `[start, end)`, which may end in the FIN.
fn range(conn: &mut Conn, start: Offset, end: Offset, mss: u32, is_new: bool, ctx: &mut Ctx<'_>) {
    let data_end = conn.tcb.data_end();
    let len = clamp(end.min(data_end).saturating_sub(start));
    let mut flags = Flags::empty();
    flags.set(Flags::FIN, end > data_end);
    // As Linux: the push is where the data ends for now.
    flags.set(Flags::PSH, len > 0 && start + u64::from(len) == data_end);
    let mut ecn = 0;
    if is_new && len > 0 && conn.tcb.ecn.marks() {
        // RFC 3168 6.1.1 and 6.1.5: new data is marked, and nothing else.
        ecn = ECT_0;
    }
    if is_new && len > 0 {
        flags |= conn.tcb.ecn.take_cwr();
    }
    let repr = header(conn, start, flags, ctx);
    let payload = (len > 0).then(|| PayloadRef {
        owner: conn.tcb.owner,
        position: stream_position(start),
        len,
    });
    let gso_size = if len > mss {
        u16::try_from(mss).unwrap_or(u16::MAX)
    } else {
        0
    };
    push(conn, repr, payload, gso_size, ecn, ctx);
}

/// New data.
pub(super) fn fresh(conn: &mut Conn, start: Offset, end: Offset, mss: u32, ctx: &mut Ctx<'_>) {
    range(conn, start, end, mss, true, ctx);
}

/// Data that was sent before.
pub(super) fn again(conn: &mut Conn, start: Offset, end: Offset, mss: u32, ctx: &mut Ctx<'_>) {
    let segments = clamp(end - start).div_ceil(mss);
    let counters = &mut conn.tcb.counters;
    counters.retrans = counters.retrans.wrapping_add(segments);
    counters.bytes_retrans += end - start;
    ctx.stats.retrans += u64::from(segments);
    conn.tcb.last_sent_at = ctx.now;
    conn.tcb.spoil_probe(start);
    range(conn, start, end, mss, false, ctx);
}

/// A bare acknowledgement.
pub(crate) fn ack(conn: &mut Conn, ctx: &mut Ctx<'_>) {
    let seq = conn.tcb.snd_nxt;
    let repr = header(conn, seq, Flags::empty(), ctx);
    push(conn, repr, None, 0, 0, ctx);
}

/// Zero-window probe and keepalive: an empty segment just below the window, which must be
/// answered (RFC 9293 3.10.7.4, first). Unlike RFC 9293 3.8.6.1 it carries no new byte, as in
/// Linux: the answer is the same, and no segment boundary is spoilt.
pub(super) fn window_probe(conn: &mut Conn, ctx: &mut Ctx<'_>) {
    let seq = conn.tcb.snd_una;
    if conn.tcb.urgent_pointer(seq).is_some() {
        // As Linux: what is outside of the window is not looked at for urgent data, so that is
        // told in a segment of its own.
        let repr = header(conn, seq, Flags::empty(), ctx);
        push(conn, repr, None, 0, 0, ctx);
    }
    let repr = header(conn, seq - 1, Flags::empty(), ctx);
    push(conn, repr, None, 0, 0, ctx);
}

/// Header of a SYN, or (`reply`) of a SYN,ACK.
fn syn_header(tcb: &Tcb, reply: bool, ctx: &Ctx<'_>) -> Repr {
    let mut flags = Flags::SYN;
    flags.set(Flags::ACK, reply);
    flags |= tcb.ecn.syn_flags(reply);
    Repr {
        src_port: tcb.local.port,
        dst_port: tcb.remote.port,
        seq: to_wire(tcb.iss, SYN_OFFSET),
        ack: if reply {
            to_wire(tcb.irs, tcb.rcv_nxt)
        } else {
            SeqNumber(0)
        },
        flags,
        // RFC 7323 2.2: the window of a SYN is never scaled. Data that came with the peer's SYN
        // takes its part of the buffer (RFC 9293 3.8.6: the edge must not move back later).
        window: u16::try_from(tcb.rcv_limit().saturating_sub(tcb.rcv_nxt.max(DATA_OFFSET)))
            .unwrap_or(u16::MAX),
        urgent: 0,
        options: Options {
            fast_open: tcb.sends_fast_open().then(|| tcb.opening.option()),
            user_timeout: tcb.user_timeout_in_syn(ctx.config.user_timeout_option),
            ..tcb.negotiated.syn_options(ctx.now, reply)
        },
    }
}

/// SYN, or SYN,ACK when the peer's SYN is here.
pub(super) fn syn(conn: &mut Conn, ctx: &mut Ctx<'_>) {
    conn.rt.syn_now = false;
    conn.rt.ack_now = false;
    let tcb = &mut conn.tcb;
    let reply = tcb.state() == State::SynReceived;
    let repr = syn_header(tcb, reply, ctx);
    tcb.last_sent_at = ctx.now;
    if reply {
        tcb.rcv_adv = tcb.rcv_adv.max(tcb.rcv_nxt + u64::from(repr.window));
        tcb.last_ack_sent = tcb.rcv_nxt;
        tcb.unacked_segs = 0;
        tcb.deadlines.stop(Timer::DelayedAck);
    }
    let len = tcb.syn_payload();
    tcb.opening.syn_data = tcb.opening.syn_data.max(len);
    let payload = (len > 0).then_some(PayloadRef {
        owner: tcb.owner,
        position: 0,
        len,
    });
    push(conn, repr, payload, 0, 0, ctx);
}

/// The SYN,ACK of a connection that is not kept: its initial sequence number is a cookie, its
/// timestamp (if there is one) `stamp`.
pub(crate) fn cookie_syn_ack(tcb: &Tcb, stamp: u32, ctx: &mut Ctx<'_>) {
    let mut repr = syn_header(tcb, true, ctx);
    if let Some(ts) = &mut repr.options.timestamps {
        ts.tsval = stamp;
    }
    ctx.stats.segs_out += 1;
    ctx.actions.segments.push(SegmentOut {
        id: None,
        src: tcb.local,
        dst: tcb.remote,
        repr,
        payload: None,
        gso_size: 0,
        tos: tcb.opts.tos,
        ttl: tcb.opts.ttl,
    });
}

/// RFC 9293 3.10.5: the reset that ends a connection.
pub(crate) fn reset(conn: &mut Conn, ctx: &mut Ctx<'_>) {
    let seq = conn.tcb.snd_nxt;
    let repr = header(conn, seq, Flags::RST, ctx);
    let repr = Repr {
        flags: Flags::RST | Flags::ACK,
        urgent: 0,
        options: Options::default(),
        ..repr
    };
    ctx.stats.resets_out += 1;
    push(conn, repr, None, 0, 0, ctx);
}

/// <SEQ=SEG.ACK><CTL=RST>: an acknowledgement of something that was never sent.
pub(crate) fn reset_for_ack(conn: &mut Conn, ack: Offset, ctx: &mut Ctx<'_>) {
    let tcb = &conn.tcb;
    let repr = Repr {
        src_port: tcb.local.port,
        dst_port: tcb.remote.port,
        seq: to_wire(tcb.iss, ack),
        flags: Flags::RST,
        ..Repr::default()
    };
    ctx.stats.resets_out += 1;
    push(conn, repr, None, 0, 0, ctx);
}

/// RFC 9293 3.10.7.1: the answer to a segment of no connection.
pub(crate) fn reset_stray(meta: &SegmentMeta<'_>, flow: &Flow, ctx: &mut Ctx<'_>) {
    let seg = meta.repr;
    let mut repr = Repr {
        src_port: seg.dst_port,
        dst_port: seg.src_port,
        flags: Flags::RST,
        ..Repr::default()
    };
    if seg.flags.contains(Flags::ACK) {
        repr.seq = seg.ack;
    } else {
        repr.flags |= Flags::ACK;
        repr.ack = seg.seq + stray_len(meta);
    }
    ctx.stats.resets_out += 1;
    ctx.stats.segs_out += 1;
    ctx.actions.segments.push(SegmentOut {
        id: None,
        src: flow.local,
        dst: flow.remote,
        repr,
        payload: None,
        gso_size: 0,
        tos: 0,
        ttl: 0,
    });
}
