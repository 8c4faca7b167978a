//! The supervisor's end of a daemon's descriptor channel: what is to be sent waits here until
//! the socket takes it, since the daemon may be busy, or hung, and the supervisor never blocks.

use abi::plumbing::{FromWorker, ToWorker};
use runtime::channel::{ChannelError, FdChannel, Received};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// A message with its descriptors.
pub(super) type Message = (ToWorker, Vec<Rc<OwnedFd>>);

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Channel {
    channel: FdChannel,
    outgoing: VecDeque<Message>,
}

impl Channel {
    /// Makes a channel; the daemon's end comes along.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (channel, theirs) = FdChannel::pair()?;
        let outgoing = VecDeque::new();
        Ok((Self { channel, outgoing }, theirs))
    }

    /// Puts a message behind those that wait; [`Channel::flush`] sends.
    pub(super) fn queue(&mut self, message: Message) {
        self.outgoing.push_back(message);
    }

    /// Whether something waits to be sent.
    pub(super) fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what the socket takes; call again a little later if [`Channel::is_behind`]. (Not
    /// when the socket is writable: it is, while too many descriptors are in flight.)
    ///
    /// # Errors
    /// When the daemon is gone.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some((message, fds)) = self.outgoing.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            match self.channel.send(message, &fds) {
                Ok(()) => {
                    self.outgoing.pop_front();
                }
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The channel of a worker that another supervisor has started.
    pub(super) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            channel: FdChannel::new(socket)?,
            outgoing: VecDeque::new(),
        })
    }

    /// Looks at the next message; [`Channel::receive`] takes it. Nothing may be taken that was
    /// not looked at: one can arrive behind a look that found none.
    ///
    /// # Errors
    /// When the message is none; take it off.
    fn peek(&self) -> Result<Received<FromWorker>, ChannelError> {
        self.channel.peek()
    }

    /// Takes one message. What a dead daemon sent is still there: take until
    /// [`Received::Closed`] before its successor starts.
    ///
    /// # Errors
    /// When the message was none; it has been taken off.
    pub(super) fn receive(&self) -> Result<Received<FromWorker>, ChannelError> {
        self.channel.recv()
    }

    /// Takes one message after `copy` was given it: what is taken has always been copied.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    pub(super) fn take_copied(
        &self,
        copy: impl FnOnce(FromWorker, Vec<OwnedFd>),
    ) -> Result<Received<FromWorker>, ChannelError> {
        match self.peek() {
            Ok(Received::Message(message, fds)) => copy(message, fds),
            Err(ChannelError::Malformed(_)) => {}
            other => return other,
        }
        self.receive()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::RegionId;
    use nix::sys::eventfd::EventFd;

    #[test]
    fn a_daemon_that_does_not_read_blocks_nobody_and_gets_everything_later() {
        let (mut channel, worker) = Channel::pair().unwrap();
        let fd: Rc<OwnedFd> = Rc::new(EventFd::new().unwrap().into());
        for serial in 0..5000 {
            channel.queue((ToWorker::Region(RegionId(serial)), vec![Rc::clone(&fd)]));
        }
        channel.flush().unwrap();
        assert!(channel.is_behind());
        let worker = FdChannel::new(worker).unwrap();
        let mut next = 0;
        while next < 5000 {
            match worker.recv::<ToWorker>().unwrap() {
                Received::Message(ToWorker::Region(RegionId(serial)), fds) => {
                    assert_eq!((serial, fds.len()), (next, 1));
                    next += 1;
                }
                Received::Message(..) | Received::Closed => panic!(),
                Received::Empty => channel.flush().unwrap(),
            }
        }
        assert!(!channel.is_behind());
        drop(worker);
        channel.queue((ToWorker::Start, Vec::new()));
        assert!(channel.flush().is_err());
    }

    #[test]
    fn what_is_taken_was_copied_although_messages_arrive_at_any_moment() {
        const MESSAGES: u64 = 50_000;
        let (channel, worker) = Channel::pair().unwrap();
        let sender = std::thread::spawn(move || {
            let worker = FdChannel::new(worker).unwrap();
            for id in 0..MESSAGES {
                let key = abi::plumbing::StoreKey {
                    class: abi::plumbing::StoreClass::Shadow,
                    id,
                    incarnation: 1,
                };
                while worker.send(&FromWorker::Forget(vec![key]), &[]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let (mut copied, mut taken) = (0, 0);
        loop {
            match channel.take_copied(|_, _| copied += 1).unwrap() {
                Received::Message(..) => taken += 1,
                Received::Empty => {}
                Received::Closed => break,
            }
            assert_eq!(copied, taken);
        }
        assert_eq!(taken, MESSAGES);
        sender.join().unwrap();
    }
}
