//! Descriptors that daemons keep with the supervisor, as systemd's fd store does: what the far
//! end of a descriptor hangs on must not die with a daemon.

use super::channel::Message;
use abi::plumbing::{MAX_FDS, StoreKey, ToWorker};
use abi::{RegionId, ServiceId};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// What one daemon keeps.
#[derive(Debug, Default)]
pub(super) struct Store {
    kept: BTreeMap<StoreKey, Rc<OwnedFd>>,
}

impl Store {
    /// Keeps `fds` under `keys`; those stored before under the same key are closed.
    ///
    /// # Errors
    /// When the numbers differ or there is no `room` for so many; nothing is kept then.
    pub(super) fn keep(
        &mut self,
        keys: &[StoreKey],
        fds: Vec<OwnedFd>,
        room: usize,
    ) -> Result<(), String> {
        if keys.len() != fds.len() {
            return Err(format!(
                "{} keys came with {} descriptors",
                keys.len(),
                fds.len()
            ));
        }
        if fds.len() > room {
            return Err(format!("no room for more than {room} descriptors"));
        }
        self.kept
            .extend(keys.iter().copied().zip(fds.into_iter().map(Rc::new)));
        Ok(())
    }

    /// What a predecessor of this supervisor kept.
    pub(super) fn adopt(kept: BTreeMap<StoreKey, Rc<OwnedFd>>) -> Self {
        Self { kept }
    }

    /// Everything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (StoreKey, Rc<OwnedFd>)> + '_ {
        self.kept.iter().map(|(key, fd)| (*key, Rc::clone(fd)))
    }

    /// Closes what is kept under `keys`.
    pub(super) fn forget(&mut self, keys: &[StoreKey]) {
        for key in keys {
            self.kept.remove(key);
        }
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Messages that give a new incarnation everything that is kept, [`MAX_FDS`] at a time.
    pub(super) fn restore(&self) -> Vec<Message> {
        let all: Vec<_> = self.kept.iter().collect();
        all.chunks(MAX_FDS)
            .map(|chunk| {
                let keys = chunk.iter().map(|(key, _)| **key).collect();
                let fds = chunk.iter().map(|(_, fd)| Rc::clone(fd)).collect();
                (ToWorker::Restored(keys), fds)
            })
            .collect()
    }
}

/// Session memories that all netdevds know.
#[derive(Debug, Default)]
pub(super) struct Regions {
    shared: BTreeMap<RegionId, Rc<OwnedFd>>,
}

impl Regions {
    /// Takes `fd` as the region `id`, which `by` shares; the descriptor to hand to the netdevds.
    ///
    /// # Errors
    /// When the number is not `by`'s to give: one transport must not replace another's memory.
    pub(super) fn share(
        &mut self,
        by: ServiceId,
        id: RegionId,
        fd: OwnedFd,
    ) -> Result<Rc<OwnedFd>, String> {
        if id.transport() != by {
            return Err(format!("region {:#x} is not of its own numbers", id.0));
        }
        let fd = Rc::new(fd);
        self.shared.insert(id, Rc::clone(&fd));
        Ok(fd)
    }

    /// Those that a predecessor of this supervisor knew.
    pub(super) fn adopt(shared: BTreeMap<RegionId, Rc<OwnedFd>>) -> Self {
        Self { shared }
    }

    /// Takes it back; whether it is `by`'s and netdevds are to be told. They are even of one that
    /// is not there: a supervisor that died may have forgotten it, in the keeper too, and told
    /// nobody.
    pub(super) fn unshare(&mut self, by: ServiceId, id: RegionId) -> bool {
        let own = id.transport() == by;
        if own {
            self.shared.remove(&id);
        }
        own
    }

    /// Every region, for a netdevd that starts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RegionId, Rc<OwnedFd>)> + '_ {
        self.shared.iter().map(|(id, fd)| (*id, Rc::clone(fd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::plumbing::StoreClass;
    use nix::sys::eventfd::EventFd;

    fn key(id: u64, incarnation: u32) -> StoreKey {
        StoreKey {
            class: StoreClass::Shadow,
            id,
            incarnation,
        }
    }

    fn some_fd() -> OwnedFd {
        EventFd::new().unwrap().into()
    }

    #[test]
    fn what_is_kept_comes_back_in_batches() {
        let mut store = Store::default();
        for id in 0..600 {
            store.keep(&[key(id, 1)], vec![some_fd()], 1).unwrap();
        }
        store.forget(&[key(0, 1), key(1, 2), key(9999, 1)]);
        assert_eq!(store.len(), 599);
        let sizes: Vec<_> = store.restore().iter().map(|(_, fds)| fds.len()).collect();
        assert_eq!(sizes, [253, 253, 93]);
    }

    #[test]
    fn incarnations_of_a_slot_are_told_apart() {
        let mut store = Store::default();
        store
            .keep(&[key(7, 1), key(7, 2)], vec![some_fd(), some_fd()], 2)
            .unwrap();
        store.forget(&[key(7, 1)]);
        let [(ToWorker::Restored(keys), _)] = &store.restore()[..] else {
            panic!()
        };
        assert_eq!(keys[..], [key(7, 2)]);
    }

    #[test]
    fn a_message_whose_numbers_differ_is_refused_whole() {
        let mut store = Store::default();
        assert!(
            store
                .keep(&[key(1, 1), key(2, 1)], vec![some_fd()], 9)
                .is_err()
        );
        assert!(store.keep(&[key(1, 1)], vec![some_fd()], 0).is_err());
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn a_transport_cannot_take_the_regions_of_another() {
        let mut regions = Regions::default();
        let (tcpd, udpd) = (ServiceId(2), ServiceId(3));
        let id = RegionId::of_session(tcpd, 1);
        assert!(regions.share(udpd, id, some_fd()).is_err());
        regions.share(tcpd, id, some_fd()).unwrap();
        assert!(!regions.unshare(udpd, id));
        assert!(regions.unshare(tcpd, id));
        assert_eq!(regions.iter().count(), 0);
        // Its predecessor had the message, forgot the region and died: netdevds map it still.
        assert!(regions.unshare(tcpd, id));
    }
}
