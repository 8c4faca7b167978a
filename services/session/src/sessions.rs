//! All sessions of a transport: what the transport calls every turn.

use crate::SocketRef;
use crate::accept::HandOver;
use crate::calls::{Call, Outgoing};
use crate::epoll::{Watch, Watched};
use crate::session::Session;
use crate::state::{self, MAX_SESSIONS, SessionRecord, State, phase};
use crate::store::FdStore;
use abi::plumbing::StoreKey;
use abi::{RegionId, ServiceId};
use nix::sys::epoll::EpollFlags;
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// What a transport's sessions are like.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// The transport.
    pub me: ServiceId,
    /// Sockets of a session, at most [`abi::session::MAX_SOCKETS`].
    pub sockets: u32,
    /// Most that a send buffer can grow to, a power of two of at least a page.
    pub tx_capacity: u32,
    /// Most that a receive buffer can grow to, likewise.
    pub rx_capacity: u32,
    /// What each socket has of both for itself; see [`shm::SessionLayout`].
    pub base: u32,
    /// Sockets of a session that can have more than that at the same time.
    pub windows: u32,
    /// Whether netdevds gather payload from the memories.
    pub share: bool,
}

impl Params {
    /// tcpd's: 20 GiB of addresses (not of memory) a session.
    #[must_use]
    pub const fn tcp(me: ServiceId) -> Self {
        Self {
            me,
            sockets: abi::session::MAX_SOCKETS,
            tx_capacity: 1 << 23,
            rx_capacity: 1 << 23,
            base: 1 << 17,
            windows: 1024,
            share: true,
        }
    }

    /// udpd's.
    #[must_use]
    pub const fn udp(me: ServiceId) -> Self {
        Self {
            me,
            sockets: 1024,
            tx_capacity: 1 << 18,
            rx_capacity: 1 << 18,
            base: 1 << 18,
            windows: 0,
            share: false,
        }
    }
}

/// What happened. A socket may be gone by the time its event is handled: ask
/// [`Sessions::owner`].
#[derive(Debug)]
pub enum Event {
    /// A request to answer in this turn, with exactly one of [`Sessions::answer`] and
    /// [`Sessions::answer_socket`].
    Call(Call),
    /// The application changed the socket's words, or may have: look at them.
    Dirty(SocketRef),
    /// The last copy of the descriptor was closed.
    Closed(SocketRef),
}

/// Counts since the last [`Sessions::take_tally`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions ended.
    pub ended: u64,
    /// Requests taken.
    pub calls: u64,
    /// Requests that were malformed; their sessions were closed.
    pub malformed: u64,
    /// Connections refused because all sessions or descriptors are in use.
    pub refused: u64,
    /// Readiness tokens written.
    pub tokens: u64,
    /// Shadow fds made writable again.
    pub drains: u64,
    /// Connections handed over.
    pub handed: u64,
}

/// Turns between looks at what is only hinted at by the doorbell or by epoll.
const LOOK_EVERY: u32 = 16;
/// Shadows forgotten at a time: a closed socket costs the supervisor a fraction of a message.
const FORGETS: usize = 64;
/// Connections accepted in one look.
const ACCEPTS: usize = 16;

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    pub(crate) params: Params,
    pub(crate) listener: UnixListener,
    pub(crate) bell: OwnedFd,
    pub(crate) watch: Watch,
    pub(crate) state: State,
    pub(crate) all: Vec<Option<Box<Session>>>,
    pub(crate) free: VecDeque<usize>,
    pub(crate) generations: Vec<u32>,
    /// Masked sessions.
    pub(crate) active: Vec<usize>,
    /// Armed just now; looked at once more before sleeping.
    pub(crate) armed: Vec<usize>,
    pub(crate) scan_all: bool,
    pub(crate) hinted: bool,
    pub(crate) turns: u32,
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) waiting: Vec<HandOver>,
    /// A waiting hand-over may be tried again.
    pub(crate) retry: bool,
    pub(crate) scratch: Vec<u8>,
    pub(crate) taken: Vec<(Watched, EpollFlags)>,
    /// Stored shadows that no transport socket has claimed yet (restore).
    pub(crate) orphans: HashMap<(RegionId, u32, u32), OwnedFd>,
    /// Shadows that nobody needs any more, to be forgotten in a batch.
    pub(crate) forgets: Vec<StoreKey>,
    /// Sessions whose stock of pairs runs low.
    pub(crate) restock: Vec<usize>,
    pub(crate) tally: Tally,
    /// Not every socket is claimed that a predecessor had.
    pub(crate) is_restoring: bool,
}

impl Sessions {
    /// Watch this descriptor for input (level-triggered) and call [`Sessions::on_fd`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    /// [`Sessions::fd`] has input.
    pub fn on_fd(&mut self) {
        self.hinted = true;
    }

