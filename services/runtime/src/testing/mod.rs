//! Services on real plumbing inside one process, for the tests of daemons (feature `testing`).
//!
//! A [`Fabric`] plays the supervisor: it makes the memory, and hands it out over a real
//! descriptor channel, so that a [`Worker`] is attached exactly as a daemon is. A worker is
//! stepped by hand, on any time; dropping it and asking for it again is a restart.
//!
//! ```
//! # use runtime::testing::Fabric;
//! # use abi::{ServiceId, config::Role};
//! let mut fabric = Fabric::new(&[(ServiceId(1), Role::Ipd), (ServiceId(2), Role::Udpd)]);
//! let mut ipd = fabric.plumbing(ServiceId(1));
//! let mut udpd = fabric.plumbing(ServiceId(2));
//! let mut skb = udpd.alloc.as_mut().unwrap().alloc(shm::SizeClass::Small).unwrap();
//! skb.put(3).unwrap().copy_from_slice(b"abc");
//! udpd.links[0].send(skb).unwrap();
//! udpd.links[0].flush();
//! let mut got = Vec::new();
//! let arena = &ipd.arena;
//! ipd.links[0].recv(arena, 64, |skb| got.push(skb.linear().to_vec()));
//! assert_eq!(got, [b"abc"]);
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "for tests: what fails should say so at once"
)]

mod worker;

pub use worker::Worker;

use crate::channel::{FdChannel, Received};
use crate::run::start;
use crate::{Plumbing, Service};
use abi::config::{
    DaemonConfig, DeviceConfig, DeviceKind, Impairment, LinkConfig, Offload, Role, StackConfig,
    TcpConfig, UdpConfig,
};
use abi::plumbing::{FromWorker, Plumbing as Piece, StoreKey, ToWorker};
use abi::{DevIndex, LinkId, PoolId, RegionId, ServiceId};
use shm::PoolLayout;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Pools of the size tests need.
const POOL: PoolLayout = PoolLayout {
    small_slots: 256,
    small_size: 2048,
    large_slots: 24,
    large_size: 69_632,
};

/// The plumbing of a whole constellation, without its processes.
#[derive(Debug)]
pub struct Fabric {
    stack: StackConfig,
    homes: BTreeMap<ServiceId, Home>,
    links: Vec<(LinkConfig, OwnedFd)>,
    regions: BTreeMap<RegionId, OwnedFd>,
}

/// What the supervisor keeps for one service.
#[derive(Debug)]
struct Home {
    role: Role,
    incarnation: u32,
    vitals: OwnedFd,
    bell: (OwnedFd, OwnedFd),
    pool: OwnedFd,
    state: Option<OwnedFd>,
    device: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    stored: BTreeMap<StoreKey, OwnedFd>,
    channel: Option<FdChannel>,
}

/// A device of each netdevd: 10.77.N.2/24 with MTU 1500, in memory.
fn device(index: DevIndex, service: ServiceId) -> DeviceConfig {
    let n = index.0.to_le_bytes()[0];
    let address = format!("10.77.{n}.2/24").parse().expect("an address");
    DeviceConfig {
        index,
        name: format!("dev{n}"),
        kind: DeviceKind::Loopback,
        service,
        addresses: vec![address],
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, n],
        offload: Offload::Full,
        impairment: Impairment::default(),
    }
}

impl Fabric {
    /// A constellation of these services: transports over ipd over netdevds, each netdevd with
    /// an in-memory device (10.77.N.2/24, MAC 02:00:00:00:00:N, MTU 1500).
    #[must_use]
    pub fn new(services: &[(ServiceId, Role)]) -> Self {
        let devices = services.iter().filter_map(|&(id, role)| match role {
            Role::Netdevd { device: index } => Some(device(index, id)),
            _ => None,
        });
        let stack = StackConfig {
            name: "test".to_owned(),
            devices: devices.collect(),
            routes: Vec::new(),
            links: Vec::new(),
            dns: Vec::new(),
            tcp: TcpConfig {
                max_sockets: 256,
                ..TcpConfig::default()
            },
            udp: UdpConfig { max_sockets: 256 },
            secret: [7; 16],
        };
        Self::with_stack(stack, services)
    }

    /// As [`Fabric::new`] with a configuration of the test's own; links are made when it has
    /// none.
    #[must_use]
    pub fn with_stack(mut stack: StackConfig, services: &[(ServiceId, Role)]) -> Self {
        if stack.links.is_empty() {
            stack.links = links(services);
        }
        let homes = services
            .iter()
            .map(|&(id, role)| (id, Home::new(id, role)))
            .collect();
        let links = stack
            .links
            .iter()
            .map(|&l| (l, shm::link::create("test-link").expect("a link")))
            .collect();
        Self {
            stack,
            homes,
            links,
            regions: BTreeMap::new(),
        }
    }

