//! netdevd as a service of the runtime.

mod awaiting;
mod receive;
mod transmit;

use crate::counters::{self, Counter, Stats};
use crate::device::{Device, Io, Loopback, Software, VnetDevice, earlier};
use crate::impair::Impaired;
use abi::config::{DaemonConfig, DeviceConfig, DeviceKind, Role};
use abi::control::Query;
use abi::{Nanos, RegionId};
use anyhow::{Context as _, bail, ensure};
use awaiting::Awaiting;
use runtime::{Context, EpollFlags, Plumbing, Service};
use shm::SkBuff;
use shm::link::DeviceWords;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use wire::MacAddr;

/// Frames that wait for a busy device at the most; more stay in the ring, where they hold ipd
/// back.
const BACKLOG: usize = 128;

/// When to try a busy device again.
const RETRY: Nanos = 100_000;

/// Token of the device in epoll.
const DEVICE: u64 = 1;

/// One device and its traffic.
#[derive(Debug)]
pub struct Netdevd {
    config: DeviceConfig,
    mac: MacAddr,
    device: Impaired<Software<Box<dyn Device>>>,
    stats: Stats,
    /// Frames taken from the device, as they came.
    raw: Vec<SkBuff>,
    /// Frames to deliver and to which link.
    up: Vec<(usize, SkBuff)>,
    /// Frames to send.
    down: VecDeque<SkBuff>,
    /// Of them those whose session memory has not come yet.
    awaiting: Awaiting,
    /// Which link serves which EtherType.
    registered: Vec<(u16, usize)>,
    retry: Option<Nanos>,
}

/// The device of this daemon in the configuration.
fn own_device(config: &DaemonConfig) -> anyhow::Result<&DeviceConfig> {
    let Role::Netdevd { device } = config.role else {
        bail!("netdevd was started as {}", config.role.name());
    };
    config
        .stack
        .devices
        .iter()
        .find(|d| d.index == device)
        .with_context(|| format!("device {} is not in the configuration", device.0))
}

impl Netdevd {
    fn tell_device(&self, plumbing: &Plumbing) {
        for link in &plumbing.links {
            link.link().set_device(DeviceWords {
                present: true,
                mtu: self.config.mtu,
                mac: self.config.mac,
                // In hardware, in the kernel or in our software: the sender need not care.
                checksum: true,
                segmentation: true,
            });
        }
    }
}

impl Service for Netdevd {
    const COUNTERS: &'static [&'static str] = counters::NAMES;

    fn restore(
        config: &DaemonConfig,
        plumbing: &mut Plumbing,
        _now: Nanos,
    ) -> anyhow::Result<Self> {
        let config = own_device(config)?.clone();
        ensure!(
            plumbing.alloc.is_some(),
            "device {} has no receive pool",
            config.name
        );
        let backend: Box<dyn Device> = match config.kind {
            DeviceKind::Loopback => Box::new(Loopback::new()),
            kind @ (DeviceKind::Tap | DeviceKind::Packet) => {
                let (_, fd) = plumbing
                    .device
                    .take()
                    .with_context(|| format!("no descriptor for device {}", config.name))?;
                Box::new(VnetDevice::new(fd, kind, config.offload, config.mtu))
            }
        };
        let device = Impaired::new(Software::new(backend), &config.impairment);
        if let Some(fd) = device.fd() {
            let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            plumbing
                .poller
                .add(fd, DEVICE, edge)
                .with_context(|| format!("waiting for device {}", config.name))?;
        }
        let this = Self {
            mac: MacAddr(config.mac),
            config,
            device,
            stats: Stats::default(),
            raw: Vec::new(),
            up: Vec::new(),
            down: VecDeque::new(),
            awaiting: Awaiting::default(),
            registered: Vec::new(),
            retry: None,
        };
        this.tell_device(plumbing);
        Ok(this)
    }

    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        self.read_registrations(cx.plumbing);
        let received = self.receive(cx, budget);
        let Plumbing { links, arena, .. } = &mut *cx.plumbing;
        let mut taken = 0;
        for link in links {
            let room = BACKLOG.saturating_sub(self.down.len()).min(budget);
            taken += link.recv(arena, room, |skb| self.down.push_back(skb));
        }
        received + taken
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        for (link, skb) in self.up.drain(..) {
            let link = cx.plumbing.links.get_mut(link);
            if link.is_none_or(|link| link.send(skb).is_err()) {
                self.stats.add(Counter::RxRingFull, 1);
            }
        }
        self.transmit(cx);
        // Full, with a time to try again: until then the ring is no reason to stay awake.
        let paused = self.retry.is_some() && self.down.len() >= BACKLOG;
        for link in &mut cx.plumbing.links {
            link.pause(paused);
        }
        let now = cx.now;
        let Plumbing { alloc, arena, .. } = &mut *cx.plumbing;
        if let Some(alloc) = alloc {
            let mut io = Io {
                now,
                alloc,
                arena,
                stats: &mut self.stats,
            };
            self.device.flush(&mut io);
        }
        self.stats.publish(cx.plumbing);
    }

    fn has_input(&self, _: &Context<'_>) -> bool {
        self.device.has_input()
    }

    /// The device's interrupt is its edge in epoll, which nobody waits for while the loop polls:
    /// masking costs no system call.
    fn arm(&mut self, armed: bool) {
        let counter = if armed {
            Counter::IrqArmed
        } else {
            Counter::IrqMasked
        };
        self.stats.add(counter, 1);
    }

    fn deadline(&self) -> Option<Nanos> {
        earlier(
            earlier(self.device.deadline(), self.retry),
            self.awaiting.deadline(),
        )
    }

    fn on_fd(&mut self, _: &mut Context<'_>, token: u64, _: EpollFlags) {
        if token == DEVICE {
            self.stats.add(Counter::IrqFired, 1);
        }
    }

    fn reconfigure(&mut self, config: &DaemonConfig, cx: &mut Context<'_>) {
        match own_device(config) {
            Ok(new) => {
                self.device.set(&new.impairment);
                self.mac = MacAddr(new.mac);
                self.config = new.clone();
                self.tell_device(cx.plumbing);
            }
            Err(error) => tracing::warn!(%error, "configuration ignored"),
        }
    }

    fn region(&mut self, id: RegionId, memory: Option<OwnedFd>, cx: &mut Context<'_>) {
        transmit::adopt(cx.plumbing, id, memory);
    }

    fn query(&mut self, what: Query, _: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        if what != Query::Summary {
            return Default::default();
        }
        let c = &self.config;
        let row = |key: &str, value: String| vec![key.to_owned(), value];
        let rows = vec![
            row("device", c.name.clone()),
            row("kind", format!("{:?}", c.kind).to_lowercase()),
            row("mac", self.mac.to_string()),
            row("mtu", c.mtu.to_string()),
            row("offload", format!("{:?}", c.offload).to_lowercase()),
            row("impaired", (!c.impairment.is_off()).to_string()),
            row("backlog", self.down.len().to_string()),
        ];
        (vec!["key".to_owned(), "value".to_owned()], rows)
    }
}
