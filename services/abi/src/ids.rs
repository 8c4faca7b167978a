//! Small identifiers that the supervisor hands out.

use serde::{Deserialize, Serialize};

/// A process of the constellation. 0 is nobody (a free slot's owner), so ids start at 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct ServiceId(pub u8);

impl ServiceId {
    /// Nobody: the owner of a free slot.
    pub const NOBODY: Self = Self(0);
    /// Highest id that may be handed out.
    pub const MAX: Self = Self(63);
}

/// A pool of packet buffers (one memfd).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct PoolId(pub u8);

/// Number of pools a process can attach.
pub const MAX_POOLS: usize = 64;

/// A pair of rings between two neighbouring services (one memfd).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct LinkId(pub u8);

/// A network device of the stack; index 0 is never a device.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct DevIndex(pub u16);

/// A mapped memory that fragments may point into: a pool's buffers or an application's session.
///
/// Session regions carry the transport that made them in the top byte, so that two transports
/// never hand out the same number; pools are the regions below 256, numbered as [`PoolId`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct RegionId(pub u32);

impl RegionId {
    /// The region that is a pool's own buffers.
    #[must_use]
    pub const fn of_pool(pool: PoolId) -> Self {
        Self(pool.0 as u32)
    }

    /// The `serial`th session region of `transport` (24 bits, never 0).
    #[must_use]
    pub const fn of_session(transport: ServiceId, serial: u32) -> Self {
        Self(((transport.0 as u32) << 24) | (serial & 0x00ff_ffff))
    }

    /// The pool this region is, if it is one.
    #[must_use]
    pub fn pool(self) -> Option<PoolId> {
        u8::try_from(self.0).ok().map(PoolId)
    }

    /// The transport that made this session region, or nobody for a pool.
    #[must_use]
    pub fn transport(self) -> ServiceId {
        ServiceId(self.0.to_be_bytes()[0])
    }
}
