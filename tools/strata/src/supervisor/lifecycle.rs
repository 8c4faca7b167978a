//! Starting daemons, hearing what they say, and what follows when they die.

use super::channel::Message;
use super::control::{Event, What};
use super::daemon::{self, Daemon, Planned, State, Worker};
use super::keeper::Keeper;
use super::{Mode, Source, Supervisor, quarantine};
use crate::keeper::Key;
use crate::orphans;
use abi::control::{FromDaemon, ToDaemon};
use abi::plumbing::{FromWorker, ToWorker};
use abi::{Nanos, ServiceId};
use anyhow::Context;
use runtime::channel::{ChannelError, Received};
use runtime::clock;
use shm::crash::{self, Point};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Messages taken from a daemon's channel before the others get their turn.
const BUDGET: usize = 256;

/// Deaths before the first readiness after which `strata up` fails: what does not start the
/// third time will not.
const STARTING_DEATHS: u32 = 3;

/// How long a daemon may take to finish, in nanoseconds, before it is killed.
const GRACE: Nanos = 2_000_000_000;

impl Supervisor {
    /// Starts an incarnation of `id`.
    pub(super) fn start(&mut self, id: ServiceId) {
        match self.try_start(id) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!("{error:#}");
                if self.mode == Mode::Starting {
                    self.stop(Some(format!("{error:#}")));
                }
                let policy = self.options.config.restart;
                if let Some(daemon) = self.daemons.get_mut(&id) {
                    if let Some(worker) = daemon.worker_mut() {
                        worker.kill("cannot be watched");
                    }
                    daemon.last_death = Some(format!("{error:#}"));
                    let at = clock::now().saturating_add(daemon::nanos(policy.backoff_max));
                    daemon.state = State::Waiting(at);
                }
            }
        }
    }

    fn try_start(&mut self, id: ServiceId) -> anyhow::Result<()> {
        let now = clock::now();
        let daemon = self.daemons.get(&id).context("no such service")?;
        let incarnation = daemon.incarnations;
        let config = self.config_of(daemon, incarnation);
        let process = self.process(id, incarnation)?;
        crash::reach(Point::ProcessMade);
        let daemon = self.daemons.get_mut(&id).context("no such service")?;
        let name = &daemon.service.name;
        process.control.send(ToDaemon::Configure(Box::new(config)));
        let mut worker = Worker::new(process, now);
        // Before it has anything: a worker that the keeper does not know gets no plumbing, should
        // this process die here, and ends.
        if let Some(keeper) = &mut self.keeper {
            keeper.keep(worker.keys(id));
        }
        crash::reach(Point::WorkerKept);
        let channel = &mut worker.channel;
        for message in self.plumbing.messages(&self.topology, id) {
            channel.queue(message);
        }
        for message in daemon.store.restore() {
            channel.queue(message);
        }
        if daemon.service.is_netdevd() {
            for (region, fd) in self.regions.iter() {
                channel.queue((ToWorker::Region(region), vec![fd]));
            }
        }
        channel.queue((ToWorker::Start, Vec::new()));
        // A failure to send is a death, and the child's descriptor tells of that.
        let _ = channel.flush();
        crash::reach(Point::PlumbingSent);
        daemon.incarnations = incarnation.wrapping_add(1);
        let pid = worker.child.pid().as_raw();
        tracing::info!(pid, incarnation, "{name} started");
        daemon.state = State::Alive(Box::new(worker));
        self.watch_worker(id)?;
        self.note_processes();
        Ok(())
    }

    /// Waits for what a worker sends, and for its end.
    pub(super) fn watch_worker(&self, id: ServiceId) -> anyhow::Result<()> {
        let worker = self.daemons.get(&id).and_then(Daemon::worker);
        let worker = worker.context("no such worker")?;
        self.watch(&worker.child, Source::Child(id))
            .context("epoll")?;
        self.watch(&worker.channel, Source::Channel(id))
            .context("epoll")?;
        Ok(())
    }

    /// Writes down which processes there are, for when this one is killed.
    pub(super) fn note_processes(&self) {
        let keeper = self.keeper.as_ref().map(Keeper::pid);
        let living = self.daemons.values().filter_map(|daemon| {
            let pid = daemon.worker()?.child.pid();
            Some((daemon.service.name.as_str(), pid))
        });
        let all = living.chain(keeper.map(|pid| ("keeper", pid)));
        orphans::record(&self.options.rundir, all);
    }

    /// Begins to stop everything; `why` if it is a failure.
    pub(super) fn stop(&mut self, why: Option<String>) {
        if matches!(self.mode, Mode::Stopping(_)) {
            return;
        }
        tracing::info!("stopping");
        self.mode = Mode::Stopping(why);
        let ids: Vec<_> = self.daemons.keys().copied().collect();
        for id in ids {
            self.put_away(id);
            self.finish(id, Planned::Stop);
        }
    }

    /// Asks `id` to finish; it is killed if it does not. A daemon that does not live is started
    /// (for a restart) or stays down.
    pub(super) fn finish(&mut self, id: ServiceId, planned: Planned) {
        let now = clock::now();
        let Some(daemon) = self.daemons.get_mut(&id) else {
            return;
        };
        if daemon.worker().is_none() {
            daemon.streak = 0;
            daemon.state = match planned {
                Planned::Restart => State::Waiting(now),
                Planned::Stop => State::Down,
            };
            return;
        }
        let Some(worker) = daemon.worker_mut() else {
            return;
        };
        worker.planned = Some(planned);
        worker.kill_later(now.saturating_add(GRACE), "did not finish in time");
        if worker.ready.is_none() || !worker.control.send(ToDaemon::Drain) {
            worker.kill("asked to finish before it was ready");
        }
    }

    /// Signals: SIGTERM and SIGINT stop everything.
    pub(super) fn on_signal(&mut self) {
        let mut bytes = [0; 16];
        if matches!(self.signals.read(&mut bytes), Ok(n) if n > 0) {
            self.stop(None);
        }
    }

    /// What the daemons said on their control channels.
    pub(super) fn on_inbox(&mut self) {
        for event in self.inbox.take() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = clock::now();
        let said = match &event.what {
            What::Said(said) => Some(said),
            What::Closed(_) => None,
        };
        if self.on_spare_said(event.service, event.incarnation, said) {
            return;
        }
        let Some(daemon) = self.daemons.get_mut(&event.service) else {
            return;
        };
        let current = daemon.incarnations.wrapping_sub(1);
        let name = daemon.service.name.clone();
        let Some(worker) = daemon.worker_mut() else {
            return;
        };
        if event.incarnation != current {
            return;
        }
        match event.what {
            What::Closed(why) => worker.lost(now, format!("control channel: {why}")),
            What::Said(FromDaemon::Hello { layout, .. }) if layout != abi::LAYOUT_VERSION => {
                worker.kill(format!(
                    "is of layout version {layout}, not {}",
                    abi::LAYOUT_VERSION
                ));
            }
            What::Said(FromDaemon::Hello { .. }) => {}
            What::Said(FromDaemon::Ready) => {
                worker.became_ready(now);
                let took = now.saturating_sub(worker.started) / 1000;
                daemon.proven = true;
                tracing::info!(took_us = took, "{name} ready");
                if self.mode == Mode::Starting && self.daemons.values().all(|d| d.proven) {
                    self.mode = Mode::Running;
                    let ids: Vec<_> = self.daemons.keys().copied().collect();
                    ids.into_iter().for_each(|id| self.wants_spare(id));
                }
                self.wants_spare(event.service);
            }
            // Its end is what counts, and the child's descriptor tells of it.
            What::Said(FromDaemon::Drained) => {}
            What::Said(FromDaemon::Warning(text)) => tracing::warn!("{name}: {text}"),
            What::Said(FromDaemon::Report { id, columns, rows }) => {
                self.on_report(id, columns, rows);
            }
        }
    }

    /// Descriptors that `id` stores, or a closed channel.
    pub(super) fn on_channel(&mut self, id: ServiceId) {
        let (_, ended) = self.take_messages(id, BUDGET);
        if ended && let Some(worker) = self.daemons.get_mut(&id).and_then(|d| d.worker_mut()) {
            // It is exiting, or has lost what it cannot live without. Do not look again: the
            // closed channel would stay readable for ever.
            let _ = self.epoll.delete(&worker.channel);
            worker.lost(clock::now(), "closed its descriptor channel");
        }
    }

    /// Deals with at most `budget` messages of `id`: how many there were, and whether the channel
    /// is closed and empty.
    fn take_messages(&mut self, id: ServiceId, budget: usize) -> (usize, bool) {
        for count in 0..budget {
            let worker = self.daemons.get(&id).and_then(Daemon::worker);
            let Some(channel) = worker.map(|worker| &worker.channel) else {
                return (count, false);
            };
            let mut has_room = true;
            let received = match &mut self.keeper {
                Some(keeper) => channel.take_copied(|message, fds| {
                    has_room = keeper.mirror(id, &message, fds);
                    crash::reach_for(Point::MessageCopied, message.kind());
                }),
                None => channel.receive(),
            };
            if !has_room {
                self.replace_keeper("takes nothing");
            }
            match received {
                Ok(Received::Message(message, fds)) => {
                    let kind = message.kind();
                    crash::reach_for(Point::MessageTaken, kind);
                    self.on_message(id, message, fds);
                    crash::reach_for(Point::MessageDone, kind);
                }
                Ok(Received::Empty) => return (count, false),
                Ok(Received::Closed) => return (count, true),
                Err(error) => {
                    self.on_malformed(id, &error);
                    if matches!(error, ChannelError::Io(_)) {
                        return (count, true);
                    }
                }
            }
        }
        (budget, false)
    }

    fn on_malformed(&mut self, id: ServiceId, error: &ChannelError) {
        if let Some(daemon) = self.daemons.get_mut(&id) {
            tracing::warn!("{}: descriptor channel: {error}", daemon.service.name);
            if let Some(worker) = daemon.worker_mut() {
                worker.kill(format!("descriptor channel: {error}"));
            }
        }
    }

    fn on_message(&mut self, id: ServiceId, message: FromWorker, fds: Vec<OwnedFd>) {
        let stored: usize = self.daemons.values().map(|d| d.store.len()).sum();
        let room = self.room.saturating_sub(stored);
        let Some(daemon) = self.daemons.get_mut(&id) else {
            return;
        };
        let name = daemon.service.name.clone();
        let done = match message {
            FromWorker::Store(keys) => daemon.store.keep(&keys, fds, room),
            FromWorker::Forget(keys) => {
                daemon.store.forget(&keys);
                Ok(())
            }
            FromWorker::ShareRegion(region) => match fds.into_iter().next() {
                None => Err("a region came without its descriptor".to_owned()),
                Some(fd) => self.regions.share(id, region, fd).map(|fd| {
                    self.tell_netdevds(|| (ToWorker::Region(region), vec![Rc::clone(&fd)]));
                }),
            },
            FromWorker::UnshareRegion(region) => {
                if self.regions.unshare(id, region) {
                    self.tell_netdevds(|| (ToWorker::RegionGone(region), Vec::new()));
                }
                Ok(())
            }
        };
        if let Err(why) = done {
            tracing::warn!("{name}: not stored: {why}");
        }
    }

    fn tell_netdevds(&mut self, message: impl Fn() -> Message) {
        for daemon in self.daemons.values_mut() {
            if daemon.service.is_netdevd()
                && let Some(worker) = daemon.worker_mut()
            {
                worker.channel.queue(message());
                let _ = worker.channel.flush();
            }
        }
    }

    /// The process of `id` has ended, perhaps.
    pub(super) fn on_child(&mut self, id: ServiceId) {
        let Some(ended) = self.daemons.get(&id).and_then(|d| d.worker()?.child.reap()) else {
            return;
        };
        // What it stored before it died is still in the channel, and its successor needs it.
        loop {
            let (count, ended) = self.take_messages(id, BUDGET);
            if ended || count == 0 {
                break;
            }
        }
        crash::reach(Point::DeadDrained);
        if let Some(keeper) = &mut self.keeper {
            keeper.forget(vec![Key::Channel(id), Key::Worker(id)]);
        }
        crash::reach(Point::WorkerForgotten);
        let policy = self.options.config.restart;
        let now = clock::now();
        let Some(daemon) = self.daemons.get_mut(&id) else {
            return;
        };
        let name = daemon.service.name.clone();
        let killed = daemon.worker().and_then(|worker| worker.killed.clone());
        let hung = daemon.worker().is_some_and(|worker| worker.hung);
        let is_crash = hung || (killed.is_none() && quarantine::is_crash(ended));
        let how = killed.unwrap_or_else(|| ended.to_string());
        let Some(worker) = daemon.died(&policy, now, &how) else {
            return;
        };
        let _ = self.epoll.delete(&worker.child);
        let _ = self.epoll.delete(&worker.channel);
        let planned = worker.planned.is_some();
        let ready = worker.ready;
        drop(worker);
        if !planned && daemon.revert(ready, now, &how) {
            self.keep_executables(id);
        }
        if is_crash {
            self.blame(id, &how, now);
        }
        let Some(daemon) = self.daemons.get(&id) else {
            return;
        };
        match (&daemon.state, planned) {
            (_, true) => tracing::info!("{name} finished: {how}"),
            (State::Failed, _) => tracing::error!("{name} died: {how}; given up on it"),
            (_, false) => tracing::warn!("{name} died: {how}"),
        }
        if self.mode == Mode::Starting && !daemon.proven && daemon.streak >= STARTING_DEATHS {
            self.stop(Some(format!("{name} does not start: {how}")));
        }
    }
}
