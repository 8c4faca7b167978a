//! The engine's state as records: neighbours, then path MTUs, each at its place in its table.
//!
//! Times are `CLOCK_MONOTONIC`, so they mean the same to a successor.

use super::counters::Counter;
use super::neigh::{self, Key, Saved};
use super::pmtu::{self, PathMtu};
use super::{Engine, Nanos};
use abi::{DevIndex, Endpoint};
use wire::MacAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Records in all.
pub const COUNT: u32 = neigh::CAPACITY + pmtu::CAPACITY;

/// One committed neighbour or path MTU. 48 bytes, no padding.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StateRecord {
    /// A neighbour's last confirmation; a path MTU's expiry.
    pub time: Nanos,
    /// The neighbour's address; the path's destination.
    pub ip: Endpoint,
    /// A neighbour's device.
    pub device: u16,
    /// A neighbour's link-layer address.
    pub mac: [u8; 6],
    /// A path's MTU.
    pub mtu: u16,
    /// Zero.
    pub reserved: [u8; 10],
}

const _: () = assert!(size_of::<StateRecord>() == 48);

impl Engine {
    /// Whether [`Engine::commit`] has anything to do.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.neigh.is_dirty() || self.pmtu.is_dirty()
    }

    /// Hands out the records that changed since the last call, none for one that is free now.
    pub fn commit(&mut self, mut write: impl FnMut(u32, Option<StateRecord>)) {
        self.neigh.take_dirty(|place, saved| {
            let record = saved.map(|s| StateRecord {
                time: s.confirmed,
                ip: Endpoint::new(s.key.ip, 0),
                device: s.key.device.0,
                mac: s.mac.0,
                ..StateRecord::default()
            });
            write(place, record);
        });
        self.pmtu.take_dirty(|place, path| {
            let record = path.map(|p| StateRecord {
                time: p.expires,
                ip: Endpoint::new(p.dst, 0),
                mtu: p.mtu,
                ..StateRecord::default()
            });
            write(neigh::CAPACITY + place, record);
        });
    }

    /// Takes over a record of a predecessor; false when it makes no sense (any more), then it is
    /// to be cleared.
    pub fn restore(&mut self, index: u32, record: &StateRecord, now: Nanos) -> bool {
        let Some(ip) = record.ip.ip() else {
            return false;
        };
        let (restored, counter) = if index < neigh::CAPACITY {
            let key = Key {
                device: DevIndex(record.device),
                ip,
            };
            let known = self.devices.get(key.device).is_some();
            let saved = Saved {
                key,
                mac: MacAddr(record.mac),
                confirmed: record.time,
            };
            (
                known && self.neigh.restore(index, saved, now),
                Counter::NeighRestored,
            )
        } else {
            let path = PathMtu {
                dst: ip,
                mtu: record.mtu,
                expires: record.time,
            };
            (self.pmtu.restore(path, now), Counter::PmtuRestored)
        };
        if restored {
            self.counters.bump(counter);
        }
        restored
    }
}
