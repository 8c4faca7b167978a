//! What an application and a transport say to each other.
//!
//! Requests travel over a `SOCK_SEQPACKET` socket (one per application process and transport);
//! data travels through the session memory, whose layout is fixed here; readiness travels
//! through shadow fds.
//!
//! ```text
//! session memory (one sealed, sparse memfd)
//! +--------------------+  0
//! | SessionHeader      |  magic, sizes, armed word, dirty bitmap          (one page)
//! +--------------------+  CONTROL_OFFSET
//! | SocketControl [n]  |  256 bytes each
//! +--------------------+  buffers_offset
//! | tx 0 | rx 0 | tx 1 | rx 1 | ...       powers of two, page aligned
//! +--------------------+
//! ```
//!
//! Positions are counts of bytes since the socket began, so they only grow; the place in a
//! buffer is the position modulo its capacity. Datagram sockets use the same buffers as queues
//! of records: a [`DatagramHeader`], then the payload, padded to [`DATAGRAM_ALIGN`].

use crate::endpoint::Endpoint;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of a session memory.
pub const SESSION_MAGIC: u64 = u64::from_le_bytes(*b"STRATA-S");

/// Sockets a session memory can hold; an application that wants more opens another session.
pub const MAX_SOCKETS: u32 = 4096;

/// Where the control blocks start.
pub const CONTROL_OFFSET: usize = 4096;

/// Size of one control block.
pub const CONTROL_SIZE: usize = 256;

/// Byte offsets of the header's words.
pub mod header {
    /// u64: [`super::SESSION_MAGIC`].
    pub const MAGIC: usize = 0;
    /// u32: [`crate::LAYOUT_VERSION`].
    pub const VERSION: usize = 8;
    /// u32: number of sockets.
    pub const SOCKETS: usize = 12;
    /// u32: capacity of each send buffer, a power of two of at least a page.
    pub const TX_CAPACITY: usize = 16;
    /// u32: capacity of each receive buffer, likewise.
    pub const RX_CAPACITY: usize = 20;
    /// u64, application: number of the last request; in shared memory, so that processes that
    /// share a session across `fork` number their requests together. Numbers may be left out.
    pub const LAST_REQUEST: usize = 32;
    /// u32: 1 while the transport sleeps and wants its doorbell rung. Written by the transport.
    pub const ARMED: usize = 64;
    /// u64: one bit for each word of the bitmap that is not zero. Both write.
    pub const DIRTY_SUMMARY: usize = 128;
    /// u64 x 64: one bit a socket whose words the application changed. Both write.
    pub const DIRTY: usize = 192;
}

/// Byte offsets of a control block's words. The first half is the application's to write,
/// the second the transport's, each on cache lines of its own; the token words are shared.
pub mod control {
    /// u64, application: bytes written into the send buffer.
    pub const TX_TAIL: usize = 0;
    /// u64, application: bytes taken from the receive buffer.
    pub const RX_HEAD: usize = 8;
    /// u32, application: [`super::shut`] bits, only ever set.
    pub const SHUTDOWN: usize = 16;
    /// u32: the incarnation the application has taken from the accept queue; see
    /// [`super::accept`].
    pub const ACCEPTED: usize = 20;
    /// u64, application: send position that urgent data ends at (`MSG_OOB`), 0 for none.
    pub const TX_URGENT: usize = 24;

    /// u32, shared: 1 while a readiness token may be in the shadow fd. The transport publishes
    /// (data, FIN, error), fences (SeqCst), swaps 1 in and writes a byte only if it was 0 (and
    /// not if `RX_HEAD` already passed what it published). The application clears it after it
    /// took the byte, fences, and looks again. Where it took a token although there is more to
    /// read, it marks the socket dirty: the transport then raises it again if data is unread and
    /// the word is 0. A restarted transport raises it wherever something is readable and no byte
    /// is in flight. Listeners have no tokens (their accept messages, of fixed length, are the
    /// readiness), so a stream that is not connected or connecting must not get one either.
    pub const RX_TOKEN: usize = 64;
    /// u32, shared: 1 while the application has stuffed the shadow fd (not writable). The
    /// application sets it before and again after stuffing, fences (SeqCst) and looks for space
    /// again. The transport, having made space (or left `Connecting`, or failed), fences, swaps 0
    /// in FIRST and drains the fd AFTERWARDS: in the other order a stuffing between the two would
    /// never be drained. It looks at each move of `TX_HEAD` and at each dirty mark. A restarted
    /// transport drains without asking the word.
    pub const TX_STUFFED: usize = 68;

    /// u64, transport: bytes published in the receive buffer.
    pub const RX_TAIL: usize = 128;
    /// u64, transport: bytes of the send buffer that are free again (acknowledged).
    pub const TX_HEAD: usize = 136;
    /// u32, transport: [`super::SocketState`].
    pub const STATE: usize = 144;
    /// u32, transport: pending error (errno) for `SO_ERROR`; 0 for none.
    pub const ERROR: usize = 148;
    /// u32, transport: counts the errors posted in this incarnation (0 at its beginning), so that
    /// taking one is the reader's own note.
    pub const ERROR_SEQ: usize = 152;
    /// u32, transport: which use of the slot this is; a stale descriptor compares it.
    pub const INCARNATION: usize = 156;
    /// u32, transport: send capacity in use (at most the header's).
    pub const TX_LIMIT: usize = 160;
    /// u32, transport: receive capacity in use (at most the header's).
    pub const RX_LIMIT: usize = 164;
    /// u32, transport: [`super::event`] bits.
    pub const EVENTS: usize = 168;
    /// u64, transport: receive position of the urgent byte plus 1; 0 for none.
    pub const RX_URGENT: usize = 176;
}

