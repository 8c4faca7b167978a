//! The transmission control block: everything about a socket that survives the engine.
//!
//! Plain old data of a fixed layout. What is not here is derived from it when an engine is made
//! from committed records ([`super::Engine::restore`]); what an application sees of a connection
//! (how far it can read, what it may overwrite) is computed from the committed record by the
//! functions of [`positions`] and kept nowhere else.
//!
//! Sequence numbers are [`Offset`]s: 64 bits, SYN at [`SYN_OFFSET`], data behind it.
//!
//! ```text
//!  sent:      SYN_OFFSET .. snd_una .. snd_nxt .. DATA_OFFSET + written (FIN's place)
//!                         acked    in flight  to send
//!  received:  SYN_OFFSET .. consumed .. rcv_nxt .. rcv_adv <= consumed + receive buffer
//!                         taken    readable   offered
//! ```
//!
//! `snd_nxt` never moves back: what has to be sent again is known by ranges (the scoreboard and
//! [`Recovery`]), so RFC 9293's SND.MAX of other stacks is the same number.

mod positions;

use super::chrono::Chrono;
use super::congestion::Congestion;
use super::ecn::Ecn;
use super::memory::{MemoryRecord, RING_BASE};
use super::opening::Opening;
use super::options::Negotiated;
use super::pmtu::PathMtu;
use super::reassembly::Reassembly;
use super::recovery::Recovery;
use super::rtt::RttEstimator;
use super::sack::Scoreboard;
use super::seq::{Offset, SYN_OFFSET};
use super::sockopt::SockOpts;
use super::state::State;
use super::timers::Deadlines;
use super::user_timeout::UserTimeout;
use super::{ConnId, SocketRef};
use abi::{Endpoint, Nanos};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Version of the layout below; a record of another one is refused.
pub const TCB_LAYOUT: u32 = 14;

/// Bits of [`Tcb::flags`].
pub mod flag {
    /// No application holds the socket any more.
    pub const ORPHAN: u32 = 1;
    /// The application will write no more: FIN follows the last byte.
    pub const FIN_QUEUED: u32 = 2;
    /// The application will read no more.
    pub const RD_SHUT: u32 = 4;
    /// Bound by the application (and not by connect).
    pub const BOUND: u32 = 8;
    /// Opened by a peer.
    pub const PASSIVE: u32 = 16;
    /// An `AF_INET6` socket.
    pub const V6: u32 = 32;
    /// The handshake was completed once.
    pub const WAS_CONNECTED: u32 = 64;
    /// The end without an error was reported.
    pub const FINISHED: u32 = 128;
}

/// Where a passively opened connection is on its way to an application: [`Tcb::accept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Accept {
    /// Not of a listener.
    None = 0,
    /// The handshake is not over: in the SYN queue.
    Embryonic = 1,
    /// In the accept queue, not given to the shell for good.
    Ready = 2,
    /// Sent to the application, not yet taken by it: still counts against the backlog.
    HandedOver = 3,
    /// The application has it.
    Taken = 4,
}

/// Counters of a connection. 56 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counters {
    /// Bytes sent again.
    pub bytes_retrans: u64,
    /// Segments received, merged ones counted singly.
    pub segs_in: u32,
    /// Segments sent, likewise.
    pub segs_out: u32,
    /// Of those received, with payload.
    pub data_segs_in: u32,
    /// Of those sent, with payload.
    pub data_segs_out: u32,
    /// Segments sent again.
    pub retrans: u32,
    /// Retransmission timeouts.
    pub timeouts: u32,
    /// Times that fast recovery began.
    pub recoveries: u32,
    /// Duplicate ranges that the peer reported (RFC 2883).
    pub dsacks: u32,
    /// Out-of-order segments received.
    pub out_of_order: u32,
    /// Segments received that were outside the window or duplicates.
    pub duplicates: u32,
    /// Keepalive probes since the peer was last heard.
    pub keep_probes: u32,
    /// Zero-window probes since the window was last open.
    pub persist_probes: u32,
}

