//! The IP engine: packets and a time in, actions out. No threads, no syscalls, no clock.
//!
//! ```text
//!   transports     output │          ▲ deliver (demux, kind PACKET or ICMP_ERROR)
//!                         ▼          │
//!                      output ──► loopback ──► demux ──► icmp (echo, errors)
//!                         │                      ▲
//!                     fragment               reassembly
//!                         │                      ▲
//!    route cache ◄── link output               input  ──► arp (requests, replies, conflicts)
//!    (fib, pmtu)          │                      ▲
//!                    neighbours (queue)          │
//!   devices               ▼ transmit             │
//! ```
//!
//! Payload is never copied on the way: headers are pushed into the headroom and pulled off the
//! front. The exceptions, each counted, are fragments both ways, quotations in ICMP errors, and
//! packets that turn from one pool's users to another's.
//!
//! Called by the process in [`crate::service`], by simulations and by tests, always with an
//! [`Env`]. All that it drops, it counts, and dropping an `SkBuff` frees its slot.

#![forbid(unsafe_code)]

mod arp;
mod checksum;
mod copy;
pub mod counters;
mod demux;
mod device;
mod fragment;
mod hash;
mod header;
mod icmp;
mod ident;
mod input;
mod link_output;
mod neigh;
mod output;
mod pmtu;
mod protocols;
mod reassembly;
pub mod records;
mod report;
mod route;

#[cfg(test)]
mod tests;

pub use counters::{Counter, Counters};
pub use records::StateRecord;
pub use report::Report;

use abi::config::StackConfig;
use abi::{DevIndex, Nanos};
use core::net::{IpAddr, Ipv4Addr};
use device::Devices;
use hash::Keyed;
use protocols::Protocols;
use runtime::fib::Fib;
use shm::{Allocator, Arena, SkBuff};

/// A transport, by its place among the process's upper links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Upper(pub u8);

/// What the engine wants done with a packet.
#[derive(Debug)]
pub enum Action {
    /// Send a complete Ethernet frame (data at its header) by a device.
    Transmit {
        /// Which one.
        device: DevIndex,
        /// The frame.
        skb: SkBuff,
    },
    /// Hand a packet (data at its transport header) to a transport.
    Deliver {
        /// Which one.
        upper: Upper,
        /// The packet.
        skb: SkBuff,
    },
}

/// What a call of the engine works with.
#[derive(Debug)]
pub struct Env<'a> {
    /// The time.
    pub now: Nanos,
    /// The pools that packets lie in.
    pub arena: &'a Arena,
    /// The own pool, for what the engine makes itself.
    pub alloc: &'a mut Allocator,
    /// Where the actions go, in order.
    pub out: &'a mut Vec<Action>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    fib: Fib,
    cache: route::Cache,
    pmtu: pmtu::Table,
    neigh: neigh::Table,
    devices: Devices,
    protocols: Protocols,
    reassembly: reassembly::Reassembly,
    limiter: icmp::Limiter,
    idents: ident::Idents,
    announcer: arp::Announcer,
    fragments: Vec<SkBuff>,
    /// Counts since the process last took them.
    pub counters: Counters,
}

impl Engine {
    /// An engine for a configuration, with empty tables.
    ///
    /// With `announce`, the stack's addresses are announced as soon as their device reports
    /// (RFC 5227 2.3); a successor that takes over where another died need not.
    #[must_use]
    pub fn new(stack: &StackConfig, now: Nanos, announce: bool) -> Self {
        let keyed = Keyed::new(stack.secret);
        Self {
            fib: Fib::new(stack),
            cache: route::Cache::new(stack.secret),
            pmtu: pmtu::Table::new(keyed),
            neigh: neigh::Table::new(neigh::CAPACITY, keyed, now),
            devices: Devices::new(stack),
            protocols: Protocols::default(),
            reassembly: reassembly::Reassembly::default(),
            limiter: icmp::Limiter::new(keyed),
            idents: ident::Idents::new(keyed, now),
            announcer: arp::Announcer::new(announce),
            fragments: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes over a changed configuration. Neighbours and path MTUs stay, save those behind
    /// devices that are gone.
    pub fn reconfigure(&mut self, stack: &StackConfig) {
        self.fib = Fib::new(stack);
        self.devices.reconfigure(stack);
        self.cache.flush();
        let devices = &self.devices;
        self.neigh.retain(|key| devices.get(key.device).is_some());
    }

    /// What the driver says of a device. The first word of it starts the announcements.
    pub fn device_report(&mut self, device: DevIndex, mac: [u8; 6], mtu: u16, now: Nanos) {
        let Some(news) = self.devices.report(device, mac, mtu) else {
            return;
        };
        if news.changed {
            self.cache.flush();
        }
        let announce = news.first || news.moved;
        if let Some(d) = self.devices.get(device).filter(|d| announce && !d.loopback) {
            self.announcer.schedule(d, news.first, now);
        }
    }

    /// A transport that will register; until then, no protocol is said to be unreachable.
    pub fn expect(&mut self, upper: Upper) {
        self.protocols.expect(upper);
    }

    /// The protocol numbers that a transport serves now, in place of those before.
    pub fn register(&mut self, upper: Upper, numbers: impl Iterator<Item = u16>) {
        self.protocols.register(upper, numbers);
    }

    /// Handles the timers that are due.
    pub fn expire(&mut self, env: &mut Env<'_>) {
        self.expire_neighbours(env);
        self.expire_reassembly(env);
        self.expire_announcements(env);
    }

    /// When [`Engine::expire`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        let deadlines = [
            self.neigh.deadline(),
            self.reassembly.deadline(),
            self.announcer.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn route(&mut self, dst: Ipv4Addr, now: Nanos) -> Option<route::Route> {
        let tables = route::Tables {
            fib: &self.fib,
            pmtu: &self.pmtu,
            devices: &self.devices,
        };
        self.cache
            .lookup(IpAddr::V4(dst), tables, now, &mut self.counters)
    }
}
