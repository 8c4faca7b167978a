//! Beginning: with a new constellation, or with what a dead supervisor left.
//!
//! A worker that runs is adopted alive: its process by its pidfd, its descriptor channel as it
//! is, and over that it is told where the new control channel is. It is given a little time to
//! come there; one that does not, or that had not got as far as running, is replaced as any that
//! died.

use super::channel::Channel;
use super::control::Control;
use super::daemon::{State, Worker};
use super::keeper::{Held, Keeper};
use super::plumbing::Plumbing;
use super::roles::layouts;
use super::spare::Process;
use super::spawn::Child;
use super::store::Store;
use super::upgrade::Trial;
use super::{Options, Supervisor, setup};
use crate::keeper::Key;
use crate::orphans;
use crate::topology::Topology;
use abi::config::StackConfig;
use abi::plumbing::{StoreKey, ToWorker};
use abi::{Nanos, RegionId, ServiceId};
use anyhow::{Context, bail};
use runtime::clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// How long a worker may take to come to a new supervisor.
const COME: Nanos = 2_000_000_000;

/// What a constellation was made with: a supervisor that plans another cannot adopt it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    /// What the memory looks like, by role.
    layouts: BTreeMap<String, String>,
    stack: StackConfig,
    pools: String,
}

impl Plan {
    fn of(topology: &Topology) -> Self {
        Self {
            layouts: layouts()
                .into_iter()
                .map(|(role, layout)| (role.to_owned(), layout))
                .collect(),
            stack: topology.stack.clone(),
            pools: format!("{:?}", topology.pools),
        }
    }

    fn save(&self) -> anyhow::Result<Rc<OwnedFd>> {
        let text = serde_json::to_vec(self)?;
        let fd = shm::mapping::create("strata-plan", text.len())?;
        let file = File::from(fd);
        file.write_all_at(&text, 0)?;
        Ok(Rc::new(file.into()))
    }

    fn load(fd: &OwnedFd) -> anyhow::Result<Self> {
        let mut text = Vec::new();
        let file = File::from(fd.try_clone()?);
        let mut at = 0;
        let mut part = [0; 4096];
        // Read by position: the descriptor's own is shared with the keeper's.
        loop {
            match file.read_at(&mut part, at)? {
                0 => break,
                n => {
                    part.get(..n).unwrap_or(&[]).read_to_end(&mut text)?;
                    at += n as u64;
                }
            }
        }
        Ok(serde_json::from_slice(&text)?)
    }
}

/// What a predecessor left of one service.
#[derive(Debug, Default)]
pub(super) struct Left {
    stored: BTreeMap<StoreKey, Rc<OwnedFd>>,
    channel: Option<Rc<OwnedFd>>,
    worker: Option<Rc<OwnedFd>>,
    executable: Option<Rc<OwnedFd>>,
    previous: Option<Rc<OwnedFd>>,
}

/// What a supervisor begins with.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) topology: Topology,
    pub(super) plumbing: Plumbing,
    pub(super) plan: Rc<OwnedFd>,
    pub(super) keeper: Option<Keeper>,
    pub(super) regions: BTreeMap<RegionId, Rc<OwnedFd>>,
    pub(super) services: BTreeMap<ServiceId, Left>,
}

impl Found {
    /// Looks for a constellation of that name that runs, or makes a new one.
    ///
    /// # Errors
    /// When one runs that cannot be adopted: nothing of it is touched.
    pub(super) fn look(options: &Options) -> anyhow::Result<Self> {
        let name = options.rundir.name();
        if let Some((keeper, held)) = Keeper::find(&options.rundir)? {
            return Self::left(options, keeper, held);
        }
        let orphans = orphans::find(&options.rundir);
        if !orphans.is_empty() {
            bail!(
                "supervisor and keeper of `{name}` died, and its {} daemons run on: connections \
                 live, but nobody can adopt them; `strata down --name {name}` ends them",
                orphans.len()
            );
        }
        setup::begin_log(&options.rundir);
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).context("no random numbers")?;
        let topology = Topology::plan(name, &options.config, secret, &setup::host_identity());
        Ok(Self {
            plumbing: Plumbing::create(&topology, &options.config, &options.rundir)?,
            plan: Plan::of(&topology).save().context("cannot note the plan")?,
            keeper: None,
            regions: BTreeMap::new(),
            services: BTreeMap::new(),
            topology,
        })
    }

    fn left(options: &Options, keeper: Keeper, mut held: Held) -> anyhow::Result<Self> {
        let plan = held.remove(&Key::Plan).context("no plan with the keeper")?;
        let topology = fitting(options, &plan)?;
        let plumbing = Plumbing::adopt(&topology, &mut held)?;
        let mut regions = BTreeMap::new();
        let mut services: BTreeMap<ServiceId, Left> = BTreeMap::new();
        for (key, fd) in held {
            match key {
                Key::Stored(id, key) => {
                    services.entry(id).or_default().stored.insert(key, fd);
                }
                Key::Channel(id) => services.entry(id).or_default().channel = Some(fd),
                Key::Worker(id) => services.entry(id).or_default().worker = Some(fd),
                Key::Executable(id) => services.entry(id).or_default().executable = Some(fd),
                Key::Previous(id) => services.entry(id).or_default().previous = Some(fd),
                Key::Region(region) => {
                    regions.insert(region, fd);
                }
                // Of no service there is.
                _ => {}
            }
        }
        tracing::info!("adopting what the last supervisor left");
        Ok(Self {
            topology,
            plumbing,
            plan,
            keeper: Some(keeper),
            regions,
            services,
        })
    }
}