/// One socket's record. 2,304 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcb {
    /// [`TCB_LAYOUT`].
    pub layout: u32,
    /// Which use of the record number this is.
    pub generation: u32,
    /// [`State`].
    pub state: u8,
    /// [`Accept`].
    pub accept: u8,
    /// Zero.
    pub reserved: u16,
    /// See [`flag`].
    pub flags: u32,
    /// Where the buffers are; [`SocketRef::NONE`] before an embryonic child has any and after
    /// they were released.
    pub owner: SocketRef,
    /// The listener of a child, [`ConnId::NONE`] otherwise.
    pub parent: u32,
    /// Connections a listener may have waiting.
    pub backlog: u32,
    /// Own address and port.
    pub local: Endpoint,
    /// The peer's.
    pub remote: Endpoint,
    /// Order in the accept queue.
    pub accept_seq: u64,
    /// When the socket was made.
    pub created_at: Nanos,
    /// The shell's: number of the last request of the application that was carried out.
    pub last_request: u64,
    /// Errno that ended the connection, 0 for none.
    pub error: i32,
    /// Errno that something reported which did not end it (RFC 1122 4.2.3.9).
    pub soft_error: i32,

    /// Initial send sequence number.
    pub iss: u32,
    /// Peer's window in bytes.
    pub snd_wnd: u32,
    /// Largest window the peer ever offered.
    pub max_wnd: u32,
    /// Segment size that the peer's data shows, for acknowledging every second one.
    pub rcv_mss: u32,
    /// Oldest offset not acknowledged.
    pub snd_una: Offset,
    /// Next offset to send for the first time.
    pub snd_nxt: Offset,
    /// Bytes the application has put into the send buffer since the beginning.
    pub written: u64,
    /// Sequence offset of the segment that last updated the window.
    pub snd_wl1: Offset,
    /// Acknowledgement of that segment.
    pub snd_wl2: Offset,
    /// End of the last segment sent that was not full (Minshall's variant of Nagle).
    pub snd_sml: Offset,
    /// End of urgent data to send; 0 for none.
    pub snd_up: Offset,
    /// When the peer last acknowledged something new, or data began to wait for that.
    pub progress_at: Nanos,
    /// When data last left.
    pub last_sent_at: Nanos,

    /// Initial receive sequence number.
    pub irs: u32,
    /// Segments taken since the last acknowledgement, in [`Self::rcv_mss`] units.
    pub unacked_segs: u32,
    /// Next offset expected.
    pub rcv_nxt: Offset,
    /// Right edge of the window offered; never moves back.
    pub rcv_adv: Offset,
    /// Last acknowledgement sent (RFC 7323's Last.ACK.sent).
    pub last_ack_sent: Offset,
    /// Bytes the application has taken from the receive buffer since the beginning.
    pub consumed: u64,
    /// End of urgent data announced by the peer; 0 for none.
    pub rcv_up: Offset,
    /// Offset of the peer's FIN once it was seen, even out of order; 0 before.
    pub fin_at: Offset,
    /// When the peer was last heard.
    pub last_recv_at: Nanos,

    /// What the SYNs agreed on.
    pub negotiated: Negotiated,
    /// Round-trip time.
    pub rtt: RttEstimator,
    /// Congestion control.
    pub cc: Congestion,
    /// Loss recovery.
    pub recovery: Recovery,
    /// What the peer has out of order.
    pub sacked: Scoreboard,
    /// What this side has out of order.
    pub reassembly: Reassembly,
    /// Timers.
    pub deadlines: Deadlines,
    /// Socket options.
    pub opts: SockOpts,
    /// Counters.
    pub counters: Counters,
    /// Where the buffers lie.
    pub memory: MemoryRecord,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// Fast Open.
    pub opening: Opening,
    /// What size of packets the path takes.
    pub pmtu: PathMtu,
    /// [`Self::rcv_up`] once the byte before it has arrived.
    pub rcv_up_here: Offset,
    /// An earlier [`Self::rcv_up`] whose byte is nobody's: the next one came while it was the
    /// next to read.
    pub rcv_up_lost: Offset,
    /// Where the time goes.
    pub chrono: Chrono,
    /// User timeouts.
    pub uto: UserTimeout,
    /// Until when whoever closed it waits (`SO_LINGER`); 0: does not.
    pub linger_until: Nanos,
}

const _: () = assert!(size_of::<Tcb>() <= 3072);

impl Tcb {
    /// A fresh socket.
    #[must_use]
    pub fn new(owner: SocketRef, opts: SockOpts, now: Nanos) -> Self {
        Self {
            layout: TCB_LAYOUT,
            state: State::Closed as u8,
            owner,
            parent: ConnId::NONE.0,
            created_at: now,
            opts,
            memory: MemoryRecord::new(&opts, RING_BASE),
            snd_una: SYN_OFFSET,
            snd_nxt: SYN_OFFSET,
            rcv_nxt: SYN_OFFSET,
            rcv_adv: SYN_OFFSET,
            last_ack_sent: SYN_OFFSET,
            ..Self::new_zeroed()
        }
    }

    /// The state; a byte that is none counts as closed.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_byte(self.state).unwrap_or(State::Closed)
    }

    /// Where it is on the way to an application.
    #[must_use]
    pub const fn accept(&self) -> Accept {
        match self.accept {
            1 => Accept::Embryonic,
            2 => Accept::Ready,
            3 => Accept::HandedOver,
            4 => Accept::Taken,
            _ => Accept::None,
        }
    }

    /// The listener that it came by, while that exists.
    #[must_use]
    pub fn parent(&self) -> Option<ConnId> {
        Some(ConnId(self.parent)).filter(|&id| id != ConnId::NONE)
    }

    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// No application holds the socket any more.
    #[must_use]
    pub const fn is_orphan(&self) -> bool {
        self.has(flag::ORPHAN)
    }

    /// Whether the record makes sense: what [`super::Engine::restore`] demands of each.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let in_space = |o: Offset| (SYN_OFFSET..1 << 62).contains(&o);
        self.layout == TCB_LAYOUT
            && State::from_byte(self.state).is_some()
            && self.accept <= Accept::Taken as u8
            && in_space(self.snd_una)
            && in_space(self.snd_nxt)
            && in_space(self.rcv_nxt)
            && in_space(self.rcv_adv)
            && self.snd_una <= self.snd_nxt
            && self.memory.is_valid(&self.opts)
            && self.written < 1 << 62
            && self.consumed <= self.received_upto()
            && self.snd_nxt <= self.data_end() + 1
            && (!self.state().has_peer() || (self.remote.is_some() && self.local.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(size_of::<Tcb>(), 2304);
        assert_eq!(size_of::<Recovery>(), 168);
        assert_eq!(size_of::<Counters>(), 56);
        assert_eq!(size_of::<Ecn>(), 32);
    }
}
