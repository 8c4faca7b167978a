//! The sockets of the sessions: making, finding and freeing them.

use crate::error::SessionError;
use crate::session::Session;
use crate::sessions::Sessions;
use crate::slots::NO_OWNER;
use crate::store::FdStore;
use crate::words::Words;
use crate::{NewSocket, SocketRef, state};
use abi::RegionId;
use abi::session::{SocketId, SocketState, accept};
use shm::SessionMemory;
use shm::crash::{self, Point};
use std::os::fd::AsFd;

impl Sessions {
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
        if self.is_restoring {
            return Err(SessionError::Full);
        }
        let session = self.session_mut(region).ok_or(SessionError::NoSuchSocket)?;
        if session.attached.is_none() {
            return Err(SessionError::NoSuchSocket);
        }
        let premade = if accepted {
            None
        } else {
            session.stock.pairs.pop()
        };
        let slot = match &premade {
            Some(p) => {
                session.slots.use_reserved(p.slot);
                p.slot
            }
            None => session.slots.allocate().ok_or(SessionError::Full)?,
        };
        let words = session.words(slot).ok_or(SessionError::NoSuchSocket)?;
        // The slot's last incarnation is in the application's memory; should it have scribbled
        // it, its own stale descriptors are what it confuses.
        let incarnation = match &premade {
            Some(p) => p.incarnation,
            None => accept::next(words.incarnation()),
        };
        words.reset(incarnation, SocketState::Idle);
        words.set_accepted(if accepted {
            incarnation
        } else {
            accept::unaccepted(incarnation)
        });
        if let Some(s) = session.used_mut(slot) {
            s.incarnation = incarnation;
            s.premade = premade.map(|p| (p.shadow, p.theirs));
        }
        let new = NewSocket {
            socket: session.socket(slot),
            incarnation,
        };
        if !accepted {
            self.demand(state::index(region));
        }
        Ok(new)
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

    /// The memories of all sessions.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionId> {
        let sessions = self.all.iter().flatten();
        let attached = sessions.filter(|session| session.attached.is_some());
        attached.map(|session| session.region).collect()
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

    /// Whether the last copy of the descriptor is closed, even if no event has told it yet. False
    /// for a descriptor that the transport has given up first ([`Sessions::reset`]).
    #[must_use]
    pub fn is_closed(&self, socket: SocketRef) -> bool {
        self.session(socket.region)
            .and_then(|s| s.used(socket.slot))
            .is_some_and(|s| s.closed || s.shadow.as_ref().is_some_and(|s| s.is_hung_up()))
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
        let window = s.window;
        session.slots.release(socket.slot, zombie);
        crash::reach(Point::SocketFreed);
        if let Some(words) = session.words(socket.slot) {
            words.set_state(if zombie {
                SocketState::Closed
            } else {
                SocketState::Free
            });
        }
        if !zombie {
            session.punch_window(window);
            session.give_pages_back(socket.slot);
        }
        self.maybe_end(state::index(socket.region), store);
    }

    pub(crate) fn drop_shadow(&mut self, socket: SocketRef, store: &mut dyn FdStore) {
        let Some(s) = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot))
        else {
            return;
        };
        let key = Session::shadow_key(socket.region, socket.slot, s.incarnation);
        let reset = !s.closed;
        if s.premade.take().is_some() {
            self.forgets.push(key);
        } else if let Some(shadow) = s.shadow.take() {
            self.watch.remove(shadow.as_fd());
            if reset {
                // The application sees that our end is closed when the last copy is.
                store.forget(key);
            } else {
                self.forgets.push(key);
            }
        }
    }
}
