//! Where descriptors are kept that must outlive the daemon: the supervisor, or a test's stand-in.

use abi::RegionId;
use abi::plumbing::StoreKey;
use runtime::StoreClient;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The calls of [`runtime::StoreClient`] that sessions need.
pub trait FdStore {
    /// Keeps a copy of `fd` under `key`.
    fn store(&mut self, key: StoreKey, fd: BorrowedFd<'_>);
    /// Drops it.
    fn forget(&mut self, key: StoreKey);
    /// Makes a session memory known to the netdevds.
    fn share_region(&mut self, id: RegionId, fd: BorrowedFd<'_>);
    /// Takes it back.
    fn unshare_region(&mut self, id: RegionId);
    /// Sends what is queued.
    ///
    /// # Errors
    /// When something could not be stored.
    fn flush(&mut self) -> io::Result<()>;
}

impl FdStore for StoreClient {
    fn store(&mut self, key: StoreKey, fd: BorrowedFd<'_>) {
        Self::store(self, key, fd);
    }

    fn forget(&mut self, key: StoreKey) {
        Self::forget(self, key);
    }

    fn share_region(&mut self, id: RegionId, fd: BorrowedFd<'_>) {
        Self::share_region(self, id, fd);
    }

    fn unshare_region(&mut self, id: RegionId) {
        Self::unshare_region(self, id);
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::flush(self)
    }
}

/// A store in this process, for tests: what was flushed survives the [`Sessions`](crate::Sessions)
/// that stored it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Kept descriptors.
    pub kept: BTreeMap<StoreKey, OwnedFd>,
    /// Shared regions.
    pub shared: BTreeMap<RegionId, OwnedFd>,
    queue: Vec<Queued>,
}

#[derive(Debug)]
enum Queued {
    Store(StoreKey, OwnedFd),
    Forget(StoreKey),
    Share(RegionId, OwnedFd),
    Unshare(RegionId),
}

impl MemoryStore {
    /// Copies of everything kept, as a successor is given them.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub fn restored(&self) -> io::Result<Vec<(StoreKey, OwnedFd)>> {
        self.kept
            .iter()
            .map(|(k, fd)| Ok((*k, fd.try_clone()?)))
            .collect()
    }

    /// Loses what was not flushed, as a death does.
    pub fn crash(&mut self) {
        self.queue.clear();
    }
}

impl FdStore for MemoryStore {
    fn store(&mut self, key: StoreKey, fd: BorrowedFd<'_>) {
        if let Ok(copy) = fd.try_clone_to_owned() {
            self.queue.push(Queued::Store(key, copy));
        }
    }

    fn forget(&mut self, key: StoreKey) {
        self.queue.push(Queued::Forget(key));
    }

    fn share_region(&mut self, id: RegionId, fd: BorrowedFd<'_>) {
        if let Ok(copy) = fd.try_clone_to_owned() {
            self.queue.push(Queued::Share(id, copy));
        }
    }

    fn unshare_region(&mut self, id: RegionId) {
        self.queue.push(Queued::Unshare(id));
    }

    fn flush(&mut self) -> io::Result<()> {
        for q in self.queue.drain(..) {
            match q {
                Queued::Store(k, fd) => {
                    self.kept.insert(k, fd);
                }
                Queued::Forget(k) => {
                    self.kept.remove(&k);
                }
                Queued::Share(id, fd) => {
                    self.shared.insert(id, fd);
                }
                Queued::Unshare(id) => {
                    self.shared.remove(&id);
                }
            }
        }
        Ok(())
    }
}