/// The topology of what runs with this plan.
///
/// # Errors
/// When that is not what `options` ask for.
pub(super) fn fitting(options: &Options, plan: &OwnedFd) -> anyhow::Result<Topology> {
    let name = options.rundir.name();
    let theirs = Plan::load(plan).context("the plan of what runs")?;
    let secret = theirs.stack.secret;
    let mut topology = Topology::plan(name, &options.config, secret, &setup::host_identity());
    // Changed while it runs by `strata impair`.
    let devices = topology.stack.devices.iter_mut();
    for (device, before) in devices.zip(&theirs.stack.devices) {
        device.impairment = before.impairment;
    }
    if Plan::of(&topology) != theirs {
        bail!(
            "`{name}` runs already, but with another configuration, in another network \
             namespace, or of another version: use the configuration that it was started with, \
             or end it with `strata down --name {name}`"
        );
    }
    Ok(topology)
}

impl Supervisor {
    /// Takes over what a predecessor left of `id`: what it stored, and its worker if one lives.
    pub(super) fn adopt(&mut self, id: ServiceId, left: Left) {
        let Some(daemon) = self.daemons.get_mut(&id) else {
            return;
        };
        let stored = left.stored.len();
        daemon.store = Store::adopt(left.stored);
        // Its upgrade goes on being on trial.
        daemon.trial = left.executable.as_ref().and(left.previous).map(Trial::of);
        daemon.executable = left.executable;
        let name = daemon.service.name.clone();
        let running = daemon.gauges.vitals.incarnation();
        daemon.incarnations = running.wrapping_add(1);
        let worker = left.channel.zip(left.worker);
        match worker.map(|(channel, child)| self.adopt_worker(id, &channel, &child)) {
            Some(Ok(())) => tracing::info!(stored, "{name} adopted"),
            Some(Err(error)) => tracing::warn!("{name} is not adopted: {error:#}"),
            None => tracing::info!(stored, "{name} does not run"),
        }
    }

    fn adopt_worker(
        &mut self,
        id: ServiceId,
        channel: &OwnedFd,
        child: &OwnedFd,
    ) -> anyhow::Result<()> {
        let now = clock::now();
        let child = Child::adopt(child.try_clone()?)?;
        let mut channel = Channel::adopt(channel.try_clone()?)?;
        let daemon = self.daemons.get_mut(&id).context("no such service")?;
        let incarnation = daemon.incarnations.wrapping_sub(1);
        let name = &daemon.service.name;
        let control = Control::open(&self.inbox, id, incarnation, name)?;
        channel.queue((ToWorker::Control(control.server().to_owned()), Vec::new()));
        if daemon.service.is_netdevd() {
            // Some of these may not have reached it.
            for (region, fd) in self.regions.iter() {
                channel.queue((ToWorker::Region(region), vec![fd]));
            }
        }
        let _ = channel.flush();
        shm::crash::reach(shm::crash::Point::HalfAdopted);
        let mut worker = Worker::new(
            Process {
                child,
                channel,
                control,
            },
            now,
        );
        if daemon.gauges.vitals.is_running() {
            worker.kill_later(
                now.saturating_add(COME),
                "did not come to the new supervisor",
            );
        } else {
            // Half started: whatever it waits for will not come.
            worker.kill("was not ready when its supervisor died");
        }
        daemon.state = State::Alive(Box::new(worker));
        self.watch_worker(id)
    }
}
