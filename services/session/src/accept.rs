//! Handing new connections over to whoever accepts them.
//!
//! A message with the connection's descriptor goes over the listener's own shadow pair; the
//! kernel queues it and wakes one waiter. Who owns the connection is decided by one word, see
//! [`abi::session::accept`].

use crate::epoll::Watched;
use crate::error::SessionError;
use crate::sessions::Sessions;
use crate::store::FdStore;
use crate::{NewSocket, SocketRef, state};
use abi::Endpoint;
use abi::session::{AcceptMessage, accept};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use shm::crash::{self, Point};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use zerocopy::IntoBytes;

/// A connection on its way to a listener's queue.
#[derive(Debug)]
pub(crate) struct HandOver {
    listener: SocketRef,
    pub(crate) socket: SocketRef,
    message: AcceptMessage,
    fd: OwnedFd,
}

/// What became of a connection that was to be handed over before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The application has it.
    Taken,
    /// Nobody has it, and nobody will by an old message: this is its new incarnation, to be
    /// recorded before [`Sessions::hand_over`] (or [`Sessions::free`]).
    Fresh(NewSocket),
}

impl Sessions {
    /// Queues a connection made by [`Sessions::create_waiting`] for `listener`; it is sent by
    /// the next [`Sessions::release`], or as soon as the kernel's queue has room.
    ///
    /// # Errors
    /// When the kernel has no descriptors left, or the listener or the socket is gone.
    pub fn hand_over(
        &mut self,
        listener: SocketRef,
        new: NewSocket,
        peer: Endpoint,
        local: Endpoint,
        store: &mut dyn FdStore,
    ) -> Result<(), SessionError> {
        if !self.is_open(listener) || self.incarnation(new.socket) != Some(new.incarnation) {
            return Err(SessionError::NoSuchSocket);
        }
        let fd = self.make_shadow(new.socket, store)?;
        let message = AcceptMessage {
            slot: new.socket.slot,
            incarnation: new.incarnation,
            peer,
            local,
            reserved: [0; 16],
        };
        self.waiting.push(HandOver {
            listener,
            socket: new.socket,
            message,
            fd,
        });
        self.retry = true;
        Ok(())
    }

    /// Whether the application has taken a connection that was handed over. It marks the socket
    /// dirty when it has.
    #[must_use]
    pub fn accepted(&self, socket: SocketRef) -> bool {
        match (self.incarnation(socket), self.words(socket)) {
            (Some(incarnation), Some(words)) => words.accepted() == incarnation,
            _ => false,
        }
    }

    /// Takes a connection back that was, or may have been, handed over but perhaps not taken:
    /// after a restart, or when the listener closes.
    pub fn revoke(&mut self, socket: SocketRef, store: &mut dyn FdStore) -> Option<Revoked> {
        let incarnation = self.incarnation(socket)?;
        let next = accept::next(incarnation);
        let words = self.words(socket)?;
        if !words.swap_accepted(accept::unaccepted(incarnation), accept::unaccepted(next)) {
            if words.accepted() == incarnation {
                return Some(Revoked::Taken);
            }
            // Scribbled: no honest application can have it.
            words.set_accepted(accept::unaccepted(next));
        }
        crash::reach(Point::HalfRevoked);
        words.set_incarnation(next);
        crash::reach(Point::HalfRevoked);
        self.drop_shadow(socket, store);
        self.waiting.retain(|w| w.socket != socket);
        if let Some(s) = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot))
        {
            s.incarnation = next;
            s.closed = false;
            s.handed = false;
        }
        Some(Revoked::Fresh(NewSocket {
            socket,
            incarnation: next,
        }))
    }

    /// Connections that wait for room in a listener's queue.
    #[must_use]
    pub fn hand_overs_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn send_hand_overs(&mut self) {
        if !std::mem::take(&mut self.retry) {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut full: Vec<SocketRef> = Vec::new();
        // In order for each listener; one that is full does not hold up the others.
        waiting.retain(|w| {
            if full.contains(&w.listener) {
                return true;
            }
            match self.send_hand_over(w) {
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => {
                    full.push(w.listener);
                    true
                }
                // Sent; or the listener is gone, and dropping the descriptor hangs up the
                // connection, which closes it.
                Ok(()) | Err(_) => false,
            }
        });
        self.waiting = waiting;
        for listener in full {
            self.want_room(listener);
        }
    }

    fn send_hand_over(&mut self, w: &HandOver) -> Result<(), Errno> {
        let session = self.session(w.listener.region).ok_or(Errno::EBADF)?;
        let listener = session.used(w.listener.slot).ok_or(Errno::EBADF)?;
        let shadow = listener.shadow.as_ref().ok_or(Errno::EBADF)?;
        sendmsg::<UnixAddr>(
            shadow.as_fd().as_raw_fd(),
            &[IoSlice::new(w.message.as_bytes())],
            &[ControlMessage::ScmRights(&[w.fd.as_raw_fd()])],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        crash::reach(Point::HandOverSent);
        self.tally.handed += 1;
        Ok(())
    }

    fn want_room(&self, listener: SocketRef) {
        let Some(s) = self
            .session(listener.region)
            .and_then(|s| s.used(listener.slot))
        else {
            return;
        };
        if let Some(shadow) = &s.shadow {
            let what = Watched::Shadow {
                index: state::index(listener.region),
                slot: listener.slot,
                incarnation: s.incarnation,
            };
            // Edge-triggered: modifying reports the present state once, then each change.
            self.watch.want_room(shadow.as_fd(), what, true);
        }
    }
}
