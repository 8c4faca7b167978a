//! Counters of the whole engine, since it was made.

/// Counters; they only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments taken in, merged ones counted singly.
    pub segs_in: u64,
    /// Segments handed out, likewise.
    pub segs_out: u64,
    /// Payload bytes placed.
    pub bytes_in: u64,
    /// Payload bytes sent, again included.
    pub bytes_out: u64,
    /// Segments sent again.
    pub retrans: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Resets sent.
    pub resets_out: u64,
    /// Resets taken.
    pub resets_in: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub challenges: u64,
    /// Segments of no connection.
    pub no_socket: u64,
    /// SYNs dropped because a listener's queue was full.
    pub listen_drops: u64,
    /// Handshakes not finished because the accept queue or the memory was full.
    pub accept_drops: u64,
    /// SYNs answered with a cookie (RFC 4987 3.6).
    pub cookies_sent: u64,
    /// Acknowledgements that brought one back.
    pub cookies_received: u64,
    /// Acknowledgements that should have and did not.
    pub cookies_failed: u64,
    /// Connections without an application that were reset because there were too many.
    pub orphans_reset: u64,
    /// SYNs that asked for a Fast Open cookie (RFC 7413).
    pub fast_open_requests: u64,
    /// SYNs with a Fast Open cookie of the last key, which got a new one.
    pub fast_open_renewed: u64,
    /// SYNs with a Fast Open cookie that was not ours.
    pub fast_open_refused: u64,
    /// SYNs with a right cookie for which no more room was.
    pub fast_open_overflows: u64,
    /// Connections that were open before their handshake was over.
    pub fast_open_passive: u64,
    /// Connects whose SYN's data was taken.
    pub fast_open_active: u64,
    /// Connects whose SYN's data was not.
    pub fast_open_active_failed: u64,
    /// Segments dropped by PAWS (RFC 7323 5).
    pub paws_drops: u64,
    /// Segments outside of the window.
    pub out_of_window: u64,
    /// Bytes that arrived more than once.
    pub duplicate_bytes: u64,
    /// Segments dropped because no range was left for them or no buffer.
    pub no_room: u64,
    /// Connections opened actively.
    pub active_opens: u64,
    /// Connections opened passively.
    pub passive_opens: u64,
    /// Connections given up for lack of an answer.
    pub aborted_timeout: u64,
    /// TIME_WAIT ended early to make room.
    pub time_wait_recycled: u64,
    /// Impossible words that applications wrote.
    pub peer_faults: u64,
    /// ICMP errors that did not fit anything in flight.
    pub icmp_ignored: u64,
    /// Times that full segments timed out so often that their size was suspected (RFC 4821 7.7).
    pub black_holes: u64,
    /// Path MTU probes that arrived (RFC 4821 7.6).
    pub probes_arrived: u64,
    /// Path MTU probes that were lost.
    pub probes_lost: u64,
    /// Records refused by a restore.
    pub records_refused: u64,
}
