//! All sessions of a transport: what the transport calls every turn.

use crate::accept::HandOver;
use crate::calls::{Call, Outgoing};
use crate::epoll::{Watch, Watched};
use crate::error::SessionError;
use crate::session::Session;
use crate::slots::NO_OWNER;
use crate::state::{self, MAX_SESSIONS, SessionRecord, State, phase};
use crate::store::FdStore;
use crate::words::Words;
use crate::{NewSocket, SocketRef};
use abi::session::{SocketId, SocketState, accept};
use abi::{RegionId, ServiceId};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use shm::SessionMemory;
use shm::sync::{Ordering, fence};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// What a transport's sessions are like.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// The transport.
    pub me: ServiceId,
    /// Sockets of a session, at most [`abi::session::MAX_SOCKETS`].
    pub sockets: u32,
    /// Send buffer of each, a power of two of at least a page.
    pub tx_capacity: u32,
    /// Receive buffer of each, likewise.
    pub rx_capacity: u32,
    /// Whether netdevds gather payload from the memories.
    pub share: bool,
}

impl Params {
    /// tcpd's.
    #[must_use]
    pub const fn tcp(me: ServiceId) -> Self {
        Self {
            me,
            sockets: 1024,
            tx_capacity: 1 << 20,
            rx_capacity: 1 << 20,
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
/// Connections accepted in one look.
const ACCEPTS: usize = 16;
/// Buffers that were used further than this give their pages back when the socket is freed.
const KEEP_PAGES: u64 = 128 * 1024;

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
    pub(crate) tally: Tally,
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

    /// Takes connections, requests, hang-ups and dirty words. Answers how many events it added.
    pub fn poll(&mut self, store: &mut dyn FdStore, events: &mut Vec<Event>) -> usize {
        let before = events.len();
        self.turns = self.turns.wrapping_add(1);
        let look = self.turns.is_multiple_of(LOOK_EVERY);
        if self.hinted || look {
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

    /// Sends what became due after the transport's commit: stores, replies, hand-overs. Call it
    /// before any other release.
    pub fn release(&mut self, store: &mut dyn FdStore) {
        if let Err(e) = store.flush() {
            tracing::warn!("storing descriptors with the supervisor failed: {e}");
        }
        if !self.outgoing.is_empty() {
            self.send_replies(store);
        }
        if !self.waiting.is_empty() {
            self.send_hand_overs();
        }
    }

    /// A socket that the application asked for.
    ///
    /// # Errors
    /// When the session is gone or full.
    pub fn create(&mut self, region: RegionId) -> Result<NewSocket, SessionError> {
        self.new_slot(region, true)
    }

    /// A socket for a connection that will wait in a listener's queue.
    ///
    /// # Errors
    /// As [`Sessions::create`].
    pub fn create_waiting(&mut self, region: RegionId) -> Result<NewSocket, SessionError> {
        self.new_slot(region, false)
    }

    fn new_slot(&mut self, region: RegionId, accepted: bool) -> Result<NewSocket, SessionError> {
        let session = self.session_mut(region).ok_or(SessionError::NoSuchSocket)?;
        if session.attached.is_none() {
            return Err(SessionError::NoSuchSocket);
        }
        let slot = session.slots.allocate().ok_or(SessionError::Full)?;
        let words = session.words(slot).ok_or(SessionError::NoSuchSocket)?;
        // The slot's last incarnation is in the application's memory; should it have scribbled
        // it, its own stale descriptors are what it confuses.
        let incarnation = accept::next(words.incarnation());
        words.reset(incarnation, SocketState::Idle);
        words.set_accepted(if accepted {
            incarnation
        } else {
            accept::unaccepted(incarnation)
        });
        if let Some(s) = session.used_mut(slot) {
            s.incarnation = incarnation;
        }
        Ok(NewSocket {
            socket: session.socket(slot),
            incarnation,
        })
    }

    /// Notes which entry of the transport's table a socket is.
    pub fn set_owner(&mut self, socket: SocketRef, owner: u32) {
        if let Some(s) = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot))
        {
            s.owner = owner;
        }
    }

    /// The transport's entry of a socket.
    #[must_use]
    pub fn owner(&self, socket: SocketRef) -> Option<u32> {
        self.session(socket.region)?
            .used(socket.slot)
            .map(|s| s.owner)
            .filter(|&owner| owner != NO_OWNER)
    }

    /// The transport's entry of the socket that a request of session `region` names; none for
    /// one that is closed or of another incarnation (answer `EBADF`).
    #[must_use]
    pub fn resolve(&self, region: RegionId, id: SocketId) -> Option<u32> {
        self.session(region)?
            .used(id.slot)
            .filter(|s| s.incarnation == id.incarnation && s.owner != NO_OWNER)
            .map(|s| s.owner)
    }

    /// A session's memory.
    #[must_use]
    pub fn memory(&self, region: RegionId) -> Option<&SessionMemory> {
        self.session(region)?.memory()
    }

    /// A socket's words.
    #[must_use]
    pub fn words(&self, socket: SocketRef) -> Option<Words<'_>> {
        self.session(socket.region)?.words(socket.slot)
    }

    /// Whether the application (or a child of it) still holds the descriptor.
    #[must_use]
    pub fn is_open(&self, socket: SocketRef) -> bool {
        self.session(socket.region)
            .and_then(|s| s.used(socket.slot))
            .is_some_and(|s| s.shadow.is_some())
    }

    /// Something is readable that was not: writes a token unless one may be unread. `refill`
    /// says that the application had emptied the buffer before: then a token is written all the
    /// same, so that edge-triggered waiters that did not take the last one see an edge.
    /// Not for listeners.
    pub fn readable(&mut self, socket: SocketRef, refill: bool) {
        // Pairs with the application's fence between clearing RX_TOKEN and looking at RX_TAIL.
        fence(Ordering::SeqCst);
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        let Some(shadow) = session.used(socket.slot).and_then(|s| s.shadow.as_ref()) else {
            return;
        };
        if !words.mark_token() || refill {
            // EPIPE: closed (the hang-up will tell), or readable for good after the FIN.
            let _ = shadow.token();
            self.tally.tokens += 1;
        }
    }

    /// There is room to send: drains the shadow if the application has stuffed it.
    pub fn writable(&mut self, socket: SocketRef) {
        // Pairs with the application's fence between stuffing and looking at TX_HEAD.
        fence(Ordering::SeqCst);
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        let Some(shadow) = session.used(socket.slot).and_then(|s| s.shadow.as_ref()) else {
            return;
        };
        if words.take_stuffed() {
            if shadow.drain() {
                self.tally.drains += 1;
            } else {
                // It said so before it stuffed; it will look again and mark itself dirty.
                words.put_stuffed();
            }
        }
    }

    /// The peer's FIN: `RDHUP`, and readable for good. Set [`abi::session::event::PEER_FIN`]
    /// before.
    pub fn shut_wr(&self, socket: SocketRef) {
        if let Some(shadow) = self.shadow(socket) {
            shadow.shut_wr();
        }
    }

    /// Urgent data: `PRI`.
    pub fn urgent(&self, socket: SocketRef) {
        if let Some(shadow) = self.shadow(socket) {
            let _ = shadow.urgent();
        }
    }

    /// The connection is over and was reset: readable at once, `HUP`, and `ERR` when the
    /// supervisor has let go of its copy. Set the error and
    /// [`abi::session::event::RESET`] before. The shadow is given up: [`Sessions::free`] the
    /// socket when its record is cleared; the application still reads its words.
    pub fn reset(&mut self, socket: SocketRef, store: &mut dyn FdStore) {
        if let Some(shadow) = self.shadow(socket) {
            let _ = shadow.token();
            shadow.shut_both();
        }
        self.drop_shadow(socket, store);
    }

    /// Makes readiness right after a restart, whatever step the predecessor died at: `readable`
    /// if a read would not block, `room` if a write would not, `fin` if the peer's FIN is shown.
    pub fn reconcile(&mut self, socket: SocketRef, readable: bool, room: bool, fin: bool) {
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        let Some(shadow) = session.used(socket.slot).and_then(|s| s.shadow.as_ref()) else {
            return;
        };
        if room {
            // The predecessor may have died between taking the mark and draining.
            let stuffed = words.take_stuffed();
            if !shadow.drain() && stuffed {
                words.put_stuffed();
            }
        }
        if readable {
            // It may have died between the mark and the token.
            words.mark_token();
            let _ = shadow.token();
        }
        if fin {
            shadow.shut_wr();
        }
    }

    /// The transport is done with a socket: its record is cleared. What the application still
    /// holds of it reads as closed.
    pub fn free(&mut self, socket: SocketRef, store: &mut dyn FdStore) {
        self.drop_shadow(socket, store);
        self.waiting.retain(|w| w.socket != socket);
        let Some(session) = self.session_mut(socket.region) else {
            return;
        };
        let Some(s) = session.used(socket.slot) else {
            return;
        };
        let zombie = s.handed && !s.closed && session.request.is_some();
        session.slots.release(socket.slot, zombie);
        if let Some(words) = session.words(socket.slot) {
            words.set_state(if zombie {
                SocketState::Closed
            } else {
                SocketState::Free
            });
        }
        if !zombie {
            session.give_pages_back(socket.slot);
        }
        self.maybe_end(state::index(socket.region), store);
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

    fn shadow(&self, socket: SocketRef) -> Option<&crate::Shadow> {
        self.session(socket.region)?
            .used(socket.slot)?
            .shadow
            .as_ref()
    }

    pub(crate) fn drop_shadow(&mut self, socket: SocketRef, store: &mut dyn FdStore) {
        let Some(s) = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot))
        else {
            return;
        };
        let incarnation = s.incarnation;
        if let Some(shadow) = s.shadow.take() {
            self.watch.remove(shadow.as_fd());
            store.forget(Session::shadow_key(socket.region, socket.slot, incarnation));
        }
    }

