//! `TCP_INFO`: the layout of Linux's `struct tcp_info`, and what the fields say.

use crate::bench::*;
use core::mem::offset_of;
use tcpd::engine::{Engine, State, TcpInfo};

/// Offsets in include/uapi/linux/tcp.h.
#[test]
fn the_layout_is_linuxs() {
    macro_rules! at {
        ($($field:ident $offset:literal),* $(,)?) => {
            $(assert_eq!(offset_of!(TcpInfo, $field), $offset, stringify!($field));)*
        };
    }
    at!(
        state 0, ca_state 1, retransmits 2, probes 3, backoff 4, options 5, wscale 6,
        delivery_rate_app_limited 7, rto 8, ato 12, snd_mss 16, rcv_mss 20, unacked 24, sacked 28,
        lost 32, retrans 36, fackets 40, last_data_sent_ms 44, last_ack_sent_ms 48,
        last_data_recv_ms 52, last_ack_recv_ms 56, pmtu 60, rcv_ssthresh 64, rtt 68, rttvar 72,
        snd_ssthresh 76, snd_cwnd 80, advmss 84, reordering 88, rcv_rtt 92, rcv_space 96,
        total_retrans 100, pacing_rate 104, max_pacing_rate 112, bytes_acked 120,
        bytes_received 128, segs_out 136, segs_in 140, notsent_bytes 144, min_rtt 148,
        data_segs_in 152, data_segs_out 156, delivery_rate 160, busy_time 168, rwnd_limited 176,
        sndbuf_limited 184, delivered 192, delivered_ce 196, bytes_sent 200, bytes_retrans 208,
        dsack_dups 216, reord_seen 220, rcv_ooopack 224, snd_wnd 228, rcv_wnd 232, rehash 236,
        total_rto 240, total_rto_recoveries 242, total_rto_time 244,
    );
    assert_eq!(size_of::<TcpInfo>(), 248);
    // The part that libc declares too.
    macro_rules! same {
        ($($field:ident $theirs:ident),* $(,)?) => {
            $(assert_eq!(
                offset_of!(TcpInfo, $field),
                offset_of!(libc::tcp_info, $theirs),
                stringify!($field)
            );)*
        };
    }
    same!(
        state tcpi_state, ca_state tcpi_ca_state, backoff tcpi_backoff, options tcpi_options,
        rto tcpi_rto, snd_mss tcpi_snd_mss, unacked tcpi_unacked, pmtu tcpi_pmtu, rtt tcpi_rtt,
        snd_cwnd tcpi_snd_cwnd, advmss tcpi_advmss, total_retrans tcpi_total_retrans,
    );
}

fn info(b: &Bench) -> TcpInfo {
    Engine::info(&b.engine, b.now, b.id).unwrap()
}

#[test]
fn a_transfer_is_counted() {
    let mut b = Bench::established(with_sack());
    b.write(10_000);
    let i = info(&b);
    assert_eq!(
        (i.unacked, i.notsent_bytes, i.bytes_sent, i.data_segs_out),
        (7, 0, 10_000, 7)
    );
    b.now += 50 * MS;
    b.inject(seg(ACK, 1, 10_001).len(500));
    let i = info(&b);
    assert_eq!((i.bytes_acked, i.bytes_received), (10_000, 500));
    // With the SYN.
    assert_eq!((i.unacked, i.delivered, i.data_segs_in), (0, 8, 1));
    assert!((50_000..=100_000).contains(&i.rtt) && i.min_rtt == 50_000);
    assert_eq!((i.snd_mss, i.pmtu, i.snd_wnd), (1460, 1500, 65_535));
    assert_eq!(
        (i.busy_time, i.rwnd_limited, i.sndbuf_limited),
        (50_000, 0, 0)
    );
    b.now += 70 * MS;
    let i = info(&b);
    assert_eq!((i.last_data_sent_ms, i.last_data_recv_ms), (120, 70));
    assert_eq!(i.busy_time, 50_000);
}

#[test]
fn where_the_time_goes() {
    let mut b = Bench::established(with_sack());
    b.inject(seg(ACK, 2, 1).window(2_920));
    b.write(5_000);
    b.now += 30 * MS;
    b.inject(seg(ACK, 2, 2_921).window(65_535));
    assert_eq!(
        (info(&b).rwnd_limited, info(&b).busy_time),
        (30_000, 30_000)
    );
    b.now += 20 * MS;
    b.inject(seg(ACK, 2, 5_001));
    assert_eq!(
        (info(&b).rwnd_limited, info(&b).busy_time),
        (30_000, 50_000)
    );
    // The buffer is full, and all of it is in flight.
    let mut b = Bench::sized(with_sack(), 4_096);
    b.handshake();
    b.write(4_096);
    b.now += 40 * MS;
    b.inject(seg(ACK, 1, 4_097));
    assert_eq!(info(&b).sndbuf_limited, 40_000);
}

#[test]
fn timeouts_are_timed() {
    let mut b = Bench::established(with_sack());
    b.write(100);
    b.wait(2 * S);
    let before = info(&b);
    assert!(before.total_rto >= 2 && before.retransmits >= 2);
    assert_eq!(before.total_rto_recoveries, 0);
    b.inject(seg(ACK, 1, 101));
    let i = info(&b);
    assert_eq!(i.total_rto_recoveries, 1);
    assert!(
        (1_000..2_000).contains(&i.total_rto_time),
        "{}",
        i.total_rto_time
    );
    // It survives.
    b.restart();
    assert_eq!(info(&b).total_rto_time, i.total_rto_time);
}

// Linux: enum tcp_ca_state; what is selectively acknowledged counts as delivered.
#[test]
fn the_state_of_congestion_control() {
    let mut b = Bench::established(with_sack());
    b.write(14_600);
    let state = |b: &Bench| (info(b).ca_state, info(b).delivered);
    assert_eq!(state(&b), (0, 1));
    b.now += 50 * MS;
    b.inject(seg(ACK, 1, 1).sack(&[(1_461, 2_921)]));
    assert_eq!(state(&b), (1, 2), "disorder");
    b.inject(seg(ACK, 1, 1).sack(&[(1_461, 7_301)]));
    assert_eq!(state(&b), (3, 5), "recovery");
    b.inject(seg(ACK, 1, 14_601));
    assert_eq!(state(&b), (0, 11));
    b.write(1_000);
    b.wait(2 * S);
    assert_eq!(info(&b).ca_state, 4, "loss");
}

#[test]
fn the_offered_window_is_shown() {
    let mut b = Bench::established(with_sack());
    let before = info(&b).rcv_ssthresh;
    assert!(before >= 1 << 16 || before == b.tcb().opts.rcv_buf);
    for i in 0..40 {
        b.now += MS;
        b.inject(seg(ACK, 1 + i * 1_460, 1).len(1_460));
        b.read(1_460);
    }
    let after = info(&b);
    assert!(after.rcv_ssthresh >= before && after.rcv_ssthresh <= b.tcb().opts.rcv_buf);
}

// As Linux: of a listener, its queue and the backlog.
#[test]
fn a_listener() {
    let mut b = Bench::listening(plain(), 4);
    b.inject(seg(SYN, 0, 0));
    b.inject(seg(ACK, 1, 1));
    let i = info(&b);
    assert_eq!(
        (i.state, i.unacked, i.sacked),
        (State::Listen.linux(), 1, 4)
    );
}
