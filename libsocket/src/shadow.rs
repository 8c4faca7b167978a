//! The shadow fd: a socket's kernel descriptor, and the two games that keep its readiness true.
//!
//! It is one end of a Unix stream pair whose other end the transport holds. Nothing but
//! readiness (and, for listeners, new connections) goes through it.
//!
//! # Readable: the token
//!
//! Word `RX_TOKEN`, buffer positions `RX_TAIL` (transport) and `RX_HEAD` (ours). What is said of
//! data holds of FIN and errors too.
//!
//! ```text
//!   transport                                application, found the buffer empty
//!   T1 publish (RX_TAIL)                     A1 take the byte (recv, not waiting)
//!   T2 fence                                 A2 if one came: RX_TOKEN = 0
//!   T3 if swap(RX_TOKEN, 1) == 0             A3 fence
//!   T4     write a byte                      A4 look at RX_TAIL again; empty: wait or EAGAIN
//! ```
//!
//! - *T before A1*: A4 sees T1, because what A knew of the buffer is loaded again.
//! - *T3 between A1 and A2* sees 1 and writes nothing; but then T1 came before A2, and by the two
//!   fences A4 sees it.
//! - *T3 after A2* sees 0 and writes: the descriptor turns readable, an edge included.
//! - *A1 between T3 and T4* gets nothing, so A2 leaves the word alone, and A4 sees T1. The byte
//!   comes later: readable although the data may be gone by then (spurious, allowed).
//! - *Two takers*: one gets the byte, the other nothing; both look again at A4. The one that got
//!   it clears the word, so it alone can hide data from the other. Where it cannot take all the
//!   data itself (its buffer is full, or it only looked whether the descriptor may stay
//!   readable), it marks the socket dirty and the transport raises the token again.
//! - *A transport that dies* between T1 and T4 is followed by one that writes a byte wherever
//!   something is readable and no byte is under way. A token too many is spurious readiness.
//!
//! The byte is taken when a read *drains* the buffer, not when the next one finds it empty. So a
//! descriptor without data is not readable even for a program that polls and then does a
//! blocking read. And a read is short only if at A4 there was nothing more, so that an
//! edge-triggered program that stops at a short read (as `epoll(7)` allows) gets an edge for
//! whatever comes. It costs nothing: the next wait would have taken the byte.
//!
//! A byte may be there with the word at 0: a transport writes one more when it refills a buffer
//! that it saw drained, and processes that share a socket may die between A1 and A2. Therefore
//! the byte is taken without asking the word wherever the descriptor should not be readable
//! afterwards: when a read has drained the buffer, before `EAGAIN`, and after a sleep that found
//! nothing. Otherwise a level-triggered loop could spin on it.
//!
//! # Not writable: stuffing
//!
//! Word `TX_STUFFED`, positions `TX_HEAD` (transport) and `TX_TAIL` (ours). The library makes
//! its own descriptor unwritable by filling its small send queue; the transport empties it.
//!
//! ```text
//!   transport                                application, found the buffer full
//!   T1 make space (TX_HEAD)                  A1 TX_STUFFED = 1
//!   T2 fence                                 A2 stuff
//!   T3 if swap(TX_STUFFED, 0) == 1           A3 TX_STUFFED = 1
//!   T4     drain                             A4 fence
//!                                            A5 look at TX_HEAD again; full: wait or EAGAIN
//! ```
//!
//! - *T3 after A3*: sees 1 and drains: writable.
//! - *T3 before A3*: T1 came before it, so by the fences A5 sees the space. We go on, and mark
//!   the socket dirty: the transport finds the word at 1 and space, and drains.
//! - *T4 after A2 although T3 was before A3*: the word says 1 and nothing is stuffed: writable
//!   although full (spurious); the next send stuffs again, since stuffing never asks the word.
//! - A1 is for a process that dies between A2 and A3 and shares the socket with another.
//! - *A transport that dies* between T3 and T4 is followed by one that drains without asking.
//!
//! Any send that takes less than it was given stuffs, so an edge always follows a short write.
//! The stuffing ends with the one byte that must stay in the transport's queue
//! ([`abi::session::shadow`]).
//!
//! # The end
//!
//! The transport's `SHUT_WR` (after `PEER_FIN`) makes the descriptor readable for good, with
//! `EPOLLRDHUP`; its closing gives `EPOLLERR|EPOLLHUP`. If its end closes although the words tell
//! of no end, then nobody will serve this socket again: that is a reset.
//!
//! `shutdown(Read)` shuts the kernel's end for reading, which wakes other readers at once and
//! shows `EPOLLRDHUP`. The kernel's end is never shut for writing: both directions shut would
//! look to the transport as if the last descriptor had been closed.

