//! The supervisor's end of the admin socket: connections and what waits to be sent on them.
//! What a request means is decided by its caller.

use super::{Reply, Request};
use abi::codec;
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, SockFlag, accept4, getsockopt, recv, send, sockopt::PeerCredentials,
};
use nix::unistd::geteuid;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of rows in one message; the rest of [`codec::MAX_MESSAGE`] is for everything around.
const ROWS: usize = codec::MAX_MESSAGE / 2;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    outgoing: VecDeque<Vec<u8>>,
}

/// What a connection's socket had.
#[derive(Debug)]
pub(crate) enum Input {
    /// A request.
    Request(Request),
    /// Nothing for now.
    Empty,
    /// The client is gone, or speaks another language: close.
    End,
}

impl Client {
    /// Accepts a connection, if there is one and it is of this user or root.
    pub(crate) fn accept(listener: &OwnedFd) -> Option<Self> {
        Some(Self {
            socket: accept_own(listener).ok()?,
            outgoing: VecDeque::new(),
        })
    }

    /// Takes a request.
    pub(crate) fn receive(&self) -> Input {
        let mut bytes = vec![0; codec::MAX_MESSAGE];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => Input::Empty,
            Ok(0) | Err(_) => Input::End,
            Ok(len) => match codec::decode(bytes.get(..len).unwrap_or_default()) {
                Ok(request) => Input::Request(request),
                Err(_) => Input::End,
            },
        }
    }

    /// Queues a reply, in parts if it is a long table.
    pub(crate) fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Table {
                columns,
                rows,
                more: _,
            } => {
                let mut parts = split(rows).into_iter().peekable();
                while let Some(rows) = parts.next() {
                    self.queue(&Reply::Table {
                        columns: columns.clone(),
                        rows,
                        more: parts.peek().is_some(),
                    });
                }
            }
            other => self.queue(&other),
        }
    }

    fn queue(&mut self, reply: &Reply) {
        let bytes = codec::encode(reply)
            .or_else(|error| codec::encode(&Reply::Failed(format!("answer too long: {error}"))));
        self.outgoing.extend(bytes);
    }

    /// Sends what the socket takes; whether all is sent.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn flush(&mut self) -> nix::Result<bool> {
        while let Some(bytes) = self.outgoing.front() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Ok(_) => {
                    self.outgoing.pop_front();
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Rows in parts that fit a message; at least one part.
fn split(rows: Vec<Vec<String>>) -> Vec<Vec<Vec<String>>> {
    let mut parts = vec![Vec::new()];
    let mut room = ROWS;
    for row in rows {
        let size: usize = row.iter().map(|cell| cell.len() + 9).sum::<usize>() + 9;
        if size > room {
            parts.push(Vec::new());
            room = ROWS;
        }
        room = room.saturating_sub(size);
        if let Some(part) = parts.last_mut() {
            part.push(row);
        }
    }
    parts
}

/// Accepts a connection of this user or root; others are closed.
///
/// # Errors
/// `EAGAIN` when there is none, `EPERM` when it was somebody else's.
#[allow(
    unsafe_code,
    reason = "the descriptor that accept4 made is taken into ownership"
)]
pub(crate) fn accept_own(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel made the descriptor just now, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let peer = getsockopt(&socket, PeerCredentials)?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return Err(Errno::EPERM);
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tables_come_in_parts_that_fit() {
        let rows: Vec<_> = (0..20_000)
            .map(|n| vec![n.to_string(), "x".repeat(20)])
            .collect();
        let parts = split(rows.clone());
        assert!(parts.len() > 10);
        for part in &parts {
            let reply = Reply::Table {
                columns: vec![],
                rows: part.clone(),
                more: true,
            };
            assert!(codec::encode(&reply).is_ok());
        }
        assert_eq!(parts.concat(), rows);
        assert_eq!(split(Vec::new()), [Vec::<Vec<String>>::new()]);
    }
}
