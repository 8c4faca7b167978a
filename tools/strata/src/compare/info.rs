//! What `TCP_INFO` says that the plots show, in Linux's layout, of either stack.

use serde::Serialize;

/// Some fields of `struct tcp_info` (linux/tcp.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Info {
    /// Congestion window in segments.
    pub(super) cwnd: u32,
    /// Slow-start threshold in segments.
    pub(super) ssthresh: u32,
    /// Smoothed round-trip time in microseconds.
    pub(super) rtt_us: u32,
    /// Bytes of a segment.
    pub(super) mss: u32,
    /// Segments sent again, in all.
    pub(super) retransmitted: u32,
    /// Bytes that the peer has acknowledged.
    pub(super) acked: u64,
    /// The peer's window in bytes.
    pub(super) peer_window: u32,
    /// Retransmission timeouts that fired, in all.
    pub(super) timeouts: u16,
}

impl Info {
    /// From the bytes that the option gave; what is not there is 0.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            let field = bytes.get(at..).and_then(|b| b.first_chunk::<4>());
            field.copied().map_or(0, u32::from_ne_bytes)
        };
        let long = |at: usize| {
            let field = bytes.get(at..).and_then(|b| b.first_chunk::<8>());
            field.copied().map_or(0, u64::from_ne_bytes)
        };
        let half = |at: usize| {
            let field = bytes.get(at..).and_then(|b| b.first_chunk::<2>());
            field.copied().map_or(0, u16::from_ne_bytes)
        };
        Self {
            mss: word(16),
            rtt_us: word(68),
            ssthresh: word(76),
            cwnd: word(80),
            retransmitted: word(100),
            acked: long(120),
            peer_window: word(228),
            timeouts: half(240),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpd::engine::TcpInfo;
    use zerocopy::IntoBytes;

    #[test]
    fn fields_are_where_linux_has_them() {
        let linux = TcpInfo {
            snd_mss: 1448,
            rtt: 20_000,
            snd_ssthresh: 70,
            snd_cwnd: 80,
            total_retrans: 9,
            bytes_acked: 1 << 33,
            snd_wnd: 65_535,
            total_rto: 3,
            ..TcpInfo::default()
        };
        let info = Info::parse(linux.as_bytes());
        assert_eq!(
            info,
            Info {
                mss: 1448,
                rtt_us: 20_000,
                ssthresh: 70,
                cwnd: 80,
                retransmitted: 9,
                acked: 1 << 33,
                peer_window: 65_535,
                timeouts: 3,
            }
        );
        assert_eq!(Info::parse(&[]), Info::default());
    }
}
