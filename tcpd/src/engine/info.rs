//! `TCP_INFO` in Linux's layout (`struct tcp_info`, 248 bytes).

use super::config::MILLISECOND;
use super::recovery::Phase;
use super::state::State;
use super::tcb::{Tcb, flag};
use super::timers::Timer;
use super::{ConnId, Engine};
use super::{opening, options};
use abi::Nanos;
use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// Linux's `struct tcp_info`. Times are microseconds unless named otherwise; sizes that Linux
/// counts in segments are in segments.
#[derive(Debug, Clone, Copy, Default, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "named after Linux's fields")]
pub struct TcpInfo {
    pub state: u8,
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    /// Bit 0: timestamps, 1: SACK, 2: window scale, 3: ECN agreed on, 4: a mark was seen, 5: a SYN's
    /// data was taken.
    pub options: u8,
    /// Low nibble: send scale; high nibble: receive scale.
    pub wscale: u8,
    /// Bit 0: the delivery rate is of an application that had nothing to send; bits 1 and 2: why
    /// Fast Open did not work (1: no cookie, 2: the SYN's data was not taken, 3: the SYN was sent
    /// again without it).
    pub delivery_rate_app_limited: u8,
    pub rto: u32,
    pub ato: u32,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub fackets: u32,
    pub last_data_sent_ms: u32,
    pub last_ack_sent_ms: u32,
    pub last_data_recv_ms: u32,
    pub last_ack_recv_ms: u32,
    pub pmtu: u32,
    pub rcv_ssthresh: u32,
    pub rtt: u32,
    pub rttvar: u32,
    pub snd_ssthresh: u32,
    pub snd_cwnd: u32,
    pub advmss: u32,
    pub reordering: u32,
    pub rcv_rtt: u32,
    pub rcv_space: u32,
    pub total_retrans: u32,
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub notsent_bytes: u32,
    pub min_rtt: u32,
    pub data_segs_in: u32,
    pub data_segs_out: u32,
    pub delivery_rate: u64,
    pub busy_time: u64,
    pub rwnd_limited: u64,
    pub sndbuf_limited: u64,
    pub delivered: u32,
    pub delivered_ce: u32,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub dsack_dups: u32,
    pub reord_seen: u32,
    pub rcv_ooopack: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    pub rehash: u32,
    pub total_rto: u16,
    pub total_rto_recoveries: u16,
    pub total_rto_time: u32,
}

/// How long an acknowledgement is held back, in microseconds: there is one such time.
const ATO: u32 = 40_000;

fn micros(t: Nanos) -> u32 {
    u32::try_from(t / 1_000).unwrap_or(u32::MAX)
}

fn millis_since(now: Nanos, then: Nanos) -> u32 {
    u32::try_from(now.saturating_sub(then) / MILLISECOND).unwrap_or(u32::MAX)
}

