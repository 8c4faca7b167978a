//! The TCP engine: sans-IO, all sockets of one tcpd.
//!
//! ```text
//!   on_segment  on_icmp_error  on_app  on_timer  calls      in, each with the time
//!        \           |           |        |      /
//!         +------ records (one Tcb a socket) ---+
//!                            |
//!                         output                            once a batch: segments are made
//!                            |
//!                          drain  ->  Actions               dirty records, segments, notices
//! ```
//!
//! A batch of the shell: feed events; [`Engine::output`]; [`Engine::drain`]; **commit** the
//! records named in [`Actions::dirty`] ([`Engine::record`]: `None` is a free one); and only then
//! let out segments, publish positions, and act on notices. Killed before the commit, none of
//! the batch has happened; killed after it, some packets were lost.
//!
//! Invariants (tests cite them):
//!
//! - E1: an engine made by [`Engine::restore`] from the last committed records goes on as if the
//!   segments not yet let out had been lost. Nothing else is kept.
//! - E2: `snd_una <= snd_nxt <= data_end + 1`, and what was acknowledged was sent.
//! - E3: `rcv_nxt <= rcv_adv <= consumed + receive buffer`, and `rcv_adv` never moves back.
//! - E4: whenever something is owed (an acknowledgement of ours or of the peer's, a window, the
//!   end of a state) a timer is armed, or the connection is queued for output.
//! - E5: no input makes the engine panic; what peers and applications write is checked.
//! - E6: steady state allocates nothing: queues are reused.
//!
//! Deviations from the RFCs, most of them Linux's too:
//!
//! | RFC | says | here | because |
//! |---|---|---|---|
//! | 9293 3.8.6.1 | a zero-window probe carries new data | it is empty and just below the window | the answer is the same, no boundary is spoilt |
//! | 9293 3.8.6.1 | a closed window is probed for as long as the peer answers | not by an orphan: given up after `orphan_retries` probes | nobody waits for it, and memory would be held for ever (as Linux) |
//! | 9293 3.4.2, 3.6.1 | TIME_WAIT lasts four minutes | one, and less when records run short | timestamps (RFC 6191) and sequence numbers protect the successor |
//! | 9293 3.6 | closing waits for the peer | beyond `max_orphans` connections nobody holds are reset | as Linux; memory is bounded |
//! | 9293 3.10.7.4 | FIN_WAIT_2 waits for ever | a minute, if no application holds the socket | peers vanish |
//! | 9293 3.7.4 | Nagle holds anything small while data is out | only while something small is out (Minshall) | the end of a large write need not wait |
//! | 9293 3.10.7.2 | a SYN may carry FIN or data | SYN,FIN is dropped, data on a SYN is kept with a Fast Open cookie only | no sender needs it; the data comes again |
//! | 9293 3.7.1 | any MSS is honoured | none below 88 bytes | tiny segments are an attack |
//! | 4987 3.6 | cookies or a queue | a queue, cookies when it is full (one more than the backlog); none while the accept queue is full | as Linux |
//! | 5961 7 | a limit of challenge ACKs in all | also one each half second for a connection, and the limit varies at random | as Linux; a fixed one can be counted by strangers (CVE-2016-5696) |
//! | 1122 4.2.3.9 | an unreachable host is a soft error | while connecting it ends the attempt | as Linux (RFC 5461): another address can be tried |
//! | 4821 7.6.1 | the search for the path MTU goes by halves from below | after a black hole the size from before is tried first | an outage looks like a black hole |
//! | 6298 2.4 | timeouts are at least a second | 200 ms above the round-trip time | as everybody |
//! | 8985 7.1, 7.3 | a tail loss probe is one segment, once, and none is sent in recovery | two of new data; up to three in a row, each after twice the wait, before the timeout; recovery that falls silent is probed with its first segment | as QUIC (RFC 9002 6.2): one lost acknowledgement must not cost a delayed one or a timeout |
//! | 5682 3.1 | F-RTO sends new data after the first acknowledgement, with SACK too | what counts as lost; new data only without SACK | selective acknowledgements decide it as well, and most timeouts are genuine |
//! | 2018 8 | a timeout forgets what was selectively acknowledged | only if the first byte was | peers that renege are rare, and then show it |
//! | 9406 4.2 | eight round-trip samples a round, each an acknowledgement; L is 8 | a sample counts for up to four; L is infinite | peers that merge acknowledge 64 KiB at once |
//! | 9406 4.2 | only a round's least delay ends slow start; a round ends when its last byte is acknowledged | a train of acknowledgements of half the least round trip leads to conservative slow start too (Linux's hystart), and a delay after it ends that; a round ends with the acknowledgement beyond | unpaced, the least delay tells of a queue of one product of rate and delay only when the window is past it |
//! | 9438 4.6, 5681 eq. 4 | the reduction is from the flight | from what of the window was used in this round (RFC 7661) | the flight may be the rest of a burst |
//! | 5681 4.1 | an idle window restarts from the initial one | it is halved for each timeout that passed (RFC 2861) | as Linux |
//! | BBR draft 3.7 | marks count as congestion, it is not said how | as a loss in the round; they end Startup and Up | version 3 (draft-ietf-ccwg-bbr); Linux has version 1, which ignores them |
//! | BBR draft 5.5.11, 5.6.2 | what losses change is saved with each round's first loss; the initial window is paced | saved once for each recovery; it is a burst | see `congestion/bbr` |
//! | Linux, `TCP_NOTSENT_LOWAT` | a write may pass the mark by an sk_buff | it is cut at the mark, which is two segments at the least | the limit is a word that the library reads |
//! | 7323 3.2 | a segment without timestamps is dropped once they are agreed on | it is taken | middleboxes strip them |
//! | 7323 2.4 | the window's edge never moves back | by less than one unit of the scale, when the buffer is all but full | there is no room to round up into; what was offered is still taken |
//!
//! Everything in here is single-threaded and has no clock, no randomness and no IO of its own.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the low half of a 64-bit offset is the sequence number; lengths are below 2^31"
)]

