//! Everything a daemon is attached to: made by the supervisor, older than this process, and
//! there for its successor.

use crate::boot::PATIENCE;
use crate::channel::{FdChannel, Received};
use crate::counters::{self, index};
use crate::quarantine::Quarantine;
use crate::{LinkEnd, Poller, StoreClient};
use abi::config::DaemonConfig;
use abi::plumbing::{Plumbing as Piece, StoreKey, ToWorker};
use abi::{DevIndex, LinkId, Nanos, RegionId, ServiceId};
use anyhow::{Context as _, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm::crash::{self, Point};
use shm::lost::Lost;
use shm::sweep;
use shm::{Allocator, Arena, Bell, Link, Pool, Side, Vitals};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// What a daemon is attached to.
#[derive(Debug)]
pub struct Plumbing {
    /// Who this process is.
    pub me: ServiceId,
    /// The pools and regions that handles and fragments point into.
    pub arena: Arena,
    /// The own pool, to allocate from.
    pub alloc: Option<Allocator>,
    /// The neighbours, in the order of the configuration.
    pub links: Vec<LinkEnd>,
    /// The own doorbell; transports hand its eventfd to applications.
    pub bell: Bell,
    /// Vital signs, crash note, trace and counters.
    pub vitals: Arc<Vitals>,
    /// What is dropped unseen, by the links and by a netdevd at its device.
    pub quarantine: Arc<Quarantine>,
    /// The committed state of this service.
    pub state: Option<OwnedFd>,
    /// The device, of a netdevd.
    pub device: Option<(DevIndex, OwnedFd)>,
    /// Where applications connect, of a transport.
    pub listener: Option<OwnedFd>,
    /// What the predecessor stored; take it in `restore`.
    pub stored: Vec<(StoreKey, OwnedFd)>,
    /// Keeps descriptors alive with the supervisor.
    pub store: StoreClient,
    /// The descriptors the loop waits for.
    pub poller: Poller,
    pub(crate) channel: Arc<FdChannel>,
    /// Who may own slots of the own pool.
    visitors: Vec<ServiceId>,
    /// Slots that may be nobody's.
    lost: Lost,
    /// Session memories that came and went, not yet handed to the service.
    regions: VecDeque<(RegionId, Option<OwnedFd>)>,
    pub(crate) channel_open: bool,
    /// Where a new supervisor waits for us, until we have gone there.
    pub(crate) control_server: Option<String>,
}

impl Plumbing {
    /// Receives and attaches everything the supervisor sends until [`ToWorker::Start`], and
    /// sweeps what a predecessor left.
    ///
    /// # Errors
    /// When a piece is missing, malformed or of another layout.
    pub(crate) fn receive(config: &DaemonConfig, channel: Arc<FdChannel>) -> anyhow::Result<Self> {
        let mut parts = Parts::default();
        let end = Instant::now() + PATIENCE;
        loop {
            match channel.recv::<ToWorker>()? {
                Received::Message(ToWorker::Start, _) => break,
                Received::Message(message, fds) => parts.take(config, message, fds)?,
                Received::Closed => bail!("the supervisor went away while sending the plumbing"),
                Received::Empty => {
                    ensure!(
                        Instant::now() < end,
                        "the supervisor does not send the plumbing"
                    );
                    let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                    poll(&mut wait, PollTimeout::from(1000u16))?;
                }
            }
        }
        parts.assemble(config, channel)
    }

    /// Frees what a dead predecessor owned and had not published.
    fn sweep(&self) {
        let pools: Vec<&'static Pool> = self.arena.pools().collect();
        let outgoing = self.links.iter().filter_map(|l| l.link().words(l.side));
        let freed = sweep::sweep(self.me, &self.visitors, pools.iter().copied(), outgoing);
        self.vitals.count(index::SWEPT, freed.into());
        if freed > 0 {
            tracing::info!(freed, "slots of the predecessor taken back");
        }
    }

    /// Takes back slots that nobody will free (see [`shm::lost`]), and says again what neighbours
    /// are told. Called when the links are flushed. Answers when to look again.
    pub(crate) fn look_after_memory(&mut self, now: Nanos, after: Nanos) -> Nanos {
        let pools: Vec<&'static Pool> = self.arena.pools().collect();
        let outgoing = self.links.iter().filter_map(|l| l.link().words(l.side));
        let (pools, when) = (pools.iter().copied(), (now, after));
        let freed = sweep::look(
            &mut self.lost,
            self.me,
            &self.visitors,
            when,
            pools,
            outgoing,
        );
        if freed > 0 {
            self.vitals.count(index::LOST, freed.into());
            tracing::warn!(freed, "slots that nobody had were taken back");
        }
        self.say_again();
        now + after / 4
    }

    /// Says again what neighbours are told, if something wrote over it. Called when the bell rings
    /// too: one that was started again rings every bell, and knows nothing until it is told.
    pub(crate) fn say_again(&self) {
        let again = self.links.iter().filter(|l| l.link().say_again()).count();
        if again > 0 {
            tracing::warn!(again, "something wrote over what a neighbour is told");
        }
    }

    /// Takes up what the supervisor says is to be left alone.
    pub(crate) fn set_quarantine(&mut self, config: &DaemonConfig) {
        self.quarantine = Arc::new(Quarantine::new(&config.quarantine));
        for link in &mut self.links {
            link.set_quarantine(&self.quarantine);
        }
    }

    /// Adds `n` to the service's counter `index`.
    pub fn count(&self, index: usize, n: u64) {
        self.vitals.count(counters::NAMES.len() + index, n);
    }

    /// Sets the service's counter `index`, which is a level.
    pub fn gauge(&self, index: usize, value: u64) {
        self.vitals.set(counters::NAMES.len() + index, value);
    }

    /// Reads the service's counter `index`.
    #[must_use]
    pub fn counter(&self, index: usize) -> u64 {
        self.vitals.value(counters::NAMES.len() + index)
    }

    /// The link at that place of [`Plumbing::links`] to `peer`.
    #[must_use]
    pub fn link_to(&self, peer: ServiceId) -> Option<usize> {
        self.links.iter().position(|l| l.peer == peer)
    }

    /// Looks at the descriptor channel and takes the session memories that came (some) and went
    /// (none), in order. For netdevd when it meets a fragment of a region it does not know yet.
    pub fn take_regions(&mut self) -> Vec<(RegionId, Option<OwnedFd>)> {
        while self.channel_open {
            match self.channel.recv::<ToWorker>() {
                Ok(Received::Message(ToWorker::Region(id), fds)) => {
                    self.regions.push_back((id, fds.into_iter().next()));
                }
                Ok(Received::Message(ToWorker::RegionGone(id), _)) => {
                    self.regions.push_back((id, None));
                }
                Ok(Received::Message(ToWorker::Control(server), _)) => {
                    self.control_server = Some(server);
                }
                Ok(Received::Message(other, _)) => {
                    tracing::warn!(?other, "unexpected message after start");
                }
                Ok(Received::Empty) => break,
                Ok(Received::Closed) => {
                    self.channel_open = false;
                    let _ = self.poller.delete(self.channel.as_fd());
                    tracing::warn!("descriptor channel closed; running on without a supervisor");
                }
                Err(error) => {
                    tracing::warn!(%error, "descriptor channel");
                    break;
                }
            }
        }
        self.regions.drain(..).collect()
    }
}

/// The pieces as they come, in any order.
#[derive(Debug, Default)]
struct Parts {
    vitals: Option<Vitals>,
    bells: HashMap<ServiceId, Bell>,
    pools: Vec<(&'static Pool, ServiceId)>,
    links: HashMap<LinkId, &'static Link>,
    state: Option<OwnedFd>,
    device: Option<(DevIndex, OwnedFd)>,
    listener: Option<OwnedFd>,
    stored: Vec<(StoreKey, OwnedFd)>,
    regions: VecDeque<(RegionId, Option<OwnedFd>)>,
}

impl Parts {
    fn take(
        &mut self,
        config: &DaemonConfig,
        message: ToWorker,
        fds: Vec<OwnedFd>,
    ) -> anyhow::Result<()> {
        match message {
            ToWorker::Plumbing(piece) => self
                .piece(piece, fds)
                .with_context(|| format!("{piece:?} for {:?}", config.role)),
            ToWorker::Restored(keys) => {
                ensure!(
                    keys.len() == fds.len(),
                    "{} stored descriptors for {} keys",
                    fds.len(),
                    keys.len()
                );
                self.stored.extend(keys.into_iter().zip(fds));
                Ok(())
            }
            ToWorker::Region(id) => {
                self.regions.push_back((id, fds.into_iter().next()));
                Ok(())
            }
            ToWorker::RegionGone(id) => {
                self.regions.push_back((id, None));
                Ok(())
            }
            // To one who is starting nobody new has anything to say.
            ToWorker::Start | ToWorker::Control(_) => Ok(()),
        }
    }

    fn piece(&mut self, piece: Piece, fds: Vec<OwnedFd>) -> anyhow::Result<()> {
        let mut fds = fds.into_iter();
        let fd = fds.next().context("its descriptor is missing")?;
        match piece {
            Piece::Vitals => self.vitals = Some(Vitals::attach(&fd)?),
            Piece::Bell(who) => {
                let event = fds.next().context("its eventfd is missing")?;
                self.bells.insert(who, Bell::attach(&fd, event)?);
            }
            Piece::Pool(id, owner) => self.pools.push((Pool::attach_for(id, owner, &fd)?, owner)),
            Piece::Link(id) => {
                self.links.insert(id, Link::attach(&fd)?);
            }
            Piece::State => self.state = Some(fd),
            Piece::Device(index) => self.device = Some((index, fd)),
            Piece::Listener => self.listener = Some(fd),
        }
        Ok(())
    }

    fn assemble(
        mut self,
        config: &DaemonConfig,
        channel: Arc<FdChannel>,
    ) -> anyhow::Result<Plumbing> {
        let me = config.service;
        let vitals = self.vitals.context("no vital signs among the plumbing")?;
        let bell = self
            .bells
            .remove(&me)
            .context("no doorbell among the plumbing")?;
        let bells: HashMap<_, _> = self
            .bells
            .into_iter()
            .map(|(k, b)| (k, Arc::new(b)))
            .collect();
        let mut arena = Arena::new(me);
        let mut alloc = None;
        for (pool, owner) in self.pools {
            arena.add_pool(pool);
            if owner == me {
                alloc = Some(Allocator::new(pool, me));
            }
        }
        let mut links = Vec::new();
        for l in &config.stack.links {
            let (side, peer) = match (l.upper == me, l.lower == me) {
                (true, false) => (Side::Upper, l.lower),
                (false, true) => (Side::Lower, l.upper),
                _ => continue,
            };
            let memory = self
                .links
                .get(&l.link)
                .with_context(|| format!("{:?} is missing", l.link))?;
            let bell = bells
                .get(&peer)
                .with_context(|| format!("the doorbell of {peer:?} is missing"))?;
            links.extend(LinkEnd::attach(
                l.link,
                side,
                peer,
                l.device,
                memory,
                Arc::clone(bell),
            ));
        }
        let mut plumbing = Plumbing {
            me,
            arena,
            alloc,
            links,
            bell,
            vitals: Arc::new(vitals),
            quarantine: Arc::default(),
            state: self.state,
            device: self.device,
            listener: self.listener,
            stored: self.stored,
            store: StoreClient::new(Arc::clone(&channel)),
            poller: Poller::new()?,
            channel,
            visitors: visitors(config),
            lost: Lost::default(),
            regions: self.regions,
            channel_open: true,
            control_server: None,
        };
        plumbing.set_quarantine(config);
        // What the predecessor worked on, the supervisor has read.
        plumbing.vitals.note(0, 0);
        plumbing.vitals.note_no_socket();
        crash::reach(Point::Attached);
        plumbing.sweep();
        crash::reach(Point::Swept);
        Ok(plumbing)
    }
}

/// The services that packets from the own pool visit, this one included: all, but from a
/// transport's no other transport (those at the upper ends of links above no device).
fn visitors(config: &DaemonConfig) -> Vec<ServiceId> {
    let links = &config.stack.links;
    let is_transport = |s: ServiceId| links.iter().any(|l| l.upper == s && l.device.is_none());
    let me = config.service;
    let mut all: Vec<_> = links
        .iter()
        .flat_map(|l| [l.upper, l.lower])
        .filter(|&s| s == me || !is_transport(me) || !is_transport(s))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}