    /// The request socket is gone or to be closed.
    pub(crate) fn hang_up_session(&mut self, index: usize, store: &mut dyn FdStore) {
        let Some(session) = self.session_at_mut(index) else {
            return;
        };
        let region = session.region;
        if let Some(request) = session.request.take() {
            self.watch.remove(request.as_fd());
            // At once, whoever else still holds a copy.
            let _ = shutdown(request.as_raw_fd(), Shutdown::Both);
            store.forget(Session::request_key(region));
        }
        self.maybe_end(index, store);
    }

    /// Ends a session that neither the application nor a socket needs any more.
    pub(crate) fn maybe_end(&mut self, index: usize, store: &mut dyn FdStore) {
        let Some(session) = self.session_at(index) else {
            return;
        };
        if session.request.is_some() || session.slots.used() != 0 {
            return;
        }
        let (region, mut record) = (session.region, session.record);
        if session.attached.is_some() {
            if self.params.share {
                store.unshare_region(region);
            }
            store.forget(Session::memory_key(region));
        }
        record.phase = phase::FREE;
        self.state.commit(index, &record);
        if let Some(place) = self.all.get_mut(index) {
            *place = None;
        }
        self.active.retain(|&i| i != index);
        self.free.push_back(index);
        self.tally.ended += 1;
    }

    pub(crate) fn empty_table() -> Vec<Option<Box<Session>>> {
        std::iter::repeat_with(|| None).take(MAX_SESSIONS).collect()
    }
}

impl Session {
    /// Punches out the buffers of a slot that used much of them.
    fn give_pages_back(&self, slot: u32) {
        let Some(attached) = &self.attached else {
            return;
        };
        let words = Words::new(&attached.memory, slot);
        let layout = attached.memory.layout();
        if words.reach() < KEEP_PAGES {
            return;
        }
        let both = i64::from(layout.tx_capacity) + i64::from(layout.rx_capacity);
        if let Some(at) = attached
            .memory
            .tx_offset(slot)
            .and_then(|o| i64::try_from(o).ok())
        {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(attached.fd.as_fd(), flags, at, both);
        }
    }
}
