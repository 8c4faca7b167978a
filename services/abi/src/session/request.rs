//! Requests of applications over the session socket, their answers, and socket options.

use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// A socket of a session: slot and which use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketId {
    /// Index of the control block.
    pub slot: u32,
    /// Which use.
    pub incarnation: u32,
}

/// A request of an application. `id` grows by one for each; a transport that was restarted may
/// see one twice and answers it the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Number, from 1.
    pub id: u64,
    /// What is wanted.
    pub op: Op,
}

/// The kind of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
    /// ICMP echo (`SOCK_DGRAM, IPPROTO_ICMP`): sends echo requests, receives their replies.
    Ping,
    /// Raw IP of one protocol.
    Raw(u8),
}

/// Requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Opens the session: first request. Answered by [`Answer::Session`] with two descriptors,
    /// the session memory and the transport's doorbell (an eventfd).
    Hello {
        /// [`crate::LAYOUT_VERSION`].
        version: u32,
    },
    /// Makes a socket: [`Answer::Socket`] with one descriptor, its shadow fd.
    Socket {
        /// IPv6?
        v6: bool,
        /// Kind.
        kind: SocketKind,
    },
    /// Binds.
    Bind(SocketId, SocketAddr),
    /// Begins to connect (TCP: the end shows in the state word and on the shadow fd), or sets
    /// the default peer (UDP; none: takes it away).
    Connect(SocketId, Option<SocketAddr>),
    /// Listens.
    Listen(SocketId, u32),
    /// Sets an option.
    SetOption(SocketId, SockOpt),
    /// Reads an option: [`Answer::Option`].
    GetOption(SocketId, SockOptName),
    /// [`Answer::Address`].
    LocalAddr(SocketId),
    /// [`Answer::Address`].
    PeerAddr(SocketId),
    /// `TCP_INFO` in Linux's layout: [`Answer::Bytes`].
    TcpInfo(SocketId),
    /// Begins to connect a TCP socket with what lies in the send buffer, which goes along in the
    /// SYN if the peer gave a Fast Open cookie before, and behind the handshake else.
    ConnectWithData(SocketId, SocketAddr),
    /// A descriptor of a lingering socket was closed: `Done` if it was the last and what was sent
    /// is not acknowledged yet, `EBUSY` if others hold the socket, `EBADF` if all is over.
    Closing(SocketId),
}

/// The answer to the request of the same number. The words that the request changed (a state of
/// `Connecting`, `Listening` or, of a datagram socket, `Connected`) are written before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// From the request.
    pub id: u64,
    /// The answer, or an errno.
    pub result: Result<Answer, i32>,
}

/// Answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// A session: its region number.
    Session {
        /// [`crate::RegionId`] as a number.
        region: u32,
    },
    /// A socket.
    Socket(SocketId),
    /// An address.
    Address(SocketAddr),
    /// An option's value.
    Option(SockOpt),
    /// Raw bytes.
    Bytes(Vec<u8>),
}

/// An option with its value. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the socket option each one is")]
pub enum SockOpt {
    ReuseAddr(bool),
    ReusePort(bool),
    KeepAlive(bool),
    Linger(Option<u32>),
    Broadcast(bool),
    RecvBuffer(u32),
    SendBuffer(u32),
    V6Only(bool),
    NoDelay(bool),
    Cork(bool),
    QuickAck(bool),
    OobInline(bool),
    KeepIdle(u32),
    KeepInterval(u32),
    KeepCount(u32),
    UserTimeout(u32),
    MaxSegment(u32),
    DeferAccept(u32),
    Congestion(String),
    Tos(u8),
    Ttl(u8),
    PacketInfo(bool),
    MtuDiscover(u8),
    Mark(u32),
    FastOpen(u32),
    FastOpenConnect(bool),
    /// `SO_MAX_PACING_RATE`, bytes a second; `u64::MAX`: none.
    MaxPacingRate(u64),
    /// `TCP_NOTSENT_LOWAT`; 0 or `u32::MAX`: none.
    NotSentLowat(u32),
}

/// An option's name, for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the socket option each one is")]
pub enum SockOptName {
    ReuseAddr,
    ReusePort,
    KeepAlive,
    Linger,
    Broadcast,
    RecvBuffer,
    SendBuffer,
    V6Only,
    NoDelay,
    Cork,
    QuickAck,
    OobInline,
    KeepIdle,
    KeepInterval,
    KeepCount,
    UserTimeout,
    MaxSegment,
    DeferAccept,
    Congestion,
    Tos,
    Ttl,
    PacketInfo,
    MtuDiscover,
    Mark,
    FastOpen,
    FastOpenConnect,
    MaxPacingRate,
    NotSentLowat,
}
