//! The supervisor: owns the plumbing and the stored descriptors, starts the daemons, watches
//! and restarts them.
//!
//! ```text
//!   plumbing   memory, bells, devices, listeners: made once      store     daemons' descriptors
//!   spawn      a daemon's process        control   typed messages, two threads a daemon
//!   spare      its next one, in reserve
//!   channel    descriptors               daemon    what is known of a daemon
//!   keeper     copies of everything      adopt     what a dead supervisor left
//!   lifecycle  start, death, drain       requests  the admin socket
//!   upgrade    another build for a daemon              quarantine  what is to blame for crashes
//! ```
//!
//! One thread, one epoll, and nothing in it that blocks: what a daemon does not take waits in
//! a queue, and what it does not do in time gets it killed. A daemon's failure is never the
//! supervisor's, and the supervisor is on no packet's path.

mod adopt;
mod channel;
mod control;
mod daemon;
mod device;
mod keeper;
mod lifecycle;
mod plumbing;
mod quarantine;
mod replace;
mod requests;
mod roles;
mod setup;
mod spare;
mod spawn;
mod store;
mod upgrade;

pub(crate) use plumbing::listener;
pub(crate) use roles::run_keeper;
pub use roles::{layouts, run_worker};
pub(crate) use setup::raise_descriptor_limit;
pub use spawn::this_executable;

use crate::admin::Status;
use crate::admin::server::Client;
use crate::config::Config;
use crate::orphans;
use crate::quarantine::Ledger;
use crate::rundir::RunDir;
use crate::topology::Topology;
use abi::{Nanos, ServiceId};
use adopt::Found;
use anyhow::Context;
use control::Inbox;
use daemon::Daemon;
use keeper::Keeper;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use plumbing::Plumbing;
use requests::Pending;
use runtime::clock;
use spawn::Child;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use store::Regions;

/// What to supervise, and how.
#[derive(Debug)]
pub struct Options {
    /// Where its sockets are; the name is the constellation's.
    pub rundir: RunDir,
    /// The checked configuration.
    pub config: Config,
    /// What is started as the daemons; usually [`this_executable`].
    pub executable: PathBuf,
    /// Whether to take the place of a supervisor that lives.
    pub replace: bool,
}

/// What became of the start: told once, as soon as it is known.
pub type OnReady<'a> = &'a mut dyn FnMut(Result<&Status, &str>);

/// What an epoll event is about; `u64` as kind in the upper and number in the lower half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signal,
    Inbox,
    Listener,
    Client(u32),
    Child(ServiceId),
    Channel(ServiceId),
    Keeper,
    Spare(ServiceId),
}

impl Source {
    fn token(self) -> u64 {
        let (kind, number) = match self {
            Self::Signal => (0, 0),
            Self::Inbox => (1, 0),
            Self::Listener => (2, 0),
            Self::Client(number) => (3, number),
            Self::Child(id) => (4, id.0.into()),
            Self::Channel(id) => (5, id.0.into()),
            Self::Keeper => (6, 0),
            Self::Spare(id) => (7, id.0.into()),
        };
        (kind << 32) | u64::from(number)
    }

    fn of(token: u64) -> Option<Self> {
        let number = u32::try_from(token & 0xffff_ffff).ok()?;
        let service = || u8::try_from(number).ok().map(ServiceId);
        Some(match token >> 32 {
            0 => Self::Signal,
            1 => Self::Inbox,
            2 => Self::Listener,
            3 => Self::Client(number),
            4 => Self::Child(service()?),
            5 => Self::Channel(service()?),
            6 => Self::Keeper,
            7 => Self::Spare(service()?),
            _ => return None,
        })
    }
}

/// What the supervisor as a whole is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// Until every daemon has been ready once.
    Starting,
    Running,
    /// Until every daemon is down; with the reason if it is a failure.
    Stopping(Option<String>),
}

