//! What can go wrong, told apart by who is told: the caller ([`Errno`]) or nobody but the
//! counters, because the caller is at fault ([`PeerFault`]).

use core::fmt;

/// An error number as applications know it (Linux's values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// Not permitted here.
    pub const EPERM: Self = Self(1);
    /// No such socket.
    pub const EBADF: Self = Self(9);
    /// No free ephemeral port, or the neighbour cannot take more.
    pub const EAGAIN: Self = Self(11);
    /// Wrong argument for the socket's state.
    pub const EINVAL: Self = Self(22);
    /// The socket cannot send any more.
    pub const EPIPE: Self = Self(32);
    /// Protocol error.
    pub const EPROTO: Self = Self(71);
    /// The peer speaks another protocol (ICMP protocol unreachable), or no such option.
    pub const ENOPROTOOPT: Self = Self(92);
    /// Not for this kind of socket.
    pub const EOPNOTSUPP: Self = Self(95);
    /// Address family does not fit.
    pub const EAFNOSUPPORT: Self = Self(97);
    /// The port is taken.
    pub const EADDRINUSE: Self = Self(98);
    /// No such local address, or no port left.
    pub const EADDRNOTAVAIL: Self = Self(99);
    /// Network unreachable.
    pub const ENETUNREACH: Self = Self(101);
    /// Given up by this side.
    pub const ECONNABORTED: Self = Self(103);
    /// Reset by the peer.
    pub const ECONNRESET: Self = Self(104);
    /// No more records.
    pub const ENOBUFS: Self = Self(105);
    /// Already connected.
    pub const EISCONN: Self = Self(106);
    /// Not connected.
    pub const ENOTCONN: Self = Self(107);
    /// No answer.
    pub const ETIMEDOUT: Self = Self(110);
    /// Nobody listens there.
    pub const ECONNREFUSED: Self = Self(111);
    /// Host unreachable.
    pub const EHOSTUNREACH: Self = Self(113);
    /// A connect is under way.
    pub const EALREADY: Self = Self(114);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::EPERM => "operation not permitted",
            Self::EBADF => "no such socket",
            Self::EAGAIN => "resource temporarily unavailable",
            Self::EINVAL => "invalid argument",
            Self::EPIPE => "broken pipe",
            Self::EPROTO => "protocol error",
            Self::ENOPROTOOPT => "protocol not available",
            Self::EOPNOTSUPP => "operation not supported",
            Self::EAFNOSUPPORT => "address family not supported",
            Self::EADDRINUSE => "address already in use",
            Self::EADDRNOTAVAIL => "cannot assign requested address",
            Self::ENETUNREACH => "network is unreachable",
            Self::ECONNABORTED => "connection aborted",
            Self::ECONNRESET => "connection reset by peer",
            Self::ENOBUFS => "no buffer space available",
            Self::EISCONN => "already connected",
            Self::ENOTCONN => "not connected",
            Self::ETIMEDOUT => "connection timed out",
            Self::ECONNREFUSED => "connection refused",
            Self::EHOSTUNREACH => "no route to host",
            Self::EALREADY => "connection already in progress",
            Self(n) => return write!(f, "error {n}"),
        };
        f.write_str(text)
    }
}

impl std::error::Error for Errno {}

/// An application wrote an impossible value into its shared memory. Nothing was changed; the
/// shell counts it and may abort the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// The written position moved back.
    #[error("the written position went back from {from} to {to}")]
    WrittenBack {
        /// Last known position.
        from: u64,
        /// What the memory says.
        to: u64,
    },
    /// More is written than the send buffer holds.
    #[error("the written position {to} is past the end of the send buffer at {limit}")]
    WrittenBeyond {
        /// What the memory says.
        to: u64,
        /// Highest valid position.
        limit: u64,
    },
    /// Data after the end of the stream was declared.
    #[error("written after shutdown")]
    WrittenAfterShutdown,
    /// The consumed position moved back.
    #[error("the consumed position went back from {from} to {to}")]
    ConsumedBack {
        /// Last known position.
        from: u64,
        /// What the memory says.
        to: u64,
    },
    /// More is consumed than was received.
    #[error("the consumed position {to} is past what was received, {limit}")]
    ConsumedBeyond {
        /// What the memory says.
        to: u64,
        /// Highest valid position.
        limit: u64,
    },
}
