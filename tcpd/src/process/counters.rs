//! tcpd's counters: their names and indices.

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
    FAST_OPEN_PASSIVE = "fast_open_passive",
    FAST_OPEN_ACTIVE = "fast_open_active",
    FAST_OPEN_RENEWED = "fast_open_renewed",
    ORPHANS_RESET = "orphans_reset",
}
