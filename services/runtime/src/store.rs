//! The daemon's side of the supervisor's descriptor store.
//!
//! What is stored outlives the daemon; the successor finds it in
//! [`Plumbing::stored`](crate::Plumbing). Requests are queued in order and sent in batches by
//! [`StoreClient::flush`], which must have returned `Ok` before a stored descriptor is first
//! used: from then on the kernel holds it, whatever happens to us.
//!
//! Without a supervisor (it died) nothing is stored, and that is right: nobody is there to
//! restart us either.

use crate::channel::{ChannelError, FdChannel};
use abi::RegionId;
use abi::plumbing::{FromWorker, MAX_FDS, StoreKey};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm::crash::{self, Point};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Milliseconds to wait for room at a time, and how often. The supervisor never blocks, so a
/// full socket empties at once unless the supervisor hangs: then nobody waits for it any more,
/// since traffic would wait as well.
const WAIT_MS: u8 = 10;
const WAITS: u32 = 2;

#[derive(Debug)]
enum Entry {
    Store(StoreKey, OwnedFd),
    Forget(StoreKey),
    Share(RegionId, OwnedFd),
    Unshare(RegionId),
}

/// Queues and sends requests to the supervisor's store.
#[derive(Debug)]
pub struct StoreClient {
    channel: Arc<FdChannel>,
    pending: VecDeque<Entry>,
    /// The first failure to duplicate a descriptor, told by the next flush.
    failed: Option<io::Error>,
    orphaned: bool,
    /// The supervisor has not taken the last message.
    stalled: bool,
}

impl StoreClient {
    pub(crate) fn new(channel: Arc<FdChannel>) -> Self {
        Self {
            channel,
            pending: VecDeque::new(),
            failed: None,
            orphaned: false,
            stalled: false,
        }
    }

    /// Keeps a copy of `fd` with the supervisor under `key`.
    pub fn store(&mut self, key: StoreKey, fd: BorrowedFd<'_>) {
        self.with_copy(fd, |copy| Entry::Store(key, copy));
    }

    /// Drops what is stored under `key`.
    pub fn forget(&mut self, key: StoreKey) {
        self.pending.push_back(Entry::Forget(key));
    }

    /// Makes a session memory known to all netdevds, for gathering payload.
    pub fn share_region(&mut self, id: RegionId, fd: BorrowedFd<'_>) {
        self.with_copy(fd, |copy| Entry::Share(id, copy));
    }

    /// Takes it back.
    pub fn unshare_region(&mut self, id: RegionId) {
        self.pending.push_back(Entry::Unshare(id));
    }

