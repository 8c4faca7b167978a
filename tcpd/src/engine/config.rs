//! What an engine is told once, when it is made.

use abi::Nanos;

/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;
/// One second.
pub const SECOND: Nanos = 1_000 * MILLISECOND;

/// Parameters of an engine. The defaults are Linux's where Linux has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Records, so sockets in all: listeners, connections and TIME_WAIT.
    pub capacity: u32,
    /// Key of sequence numbers, ports and hashes (RFC 6528, RFC 6056); kept across restarts.
    pub secret: [u8; 16],
    /// Largest payload of one segment handed down, in bytes; an MSS or more is cut by the
    /// device (TSO) or by software below. 0: never more than one MSS.
    pub max_gso: u32,
    /// IP packet size assumed where the route does not tell, in bytes.
    pub mtu: u16,
    /// Ephemeral ports, first and last.
    pub ephemeral: (u16, u16),
    /// Smallest retransmission timeout's variance part (Linux: 200 ms).
    pub rto_min: Nanos,
    /// Largest retransmission timeout.
    pub rto_max: Nanos,
    /// Timeout before there is a measurement (RFC 6298 2.1).
    pub rto_initial: Nanos,
    /// How long an ACK may be held back (RFC 9293 3.8.6.3: below half a second).
    pub delayed_ack: Nanos,
    /// TIME_WAIT.
    pub time_wait: Nanos,
    /// FIN_WAIT_2 of a socket nobody holds any more.
    pub fin_timeout: Nanos,
    /// SYNs sent again before a connect fails.
    pub syn_retries: u32,
    /// SYN,ACKs sent again before a half-open connection is forgotten.
    pub synack_retries: u32,
    /// Retransmissions of data in a row before the connection is given up (R2).
    pub retries: u32,
    /// The same for a connection nobody holds any more.
    pub orphan_retries: u32,
    /// Upper bound of a listener's backlog.
    pub somaxconn: u32,
    /// Half-open connections of one listener at most.
    pub max_syn_backlog: u32,
    /// Challenge ACKs a second in all (RFC 5961 7).
    pub challenge_ack_limit: u32,
    /// Initial window in segments (RFC 6928).
    pub initial_window: u32,
    /// Congestion control of new sockets.
    pub congestion: super::congestion::Algorithm,
    /// Buffers and their limits.
    pub memory: super::memory::MemoryConfig,
    /// Offer timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Offer selective acknowledgement (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification (RFC 3168): never, when the peer offers it, or offered.
    pub ecn: abi::config::EcnMode,
    /// Search for the path MTU without the help of ICMP (RFC 4821).
    pub mtu_probing: abi::config::MtuProbing,
    /// Tell the peer the application's user timeout, and adopt the peer's (RFC 5482).
    pub user_timeout_option: bool,
    /// Opening and closing under load.
    pub open: super::opening::OpenConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 16_384,
            secret: [0; 16],
            max_gso: 65_000,
            mtu: 1_500,
            ephemeral: (32_768, 60_999),
            rto_min: 200 * MILLISECOND,
            rto_max: 120 * SECOND,
            rto_initial: SECOND,
            delayed_ack: 40 * MILLISECOND,
            time_wait: 60 * SECOND,
            fin_timeout: 60 * SECOND,
            syn_retries: 6,
            synack_retries: 5,
            retries: 15,
            orphan_retries: 8,
            somaxconn: 4_096,
            max_syn_backlog: 1_024,
            challenge_ack_limit: 1_000,
            initial_window: 10,
            congestion: super::congestion::Algorithm::Cubic,
            memory: super::memory::MemoryConfig::default(),
            timestamps: true,
            window_scaling: true,
            sack: true,
            ecn: abi::config::EcnMode::Passive,
            mtu_probing: abi::config::MtuProbing::Blackhole,
            user_timeout_option: false,
            open: super::opening::OpenConfig::default(),
        }
    }
}
