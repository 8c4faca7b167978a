//! Where the words of a session memory are, who writes them, and in which order.

/// First word of a session memory.
pub const SESSION_MAGIC: u64 = u64::from_le_bytes(*b"STRATA-S");

/// Sockets a session memory can hold; an application that wants more opens another session.
pub const MAX_SOCKETS: u32 = 16_384;

/// Windows (see [`super::Rings::window`]) a session memory can have.
pub const MAX_WINDOWS: u32 = 4096;

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
    /// u32: most that a send buffer can grow to, a power of two of at least a page.
    pub const TX_CAPACITY: usize = 16;
    /// u32: most that a receive buffer can grow to, likewise.
    pub const RX_CAPACITY: usize = 20;
    /// u32: bytes of either buffer that every socket has to itself, likewise; what is above lies
    /// in windows. Datagram sockets have all of it.
    pub const BASE: usize = 24;
    /// u32: number of windows.
    pub const WINDOWS: usize = 28;
    /// u64, application: number of the last request; in shared memory, so that processes that
    /// share a session across `fork` number their requests together. Numbers may be left out.
    pub const LAST_REQUEST: usize = 32;
    /// u32: 1 while the transport sleeps and wants its doorbell rung. Written by the transport.
    pub const ARMED: usize = 64;
    /// u32, transport: counts its starts, for those who wait for something that a predecessor may
    /// have done without saying so ([`super::control::LINGER`]).
    pub const STARTS: usize = 68;
    /// u64 x 4: one bit for each word of the bitmap that is not zero. Both write.
    pub const DIRTY_SUMMARY: usize = 128;
    /// u64 x 256: one bit a socket whose words the application changed. Both write.
    pub const DIRTY: usize = 192;
}

/// Byte offsets of a control block's words. The first half is the application's to write,
/// the second the transport's, each on cache lines of its own; the token words are shared.
pub mod control {
    /// u64, application: bytes written into the send buffer.
    pub const TX_TAIL: usize = 0;
    /// u64, application: bytes taken from the receive buffer.
    pub const RX_HEAD: usize = 8;
    /// u32, application: [`super::shut`] bits, only ever set. Written after the last `TX_TAIL`, so
    /// looked at before it.
    pub const SHUTDOWN: usize = 16;
    /// u32: the incarnation the application has taken from the accept queue; see
    /// [`super::accept`].
    pub const ACCEPTED: usize = 20;
    /// u64, application: send position that urgent data ends at (`MSG_OOB`), 0 for none.
    /// Written before `TX_TAIL` passes it; beyond `TX_TAIL` it does not count yet.
    pub const TX_URGENT: usize = 24;
    /// u64, application: the `RX_URGENT` whose byte it has taken out of band last.
    pub const OOB_TAKEN: usize = 32;
    /// u32, shared: see [`super::busy`].
    pub const TX_BUSY: usize = 40;

    /// u32, shared: 1 while a readiness token may be in the shadow fd. The transport publishes
    /// (data, FIN, error), fences (SeqCst), swaps 1 in and writes a byte only if it was 0 (and
    /// not if `RX_HEAD` already passed what it published: it looks after it swapped, and takes the
    /// 1 back). The application clears it after it took the byte, fences, and looks again; where
    /// it has read everything and finds the word set but no byte, the byte is about to come, and
    /// it tries again for a moment. Where it took a token although there is more to read, it marks
    /// the socket dirty: the transport then raises it again if data is unread and the word is 0.
    /// A restarted transport raises it wherever something is readable and no byte is in flight.
    /// Listeners have no tokens (their accept messages, of fixed length, are the readiness), so a
    /// stream that is not connected or connecting must not get one either.
    pub const RX_TOKEN: usize = 64;
    /// u32, shared: 1 while the application has stuffed the shadow fd (not writable). The
    /// application sets it before and again after stuffing, fences (SeqCst) and looks for space
    /// again. The transport, having made space (or left `Connecting`, or failed), fences, swaps 0
    /// in FIRST and drains the fd AFTERWARDS: in the other order a stuffing between the two would
    /// never be drained. It looks at each move of `TX_HEAD` and at each dirty mark. A restarted
    /// transport drains without asking the word.
    pub const TX_STUFFED: usize = 68;
    /// u32, shared: 1 while the out-of-band byte that shows `EPOLLPRI` may be in the shadow fd.
    /// The application clears it and marks the socket dirty when the kernel dropped that byte
    /// together with a token although the urgent byte was not taken; the transport shows it again.
    pub const RX_PRI: usize = 72;

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
    /// u32, transport: bytes that may be in the send buffer, if its ring allows as many.
    pub const TX_LIMIT: usize = 160;
    /// u32, transport: bytes that may be in the receive buffer, likewise.
    pub const RX_LIMIT: usize = 164;
    /// u32, transport: [`super::event`] bits.
    pub const EVENTS: usize = 168;
    /// u64, transport: receive position of the urgent byte plus 1; 0 for none. Written before
    /// `RX_TAIL` passes it.
    pub const RX_URGENT: usize = 176;
    /// u64, transport: the last `RX_URGENT` whose byte is in the receive buffer, which it may be
    /// ahead of `RX_TAIL`.
    pub const RX_OOB: usize = 184;
    /// u64, transport: an earlier `RX_URGENT` whose byte is left out when reading comes to it.
    pub const RX_LOST: usize = 192;
    /// u64 x 2, transport: the send buffer's [`super::Ring`]. Load positions first, these then:
    /// they are published before any position that depends on them.
    pub const TX_RING: usize = 200;
    /// u64 x 2, transport: the receive buffer's.
    pub const RX_RING: usize = 216;
    /// u32, transport: [`super::Rings::window`]; published before the rings that need it.
    pub const WINDOW: usize = 232;
    /// u32, transport: how many milliseconds the closing of the last descriptor waits for the peer
    /// to acknowledge everything (`SO_LINGER`); 0: it does not. Who closed a descriptor asks
    /// ([`super::Op::Closing`]) whether it was the last, and then sleeps on [`STATE`] (a futex)
    /// until it is `Free` or the incarnation another's.
    pub const LINGER: usize = 236;
}

/// How the pages of an empty send buffer are given back while the application may be about to
/// write there.
///
/// Who writes into the send buffer adds 1 to [`control::TX_BUSY`] before the first byte and takes
/// it away after the last position is published. The transport swaps 0 for [`busy::TRIM`], finds
/// the buffer still empty, gives the pages back, takes the mark away and makes the descriptor
/// writable. Who finds the mark when he comes takes his 1 away again and does as if the buffer
/// were full. A transport that dies in between leaves the mark; its successor takes it away. An
/// application that dies in between leaves its 1: the pages stay until the socket is closed.
pub mod busy {
    /// The transport is giving pages back.
    pub const TRIM: u32 = 1 << 31;
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
    /// Urgent data stays in the stream (`SO_OOBINLINE`).
    pub const OOB_INLINE: u32 = 4;
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