pub mod actions;
mod calls;
pub mod chrono;
mod close;
pub mod config;
pub mod congestion;
mod conn;
mod cookie_cache;
mod cookies;
mod demux;
pub mod ecn;
mod embryo;
mod ephemeral;
pub mod error;
pub mod events;
mod fast_connect;
mod fast_open;
mod footprint;
mod icmp;
pub mod info;
mod isn;
mod linger;
mod listen;
pub mod memory;
pub mod opening;
pub mod options;
mod output;
pub mod pmtu;
mod ports;
pub mod rate;
pub mod reassembly;
pub mod recovery;
mod restore;
pub mod rtt;
pub mod sack;
mod segment_in;
pub mod sent;
pub mod seq;
mod settle;
pub mod sockopt;
pub mod state;
mod stats;
mod syncookie;
pub mod tcb;
mod timeout;
pub mod timers;
mod unsent;
mod urgent;
pub mod user_timeout;
pub mod watch;
mod words;

pub use actions::{Actions, Notice, PayloadRef, SegmentOut};
pub use calls::OpenParams;
pub use config::Config;
pub use error::{Errno, PeerFault};
pub use events::{AppWords, Buffers, How, IcmpError, IcmpKind, Payload, Route, SegmentMeta};
pub use footprint::Footprint;
pub use info::TcpInfo;
pub use state::State;
pub use stats::Stats;
pub use tcb::{Accept, TCB_LAYOUT, Tcb};

use abi::Nanos;
use conn::{Challenge, Conn, Ctx};
use demux::Demux;
use ports::Ports;
use std::collections::VecDeque;
use timers::Heap;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The number of a socket: index of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

impl ConnId {
    /// No socket.
    pub const NONE: Self = Self(u32::MAX);
}

/// Where a socket's buffers are; opaque to the engine.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SocketRef {
    /// The session memory's region; never 0 for a session.
    pub region: u32,
    /// The socket's slot in it.
    pub slot: u32,
}

impl SocketRef {
    /// No buffers.
    pub const NONE: Self = Self { region: 0, slot: 0 };
}

