//! The keeper's process: one thread, one `poll`.

use super::{FromKeeper, Key, ToKeeper};
use crate::admin::server::accept_own;
use crate::rundir::RunDir;
use crate::supervisor::{listener, raise_descriptor_limit};
use crate::topology::is_netdevd;
use abi::plumbing::{FromWorker, MAX_FDS, ToWorker};
use abi::{RegionId, ServiceId};
use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::channel::{ChannelError, FdChannel, Received};
use shm::crash::{self, Point};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Time between two looks whether the constellation's directory still exists, while there is no
/// supervisor.
const LOOK_MS: u16 = 1000;

/// Longest wait for a supervisor to take a message, and for a netdevd.
const PATIENCE_MS: u16 = 2000;

#[derive(Debug)]
struct Keeper {
    rundir: RunDir,
    listener: OwnedFd,
    supervisor: Option<FdChannel>,
    held: BTreeMap<Key, OwnedFd>,
    /// The daemons' channels again, as what they are, while there is no supervisor.
    channels: BTreeMap<ServiceId, FdChannel>,
    ended: bool,
}

/// The whole life of a keeper whose supervisor's channel is `channel`.
///
/// # Errors
/// When it cannot listen for a new supervisor.
pub(crate) fn main(rundir: RunDir, channel: OwnedFd) -> anyhow::Result<()> {
    crash::install(crash::KEEPER);
    raise_descriptor_limit();
    let mut keeper = Keeper {
        listener: listener(&rundir.keeper_socket(), 0o600)?,
        rundir,
        supervisor: Some(FdChannel::new(channel).context("the supervisor's channel")?),
        held: BTreeMap::new(),
        channels: BTreeMap::new(),
        ended: false,
    };
    while !keeper.ended {
        keeper.turn();
    }
    Ok(())
}

impl Keeper {
    fn turn(&mut self) {
        let timeout = match self.supervisor {
            Some(_) => PollTimeout::NONE,
            None => PollTimeout::from(LOOK_MS),
        };
        let supervisor = self.supervisor.as_ref().map(AsFd::as_fd);
        let services: Vec<ServiceId> = self.channels.keys().copied().collect();
        let mut fds: Vec<PollFd<'_>> = [self.listener.as_fd()]
            .into_iter()
            .chain(supervisor)
            .chain(self.channels.values().map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut fds, timeout);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let mut ready = ready.into_iter();
        let knocks = ready.next() == Some(true);
        if self.supervisor.is_some() {
            if ready.next() == Some(true) {
                self.hear_supervisor();
            }
        } else {
            for (service, ready) in services.into_iter().zip(ready) {
                if ready {
                    self.hear_daemon(service);
                }
            }
            // Nobody can find us any more: the constellation was cleaned away.
            if !self.rundir.keeper_socket().exists() {
                tracing::info!("the constellation's directory is gone");
                self.ended = true;
            }
        }
        if knocks {
            self.welcome();
        }
    }

    fn hear_supervisor(&mut self) {
        while let Some(channel) = &self.supervisor {
            match channel.recv::<ToKeeper>() {
                Ok(Received::Message(message, fds)) => {
                    let kind = message.kind();
                    crash::reach_for(Point::KeeperHeard, kind);
                    self.on_message(message, fds);
                    crash::reach_for(Point::KeeperDone, kind);
                }
                Ok(Received::Empty) => return,
                Ok(Received::Closed) | Err(ChannelError::Io(_)) => self.orphan(),
                Err(error @ ChannelError::Malformed(_)) => tracing::warn!(%error, "supervisor"),
            }
            if self.ended {
                return;
            }
        }
    }

    fn on_message(&mut self, message: ToKeeper, fds: Vec<OwnedFd>) {
        match message {
            ToKeeper::Keep(keys) if keys.len() == fds.len() => {
                self.held.extend(keys.into_iter().zip(fds));
            }
            ToKeeper::Keep(keys) => {
                let (keys, fds) = (keys.len(), fds.len());
                tracing::warn!(keys, fds, "not kept: descriptors are missing");
            }
            ToKeeper::Forget(keys) => {
                for key in keys {
                    self.held.remove(&key);
                }
            }
            ToKeeper::Fetch | ToKeeper::Look => {}
            ToKeeper::End => self.ended = true,
        }
    }

    /// The supervisor is dead: what daemons store is ours to take.
    fn orphan(&mut self) {
        tracing::warn!("the supervisor died; the daemons run on, `strata up` adopts them");
        self.supervisor = None;
        let channels = self.held.iter().filter_map(|(key, fd)| match key {
            Key::Channel(service) => {
                let channel = FdChannel::new(fd.try_clone().ok()?).ok()?;
                Some((*service, channel))
            }
            _ => None,
        });
        self.channels = channels.collect();
    }

