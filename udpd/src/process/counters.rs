//! What the daemon counts; names follow Linux's SNMP where it has one.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        /// Their names, in order.
        pub const NAMES: &[&str] = &[$($text,)*];
    };
}

counters! {
    /// Datagrams delivered to sockets.
    UdpInDatagrams = "udp_in_datagrams",
    /// Datagrams for a port that nobody has.
    UdpNoPorts = "udp_no_ports",
    /// Malformed datagrams.
    UdpInErrors = "udp_in_errors",
    /// Wrong checksums.
    UdpInCsumErrors = "udp_in_csum_errors",
    /// Datagrams dropped because the socket's queue was full.
    RcvbufErrors = "udp_rcvbuf_errors",
    /// Datagrams sent.
    UdpOutDatagrams = "udp_out_datagrams",
    /// Datagrams that waited because no buffer or no place in the ring was free.
    SndbufWaits = "udp_sndbuf_waits",
    /// Datagrams that could not be sent: no route, too big, not allowed.
    OutErrors = "udp_out_errors",
    /// Errors reported to sockets.
    ErrorsPosted = "udp_errors_posted",
    /// Port unreachables asked for.
    Unreachables = "udp_unreachables",
    /// Echo requests sent by ping sockets.
    PingOut = "ping_out",
    /// Echo replies delivered.
    PingIn = "ping_in",
    /// Echo replies to nobody.
    PingUnmatched = "ping_unmatched",
    /// Packets sent by raw sockets.
    RawOut = "raw_out",
    /// Packets delivered to raw sockets.
    RawIn = "raw_in",
    /// ICMP errors taken in.
    IcmpErrors = "icmp_errors_in",
    /// ICMP errors about nothing of ours.
    IcmpUnmatched = "icmp_errors_unmatched",
    /// Payload bytes delivered.
    RxPayload = "rx_payload_bytes",
    /// Bytes copied to deliver them.
    RxCopied = "rx_copied_bytes",
    /// Payload bytes sent.
    TxPayload = "tx_payload_bytes",
    /// Bytes copied to send them.
    TxCopied = "tx_copied_bytes",
    /// Applications' words or records that were impossible; the sockets were reset.
    AppFaults = "app_faults",
    /// Records in the state memory that were corrupt or made no sense.
    CorruptRecords = "corrupt_records",
    /// Sockets taken up from a predecessor.
    Restored = "sockets_restored",
    /// Application sessions opened.
    SessionsOpened = "sessions_opened",
    /// Application sessions ended.
    SessionsEnded = "sessions_ended",
    /// Requests of applications.
    Calls = "session_calls",
    /// Malformed requests; their sessions were closed.
    CallsMalformed = "session_calls_malformed",
    /// Connections of applications refused.
    SessionsRefused = "sessions_refused",
    /// Readiness tokens written.
    Tokens = "shadow_tokens",
    /// Shadow fds drained.
    Drains = "shadow_drains",
    /// Gauge: sessions.
    Sessions = "sessions",
    /// Gauge: sockets.
    Sockets = "sockets",
}

/// Counts of a turn.
#[derive(Debug)]
pub struct Counts([u64; NAMES.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

impl Counts {
    /// One more.
    pub fn bump(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// So many more.
    pub fn add(&mut self, counter: Counter, n: u64) {
        if let Some(c) = self.0.get_mut(counter as usize) {
            *c += n;
        }
    }

    /// Gives what was counted to `each` and starts anew.
    pub fn take(&mut self, mut each: impl FnMut(usize, u64)) {
        for (i, n) in self.0.iter_mut().enumerate() {
            if *n != 0 {
                each(i, std::mem::take(n));
            }
        }
    }
}
