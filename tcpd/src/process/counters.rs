//! tcpd's counters: their names and indices.

use crate::engine::Stats;

/// Declares the indices and the list of names together, so that they cannot disagree.
macro_rules! counters {
    ($($index:ident = $name:literal),* $(,)?) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "names become indices")]
        #[repr(usize)]
        enum Order { $($index),* }
        $(pub(super) const $index: usize = Order::$index as usize;)*
        /// Names, in order.
        pub(super) const NAMES: &[&str] = &[$($name),*];
    };
}

counters! {
    IN_SEGS = "tcp_in_segs",
    IN_ERRS = "tcp_in_errs",
    IN_CSUM_ERRS = "tcp_in_csum_errors",
    OUT_SEGS = "tcp_out_segs",
    OUT_DROPPED = "tcp_out_dropped",
    OUT_DEFERRED = "tcp_out_deferred",
    RX_PAYLOAD = "rx_payload_bytes",
    RX_COPIED = "rx_copied_bytes",
    TX_PAYLOAD = "tx_payload_bytes",
    TX_COPIED = "tx_copied_bytes",
    ICMP_IN = "icmp_errors_in",
    COMMITS = "records_committed",
    CORRUPT = "records_corrupt",
    RESTORED = "records_restored",
    APP_FAULTS = "app_faults",
    CALLS = "calls",
    TOKENS = "tokens",
    HANDED = "accepts_handed_over",
    SESSIONS = "sessions_opened",
    REFUSED = "sessions_refused",
    MALFORMED = "calls_malformed",
    COOKIES_SENT = "syn_cookies_sent",
    COOKIES_RECEIVED = "syn_cookies_received",
    COOKIES_FAILED = "syn_cookies_failed",
    LISTEN_DROPS = "listen_drops",
    ACCEPT_DROPS = "accept_drops",
    FAST_OPEN_REQUESTS = "fast_open_requests",
    FAST_OPEN_OVERFLOWS = "fast_open_overflows",
    FAST_OPEN_PASSIVE = "fast_open_passive",
    FAST_OPEN_ACTIVE = "fast_open_active",
    FAST_OPEN_ACTIVE_FAILED = "fast_open_active_failed",
    FAST_OPEN_RENEWED = "fast_open_renewed",
    FAST_OPEN_REFUSED = "fast_open_refused",
    ORPHANS_RESET = "orphans_reset",
    ACTIVE_OPENS = "active_opens",
    PASSIVE_OPENS = "passive_opens",
    RETRANS = "retrans_segs",
    TIMEOUTS = "retrans_timeouts",
    ABORTED = "aborted_on_timeout",
    RESETS_IN = "resets_in",
    RESETS_OUT = "resets_out",
    CHALLENGES = "challenge_acks",
    NO_SOCKET = "no_socket",
    PAWS_DROPS = "paws_drops",
    OUT_OF_WINDOW = "out_of_window",
    NO_ROOM = "no_room",
    DUPLICATE = "duplicate_bytes",
    RECYCLED = "time_wait_recycled",
    ICMP_IGNORED = "icmp_errors_ignored",
    BLACK_HOLES = "mtu_black_holes",
    PROBES_ARRIVED = "mtu_probes_arrived",
    PROBES_LOST = "mtu_probes_lost",
    MEMORY = "memory_bytes",
    MEMORY_LIMIT = "memory_limit_bytes",
    PRESSURE = "memory_pressure",
    PRESSURES = "memory_pressures",
    NOT_GROWN = "memory_growth_refused",
    TRIMMED = "memory_idle_trims",
    LOADING_DROPS = "loading_drops",
}

/// A count of the engine's, as it is shown.
pub(super) type OfEngine = (usize, fn(&Stats) -> u64);

/// Declares which of the engine's counts are shown, and the names of their fields for the test.
macro_rules! of_engine {
    ($($index:ident = $field:ident),* $(,)?) => {
        /// The engine's counts that are shown.
        pub(super) const OF_ENGINE: &[OfEngine] = &[$(($index, |s| s.$field)),*];
        #[cfg(test)]
        const FIELDS: &[&str] = &[$(stringify!($field)),*];
    };
}

of_engine! {
    COOKIES_SENT = cookies_sent,
    COOKIES_RECEIVED = cookies_received,
    COOKIES_FAILED = cookies_failed,
    LISTEN_DROPS = listen_drops,
    ACCEPT_DROPS = accept_drops,
    FAST_OPEN_REQUESTS = fast_open_requests,
    FAST_OPEN_OVERFLOWS = fast_open_overflows,
    FAST_OPEN_PASSIVE = fast_open_passive,
    FAST_OPEN_ACTIVE = fast_open_active,
    FAST_OPEN_ACTIVE_FAILED = fast_open_active_failed,
    FAST_OPEN_RENEWED = fast_open_renewed,
    FAST_OPEN_REFUSED = fast_open_refused,
    ORPHANS_RESET = orphans_reset,
    ACTIVE_OPENS = active_opens,
    PASSIVE_OPENS = passive_opens,
    RETRANS = retrans,
    TIMEOUTS = timeouts,
    ABORTED = aborted_timeout,
    RESETS_IN = resets_in,
    RESETS_OUT = resets_out,
    CHALLENGES = challenges,
    NO_SOCKET = no_socket,
    PAWS_DROPS = paws_drops,
    OUT_OF_WINDOW = out_of_window,
    NO_ROOM = no_room,
    DUPLICATE = duplicate_bytes,
    RECYCLED = time_wait_recycled,
    ICMP_IGNORED = icmp_ignored,
    BLACK_HOLES = black_holes,
    PROBES_ARRIVED = probes_arrived,
    PROBES_LOST = probes_lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted where the process does it: segments and bytes at the rings, faults of applications
    /// at their words, records at the restore.
    const ELSEWHERE: [&str; 6] = [
        "segs_in",
        "segs_out",
        "bytes_in",
        "bytes_out",
        "peer_faults",
        "records_refused",
    ];

    #[test]
    fn every_count_of_the_engine_is_shown() {
        let text = format!("{:#?}", Stats::default());
        let fields = text.lines().filter_map(|line| line.trim().split_once(": "));
        for (field, _) in fields {
            let shown = FIELDS.contains(&field) || ELSEWHERE.contains(&field);
            assert!(shown, "{field} is counted, and nobody sees it");
        }
    }
}
