//! Accepting: connections come as descriptors over the listener's own shadow fd, so the kernel
//! queues them, wakes one waiter, and lets every process that shares the listener take them.
//!
//! Which taker a connection belongs to is decided by one compare-and-swap
//! ([`abi::session::accept`]): a transport that restarted may have sent it twice.

use crate::error::os;
use crate::fdpass::{self, Message};
use crate::shadow::Shadow;
use crate::socket::{Shared, Socket};
use crate::wait::wait;
use abi::session::{AcceptMessage, SocketId, SocketKind, SocketState, accept, control};
use nix::poll::PollFlags;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use zerocopy::FromBytes;

impl Socket {
    /// Takes the next connection; waits for one unless the socket is nonblocking.
    ///
    /// # Errors
    /// As `accept(2)`: `EINVAL` when it does not listen, `EMFILE` when the process has no room
    /// for its descriptor (the connection stays in the queue).
    pub fn accept(&self) -> io::Result<(Self, SocketAddr)> {
        let mut deadline = None;
        loop {
            // Taken without room for its descriptor, the connection would be lost.
            self.shadow.check_room_for_fd()?;
            let mut bytes = [0; size_of::<AcceptMessage>()];
            match fdpass::receive(self.as_fd(), &mut bytes, libc::MSG_DONTWAIT) {
                Ok(message) if message.len == 0 => return Err(os(libc::EINVAL)),
                Ok(message) => {
                    if let Some(taken) = self.take(&bytes, message)? {
                        return Ok(taken);
                    }
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                Err(_) => {}
            }
            if self.shared.is_stale() || self.shared.state() != SocketState::Listening {
                return Err(os(libc::EINVAL));
            }
            let deadline = match &mut deadline {
                Some(deadline) => deadline,
                None if self.shadow.is_nonblocking()? => return Err(os(libc::EAGAIN)),
                None => deadline.insert(self.shared.read_deadline()),
            };
            wait(self.as_fd(), PollFlags::POLLIN, deadline)?;
        }
    }

    /// Makes the connection of a message this process's; `None` if it is another's.
    fn take(&self, bytes: &[u8], message: Message) -> io::Result<Option<(Self, SocketAddr)>> {
        let session = &self.shared.session;
        let Message {
            len,
            mut fds,
            lost_fds,
        } = message;
        if lost_fds {
            // Another thread took the last room. The descriptor is closed, so the transport ends
            // the connection.
            return Err(os(libc::EMFILE));
        }
        let parsed = bytes
            .get(..len)
            .and_then(|b| AcceptMessage::read_from_bytes(b).ok());
        let (Some(said), Some(fd)) = (parsed, fds.pop()) else {
            let _ = session.fault();
            return Ok(None);
        };
        let (Some(peer), Some(local)) = (said.peer.socket_addr(), said.local.socket_addr()) else {
            let _ = session.fault();
            return Ok(None);
        };
        let Some(word) = session.memory().u32(said.slot, control::ACCEPTED) else {
            let _ = session.fault();
            return Ok(None);
        };
        // AcqRel: what the transport wrote of the socket before it sent the message is seen, and
        // a restarted transport that finds the word taken sees nothing of ours it must not.
        let won = word.compare_exchange(
            accept::unaccepted(said.incarnation),
            said.incarnation,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if won.is_err() {
            return Ok(None);
        }
        // Nobody waits for this, so the transport is not woken for it.
        let _ = session.memory().mark_dirty(said.slot);
        let id = SocketId {
            slot: said.slot,
            incarnation: said.incarnation,
        };
        let shared = Shared::new(session, id, SocketKind::Stream, self.shared.v6);
        let _ = shared.accepted.set((peer, local));
        let shadow = Shadow::adopt(fd)?;
        Ok(Some((Self::new(shared, shadow), peer)))
    }
}
