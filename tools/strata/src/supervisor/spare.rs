//! Spare processes: each daemon has a successor that is started, connected and greeted before it
//! is needed, so that after a death nobody waits for a process to start.
//!
//! ```text
//!   ready, and RECOVERED later -> Spare -> its daemon dies -> Configure, plumbing, Start -> Worker
//!                                   |
//!                                   +-> another build, stop, its own death: put away
//! ```
//!
//! A spare has nothing of the constellation: no configuration, memory or descriptor. So it may
//! die, hang or be killed at any time, and ends by itself when its supervisor does.

use super::channel::Channel;
use super::control::Control;
use super::daemon::Daemon;
use super::spawn::Child;
use super::{Mode, Source, Supervisor, daemon, upgrade};
use abi::control::FromDaemon;
use abi::{Nanos, ServiceId};
use anyhow::Context;
use nix::unistd::Pid;
use runtime::clock;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// From a daemon's readiness to the start of its spare: what waited while it was dead goes first.
const RECOVERED: Nanos = 5_000_000;

/// A process that a daemon's executable was started as, and the ways to talk to it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) channel: Channel,
    pub(super) control: Control,
}

/// A process in reserve.
#[derive(Debug)]
pub(super) struct Spare {
    process: Process,
    /// Which incarnation it can be.
    incarnation: u32,
    /// What it was started from.
    executable: Option<Rc<OwnedFd>>,
    /// It has connected and said hello: all it can do for now.
    greeted: bool,
}

impl Spare {
    fn pid(&self) -> Pid {
        self.process.child.pid()
    }
}

impl Daemon {
    /// The process in reserve, once that is all that it waits for.
    pub(super) fn spare_pid(&self) -> Option<Pid> {
        self.spare.as_ref().filter(|s| s.greeted).map(Spare::pid)
    }

    /// When it is to get a spare, if it needs one.
    pub(super) fn spare_due(&self) -> Option<Nanos> {
        self.spare_at
            .filter(|_| self.spare.is_none() && self.is_running())
    }

    /// Its spare, if that can be incarnation `incarnation` of what is started now: of the same
    /// build, and not stopped by somebody.
    fn take_spare(&mut self, incarnation: u32) -> Option<Spare> {
        let build = |fd: &Option<Rc<OwnedFd>>| fd.as_ref().map(Rc::as_ptr);
        let now = build(&self.executable);
        self.spare.take_if(|spare| {
            spare.incarnation == incarnation
                && build(&spare.executable) == now
                && daemon::is_waiting(spare.pid())
        })
    }
}

impl Supervisor {
    /// A process for incarnation `incarnation` of `id`: the spare, or a new one.
    pub(super) fn process(&mut self, id: ServiceId, incarnation: u32) -> anyhow::Result<Process> {
        let daemon = self.daemons.get_mut(&id).context("no such service")?;
        let spare = daemon.take_spare(incarnation);
        daemon.spare_at = None;
        // One that does not fit.
        self.put_away(id);
        match spare {
            Some(Spare { process, .. }) => {
                // From now on it is watched as what it becomes.
                let _ = self.epoll.delete(&process.child);
                Ok(process)
            }
            None => self.start_process(id, incarnation),
        }
    }

    fn start_process(&self, id: ServiceId, incarnation: u32) -> anyhow::Result<Process> {
        let daemon = self.daemons.get(&id).context("no such service")?;
        let name = &daemon.service.name;
        let (channel, theirs) = Channel::pair().context("cannot make a socket pair")?;
        let control = Control::open(&self.inbox, id, incarnation, name)
            .with_context(|| format!("cannot make the control channel of {name}"))?;
        let executable = match &daemon.executable {
            Some(fd) => upgrade::path(fd),
            None => self.options.executable.clone(),
        };
        let title = format!("strata: {name}");
        let arguments = [&title, "__worker", "--control", control.server()];
        let child = Child::start(&executable, &arguments, &theirs)?;
        Ok(Process {
            child,
            channel,
            control,
        })
    }

    /// Starts the spares that are due.
    pub(super) fn tick_spares(&mut self, now: Nanos) {
        let due = |daemon: &&Daemon| daemon.spare_due().is_some_and(|at| at <= now);
        let ids: Vec<_> = self
            .daemons
            .values()
            .filter(due)
            .map(|d| d.service.id)
            .collect();
        for id in ids {
            if let Err(error) = self.start_spare(id) {
                tracing::warn!("no spare: {error:#}");
                self.spare_later(id);
            }
        }
    }

    fn start_spare(&mut self, id: ServiceId) -> anyhow::Result<()> {
        let daemon = self.daemons.get(&id).context("no such service")?;
        let incarnation = daemon.incarnations;
        let executable = daemon.executable.clone();
        let process = self.start_process(id, incarnation)?;
        self.watch(&process.child, Source::Spare(id))
            .context("epoll")?;
        if let Some(daemon) = self.daemons.get_mut(&id) {
            daemon.spare_at = None;
            daemon.spare = Some(Spare {
                process,
                incarnation,
                executable,
                greeted: false,
            });
        }
        Ok(())
    }

    /// `id` is ready: it can do with a spare soon, if everybody has had a first process.
    pub(super) fn wants_spare(&mut self, id: ServiceId) {
        if self.mode != Mode::Running || !self.options.config.restart.spare {
            return;
        }
        if let Some(daemon) = self.daemons.get_mut(&id) {
            daemon.spare_at = Some(clock::now().saturating_add(RECOVERED));
        }
    }

    /// The spare of `id` failed: one is tried again when things may have changed.
    fn spare_later(&mut self, id: ServiceId) {
        let pause = daemon::nanos(self.options.config.restart.backoff_max);
        if let Some(daemon) = self.daemons.get_mut(&id) {
            daemon.spare_at = Some(clock::now().saturating_add(pause));
        }
    }

    /// Ends the spare of `id`.
    pub(super) fn put_away(&mut self, id: ServiceId) {
        if let Some(spare) = self.daemons.get_mut(&id).and_then(|d| d.spare.take()) {
            spare.process.child.kill();
            self.ending.push(spare.process.child);
            self.ending.retain(|child| child.reap().is_none());
        }
    }

    /// A spare process has ended, perhaps: that of `id`, or one that was put away.
    pub(super) fn on_spare(&mut self, id: ServiceId) {
        self.ending.retain(|child| child.reap().is_none());
        let Some(daemon) = self.daemons.get_mut(&id) else {
            return;
        };
        let Some(how) = daemon.spare.as_ref().and_then(|s| s.process.child.reap()) else {
            return;
        };
        tracing::warn!("the spare process of {} ended: {how}", daemon.service.name);
        daemon.spare = None;
        self.spare_later(id);
    }

    /// Something came on the control channel of `id`'s incarnation to be; whether there is one.
    pub(super) fn on_spare_said(
        &mut self,
        id: ServiceId,
        incarnation: u32,
        said: Option<&FromDaemon>,
    ) -> bool {
        let daemon = self.daemons.get_mut(&id);
        let Some(spare) = daemon
            .and_then(|daemon| daemon.spare.as_mut())
            .filter(|spare| spare.incarnation == incarnation)
        else {
            return false;
        };
        if let Some(FromDaemon::Hello { layout, .. }) = said {
            spare.greeted = true;
            if *layout != abi::LAYOUT_VERSION {
                // Let it be told when it is started in earnest.
                self.put_away(id);
            }
        }
        true
    }
}