    /// Takes connections, requests, hang-ups and dirty words; before [`Sessions::finish_restore`]
    /// dirty words alone. Answers how many events it added.
    pub fn poll(&mut self, store: &mut dyn FdStore, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.turns = self.turns.wrapping_add(1);
        let look = self.turns.is_multiple_of(LOOK_EVERY);
        if (self.hinted || look) && !self.is_restoring {
            self.look(store, events);
        }
        if self.scan_all || look {
            self.scan_armed();
        }
        self.scan_dirty(events);
        events.len() - before
    }

    fn look(&mut self, store: &mut dyn FdStore, events: &mut Vec<Event>) {
        let mut taken = std::mem::take(&mut self.taken);
        self.hinted = self.watch.take(&mut taken);
        for (what, flags) in taken.drain(..) {
            match what {
                Watched::Listener => self.accept_sessions(store),
                Watched::Request { index, generation } => {
                    if self
                        .session_at(index)
                        .is_some_and(|s| s.record.generation == generation)
                    {
                        self.take_request(index, store, events);
                    }
                }
                Watched::Shadow {
                    index,
                    slot,
                    incarnation,
                } => {
                    if flags.contains(EpollFlags::EPOLLOUT) {
                        self.retry = true;
                    }
                    if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                        self.hung_up(index, slot, incarnation, store, events);
                    }
                }
            }
        }
        self.taken = taken;
    }

    fn accept_sessions(&mut self, store: &mut dyn FdStore) {
        for _ in 0..ACCEPTS {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let fd = OwnedFd::from(stream);
            let Some(index) = self.free.pop_front() else {
                self.tally.refused += 1;
                continue;
            };
            let generation =
                state::next_generation(self.generations.get(index).copied().unwrap_or(0));
            if let Some(g) = self.generations.get_mut(index) {
                *g = generation;
            }
            let region = state::region(self.params.me, index, generation);
            let record = SessionRecord {
                phase: phase::CONNECTED,
                generation,
                sockets: self.params.sockets,
                tx_capacity: self.params.tx_capacity,
                rx_capacity: self.params.rx_capacity,
                base: self.params.base,
                windows: self.params.windows,
                ..Default::default()
            };
            if self
                .watch
                .add(fd.as_fd(), Watched::Request { index, generation })
                .is_err()
            {
                self.tally.refused += 1;
                self.free.push_back(index);
                continue;
            }
            self.state.commit(index, &record);
            store.store(Session::request_key(region), fd.as_fd());
            if let Some(place) = self.all.get_mut(index) {
                *place = Some(Box::new(Session::new(region, record, Some(fd))));
            }
            self.tally.opened += 1;
            self.hinted = true;
        }
        self.hinted = true;
    }

    fn hung_up(
        &mut self,
        index: usize,
        slot: u32,
        incarnation: u32,
        store: &mut dyn FdStore,
        events: &mut Vec<Event>,
    ) {
        let Some(session) = self.session_at_mut(index) else {
            return;
        };
        let socket = session.socket(slot);
        let Some(s) = session.used_mut(slot) else {
            return;
        };
        if s.incarnation != incarnation || s.closed || s.shadow.is_none() {
            return;
        }
        s.closed = true;
        self.drop_shadow(socket, store);
        events.push(Event::Closed(socket));
    }

    /// Sends what became due after the transport's commit: stores, replies, hand-overs. Words
    /// that a reply tells of (the state) are to be shown before it, positions and readiness
    /// after it.
    pub fn release(&mut self, store: &mut dyn FdStore) {
        if self.forgets.len() >= FORGETS {
            self.forget_now(store);
        }
        if let Err(e) = store.flush() {
            if e.kind() != ErrorKind::WouldBlock {
                tracing::warn!("storing descriptors with the supervisor failed: {e}");
            }
            // Nobody is told of a socket that would be lost with us. The supervisor hangs; when it
            // wakes, or another has taken its place, its heartbeat brings the next turn.
            return;
        }
        if !self.outgoing.is_empty() {
            self.send_replies(store);
        }
        if !self.waiting.is_empty() {
            self.send_hand_overs();
        }
        if !self.restock.is_empty() {
            self.fill_stocks(store);
        }
    }

    /// Sockets and sessions at the moment.
    #[must_use]
    pub fn population(&self) -> (usize, usize) {
        let sessions = self.all.iter().flatten();
        sessions.fold((0, 0), |(n, sockets), s| {
            (n + 1, sockets + s.slots.used() as usize)
        })
    }

    /// Counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    pub(crate) fn session_at(&self, index: usize) -> Option<&Session> {
        self.all.get(index)?.as_deref()
    }

    pub(crate) fn session_at_mut(&mut self, index: usize) -> Option<&mut Session> {
        self.all.get_mut(index)?.as_deref_mut()
    }

    pub(crate) fn session(&self, region: RegionId) -> Option<&Session> {
        self.session_at(state::index(region))
            .filter(|s| s.region == region)
    }

    pub(crate) fn session_mut(&mut self, region: RegionId) -> Option<&mut Session> {
        self.session_at_mut(state::index(region))
            .filter(|s| s.region == region)
    }

    pub(crate) fn empty_table() -> Vec<Option<Box<Session>>> {
        std::iter::repeat_with(|| None).take(MAX_SESSIONS).collect()
    }
}