use crate::error::{os, system};
use crate::fdpass;
use abi::session::shadow::{POISON, SNDBUF, STUFFING};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, recv, setsockopt, shutdown, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What taking the token gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// At least a byte was there.
    Taken,
    /// None was.
    None,
    /// The transport's end is shut or closed.
    End,
}

/// What stuffing met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stuffed {
    /// The descriptor is not writable now.
    Full,
    /// The transport's end is closed.
    End,
}

/// A socket's descriptor.
#[derive(Debug)]
pub(crate) struct Shadow(OwnedFd);

impl Shadow {
    /// Takes a descriptor that the transport sent, and sees to it that it is as agreed: the
    /// smallest send queue, blocking.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        if getsockopt(&fd, sockopt::SndBuf).map_err(system)? != SNDBUF {
            // The kernel doubles what it is told, and never goes below the size we want.
            setsockopt(&fd, sockopt::SndBuf, &1).map_err(system)?;
        }
        let shadow = Self(fd);
        // Pairs are made nonblocking, for the transport's end; sockets begin as blocking ones.
        shadow.set_nonblocking(false)?;
        Ok(shadow)
    }

    /// A second descriptor of the same socket.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Whether calls on it should wait. The flag is the kernel's own, so that it is shared by
    /// copies of the descriptor, and may be set by anybody with `fcntl`.
    pub(crate) fn is_nonblocking(&self) -> io::Result<bool> {
        let flags = fcntl(&self.0, FcntlArg::F_GETFL).map_err(system)?;
        Ok(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let flags = fcntl(&self.0, FcntlArg::F_GETFL).map_err(system)?;
        let mut flags = OFlag::from_bits_retain(flags);
        if flags.contains(OFlag::O_NONBLOCK) != nonblocking {
            flags.set(OFlag::O_NONBLOCK, nonblocking);
            fcntl(&self.0, FcntlArg::F_SETFL(flags)).map_err(system)?;
        }
        Ok(())
    }

    /// A1: takes what tokens there are.
    pub(crate) fn take_token(&self) -> Token {
        let mut bytes = [0; 64];
        loop {
            match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Token::End,
                Ok(_) => return Token::Taken,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Token::None,
                Err(_) => return Token::End,
            }
        }
    }

    /// Takes the byte that shows urgent data.
    pub(crate) fn take_oob(&self) {
        let flags = MsgFlags::MSG_OOB | MsgFlags::MSG_DONTWAIT;
        let _ = recv(self.0.as_raw_fd(), &mut [0], flags);
    }

    /// Whether that byte is there.
    pub(crate) fn has_oob(&self) -> bool {
        let flags = MsgFlags::MSG_OOB | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        recv(self.0.as_raw_fd(), &mut [0], flags) == Ok(1)
    }

    /// A2: makes the descriptor unwritable.
    pub(crate) fn stuff(&self) -> Stuffed {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        loop {
            match fdpass::send_two(self.as_fd(), [&[0; STUFFING], &[POISON]], flags) {
                Ok(_) => return Stuffed::Full,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It holds several stuffings already.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Stuffed::Full,
                Err(_) => return Stuffed::End,
            }
        }
    }

    /// Shuts the reading side: see the module's head.
    pub(crate) fn shut_read(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Read);
    }

    /// Whether the process could take one more descriptor now.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(crate) fn check_room_for_fd(&self) -> io::Result<()> {
        match self.0.try_clone() {
            // Said of a limit that is below the lowest number asked for.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Err(os(libc::EMFILE)),
            result => result.map(drop),
        }
    }
}

impl AsFd for Shadow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
