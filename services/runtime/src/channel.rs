//! Messages with descriptors over a `SOCK_SEQPACKET` socket, used by both ends: the supervisor
//! hands out plumbing, the daemon stores descriptors. See [`abi::plumbing`].
//!
//! The socket never blocks. Every descriptor that arrives is owned at once, whatever is wrong
//! with the message, so that a malformed one leaks nothing.
#![allow(
    unsafe_code,
    reason = "takes ownership of descriptors that SCM_RIGHTS delivered"
)]

use abi::codec;
use abi::plumbing::MAX_FDS;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One end of a descriptor channel.
#[derive(Debug)]
pub struct FdChannel {
    socket: OwnedFd,
}

/// What a look at the channel found.
#[derive(Debug)]
pub enum Received<T> {
    /// A message and the descriptors that came along.
    Message(T, Vec<OwnedFd>),
    /// Nothing at the moment.
    Empty,
    /// The other end is gone and everything it sent has been read.
    Closed,
}

/// A message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The system call failed; `WouldBlock` when the other end is behind.
    #[error("descriptor channel: {0}")]
    Io(#[from] io::Error),
    /// Not a message of this type; it has been taken off the channel.
    #[error("descriptor channel: {0}")]
    Malformed(#[from] codec::CodecError),
}

impl FdChannel {
    /// A channel and its other end, to be inherited by a daemon (close-on-exec is set on both).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Takes an end over and makes it nonblocking and close-on-exec.
    ///
    /// # Errors
    /// When the descriptor is not open.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { socket })
    }

    /// Sends `message` with `fds` (at most [`MAX_FDS`]). Once this has returned the kernel holds
    /// the descriptors, whatever happens to us.
    ///
    /// # Errors
    /// [`ChannelError::Io`] with `WouldBlock` when the socket is full; nothing was sent then.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = codec::encode(message)?;
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let cmsgs = if raw.is_empty() { &[][..] } else { &rights[..] };
        let iov = [IoSlice::new(&bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), &iov, cmsgs, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                // Too many descriptors in flight: the other end has to read first.
                Err(Errno::ETOOMANYREFS) => {
                    return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
                }
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    /// Takes one message off the channel.
    ///
    /// # Errors
    /// When the kernel refuses or the message is malformed (its descriptors are closed).
    pub fn recv<T: DeserializeOwned>(&self) -> Result<Received<T>, ChannelError> {
        self.take(MsgFlags::empty())
    }

    /// As [`FdChannel::recv`], but the message stays on the channel: its descriptors are copies.
    ///
    /// # Errors
    /// As there.
    pub fn peek<T: DeserializeOwned>(&self) -> Result<Received<T>, ChannelError> {
        self.take(MsgFlags::MSG_PEEK)
    }

    fn take<T: DeserializeOwned>(&self, flags: MsgFlags) -> Result<Received<T>, ChannelError> {
        let mut bytes = vec![0; codec::MAX_MESSAGE];
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let flags = flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, fds) = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut iov, Some(&mut space), flags) {
                Ok(message) => {
                    let mut fds = Vec::new();
                    for cmsg in message.cmsgs().map_err(io::Error::from)? {
                        if let ControlMessageOwned::ScmRights(raw) = cmsg {
                            // SAFETY: the kernel has just made these descriptors for us; nobody
                            // else knows their numbers.
                            fds.extend(raw.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                        }
                    }
                    break (message.bytes, fds);
                }
                // Said once, and first, when the other end was closed with something unread:
                // what it has sent is still here.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN) => return Ok(Received::Empty),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        };
        // A message has at least its variant's byte.
        if len == 0 {
            return Ok(Received::Closed);
        }
        let message = codec::decode(bytes.get(..len).unwrap_or(&[]))?;
        Ok(Received::Message(message, fds))
    }
}

impl AsFd for FdChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn channels() -> (FdChannel, FdChannel) {
        let (a, b) = FdChannel::pair().unwrap();
        (a, FdChannel::new(b).unwrap())
    }

    #[test]
    fn descriptors_survive_their_sender() {
        let (a, b) = channels();
        let (mut near, far) = UnixStream::pair().unwrap();
        a.send(&7u32, &[far.as_fd()]).unwrap();
        drop((a, far));
        let Received::Message(7u32, mut fds) = b.recv().unwrap() else {
            panic!()
        };
        let mut far = UnixStream::from(fds.pop().unwrap());
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        assert!(matches!(b.recv::<u32>().unwrap(), Received::Closed));
    }

    #[test]
    fn a_message_that_was_looked_at_is_still_there() {
        let (a, b) = channels();
        let (mut near, far) = UnixStream::pair().unwrap();
        a.send(&7u32, &[far.as_fd()]).unwrap();
        drop(far);
        for _ in 0..2 {
            let Received::Message(7u32, mut fds) = b.peek().unwrap() else {
                panic!()
            };
            let mut copy = UnixStream::from(fds.pop().unwrap());
            near.write_all(b"x").unwrap();
            copy.read_exact(&mut [0]).unwrap();
        }
        assert!(matches!(b.recv::<u32>(), Ok(Received::Message(7, fds)) if fds.len() == 1));
        assert!(matches!(b.peek::<u32>(), Ok(Received::Empty)));
    }

    #[test]
    fn what_a_dead_end_sent_arrives_although_it_left_something_unread() {
        let (a, b) = channels();
        let (near, _far) = UnixStream::pair().unwrap();
        b.send(&1u32, &[]).unwrap();
        a.send(&7u32, &[near.as_fd()]).unwrap();
        drop(a);
        assert!(matches!(b.peek::<u32>(), Ok(Received::Message(7, fds)) if fds.len() == 1));
        assert!(matches!(b.recv::<u32>(), Ok(Received::Message(7, fds)) if fds.len() == 1));
        assert!(matches!(b.recv::<u32>(), Ok(Received::Closed)));
    }

    #[test]
    fn a_full_message_of_descriptors_arrives() {
        let (a, b) = channels();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&1u8, &[file.as_fd(); MAX_FDS]).unwrap();
        let Received::Message(1u8, fds) = b.recv().unwrap() else {
            panic!()
        };
        assert_eq!(fds.len(), MAX_FDS);
        assert!(matches!(b.recv::<u8>().unwrap(), Received::Empty));
    }

    #[test]
    fn a_malformed_message_is_an_error_and_the_next_one_passes() {
        let (a, b) = channels();
        a.send(&(1u8, 2u8), &[]).unwrap();
        a.send(&5u8, &[]).unwrap();
        assert!(matches!(b.recv::<u8>(), Err(ChannelError::Malformed(_))));
        assert!(matches!(b.recv::<u8>().unwrap(), Received::Message(5, _)));
    }
}