/// The supervisor of one constellation.
#[derive(Debug)]
struct Supervisor {
    options: Options,
    topology: Topology,
    plumbing: Plumbing,
    /// The plan, for the keeper.
    plan: Rc<OwnedFd>,
    keeper: Option<Keeper>,
    /// When to start one.
    keeper_due: Option<Nanos>,
    /// Its deaths in a row.
    keeper_streak: u32,
    daemons: BTreeMap<ServiceId, Daemon>,
    /// Spare processes that were killed and have not ended.
    ending: Vec<Child>,
    regions: Regions,
    /// Descriptors that all daemons together may store.
    room: usize,
    core: Option<u32>,
    inbox: Inbox,
    epoll: Epoll,
    signals: UnixStream,
    listener: OwnedFd,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    pending: Vec<Pending>,
    next_query: u64,
    mode: Mode,
    started: Nanos,
    /// Who is to blame for crashes.
    ledger: Ledger,
}

/// Starts the constellation and stays until it is stopped.
///
/// # Errors
/// What could not be made or started; everything that was is taken down again.
pub fn run(options: Options, on_ready: OnReady<'_>) -> anyhow::Result<()> {
    shm::crash::install(shm::crash::SUPERVISOR);
    if options.replace {
        replace::end_predecessor(&options)?;
    }
    let _lock = setup::lock(&options.rundir)?;
    let rundir = options.rundir.clone();
    let mut started = false;
    let result = Supervisor::new(options).and_then(|mut supervisor| {
        started = true;
        supervisor.serve(on_ready)
    });
    // What runs and could not be adopted is left as it is.
    if started || orphans::find(&rundir).is_empty() {
        // What the daemons said before they failed is in the log.
        setup::clean(&rundir, started && result.is_err());
    }
    result
}

impl Supervisor {
    fn new(options: Options) -> anyhow::Result<Self> {
        let room = raise_descriptor_limit();
        let core = spawn::placement(options.config.pin)?;
        spawn::prioritize(options.config.nice);
        let found = Found::look(&options)?;
        let signals = setup::signals().context("cannot catch signals")?;
        let listener = listener(&options.rundir.admin_socket(), 0o600)?;
        let inbox = Inbox::new().context("cannot make an eventfd")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        let ledger = match found.keeper {
            Some(_) => quarantine::saved(&options.rundir),
            None => Ledger::default(),
        };
        let mut this = Self {
            topology: found.topology,
            plumbing: found.plumbing,
            plan: found.plan,
            keeper: found.keeper,
            keeper_due: None,
            keeper_streak: 0,
            daemons: BTreeMap::new(),
            ending: Vec::new(),
            regions: Regions::adopt(found.regions),
            options,
            room,
            core,
            inbox,
            epoll,
            signals,
            listener,
            clients: BTreeMap::new(),
            next_client: 0,
            pending: Vec::new(),
            next_query: 0,
            mode: Mode::Starting,
            started: clock::now(),
            ledger,
        };
        this.watch(&this.signals, Source::Signal)?;
        this.watch(&this.inbox, Source::Inbox)?;
        this.watch(&this.listener, Source::Listener)?;
        let mut found = found.services;
        for service in this.topology.services.clone() {
            let gauges = this.plumbing.gauges(&this.topology, service.id)?;
            let left = found.remove(&service.id);
            let daemon = Daemon::new(service.clone(), gauges);
            this.daemons.insert(service.id, daemon);
            if let Some(left) = left {
                this.adopt(service.id, left);
            }
        }
        match &this.keeper {
            Some(keeper) => this.watch(keeper, Source::Keeper)?,
            None => this.start_keeper(),
        }
        Ok(this)
    }