/// Shutdown bits.
pub mod shut {
    /// No more receiving.
    pub const RD: u32 = 1;
    /// No more sending: FIN once the send buffer is out.
    pub const WR: u32 = 2;
}

/// Level flags that the transport shows.
pub mod event {
    /// The peer sent FIN; when `RX_HEAD` reaches `RX_TAIL` a read returns 0.
    pub const PEER_FIN: u32 = 1;
    /// The connection was reset or failed; see the error word.
    pub const RESET: u32 = 2;
}

/// The single word that decides whether a new connection is the application's.
///
/// Incarnations are odd. The transport sets [`control::ACCEPTED`] of a connection that waits to
/// `unaccepted(incarnation)` and sends an [`AcceptMessage`]. Who takes the message
/// compares-and-swaps the word from `unaccepted(incarnation)` to `incarnation` (both from the
/// message, not from the words): success makes the connection its own, failure means a stale
/// duplicate, whose descriptor it drops. A restarted transport, which cannot know whether its
/// predecessor's message was sent or taken, swaps the word from `unaccepted(incarnation)` to
/// `unaccepted(next(incarnation))` and sends a new message, unless the application was first.
/// Afterwards the application marks the socket dirty. Sockets that were asked for are accepted
/// from the start.
pub mod accept {
    /// The word's value while the connection waits.
    #[must_use]
    pub const fn unaccepted(incarnation: u32) -> u32 {
        incarnation.wrapping_sub(1)
    }

    /// The incarnation after this one.
    #[must_use]
    pub const fn next(incarnation: u32) -> u32 {
        (incarnation | 1).wrapping_add(2)
    }
}

/// What goes through a shadow fd, and sizes that its readiness depends on (Linux counts what
/// each message takes in kernel memory: 768 bytes up to 192 bytes of data, 1,280 from 200 on).
///
/// The transport puts one [`POISON`](shadow::POISON) byte into its own end's queue when it makes
/// the pair: should it close its end, the unread byte makes the kernel show `EPOLLERR|EPOLLHUP`
/// at the application's. The application stuffs with one message of [`shadow::STUFFING`] zeroes
/// followed by one message of a single `POISON`; the transport drains everything but a last
/// `POISON`, so that the descriptor is writable again and still primed.
pub mod shadow {
    /// `SO_SNDBUF` of the application's end, the kernel's minimum.
    pub const SNDBUF: usize = 4608;
    /// Bytes of one stuffing message: enough to make the descriptor unwritable.
    pub const STUFFING: usize = 256;
    /// The byte that stays in the transport's queue.
    pub const POISON: u8 = 0xff;
    /// The readiness token.
    pub const TOKEN: u8 = b'r';
    /// The out-of-band byte that shows urgent data.
    pub const URGENT: u8 = b'!';
}

/// The state word of a socket as the application sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketState {
    /// The slot is not in use.
    Free = 0,
    /// Made, neither connected nor listening.
    Idle = 1,
    /// A connect is under way.
    Connecting = 2,
    /// Connected (TCP), or has a default peer (UDP).
    Connected = 3,
    /// Listening.
    Listening = 4,
    /// Closed or failed for good.
    Closed = 5,
}

impl SocketState {
    /// From the word, if it is a known state.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        Some(match word {
            0 => Self::Free,
            1 => Self::Idle,
            2 => Self::Connecting,
            3 => Self::Connected,
            4 => Self::Listening,
            5 => Self::Closed,
            _ => return None,
        })
    }
}

/// Alignment of datagram records in a buffer.
pub const DATAGRAM_ALIGN: usize = 16;

/// In front of each datagram in a buffer; 64 bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DatagramHeader {
    /// Payload bytes that follow. [`DATAGRAM_SKIP`]: no datagram, go on at the buffer's start.
    pub len: u32,
    /// Bytes the datagram had on the wire (more than `len` if it was cut).
    pub wire_len: u32,
    /// Source (received) or destination (to send; none: the connected peer).
    pub peer: Endpoint,
    /// The address it was sent to (received); the source asked for (to send; none: choose).
    pub local: Endpoint,
    /// Device it came by; 0 for none or any.
    pub device: u16,
    /// TTL as received; 0 to send: the default.
    pub ttl: u8,
    /// TOS as received or asked for.
    pub tos: u8,
    /// Arrival in nanoseconds of `CLOCK_MONOTONIC`.
    pub stamp: [u8; 8],
    /// Reserved, zero.
    pub reserved: u32,
}

/// [`DatagramHeader::len`] of a filler at the buffer's end. Of a filler only `len` is there: it
/// may be as short as [`DATAGRAM_ALIGN`].
pub const DATAGRAM_SKIP: u32 = u32::MAX;

const _: () = assert!(size_of::<DatagramHeader>() == 64);

/// What the transport sends over a listener's shadow fd with each new connection's descriptor.
/// Fixed size, so that one `recvmsg` takes exactly one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AcceptMessage {
    /// Socket slot in the listener's session.
    pub slot: u32,
    /// The slot's incarnation. A message whose incarnation is not the slot's current one, or
    /// that was taken before (see [`control::ACCEPTED`]), is a duplicate after a restart: drop it.
    pub incarnation: u32,
    /// The peer.
    pub peer: Endpoint,
    /// The own address.
    pub local: Endpoint,
    /// Reserved, zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<AcceptMessage>() == 64);

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
}