    /// The configuration of a service.
    #[must_use]
    pub fn config(&self, service: ServiceId) -> DaemonConfig {
        let home = self.homes.get(&service).expect("a service of this fabric");
        DaemonConfig {
            service,
            role: home.role,
            incarnation: home.incarnation,
            stack: self.stack.clone(),
            lost_buffers: 40_000_000_000,
            quarantine: Vec::new(),
            core: None,
        }
    }

    /// The stack's configuration, to change before services are started.
    pub fn stack_mut(&mut self) -> &mut StackConfig {
        &mut self.stack
    }

    /// Gives a netdevd a device descriptor.
    pub fn set_device(&mut self, service: ServiceId, fd: OwnedFd) {
        self.home(service).device = Some(fd);
    }

    /// Gives a transport a listening socket.
    pub fn set_listener(&mut self, service: ServiceId, fd: OwnedFd) {
        self.home(service).listener = Some(fd);
    }

    /// Makes the state memfd of a service, empty; done by [`Fabric::worker`] on its own.
    pub fn make_state(&mut self, service: ServiceId, size: usize) {
        let home = self.home(service);
        if size > 0 && home.state.is_none() {
            home.state = Some(shm::mapping::create("test-state", size).expect("state memory"));
        }
    }

    /// Attaches a service to its plumbing, as a daemon does at its start; what a predecessor
    /// left is swept. The predecessor must be gone.
    pub fn plumbing(&mut self, service: ServiceId) -> Plumbing {
        self.pump();
        let config = self.config(service);
        let (ours, theirs) = FdChannel::pair().expect("a channel");
        let theirs = Arc::new(FdChannel::new(theirs).expect("a channel"));
        self.hand_out(service, &ours);
        let home = self.home(service);
        home.incarnation += 1;
        home.channel = Some(ours);
        Plumbing::receive(&config, theirs).expect("plumbing")
    }

    /// Starts a service on its plumbing.
    pub fn worker<S: Service>(&mut self, service: ServiceId) -> Worker<S> {
        let size = S::state_size(&self.stack);
        self.make_state(service, size);
        let config = self.config(service);
        let mut plumbing = self.plumbing(service);
        let service = start::<S>(&config, &mut plumbing).expect("restoring");
        Worker { service, plumbing }
    }

    /// Plays the supervisor's store: takes in what services sent.
    pub fn pump(&mut self) {
        let mut shared = Vec::new();
        for home in self.homes.values_mut() {
            let Some(channel) = &home.channel else {
                continue;
            };
            while let Ok(Received::Message(message, fds)) = channel.recv::<FromWorker>() {
                match message {
                    FromWorker::Store(keys) => home.stored.extend(keys.into_iter().zip(fds)),
                    FromWorker::Forget(keys) => keys.iter().for_each(|key| {
                        home.stored.remove(key);
                    }),
                    FromWorker::ShareRegion(id) => {
                        shared.extend(fds.into_iter().map(|fd| (id, Some(fd))));
                    }
                    FromWorker::UnshareRegion(id) => shared.push((id, None)),
                }
            }
        }
        for (id, memory) in shared {
            self.set_region(id, memory);
        }
    }

    /// Makes a session memory known to all netdevds, or (none) takes it away.
    pub fn set_region(&mut self, id: RegionId, memory: Option<OwnedFd>) {
        for home in self.homes.values() {
            if let (Role::Netdevd { .. }, Some(channel)) = (home.role, &home.channel) {
                // A netdevd that is down gets it with its plumbing.
                let _ = match &memory {
                    Some(fd) => channel.send(&ToWorker::Region(id), &[fd.as_fd()]),
                    None => channel.send(&ToWorker::RegionGone(id), &[]),
                };
            }
        }
        match memory {
            Some(fd) => self.regions.insert(id, fd),
            None => self.regions.remove(&id),
        };
    }

    /// What a service has stored.
    #[must_use]
    pub fn stored(&mut self, service: ServiceId) -> &BTreeMap<StoreKey, OwnedFd> {
        self.pump();
        &self.home(service).stored
    }

    /// Free slots in the pool that a service allocates from.
    #[must_use]
    pub fn free_slots(&self, service: ServiceId) -> u32 {
        let home = self.homes.get(&service).expect("a service of this fabric");
        shm::Pool::attach(PoolId(service.0), &home.pool)
            .expect("its pool")
            .free_slots()
    }