    /// What a daemon stores while there is no supervisor.
    fn hear_daemon(&mut self, service: ServiceId) {
        while let Some(channel) = self.channels.get(&service) {
            match channel.recv::<FromWorker>() {
                Ok(Received::Message(message, fds)) => self.store(service, message, fds),
                Ok(Received::Empty) => return,
                Err(ChannelError::Malformed(_)) => {}
                Ok(Received::Closed) | Err(ChannelError::Io(_)) => {
                    // Dead. Everything it has stored is here for its successor.
                    self.channels.remove(&service);
                }
            }
        }
    }

    fn store(&mut self, service: ServiceId, message: FromWorker, fds: Vec<OwnedFd>) {
        match message {
            FromWorker::Store(keys) if keys.len() == fds.len() => {
                let keys = keys.into_iter().map(|key| Key::Stored(service, key));
                self.held.extend(keys.zip(fds));
            }
            FromWorker::Store(_) => tracing::warn!(service = service.0, "not stored"),
            FromWorker::Forget(keys) => {
                for key in keys {
                    self.held.remove(&Key::Stored(service, key));
                }
            }
            FromWorker::ShareRegion(region) if region.transport() == service => {
                if let Some(fd) = fds.into_iter().next() {
                    self.tell_netdevds(&ToWorker::Region(region), &[fd.as_fd()]);
                    self.held.insert(Key::Region(region), fd);
                }
            }
            FromWorker::UnshareRegion(region) if region.transport() == service => {
                self.unshare(region);
            }
            FromWorker::ShareRegion(_) | FromWorker::UnshareRegion(_) => {
                tracing::warn!(service = service.0, "a region that is not its own");
            }
        }
    }

    fn unshare(&mut self, region: RegionId) {
        // Even of one that is not held: a supervisor that died may have had it forgotten here, and
        // told no netdevd.
        self.held.remove(&Key::Region(region));
        self.tell_netdevds(&ToWorker::RegionGone(region), &[]);
    }

    fn tell_netdevds(&self, message: &ToWorker, fds: &[BorrowedFd<'_>]) {
        let netdevds = self.channels.iter().filter(|(id, _)| is_netdevd(**id));
        for (_, channel) in netdevds {
            // One that hangs hears of it from the next supervisor.
            let _ = send(channel, message, fds);
        }
    }

    /// A new supervisor: it gets everything, and takes over, or looks first at what there is.
    fn welcome(&mut self) {
        let Ok(Ok(channel)) = accept_own(&self.listener).map(FdChannel::new) else {
            return;
        };
        let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut wait, PollTimeout::from(PATIENCE_MS));
        match channel.recv::<ToKeeper>() {
            Ok(Received::Message(ToKeeper::Fetch, _)) => {}
            Ok(Received::Message(ToKeeper::Look, _)) => {
                let plan = self.held.get(&Key::Plan).map(AsFd::as_fd);
                let message = FromKeeper::Kept(plan.iter().map(|_| Key::Plan).collect());
                let _ = send(&channel, &message, plan.as_slice());
                return;
            }
            _ => return,
        }
        if self.supervisor.is_some() {
            // Its predecessor lives, or is only just dying: it will try again.
            return;
        }
        match self.give(&channel) {
            Ok(()) => {
                tracing::info!("a new supervisor took over");
                self.channels.clear();
                self.supervisor = Some(channel);
            }
            Err(error) => tracing::warn!(%error, "a new supervisor did not take over"),
        }
    }

    fn give(&self, channel: &FdChannel) -> Result<(), ChannelError> {
        let all: Vec<_> = self.held.iter().collect();
        for chunk in all.chunks(MAX_FDS) {
            let keys = chunk.iter().map(|(key, _)| **key).collect();
            let fds: Vec<_> = chunk.iter().map(|(_, fd)| fd.as_fd()).collect();
            send(channel, &FromKeeper::Kept(keys), &fds)?;
        }
        send(channel, &FromKeeper::Complete, &[])
    }
}

/// Sends, waiting for room for a while.
fn send<T: serde::Serialize>(
    channel: &FdChannel,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let begin = std::time::Instant::now();
    loop {
        match channel.send(message, fds) {
            Err(ChannelError::Io(error))
                if error.kind() == io::ErrorKind::WouldBlock
                    && begin.elapsed().as_millis() < PATIENCE_MS.into() =>
            {
                let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut wait, PollTimeout::from(10u8));
                // Writable it is also while too many descriptors are in flight.
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}
