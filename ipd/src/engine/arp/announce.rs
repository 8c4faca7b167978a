//! Announcing our addresses, and defending them (RFC 5227 2.3 and 2.4).
//!
//! Deviation: addresses are not probed before use (RFC 5227 2.1). They come from a person's
//! configuration, and a stack that is restarted must not be silent for seconds.

use crate::engine::counters::Counter;
use crate::engine::device::Device;
use crate::engine::{Engine, Env};
use abi::{DevIndex, Nanos};
use core::net::Ipv4Addr;
use std::collections::HashMap;
use wire::MacAddr;

/// RFC 5227 1.1: ANNOUNCE_NUM and ANNOUNCE_INTERVAL.
const ANNOUNCE_NUM: u8 = 2;
const ANNOUNCE_INTERVAL: Nanos = 2_000_000_000;
/// RFC 5227 1.1: DEFEND_INTERVAL.
const DEFEND_INTERVAL: Nanos = 10_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Pending {
    device: DevIndex,
    ip: Ipv4Addr,
    at: Nanos,
    left: u8,
}

/// What is still to be announced, and when what was defended.
#[derive(Debug)]
pub(crate) struct Announcer {
    enabled: bool,
    pending: Vec<Pending>,
    defended: HashMap<(DevIndex, Ipv4Addr), Nanos>,
}

impl Announcer {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            pending: Vec::new(),
            defended: HashMap::new(),
        }
    }

    /// Announces the addresses of a device that has come up (`first`) or changed its link-layer
    /// address.
    pub(crate) fn schedule(&mut self, device: &Device, first: bool, now: Nanos) {
        // After a restart the neighbours know what was there before; a later change they do not.
        if first && !self.enabled {
            return;
        }
        self.pending.retain(|p| p.device != device.index);
        self.pending
            .extend(device.addresses.iter().map(|net| Pending {
                device: device.index,
                ip: net.addr(),
                at: now,
                left: ANNOUNCE_NUM,
            }));
    }

    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.pending.iter().map(|p| p.at).min()
    }

    fn due(&mut self, now: Nanos) -> Option<(DevIndex, Ipv4Addr)> {
        let p = self.pending.iter_mut().find(|p| p.at <= now)?;
        let what = (p.device, p.ip);
        p.at = now + ANNOUNCE_INTERVAL;
        p.left = p.left.saturating_sub(1);
        self.pending.retain(|p| p.left > 0);
        Some(what)
    }

    /// RFC 5227 2.4 (b): one announcement, unless the last conflict was a moment ago.
    fn may_defend(&mut self, what: (DevIndex, Ipv4Addr), now: Nanos) -> bool {
        let last = self.defended.insert(what, now);
        last.is_none_or(|last| now.saturating_sub(last) >= DEFEND_INTERVAL)
    }
}

impl Engine {
    pub(in crate::engine) fn expire_announcements(&mut self, env: &mut Env<'_>) {
        while let Some((device, ip)) = self.announcer.due(env.now) {
            self.counters.bump(Counter::ArpOutAnnounces);
            self.arp_send(env, device, ip, ip, MacAddr::BROADCAST);
        }
    }

    /// Somebody else uses `ip`. RFC 5227 2.4 (c): a host whose address must not change keeps it,
    /// and takes care not to argue forever.
    pub(super) fn defend(&mut self, env: &mut Env<'_>, device: DevIndex, ip: Ipv4Addr) {
        self.counters.bump(Counter::ArpConflicts);
        if self.announcer.may_defend((device, ip), env.now) {
            self.counters.bump(Counter::ArpDefences);
            self.arp_send(env, device, ip, ip, MacAddr::BROADCAST);
        }
    }
}
