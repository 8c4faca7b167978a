//! Taking up what a predecessor left.
//!
//! ```text
//!   Sessions::restore(stored)     sessions with their sockets and memories
//!   adopt(socket, ..)             once for each record of the transport; or, for a socket that
//!   claim(socket, ..)             nobody waits for, first without a system call, and
//!   settle(socket)                later the rest
//!   finish_restore()              drops what nobody claimed
//! ```
//!
//! Sockets that are claimed can be served before the others are: their words are looked at, but no
//! request is taken, no slot or window given to anybody, and no session ended.
//!
//! Which descriptor there is tells at which step the predecessor died:
//! - a request socket without memory: `Hello` comes again;
//! - a record without a shadow, or with one that hung up: the reply never left (the request
//!   comes again and makes another socket), or the application has closed it meanwhile. Either
//!   way nobody can reach it: [`Adopted::Lost`]. A connection that was never handed over is
//!   [`Adopted::Lost`] too; its transport knows, and hands it over after [`Sessions::revoke`];
//! - a shadow without a record: the transport died before its commit, or after it cleared the
//!   record. Forgotten.

use crate::SocketRef;
use crate::epoll::{Watch, Watched};
use crate::error::SessionError;
use crate::session::{Attached, Session};
use crate::sessions::{Params, Sessions};
use crate::shadow::Shadow;
use crate::state::{self, MAX_SESSIONS, State, TABLE_KEY, phase};
use crate::store::FdStore;
use abi::RegionId;
use abi::plumbing::{StoreClass, StoreKey};
use abi::session::header;
use shm::sync::Ordering;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// What is left of a socket that a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// The application holds its descriptor. [`Sessions::reconcile`] it.
    Live,
    /// The buffers are there, but no descriptor: as if the application had closed it.
    Lost,
    /// The session is gone, or the slot impossible: drop the record, there are no buffers.
    Gone,
}

impl Sessions {
    /// Takes up the sessions that are in `stored` (none: a first start).
    ///
    /// `listener` is where applications connect, `bell` the transport's own doorbell, whose
    /// copies applications get. [`Sessions::finish_restore`] is to follow, unless nothing was
    /// stored.
    ///
    /// # Errors
    /// When the kernel refuses what every session needs.
    pub fn restore(
        params: Params,
        listener: OwnedFd,
        bell: OwnedFd,
        stored: Vec<(StoreKey, OwnedFd)>,
        store: &mut dyn FdStore,
    ) -> Result<Self, SessionError> {
        let listener = UnixListener::from(listener);
        listener
            .set_nonblocking(true)
            .map_err(|source| SessionError::System {
                what: "the listening socket",
                source,
            })?;
        let watch = Watch::new()?;
        watch.add(listener.as_fd(), Watched::Listener)?;

        let is_restoring = !stored.is_empty();
        // Most are sockets' shadows, of thousands perhaps: into their table at once.
        let mut orphans = HashMap::with_capacity(stored.len());
        let mut rest: HashMap<StoreKey, OwnedFd> = HashMap::new();
        for (key, fd) in stored {
            match shadow_name(&key) {
                Some(name) => orphans.insert(name, fd).map(drop),
                None => rest.insert(key, fd).map(drop),
            };
        }
        let mut stored = rest;
        let table = stored
            .remove(&TABLE_KEY)
            .and_then(|fd| match State::attach(&fd) {
                Ok(table) => Some(table),
                Err(e) => {
                    tracing::error!("the table of sessions cannot be read, all are dropped: {e}");
                    None
                }
            });
        let state = match table {
            Some(table) => table,
            None => {
                let (table, fd) = State::create()?;
                store.store(TABLE_KEY, fd.as_fd());
                table
            }
        };
        let mut this = Self {
            params,
            listener,
            bell,
            watch,
            state,
            all: Self::empty_table(),
            free: VecDeque::with_capacity(MAX_SESSIONS),
            generations: vec![0; MAX_SESSIONS],
            active: Vec::new(),
            armed: Vec::new(),
            scan_all: true,
            hinted: true,
            turns: 0,
            outgoing: Vec::new(),
            waiting: Vec::new(),
            retry: false,
            scratch: Vec::new(),
            taken: Vec::new(),
            orphans,
            forgets: Vec::new(),
            restock: Vec::new(),
            tally: Default::default(),
            is_restoring,
        };
        for index in 0..MAX_SESSIONS {
            this.restore_session(index, &mut stored, store);
        }
        for key in stored.into_keys() {
            if key.class == StoreClass::SessionMemory
                && let Ok(region) = u32::try_from(key.id)
                && params.share
            {
                store.unshare_region(RegionId(region));
            }
            store.forget(key);
        }
        if let Err(e) = store.flush() {
            tracing::warn!("storing the table of sessions failed: {e}");
        }
        Ok(this)
    }

