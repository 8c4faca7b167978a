//! What comes out of the engine: records to commit, and what may only be let out after that.

use super::{ConnId, SocketRef};
use abi::Endpoint;
use wire::tcp::Repr;

/// Bytes of a send buffer that a segment carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadRef {
    /// Whose send buffer.
    pub owner: SocketRef,
    /// Stream position of the first byte (place in the buffer: modulo its capacity).
    pub position: u64,
    /// Bytes, at most [`super::Config::max_gso`] or one MSS.
    pub len: u32,
}

/// A segment to send. The checksum is the shell's (or the device's) business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentOut {
    /// The connection; `None` for a reset that answers a segment of no connection.
    pub id: Option<ConnId>,
    /// Source address and port.
    pub src: Endpoint,
    /// Destination address and port.
    pub dst: Endpoint,
    /// Header and options, complete but for the checksum.
    pub repr: Repr,
    /// Payload, if any.
    pub payload: Option<PayloadRef>,
    /// Payload bytes of each wire segment if there are to be several, else 0.
    pub gso_size: u16,
    /// TOS or traffic class, ECN bits included.
    pub tos: u8,
    /// TTL or hop limit; 0 for the default.
    pub ttl: u8,
}

/// Something the shell should look at. Positions are not repeated here: read them from the
/// committed record (`received_upto`, `acked_upto`, `error`, …).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// More in-order data can be read; at most one in a batch for each connection.
    Received(ConnId),
    /// Send buffer space is free again; at most one in a batch for each connection.
    Acked(ConnId),
    /// An active open succeeded.
    Connected(ConnId),
    /// An active open failed; the errno is the record's `error`, the socket is closed.
    ConnectFailed(ConnId),
    /// `child` is established and waits to be handed to the application of `listener`. Repeated
    /// by a restore until [`super::Engine::handed_over`] is called.
    Accepted {
        /// The listening socket.
        listener: ConnId,
        /// The new connection; its `owner` is set.
        child: ConnId,
    },
    /// The peer's FIN was reached: no data after `received_upto`.
    PeerFin(ConnId),
    /// The connection broke; the errno is the record's `error`.
    Reset(ConnId),
    /// Urgent data is announced up to the record's `urgent_upto` (RFC 6093).
    Urgent(ConnId),
    /// Everything is sent and acknowledged, FIN included, and the peer's FIN is here: the
    /// connection is over without an error (TIME_WAIT may go on).
    Finished(ConnId),
    /// The record no longer refers to these buffers: they can serve another socket.
    Released {
        /// The connection.
        id: ConnId,
        /// What its record named as owner.
        owner: SocketRef,
    },
    /// Sizes of buffers changed: show the record's rings and limits.
    Resized(ConnId),
    /// The socket's buffers are empty and have not been used for long: their pages can be given
    /// back.
    Idle(ConnId),
    /// Memory is short, and the socket has pages that hold nothing: give back all but those of
    /// `acked_upto .. written` and `consumed .. placed_upto` of its committed record, and say so
    /// ([`super::Engine::gave_back`]).
    Spare(ConnId),
    /// The record is free. Its number is not used again before the next drain.
    Closed(ConnId),
}

/// Everything that accumulated since the last drain. The shell commits `dirty` first.
#[derive(Debug, Default)]
pub struct Actions {
    /// Records that changed, each once.
    pub dirty: Vec<ConnId>,
    /// Segments to send, in order.
    pub segments: Vec<SegmentOut>,
    /// News, in order.
    pub notices: Vec<Notice>,
}

impl Actions {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.dirty.clear();
        self.segments.clear();
        self.notices.clear();
    }

    /// Whether there is nothing to commit or let out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.segments.is_empty() && self.notices.is_empty()
    }
}
