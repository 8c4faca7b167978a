//! The keeper: a process that holds a copy of every descriptor of a constellation, so that the
//! supervisor can die too.
//!
//! ```text
//!   supervisor --- Keep, Forget ---> keeper          while the supervisor lives: copies
//!        X                             |
//!                daemons --- Store --->|             while none does: takes what daemons store
//!   supervisor <-- Kept, Complete -----+             a new one adopts what runs
//! ```
//!
//! It decides nothing and starts nothing. It has the supervisor's ends of the daemons'
//! descriptor channels too; those are queues in the kernel, so a message that a daemon has sent
//! is lost neither when the supervisor dies before it reads it nor while it is being replaced.
//! When the keeper itself dies, the supervisor starts another and gives it everything again.

mod process;

pub(crate) use process::main;

use abi::plumbing::StoreKey;
use abi::{LinkId, PoolId, RegionId, ServiceId};
use serde::{Deserialize, Serialize};

/// What a kept descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Key {
    /// A memfd that holds the constellation's plan: what a new supervisor compares its own with.
    Plan,
    /// A service's vital signs.
    Vitals(ServiceId),
    /// Memory of its doorbell.
    BellMemory(ServiceId),
    /// Eventfd of its doorbell.
    BellEvent(ServiceId),
    /// Its committed state.
    State(ServiceId),
    /// The device it drives.
    Device(ServiceId),
    /// Where applications reach it.
    Listener(ServiceId),
    /// A pool.
    Pool(PoolId),
    /// A link.
    Link(LinkId),
    /// What a service has stored.
    Stored(ServiceId, StoreKey),
    /// A session memory that all netdevds know.
    Region(RegionId),
    /// The supervisor's end of the descriptor channel of a service's living worker.
    Channel(ServiceId),
    /// The worker's pidfd.
    Worker(ServiceId),
    /// The build that it was upgraded to.
    Executable(ServiceId),
    /// The build before, while the upgrade may have to be taken back.
    Previous(ServiceId),
}

/// To the keeper; the number of descriptors in brackets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToKeeper {
    /// Hold these; what was held under the same key is closed [as many].
    Keep(Vec<Key>),
    /// Close these [0].
    Forget(Vec<Key>),
    /// First message of a new supervisor: give me everything [0].
    Fetch,
    /// The constellation is taken down in good order: exit [0].
    End,
    /// Of one who may become the supervisor: what could I adopt? Answered with the plan alone [0].
    Look,
}

impl ToKeeper {
    /// Which of them it is, from 1.
    pub(crate) const fn kind(&self) -> u32 {
        match self {
            Self::Keep(_) => 1,
            Self::Forget(_) => 2,
            Self::Fetch => 3,
            Self::End => 4,
            Self::Look => 5,
        }
    }
}

/// From the keeper; the number of descriptors in brackets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    /// What is held [as many].
    Kept(Vec<Key>),
    /// That was all; from here on the supervisor takes what daemons store [0].
    Complete,
}
