//! Messages on the descriptor channel (`SOCK_SEQPACKET` with `SCM_RIGHTS`) between supervisor
//! and daemon: what the daemon is given at its start, and what it stores with the supervisor.
//!
//! A message that has been sent stays in the kernel when its sender dies, so storing needs no
//! answer: once `sendmsg` has returned, the descriptor outlives the daemon.

use crate::ids::{DevIndex, LinkId, PoolId, RegionId, ServiceId};
use serde::{Deserialize, Serialize};

/// Descriptors in one message at the most (Linux's `SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Names a stored descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreKey {
    /// What it is.
    pub class: StoreClass,
    /// Which one: for `Shadow` (region << 32 | slot), for the session classes the region.
    pub id: u64,
    /// Tells successive descriptors of the same id apart (a socket slot's incarnation).
    pub incarnation: u32,
}

/// What a stored descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StoreClass {
    /// The transport's end of a shadow fd.
    Shadow,
    /// A session memory.
    SessionMemory,
    /// The transport's end of an application's request socket.
    SessionSocket,
}

/// From the supervisor to a daemon; the number of descriptors that come along is in brackets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToWorker {
    /// A piece of plumbing, at start.
    Plumbing(Plumbing),
    /// Stored descriptors, in the order of the keys [as many].
    Restored(Vec<StoreKey>),
    /// All plumbing and stored descriptors have been sent [0].
    Start,
    /// A session memory to gather payload from [1: the memfd]; to netdevds.
    Region(RegionId),
    /// The session is gone: unmap it [0].
    RegionGone(RegionId),
    /// A new supervisor has taken over: connect to this control server, say hello and that you
    /// are ready [0].
    Control(String),
}

/// A piece of plumbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plumbing {
    /// Own vital signs, crash note, trace and counters [1: memfd].
    Vitals,
    /// A service's doorbell, the own one or a neighbour's [2: memfd, eventfd].
    Bell(ServiceId),
    /// A pool of packet buffers and the service that allocates from it [1: memfd].
    Pool(PoolId, ServiceId),
    /// A link to a neighbour [1: memfd].
    Link(LinkId),
    /// The service's own committed state [1: memfd].
    State,
    /// The device [1: its descriptor].
    Device(DevIndex),
    /// Where applications connect [1: listening `SOCK_SEQPACKET` socket].
    Listener,
}

/// From a daemon to the supervisor; the number of descriptors in brackets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromWorker {
    /// Keep these [as many].
    Store(Vec<StoreKey>),
    /// Drop these [0].
    Forget(Vec<StoreKey>),
    /// Make a session memory known to all netdevds [1: memfd].
    ShareRegion(RegionId),
    /// Take it back [0].
    UnshareRegion(RegionId),
}

impl FromWorker {
    /// Which of them it is, from 1.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        match self {
            Self::Store(_) => 1,
            Self::Forget(_) => 2,
            Self::ShareRegion(_) => 3,
            Self::UnshareRegion(_) => 4,
        }
    }
}
