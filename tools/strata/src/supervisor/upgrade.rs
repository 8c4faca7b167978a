//! Replacing a daemon by another build: a planned restart with another executable, and the way
//! back if that one does not hold.
//!
//! The executable is held open and started through its descriptor, so that what was upgraded to
//! stays what is started, whatever becomes of the file's name.

use super::Supervisor;
use super::daemon::{Daemon, State};
use super::requests::table;
use super::roles::layouts;
use crate::admin::Reply;
use crate::keeper::Key;
use abi::{Nanos, ServiceId};
use anyhow::{Context, bail};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A build that dies within this time of its first readiness is taken back.
const PROBATION: Nanos = 5_000_000_000;

/// An upgrade that may have to be taken back.
#[derive(Debug)]
pub(super) struct Trial {
    /// What ran before.
    previous: Rc<OwnedFd>,
    /// Why it was taken back.
    pub(super) refused: Option<String>,
}

/// What starts the executable behind `fd`.
pub(super) fn path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn open(executable: &Path) -> anyhow::Result<Rc<OwnedFd>> {
    let name = executable.display();
    let file = File::open(executable).with_context(|| format!("cannot open {name}"))?;
    let about = file.metadata().with_context(|| format!("{name}"))?;
    if !about.is_file() || about.permissions().mode() & 0o111 == 0 {
        bail!("{name} is no executable file");
    }
    Ok(Rc::new(file.into()))
}

impl Trial {
    /// An upgrade from `previous`.
    pub(super) fn of(previous: Rc<OwnedFd>) -> Self {
        Self {
            previous,
            refused: None,
        }
    }
}

impl Daemon {
    /// The build before, while the upgrade may have to be taken back.
    fn on_trial(&self) -> Option<&Rc<OwnedFd>> {
        let trial = self.trial.as_ref().filter(|trial| trial.refused.is_none());
        trial.map(|trial| &trial.previous)
    }

    /// Its builds, for the keeper.
    pub(super) fn executables(&self) -> impl Iterator<Item = (Key, Rc<OwnedFd>)> {
        let id = self.service.id;
        // The earlier one first: a successor that has that alone has nothing to take back.
        let previous = self.on_trial().map(|fd| (Key::Previous(id), Rc::clone(fd)));
        let present = self.executable.as_ref();
        let present = present.map(|fd| (Key::Executable(id), Rc::clone(fd)));
        previous.into_iter().chain(present)
    }

    /// After a death that was not planned: takes an upgrade back that does not hold, to be
    /// started again at once. Whether it did.
    pub(super) fn revert(&mut self, ready: Option<Nanos>, now: Nanos, how: &str) -> bool {
        let Some(trial) = self.trial.as_mut().filter(|trial| trial.refused.is_none()) else {
            return false;
        };
        if ready.is_some_and(|ready| now.saturating_sub(ready) > PROBATION) {
            return false;
        }
        let when = match ready {
            Some(_) => "died soon after its start",
            None => "does not start",
        };
        trial.refused = Some(format!("the new build {when}: {how}"));
        self.executable = Some(Rc::clone(&trial.previous));
        self.streak = 0;
        self.state = State::Waiting(now);
        true
    }
}

impl Supervisor {
    pub(super) fn on_upgrade(
        &mut self,
        client: u32,
        layer: &str,
        executable: &Path,
        now: Nanos,
    ) -> Option<Reply> {
        let ids = match self.matching(layer) {
            Ok(ids) => ids,
            Err(reply) => return Some(reply),
        };
        let builds = open(executable).and_then(|fd| Ok((fd, open(&self.options.executable)?)));
        let (fd, own) = match builds {
            Ok(builds) => builds,
            Err(error) => return Some(Reply::Failed(format!("{error:#}"))),
        };
        tracing::info!("{layer} is upgraded to {}", executable.display());
        for id in &ids {
            if let Some(daemon) = self.daemons.get_mut(id) {
                let previous = daemon.executable.replace(Rc::clone(&fd));
                let previous = previous.unwrap_or_else(|| Rc::clone(&own));
                daemon.trial = Some(Trial::of(previous));
            }
            self.keep_executables(*id);
        }
        self.restart(client, ids, now)
    }

    /// Tells the keeper which build `id` is of, and which it was of while it is on trial.
    pub(super) fn keep_executables(&mut self, id: ServiceId) {
        let Some((keeper, daemon)) = self.keeper.as_mut().zip(self.daemons.get(&id)) else {
            return;
        };
        keeper.keep(daemon.executables());
        if daemon.on_trial().is_none() {
            keeper.forget(vec![Key::Previous(id)]);
        }
    }

    /// Ends the trial of upgrades that have held.
    pub(super) fn tick_trials(&mut self, now: Nanos) {
        let held = |daemon: &Daemon| {
            let ready = daemon.worker().and_then(|worker| worker.ready);
            daemon.on_trial().is_some()
                && ready.is_some_and(|ready| now.saturating_sub(ready) > PROBATION)
        };
        let passed = self.daemons.iter_mut().filter(|(_, daemon)| held(daemon));
        let mut ids = Vec::new();
        for (id, daemon) in passed {
            daemon.trial = None;
            ids.push(*id);
        }
        for id in ids {
            self.keep_executables(id);
        }
    }

    /// Which layouts the memory of these layers has: those of this build, which made it or would
    /// not have adopted it.
    pub(super) fn layouts(&self, layer: &str) -> Reply {
        let ids = match self.matching(layer) {
            Ok(ids) => ids,
            Err(reply) => return reply,
        };
        let known = layouts();
        let daemons = ids.iter().filter_map(|id| self.daemons.get(id));
        let rows = daemons
            .map(|daemon| {
                let role = daemon.service.role.name();
                let layout = known.get(role).cloned().unwrap_or_default();
                vec![daemon.service.name.clone(), role.to_owned(), layout]
            })
            .collect();
        table(&["layer", "role", "layout"], rows)
    }
}
