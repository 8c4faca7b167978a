//! What the supervisor makes once and keeps: memory, doorbells, devices and listening sockets.
//! The daemons are attached to it and replaced; it stays.

use super::channel::Message;
use crate::config::Config;
use crate::keeper::Key;
use crate::rundir::RunDir;
use crate::topology::{Service, Topology};
use abi::config::Role;
use abi::plumbing::{Plumbing as Piece, ToWorker};
use abi::{LinkId, PoolId, ServiceId};
use anyhow::Context;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use shm::{Bell, Pool, Vitals};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

/// The plumbing of one daemon.
#[derive(Debug)]
struct Fittings {
    vitals: Rc<OwnedFd>,
    bell: [Rc<OwnedFd>; 2],
    state: Option<(Rc<OwnedFd>, usize)>,
    device: Option<Rc<OwnedFd>>,
    listener: Option<Rc<OwnedFd>>,
}

/// The plumbing of a constellation.
#[derive(Debug)]
pub(super) struct Plumbing {
    fittings: BTreeMap<ServiceId, Fittings>,
    pools: BTreeMap<PoolId, Rc<OwnedFd>>,
    links: BTreeMap<LinkId, Rc<OwnedFd>>,
}

/// What the supervisor itself looks at.
#[derive(Debug)]
pub(super) struct Gauges {
    /// The daemon's vital signs.
    pub(super) vitals: Vitals,
    /// Its doorbell, for heartbeats.
    pub(super) bell: Bell,
    /// Its pool.
    pub(super) pool: &'static Pool,
}

impl Plumbing {
    /// Makes everything, devices and listening sockets included.
    ///
    /// # Errors
    /// What could not be made, and what to do about it.
    pub(super) fn create(
        topology: &Topology,
        config: &Config,
        rundir: &RunDir,
    ) -> anyhow::Result<Self> {
        let mut fittings = BTreeMap::new();
        for service in &topology.services {
            let fitted = Fittings::create(service, topology, config, rundir)?;
            fittings.insert(service.id, fitted);
        }
        let mut pools = BTreeMap::new();
        for plan in &topology.pools {
            let fd = shm::pool::create(&format!("strata-pool-{}", plan.id.0), plan.layout)
                .context("cannot make a packet pool")?;
            pools.insert(plan.id, Rc::new(fd));
        }
        let mut links = BTreeMap::new();
        for link in &topology.stack.links {
            let fd = shm::link::create(&format!("strata-link-{}", link.link.0))
                .context("cannot make a link's memory")?;
            links.insert(link.link, Rc::new(fd));
        }
        Ok(Self {
            fittings,
            pools,
            links,
        })
    }