    fn watch(&self, fd: &impl AsFd, source: Source) -> nix::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        self.epoll.add(fd, event)
    }

    /// The loop. Ends when everything is down.
    fn serve(&mut self, on_ready: OnReady<'_>) -> anyhow::Result<()> {
        let down = |d: &&Daemon| matches!(d.state, daemon::State::Down);
        let ids: Vec<_> = self
            .daemons
            .values()
            .filter(down)
            .map(|d| d.service.id)
            .collect();
        for id in ids {
            self.start(id);
        }
        let mut events = [EpollEvent::empty(); 64];
        let mut told = false;
        let mut expected = clock::now();
        loop {
            let now = clock::now();
            self.tick(now, now.saturating_sub(expected));
            self.answer_pending(now);
            if !told && self.mode != Mode::Starting {
                told = true;
                match &self.mode {
                    Mode::Stopping(Some(why)) => on_ready(Err(why)),
                    _ => on_ready(Ok(&self.status(now))),
                }
            }
            if let Mode::Stopping(why) = &self.mode
                && self.daemons.values().all(|d| d.worker().is_none())
                && self.ending.is_empty()
            {
                let why = why.clone();
                self.answer_pending(now);
                self.say_goodbye();
                if let Some(keeper) = &mut self.keeper {
                    keeper.end();
                }
                return why.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)));
            }
            let deadline = self.deadline(now);
            expected = deadline.unwrap_or(Nanos::MAX);
            let count = match self.epoll.wait(&mut events, timeout(deadline, now)) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(errno).context("epoll_wait"),
            };
            for event in events.iter().take(count) {
                if let Some(source) = Source::of(event.data()) {
                    self.handle(source, event.events());
                }
            }
        }
    }

    fn handle(&mut self, source: Source, events: EpollFlags) {
        match source {
            Source::Signal => self.on_signal(),
            Source::Inbox => self.on_inbox(),
            Source::Listener => self.on_connection(),
            Source::Client(number) => self.on_client(number, events),
            Source::Child(id) => self.on_child(id),
            Source::Channel(id) => self.on_channel(id),
            Source::Keeper => self.on_keeper(events),
            Source::Spare(id) => self.on_spare(id),
        }
    }

    /// What is due now.
    fn tick(&mut self, now: Nanos, late: Nanos) {
        let policy = self.options.config.restart;
        let mut due = Vec::new();
        for (id, daemon) in &mut self.daemons {
            daemon.tick(&policy, now, late);
            if matches!(daemon.state, daemon::State::Waiting(at) if at <= now) {
                due.push(*id);
            }
        }
        if !matches!(self.mode, Mode::Stopping(_)) {
            for id in due {
                self.start(id);
            }
            self.tick_keeper(now);
            self.tick_spares(now);
            self.tick_trials(now);
            self.expire_quarantine(now);
        }
    }

    fn deadline(&self, now: Nanos) -> Option<Nanos> {
        let policy = &self.options.config.restart;
        let daemons = self
            .daemons
            .values()
            .filter_map(|d| d.deadline(policy, now));
        let pending = self.pending.iter().map(Pending::deadline);
        let behind = self.keeper.as_ref().is_some_and(Keeper::is_behind);
        let keeper = behind.then(|| now.saturating_add(daemon::RETRY));
        daemons
            .chain(pending)
            .chain(keeper)
            .chain(self.keeper_due)
            .chain(self.ledger.deadline())
            .min()
    }

    /// How everything is.
    fn status(&self, now: Nanos) -> Status {
        let order = self.topology.services.iter();
        Status {
            name: self.topology.stack.name.clone(),
            pid: std::process::id(),
            keeper: self
                .keeper
                .as_ref()
                .and_then(|k| u32::try_from(k.pid().as_raw()).ok()),
            uptime_ms: now.saturating_sub(self.started) / 1_000_000,
            run_dir: self.options.rundir.path().display().to_string(),
            daemons: order
                .filter_map(|service| self.daemons.get(&service.id))
                .map(|daemon| {
                    let owns = self.plumbing.owned(&self.topology, daemon.service.id);
                    daemon.status(now, owns)
                })
                .collect(),
            quarantined: self.quarantined(now),
        }
    }
}

fn timeout(deadline: Option<Nanos>, now: Nanos) -> EpollTimeout {
    let Some(deadline) = deadline else {
        return EpollTimeout::NONE;
    };
    // Rounded up, so as not to wake just before the time and find nothing due.
    let ms = deadline.saturating_sub(now).div_ceil(1_000_000);
    EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
}