    /// Whether the supervisor is gone.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.orphaned
    }

    /// Sends everything queued. Cheap when nothing is.
    ///
    /// # Errors
    /// When a descriptor could not be duplicated (it is not stored: give it up), or the
    /// supervisor does not take messages (they stay queued; try again later): `TimedOut` the first
    /// time, and `WouldBlock`, without waiting, as long as that lasts.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((message, count)) = self.next_message() {
            let fds: Vec<BorrowedFd<'_>> = self
                .pending
                .iter()
                .take(count)
                .filter_map(|entry| match entry {
                    Entry::Store(_, fd) | Entry::Share(_, fd) => Some(fd.as_fd()),
                    Entry::Forget(_) | Entry::Unshare(_) => None,
                })
                .collect();
            if !self.orphaned {
                let sent = self.send(&message, &fds);
                self.stalled = sent.as_ref().is_err_and(|e| {
                    matches!(
                        e.kind(),
                        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
                    )
                });
                if !sent? {
                    tracing::warn!("the supervisor is gone; descriptors are no longer stored");
                    self.orphaned = true;
                }
            }
            crash::reach_for(Point::StoreSent, message.kind());
            self.pending.drain(..count);
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn with_copy(&mut self, fd: BorrowedFd<'_>, entry: impl FnOnce(OwnedFd) -> Entry) {
        match fd.try_clone_to_owned() {
            Ok(copy) => self.pending.push_back(entry(copy)),
            Err(e) => self.failed = self.failed.take().or(Some(e)),
        }
    }

    /// The message for the longest run of like entries at the front, and the run's length.
    fn next_message(&self) -> Option<(FromWorker, usize)> {
        let stores = self.pending.iter().map_while(|e| match e {
            Entry::Store(key, _) => Some(*key),
            _ => None,
        });
        let forgets = self.pending.iter().map_while(|e| match e {
            Entry::Forget(key) => Some(*key),
            _ => None,
        });
        Some(match self.pending.front()? {
            Entry::Store(..) => {
                let keys: Vec<_> = stores.take(MAX_FDS).collect();
                let n = keys.len();
                (FromWorker::Store(keys), n)
            }
            Entry::Forget(_) => {
                let keys: Vec<_> = forgets.take(MAX_FDS).collect();
                let n = keys.len();
                (FromWorker::Forget(keys), n)
            }
            Entry::Share(id, _) => (FromWorker::ShareRegion(*id), 1),
            Entry::Unshare(id) => (FromWorker::UnshareRegion(*id), 1),
        })
    }

    /// Sends one message, waiting a little for room; false when nobody is at the other end.
    fn send(&self, message: &FromWorker, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        for _ in 0..WAITS {
            match self.channel.send(message, fds) {
                Ok(()) => return Ok(true),
                Err(ChannelError::Io(e))
                    if e.kind() == io::ErrorKind::WouldBlock && self.stalled =>
                {
                    return Err(e);
                }
                Err(ChannelError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut wait = [PollFd::new(self.channel.as_fd(), PollFlags::POLLOUT)];
                    let before = std::time::Instant::now();
                    let _ = poll(&mut wait, PollTimeout::from(WAIT_MS));
                    if before.elapsed().is_zero() {
                        std::thread::yield_now();
                    }
                }
                Err(ChannelError::Io(e))
                    if matches!(
                        e.kind(),
                        io::ErrorKind::BrokenPipe
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::ConnectionRefused
                            | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(false);
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Received;
    use abi::plumbing::StoreClass;

    fn key(id: u64) -> StoreKey {
        StoreKey {
            class: StoreClass::Shadow,
            id,
            incarnation: 1,
        }
    }

    fn client() -> (StoreClient, FdChannel) {
        let (ours, theirs) = FdChannel::pair().unwrap();
        (
            StoreClient::new(Arc::new(ours)),
            FdChannel::new(theirs).unwrap(),
        )
    }

    #[test]
    fn order_is_kept_and_runs_are_batched() {
        let (mut client, supervisor) = client();
        let file = std::fs::File::open("/dev/null").unwrap();
        for id in 0..300 {
            client.store(key(id), file.as_fd());
        }
        client.forget(key(1));
        client.share_region(RegionId(1 << 24), file.as_fd());
        client.flush().unwrap();
        let mut seen = Vec::new();
        while let Received::Message(m, fds) = supervisor.recv::<FromWorker>().unwrap() {
            seen.push(match m {
                FromWorker::Store(keys) => ("store", keys.len(), fds.len()),
                FromWorker::Forget(keys) => ("forget", keys.len(), fds.len()),
                FromWorker::ShareRegion(_) => ("share", 1, fds.len()),
                FromWorker::UnshareRegion(_) => ("unshare", 1, fds.len()),
            });
        }
        assert_eq!(
            seen,
            [
                ("store", 253, 253),
                ("store", 47, 47),
                ("forget", 1, 0),
                ("share", 1, 1)
            ]
        );
    }

    #[test]
    fn a_full_socket_loses_nothing() {
        let (mut client, supervisor) = client();
        let reader = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let mut keys = 0;
            while keys < 20_000 {
                match supervisor.recv::<FromWorker>().unwrap() {
                    Received::Message(FromWorker::Forget(k), _) => keys += k.len(),
                    Received::Message(..) | Received::Closed => panic!(),
                    Received::Empty => std::thread::yield_now(),
                }
            }
            keys
        });
        for id in 0..20_000 {
            client.forget(key(id));
            if id % 3 == 0 {
                // What is not taken stays queued.
                let _ = client.flush();
            }
        }
        while client.flush().is_err() {
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), 20_000);
    }

    #[test]
    fn a_supervisor_that_hangs_is_waited_for_once() {
        let (mut client, supervisor) = client();
        let mut id = 0;
        let mut store_until = |fails: bool| {
            for _ in 0..100_000 {
                id += 1;
                client.forget(key(id));
                if let Err(error) = client.flush() {
                    assert!(fails, "{error}");
                    return (id, error.kind());
                }
                if !fails {
                    break;
                }
            }
            (id, io::ErrorKind::Other)
        };
        assert_eq!(store_until(true).1, io::ErrorKind::TimedOut);
        let begin = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(store_until(true).1, io::ErrorKind::WouldBlock);
        }
        let took = begin.elapsed();
        assert!(
            took < std::time::Duration::from_millis(u64::from(WAIT_MS) * 20),
            "{took:?}"
        );
        // It goes on: all is there, in order.
        let mut seen = Vec::new();
        let mut take = || {
            while let Received::Message(m, _) = supervisor.recv::<FromWorker>().unwrap() {
                if let FromWorker::Forget(keys) = m {
                    seen.extend(keys.into_iter().map(|key| key.id));
                }
            }
            seen.clone()
        };
        take();
        let (last, _) = store_until(false);
        assert_eq!(take(), (1..=last).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_supervisor_the_daemon_goes_on() {
        let (mut client, supervisor) = client();
        drop(supervisor);
        client.forget(key(1));
        client.flush().unwrap();
        assert!(client.is_orphaned());
    }
}