    /// Everything, with the keeper's names.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Key, Rc<OwnedFd>)> + '_ {
        let fitted = self.fittings.iter().flat_map(|(id, f)| {
            let [memory, event] = &f.bell;
            [
                (Key::Vitals(*id), Some(&f.vitals)),
                (Key::BellMemory(*id), Some(memory)),
                (Key::BellEvent(*id), Some(event)),
                (Key::State(*id), f.state.as_ref().map(|(fd, _)| fd)),
                (Key::Device(*id), f.device.as_ref()),
                (Key::Listener(*id), f.listener.as_ref()),
            ]
        });
        let pools = self.pools.iter().map(|(id, fd)| (Key::Pool(*id), Some(fd)));
        let links = self.links.iter().map(|(id, fd)| (Key::Link(*id), Some(fd)));
        fitted
            .chain(pools)
            .chain(links)
            .filter_map(|(key, fd)| Some((key, Rc::clone(fd?))))
    }

    /// The plumbing of a constellation that runs, from what its keeper held.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn adopt(
        topology: &Topology,
        held: &mut BTreeMap<Key, Rc<OwnedFd>>,
    ) -> anyhow::Result<Self> {
        let mut take = |key| {
            held.remove(&key)
                .with_context(|| format!("the keeper does not have {key:?}"))
        };
        let mut fittings = BTreeMap::new();
        for service in &topology.services {
            let id = service.id;
            let size = super::roles::state_size(service.role, &topology.stack);
            let has_state = size > 0;
            let fitted = Fittings {
                vitals: take(Key::Vitals(id))?,
                bell: [take(Key::BellMemory(id))?, take(Key::BellEvent(id))?],
                state: has_state
                    .then(|| take(Key::State(id)))
                    .transpose()?
                    .map(|fd| (fd, size)),
                device: service
                    .is_netdevd()
                    .then(|| take(Key::Device(id)))
                    .transpose()?,
                listener: service
                    .is_transport()
                    .then(|| take(Key::Listener(id)))
                    .transpose()?,
            };
            fittings.insert(id, fitted);
        }
        let mut pools = BTreeMap::new();
        for plan in &topology.pools {
            pools.insert(plan.id, take(Key::Pool(plan.id))?);
        }
        let mut links = BTreeMap::new();
        for link in &topology.stack.links {
            links.insert(link.link, take(Key::Link(link.link))?);
        }
        Ok(Self {
            fittings,
            pools,
            links,
        })
    }

    /// Messages that attach `service` to all that concerns it, and to nothing else.
    pub(super) fn messages(&self, topology: &Topology, service: ServiceId) -> Vec<Message> {
        let Some(own) = self.fittings.get(&service) else {
            return Vec::new();
        };
        let mut messages: Vec<Message> = Vec::new();
        let mut piece = |piece, fds| messages.push((ToWorker::Plumbing(piece), fds));
        piece(Piece::Vitals, vec![Rc::clone(&own.vitals)]);
        for id in [service].into_iter().chain(topology.neighbours(service)) {
            if let Some(fitted) = self.fittings.get(&id) {
                piece(Piece::Bell(id), fitted.bell.iter().map(Rc::clone).collect());
            }
        }
        for plan in topology
            .pools
            .iter()
            .filter(|p| p.visitors.contains(&service))
        {
            if let Some(fd) = self.pools.get(&plan.id) {
                piece(Piece::Pool(plan.id, plan.owner), vec![Rc::clone(fd)]);
            }
        }
        let links = &topology.stack.links;
        for link in links
            .iter()
            .filter(|l| l.upper == service || l.lower == service)
        {
            if let Some(fd) = self.links.get(&link.link) {
                piece(Piece::Link(link.link), vec![Rc::clone(fd)]);
            }
        }
        if let Some((state, _)) = &own.state {
            piece(Piece::State, vec![Rc::clone(state)]);
        }
        let device = topology.stack.devices.iter().find(|d| d.service == service);
        if let (Some(fd), Some(device)) = (&own.device, device) {
            piece(Piece::Device(device.index), vec![Rc::clone(fd)]);
        }
        if let Some(fd) = &own.listener {
            piece(Piece::Listener, vec![Rc::clone(fd)]);
        }
        messages
    }

    /// Attaches the supervisor to what it watches of `service`.
    ///
    /// # Errors
    /// When something cannot be mapped.
    pub(super) fn gauges(&self, topology: &Topology, service: ServiceId) -> anyhow::Result<Gauges> {
        let own = self.fittings.get(&service).context("no such service")?;
        let [memory, event] = &own.bell;
        let plan = topology
            .pools
            .iter()
            .find(|plan| plan.owner == service)
            .context("no pool of the service")?;
        let pool = self.pools.get(&plan.id).context("no such pool")?;
        Ok(Gauges {
            vitals: Vitals::attach(own.vitals.as_ref())?,
            bell: Bell::attach(memory.as_ref(), event.try_clone()?)?,
            pool: Pool::attach(plan.id, pool.as_ref())?,
        })
    }

    /// What `service` owns, for people.
    pub(super) fn owned(&self, topology: &Topology, service: ServiceId) -> Vec<String> {
        let mut owned = Vec::new();
        let device = topology.stack.devices.iter().find(|d| d.service == service);
        if let Some(device) = device {
            let mac = device.mac.map(|byte| format!("{byte:02x}")).join(":");
            owned.push(format!("device {} ({mac})", device.name));
        }
        for plan in topology.pools.iter().filter(|plan| plan.owner == service) {
            owned.push(format!(
                "pool of {} + {} buffers",
                plan.layout.small_slots, plan.layout.large_slots
            ));
        }
        if let Some(own) = self.fittings.get(&service) {
            if let Some((_, size)) = &own.state {
                owned.push(format!("state memory of {} KiB", size.div_ceil(1024)));
            }
            if own.listener.is_some() {
                owned.push("listening socket for applications".to_owned());
            }
        }
        owned
    }
}

impl Fittings {
    fn create(
        service: &Service,
        topology: &Topology,
        config: &Config,
        rundir: &RunDir,
    ) -> anyhow::Result<Self> {
        let name = |what: &str| format!("strata-{what}-{}", service.name);
        let vitals = shm::vitals::create(&name("vitals")).context("cannot make vital signs")?;
        let (memory, event) = shm::bell::create(&name("bell")).context("cannot make a doorbell")?;
        let state = match super::roles::state_size(service.role, &topology.stack) {
            0 => None,
            size => {
                let fd = shm::mapping::create(&name("state"), size)
                    .with_context(|| format!("cannot make the state memory of {}", service.name))?;
                Some((Rc::new(fd), size))
            }
        };
        let device = match service.role {
            Role::Netdevd { device } => {
                Some(Rc::new(super::device::open(device, topology, config)?))
            }
            _ => None,
        };
        let listener = if service.is_transport() {
            let path = rundir.listener(service.role.name());
            Some(Rc::new(listener(&path, config.access_mode)?))
        } else {
            None
        };
        Ok(Self {
            vitals: Rc::new(vitals),
            bell: [Rc::new(memory), Rc::new(event)],
            state,
            device,
            listener,
        })
    }
}

/// A listening `SOCK_SEQPACKET` socket at `path` with the permissions `mode`. What was there
/// before is left over: the caller holds the constellation's lock.
pub(crate) fn listener(path: &Path, mode: u32) -> anyhow::Result<OwnedFd> {
    let failed = || format!("cannot listen at {}", path.display());
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .with_context(failed)?;
    let _ = fs::remove_file(path);
    let address = UnixAddr::new(path).with_context(failed)?;
    bind(socket.as_raw_fd(), &address).with_context(failed)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(failed)?;
    listen(&socket, Backlog::MAXCONN).with_context(failed)?;
    Ok(socket)
}