fn low(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Linux's `enum tcp_ca_state`.
fn ca_state(tcb: &Tcb) -> u8 {
    let recovery = &tcb.recovery;
    let disordered = recovery.dupacks > 0 || tcb.sacked.bytes(tcb.snd_una) > 0;
    match recovery.phase() {
        Phase::Loss => 4,
        Phase::Recovery => 3,
        // What was in flight when the window was reduced is not acknowledged yet: CWR.
        Phase::Open if tcb.snd_una < tcb.ecn.reduced_at => 2,
        Phase::Open => u8::from(disordered),
    }
}

/// Linux's `enum tcp_fastopen_client_fail`.
fn fast_open_fail(tcb: &Tcb) -> u8 {
    let opening = &tcb.opening;
    if !opening.has(opening::flag::WANTS) || opening.has(opening::flag::SYN_DATA) {
        0
    } else if opening.cookie_len == 0 {
        1
    } else if opening.has(opening::flag::SYN_AGAIN) {
        3
    } else {
        u8::from(opening.syn_data > 0 && tcb.has(flag::WAS_CONNECTED)) << 1
    }
}

impl Engine {
    /// The present state of a connection, as `getsockopt(TCP_INFO)` shows it.
    #[must_use]
    pub fn info(&self, now: Nanos, id: ConnId) -> Option<TcpInfo> {
        let conn = self.conn(id)?;
        let (rcv_rtt, space) = conn.rt.memory.measured();
        let mut info = TcpInfo::of(&conn.tcb, now);
        info.rcv_ssthresh = conn.rt.memory.offered().min(conn.tcb.opts.rcv_buf);
        info.rcv_rtt = micros(rcv_rtt);
        if space > 0 {
            info.rcv_space = low(space);
        }
        if conn.tcb.state() != State::Listen {
            return Some(info);
        }
        // As Linux: of a listener, its queue and what that may hold.
        Some(TcpInfo {
            unacked: conn.rt.accept_queue,
            sacked: conn.tcb.backlog,
            ..info
        })
    }
}

impl TcpInfo {
    /// From a record.
    #[must_use]
    pub fn of(tcb: &Tcb, now: Nanos) -> Self {
        let n = &tcb.negotiated;
        let mss = tcb.mss().max(1);
        let segments = |bytes: u64| low(bytes.div_ceil(u64::from(mss)));
        // As Linux: without the FIN.
        let sent = tcb
            .snd_nxt
            .min(tcb.data_end())
            .saturating_sub(super::seq::DATA_OFFSET);
        let [busy, window, buffer] = tcb.chrono.sums(now);
        let persisting = tcb.deadlines.is_armed(Timer::Persist);
        Self {
            state: tcb.state().linux(),
            ca_state: ca_state(tcb),
            retransmits: u8::try_from(tcb.recovery.retries).unwrap_or(u8::MAX),
            probes: u8::try_from(if persisting {
                tcb.counters.persist_probes
            } else {
                tcb.counters.keep_probes
            })
            .unwrap_or(u8::MAX),
            backoff: u8::try_from(tcb.rtt.backoff).unwrap_or(u8::MAX),
            options: u8::from(n.has(options::flag::TIMESTAMPS))
                | u8::from(n.has(options::flag::SACK)) << 1
                | u8::from(n.has(options::flag::SCALING)) << 2
                | u8::from(tcb.ecn.marks()) << 3
                | u8::from(tcb.ecn.received_ce > 0) << 4
                | u8::from(tcb.opening.has(opening::flag::SYN_DATA)) << 5,
            wscale: n.snd_scale | n.rcv_scale << 4,
            rto: micros(tcb.rtt.rto),
            ato: ATO,
            snd_mss: mss,
            rcv_mss: tcb.rcv_mss,
            unacked: segments(tcb.flight()),
            sacked: segments(tcb.sacked.bytes(tcb.snd_una)),
            lost: segments(u64::from(tcb.recovery.lost)),
            retrans: segments(tcb.sacked.missing(tcb.snd_una, tcb.recovery.high_rxt)),
            last_data_sent_ms: millis_since(now, tcb.last_sent_at),
            last_data_recv_ms: millis_since(now, tcb.chrono.data_at.max(tcb.created_at)),
            last_ack_recv_ms: millis_since(now, tcb.last_recv_at),
            pmtu: u32::from(n.path_mss) + u32::from(options::headers(tcb.local.family)),
            rcv_ssthresh: tcb.opts.rcv_buf,
            rtt: micros(tcb.rtt.srtt),
            rttvar: micros(tcb.rtt.rttvar),
            snd_ssthresh: if tcb.cc.ssthresh == u32::MAX {
                0x7fff_ffff
            } else {
                tcb.cc.ssthresh / mss
            },
            snd_cwnd: tcb.cc.cwnd / mss,
            advmss: u32::from(n.advertised_mss)
                - u32::from(n.has(options::flag::TIMESTAMPS)) * u32::from(options::TIMESTAMPS_LEN),
            reordering: tcb.recovery.threshold(),
            rcv_space: tcb.opts.rcv_buf,
            total_retrans: tcb.counters.retrans,
            pacing_rate: match tcb.pacing_rate() {
                0 => u64::MAX,
                rate => rate,
            },
            delivery_rate: tcb.cc.delivery_rate,
            delivery_rate_app_limited: u8::from(tcb.cc.rate_app_limited != 0)
                | fast_open_fail(tcb) << 1,
            max_pacing_rate: match tcb.opts.max_pacing_rate {
                0 => u64::MAX,
                rate => rate,
            },
            bytes_acked: tcb.acked_upto(),
            bytes_received: tcb.received_upto(),
            segs_out: tcb.counters.segs_out,
            segs_in: tcb.counters.segs_in,
            notsent_bytes: low(tcb.unsent()),
            min_rtt: micros(tcb.rtt.min_rtt),
            data_segs_in: tcb.counters.data_segs_in,
            data_segs_out: tcb.counters.data_segs_out,
            // As Linux: with the SYN.
            delivered: segments(tcb.acked_upto())
                .wrapping_add(segments(tcb.sacked.bytes(tcb.snd_una)))
                .wrapping_add(tcb.has(flag::WAS_CONNECTED).into()),
            delivered_ce: tcb.ecn.delivered_ce,
            bytes_sent: sent + tcb.counters.bytes_retrans,
            bytes_retrans: tcb.counters.bytes_retrans,
            dsack_dups: tcb.counters.dsacks,
            reord_seen: u32::from(tcb.recovery.reordering > 0),
            rcv_ooopack: tcb.counters.out_of_order,
            snd_wnd: tcb.snd_wnd,
            rcv_wnd: low(tcb.rcv_adv.saturating_sub(tcb.rcv_nxt)),
            busy_time: busy / 1_000,
            rwnd_limited: window / 1_000,
            sndbuf_limited: buffer / 1_000,
            total_rto_recoveries: u16::try_from(tcb.chrono.rto_recoveries).unwrap_or(u16::MAX),
            total_rto_time: low(tcb.chrono.rto_time / MILLISECOND),
            total_rto: u16::try_from(tcb.counters.timeouts).unwrap_or(u16::MAX),
            ..Self::default()
        }
    }
}

const _: () = assert!(size_of::<TcpInfo>() == 248);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SocketRef;
    use crate::engine::sockopt::SockOpts;
    use opening::flag::{SYN_AGAIN, SYN_DATA, WANTS};

    // Linux: enum tcp_fastopen_client_fail.
    #[test]
    fn why_fast_open_did_not_work() {
        let mut tcb = Tcb::new(SocketRef::NONE, SockOpts::default(), 0);
        let why = |tcb: &Tcb| TcpInfo::of(tcb, 0).delivery_rate_app_limited >> 1;
        assert_eq!(why(&tcb), 0);
        tcb.opening.flags = WANTS;
        assert_eq!(why(&tcb), 1, "TFO_COOKIE_UNAVAILABLE");
        tcb.opening.cookie_len = 8;
        tcb.opening.syn_data = 100;
        assert_eq!(why(&tcb), 0, "not answered yet");
        tcb.flags |= flag::WAS_CONNECTED;
        assert_eq!(why(&tcb), 2, "TFO_DATA_NOT_ACKED");
        tcb.opening.flags |= SYN_AGAIN;
        assert_eq!(why(&tcb), 3, "TFO_SYN_RETRANSMITTED");
        tcb.opening.flags |= SYN_DATA;
        assert_eq!(why(&tcb), 0);
    }
}