    /// A service's vital signs, as the supervisor sees them.
    #[must_use]
    pub fn vitals(&self, service: ServiceId) -> shm::Vitals {
        let home = self.homes.get(&service).expect("a service of this fabric");
        shm::Vitals::attach(&home.vitals).expect("its vital signs")
    }

    /// A service's doorbell.
    #[must_use]
    pub fn bell(&self, service: ServiceId) -> shm::Bell {
        let home = self.homes.get(&service).expect("a service of this fabric");
        let event = home.bell.1.try_clone().expect("an eventfd");
        shm::Bell::attach(&home.bell.0, event).expect("its bell")
    }

    /// Slots of each pool.
    #[must_use]
    pub fn slots(&self) -> u32 {
        POOL.slots()
    }

    fn home(&mut self, service: ServiceId) -> &mut Home {
        self.homes
            .get_mut(&service)
            .expect("a service of this fabric")
    }

    /// Sends everything a service needs over `channel`, as the supervisor does at its start.
    pub fn hand_out(&self, service: ServiceId, channel: &FdChannel) {
        let send = |message: ToWorker, fds: &[BorrowedFd<'_>]| {
            channel.send(&message, fds).expect("sending plumbing");
        };
        let piece = |piece, fds: &[BorrowedFd<'_>]| send(ToWorker::Plumbing(piece), fds);
        let home = self.homes.get(&service).expect("a service of this fabric");
        piece(Piece::Vitals, &[home.vitals.as_fd()]);
        for (id, other) in &self.homes {
            piece(
                Piece::Bell(*id),
                &[other.bell.0.as_fd(), other.bell.1.as_fd()],
            );
            if visits(other.role, home.role) {
                piece(Piece::Pool(PoolId(id.0), *id), &[other.pool.as_fd()]);
            }
        }
        for (link, fd) in &self.links {
            if link.upper == service || link.lower == service {
                piece(Piece::Link(link.link), &[fd.as_fd()]);
            }
        }
        if let Some(fd) = &home.state {
            piece(Piece::State, &[fd.as_fd()]);
        }
        if let Role::Netdevd { device } = home.role {
            if let Some(fd) = &home.device {
                piece(Piece::Device(device), &[fd.as_fd()]);
            }
            for (id, fd) in &self.regions {
                send(ToWorker::Region(*id), &[fd.as_fd()]);
            }
        }
        if let Some(fd) = &home.listener {
            piece(Piece::Listener, &[fd.as_fd()]);
        }
        let stored: Vec<_> = home.stored.iter().collect();
        for batch in stored.chunks(abi::plumbing::MAX_FDS) {
            let keys = batch.iter().map(|(key, _)| **key).collect();
            let fds: Vec<_> = batch.iter().map(|(_, fd)| fd.as_fd()).collect();
            send(ToWorker::Restored(keys), &fds);
        }
        send(ToWorker::Start, &[]);
    }
}

impl Home {
    fn new(id: ServiceId, role: Role) -> Self {
        let name = format!("test-{}-{}", role.name(), id.0);
        Self {
            role,
            incarnation: 0,
            vitals: shm::vitals::create(&name).expect("vitals"),
            bell: shm::bell::create(&name).expect("a bell"),
            pool: shm::pool::create(&name, POOL).expect("a pool"),
            state: None,
            device: None,
            listener: None,
            stored: BTreeMap::new(),
            channel: None,
        }
    }
}

/// Transports over ipd, ipd over netdevds.
fn links(services: &[(ServiceId, Role)]) -> Vec<LinkConfig> {
    let Some(&(ipd, _)) = services.iter().find(|(_, role)| *role == Role::Ipd) else {
        return Vec::new();
    };
    let pairs = services.iter().filter_map(|&(id, role)| match role {
        Role::Ipd => None,
        Role::Netdevd { device } => Some((ipd, id, Some(device))),
        Role::Tcpd | Role::Udpd => Some((id, ipd, None)),
    });
    (1..)
        .zip(pairs)
        .map(|(n, (upper, lower, device))| LinkConfig {
            link: LinkId(n),
            upper,
            lower,
            device,
        })
        .collect()
}

/// Whether packets of the pool of a service in role `owner` visit one in role `visited`: a
/// transport's pool never the other transport.
fn visits(owner: Role, visited: Role) -> bool {
    owner == visited
        || !matches!(
            (owner, visited),
            (Role::Tcpd, Role::Udpd) | (Role::Udpd, Role::Tcpd)
        )
}