    fn restore_session(
        &mut self,
        index: usize,
        stored: &mut HashMap<StoreKey, OwnedFd>,
        store: &mut dyn FdStore,
    ) {
        let mut record = self.state.load(index);
        if let Some(g) = self.generations.get_mut(index) {
            *g = record.generation;
        }
        if record.phase == phase::FREE {
            self.free.push_back(index);
            return;
        }
        let region = state::region(self.params.me, index, record.generation);
        let request = stored.remove(&Session::request_key(region));
        let memory = stored.remove(&Session::memory_key(region));
        if memory.is_none() {
            record.phase = phase::CONNECTED;
        }
        let mut session = Session::new(region, record, None);
        if let Some(fd) = memory {
            match Attached::restore(&session, fd) {
                Ok(attached) => session.attached = Some(attached),
                Err(e) => {
                    tracing::error!("session {region:?} cannot be taken up: {e}");
                    store.forget(Session::memory_key(region));
                }
            }
        }
        if let Some(fd) = request {
            let what = Watched::Request {
                index,
                generation: record.generation,
            };
            if self.watch.add(fd.as_fd(), what).is_ok() {
                session.request = Some(fd);
            }
        }
        session.replay = Some(0);
        if let Some(place) = self.all.get_mut(index) {
            *place = Some(Box::new(session));
        }
    }

    /// Claims the slot that a transport's record tells of, for entry `owner` of its table.
    pub fn adopt(
        &mut self,
        socket: SocketRef,
        incarnation: u32,
        owner: u32,
        store: &mut dyn FdStore,
    ) -> Adopted {
        match self.claim(socket, incarnation, owner, store) {
            Adopted::Live => self.settle(socket, store),
            other => other,
        }
    }

    /// As [`Sessions::adopt`] without asking the kernel anything: [`Adopted::Live`] means that
    /// there is a descriptor. Until [`Sessions::settle`] its end is not noticed.
    pub fn claim(
        &mut self,
        socket: SocketRef,
        incarnation: u32,
        owner: u32,
        store: &mut dyn FdStore,
    ) -> Adopted {
        let shadow = self
            .orphans
            .remove(&(socket.region, socket.slot, incarnation));
        let Some(session) = self.session_mut(socket.region) else {
            return Adopted::Gone;
        };
        if session.attached.is_none() || !session.slots.allocate_at(socket.slot) {
            if shadow.is_some() {
                store.forget(Session::shadow_key(socket.region, socket.slot, incarnation));
            }
            return Adopted::Gone;
        }
        if let Some(words) = session.words(socket.slot) {
            words.set_incarnation(incarnation);
            // The predecessor may have died with it.
            words.end_trim();
        }
        let live = shadow.is_some();
        if let Some(s) = session.used_mut(socket.slot) {
            s.owner = owner;
            s.incarnation = incarnation;
            s.handed = live;
            s.closed = !live;
            s.shadow = shadow.map(Shadow::from);
        }
        if live { Adopted::Live } else { Adopted::Lost }
    }

    /// Looks whether the application still holds the descriptor of a claimed socket, and has
    /// epoll tell when it no longer does.
    pub fn settle(&mut self, socket: SocketRef, store: &mut dyn FdStore) -> Adopted {
        let hung_up = self
            .session(socket.region)
            .and_then(|session| session.used(socket.slot)?.shadow.as_ref())
            .is_some_and(Shadow::is_hung_up);
        self.watch_claimed(socket, hung_up, store)
    }

    /// As [`Sessions::settle`], for a socket that can wait to hear of a closed descriptor: that it
    /// is closed by now, epoll tells, as an event of a later turn.
    pub fn settle_later(&mut self, socket: SocketRef, store: &mut dyn FdStore) -> Adopted {
        self.watch_claimed(socket, false, store)
    }

    fn watch_claimed(
        &mut self,
        socket: SocketRef,
        hung_up: bool,
        store: &mut dyn FdStore,
    ) -> Adopted {
        let index = state::index(socket.region);
        let Some(s) = self
            .session(socket.region)
            .and_then(|session| session.used(socket.slot))
        else {
            return Adopted::Gone;
        };
        let Some(shadow) = &s.shadow else {
            return Adopted::Lost;
        };
        let incarnation = s.incarnation;
        let what = Watched::Shadow {
            index,
            slot: socket.slot,
            incarnation,
        };
        if !hung_up && self.watch.add(shadow.as_fd(), what).is_ok() {
            return Adopted::Live;
        }
        store.forget(Session::shadow_key(socket.region, socket.slot, incarnation));
        if let Some(s) = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot))
        {
            s.handed = false;
            s.closed = true;
            s.shadow = None;
        }
        Adopted::Lost
    }

    /// Forgets what no record claimed. Every socket counts as dirty in the
    /// turns that follow, some in each.
    pub fn finish_restore(&mut self, store: &mut dyn FdStore) {
        self.is_restoring = false;
        for session in self.all.iter_mut().flatten() {
            // From the beginning: those claimed late were passed over so far.
            session.replay = Some(0);
        }
        for ((region, slot, incarnation), _) in self.orphans.drain() {
            store.forget(Session::shadow_key(region, slot, incarnation));
        }
        for index in 0..MAX_SESSIONS {
            self.maybe_end(index, store);
            if let Some(memory) = self.session_at(index).and_then(Session::memory) {
                // Who waits for the end of a socket asks again: it may have been freed unsaid.
                if let Some(starts) = memory.mapping().u32_at(header::STARTS) {
                    starts.fetch_add(1, Ordering::Release);
                }
                self.activate(index);
            }
        }
        if let Err(e) = store.flush() {
            tracing::warn!("dropping stored descriptors failed: {e}");
        }
    }
}

fn shadow_name(key: &StoreKey) -> Option<(RegionId, u32, u32)> {
    if key.class != StoreClass::Shadow {
        return None;
    }
    let region = u32::try_from(key.id >> 32).ok()?;
    let slot = u32::try_from(key.id & 0xffff_ffff).ok()?;
    Some((RegionId(region), slot, key.incarnation))
}