/// All sockets of one tcpd.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    slots: Vec<Option<Box<Conn>>>,
    /// Free numbers below `slots.len()`.
    free: Vec<u32>,
    /// Numbers freed since the last drain.
    freed: Vec<u32>,
    demux: Demux,
    ports: Ports,
    heap: Heap,
    /// Connections that want output.
    queue: VecDeque<ConnId>,
    /// Connections in TIME_WAIT that nobody holds, oldest first, with their generation.
    time_wait: VecDeque<(ConnId, u32)>,
    actions: Actions,
    stats: Stats,
    challenge: Challenge,
    /// Fast Open cookies of servers.
    cookies: cookie_cache::CookieCache,
    /// Half-open connections of all listeners.
    embryonic: u32,
    /// Connections that end without an application.
    orphans: u32,
    next_generation: u32,
    next_accept: u64,
    /// What all buffers take.
    account: memory::Account,
    /// RFC 6056 algorithm 4's counters.
    port_counters: ephemeral::Counters,
    /// Told of each socket before it is worked on.
    watch: watch::Watch,
    /// Every record of a predecessor was adopted.
    is_complete: bool,
}

impl Engine {
    /// An engine without sockets.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            demux: Demux::new(config.secret),
            ports: Ports::default(),
            heap: Heap::default(),
            queue: VecDeque::new(),
            time_wait: VecDeque::new(),
            actions: Actions::default(),
            stats: Stats::default(),
            challenge: Challenge::default(),
            embryonic: 0,
            orphans: 0,
            cookies: cookie_cache::CookieCache::new(config.secret),
            next_generation: 1,
            next_accept: 1,
            account: memory::Account::default(),
            port_counters: ephemeral::Counters::default(),
            watch: watch::Watch::default(),
            is_complete: true,
            config,
        }
    }

    /// The parameters.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The record of `id`; `None` when it is free.
    #[must_use]
    pub fn record(&self, id: ConnId) -> Option<&Tcb> {
        self.conn(id).map(|conn| &conn.tcb)
    }

    /// All sockets.
    pub fn records(&self) -> impl Iterator<Item = (ConnId, &Tcb)> {
        self.slots.iter().flatten().map(|conn| (conn.id, &conn.tcb))
    }

    /// When [`Engine::on_timer`] should be called next. May be earlier than anything is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.heap.peek().map(|(at, _)| at)
    }

    /// Whether [`Engine::output`] has something to do.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Makes the segments that are due, at most about `budget` of them (64 KiB units count as
    /// one). Called once for each batch, after its events. Returns whether it stopped for the
    /// budget's sake.
    pub fn output(&mut self, now: Nanos, budget: usize) -> bool {
        let mut left = budget;
        // Each connection once: what a turn puts back in the queue waits for the next batch.
        for _ in 0..self.queue.len() {
            if left == 0 {
                return true;
            }
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            // It counts as queued until it is done, so that settling does not queue it for what
            // windows hold back.
            let more = self.step(id, now, |conn, ctx| output::transmit(conn, ctx, &mut left));
            if let Some(conn) = self.conn_mut(id) {
                conn.rt.queued = more == Some(true);
                if conn.rt.queued {
                    self.queue.push_back(id);
                }
            }
        }
        left == 0 && !self.queue.is_empty()
    }

    /// Hands over everything since the last drain, in exchange for an empty `into` (it is
    /// cleared), so that two sets of vectors serve forever.
    pub fn drain(&mut self, into: &mut Actions) {
        self.recycle();
        if self
            .heap
            .is_wasteful(self.slots.len() - self.free.len() - self.freed.len())
        {
            let conns = self.slots.iter().flatten();
            let live = conns.filter(|conn| conn.rt.heap_at != 0);
            self.heap
                .rebuild(live.map(|conn| (conn.id, conn.rt.heap_at)));
        }
        into.clear();
        core::mem::swap(&mut self.actions, into);
        for &id in &into.dirty {
            if let Some(conn) = self.conn_mut(id) {
                conn.rt.dirty = false;
                conn.rt.noticed_rx = false;
                conn.rt.noticed_tx = false;
            }
        }
        self.free.append(&mut self.freed);
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// Runs `f` on a socket, then settles what follows from it for the rest of the engine.
    fn step<R>(
        &mut self,
        id: ConnId,
        now: Nanos,
        f: impl FnOnce(&mut Conn, &mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let conn = self.slots.get_mut(id.0 as usize)?.as_deref_mut()?;
        self.watch.on(id, &conn.tcb);
        let mut ctx = Ctx {
            now,
            config: &self.config,
            actions: &mut self.actions,
            stats: &mut self.stats,
            challenge: &mut self.challenge,
        };
        let result = f(conn, &mut ctx);
        self.settle(id, now);
        Some(result)
    }
}
