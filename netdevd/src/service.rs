//! netdevd as a service of the runtime.

use crate::counters::{self, Counter, Stats};
use crate::device::{Busy, Device, Frame, Io, Loopback, Software, VnetDevice, earlier};
use crate::impair::Impaired;
use abi::config::{DaemonConfig, DeviceConfig, DeviceKind, Role};
use abi::control::Query;
use abi::skbuff::flag;
use abi::{Nanos, RegionId};
use anyhow::{Context as _, bail, ensure};
use runtime::{Context, EpollFlags, Plumbing, Service};
use shm::link::DeviceWords;
use shm::vitals::stage;
use shm::{Mapping, PeerFault, SkBuff};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use wire::MacAddr;
use wire::ethernet::{self, Header};

/// Frames that wait for a busy device at the most; more stay in the ring, where they hold ipd
/// back.
const BACKLOG: usize = 128;

/// When to try a busy device again.
const RETRY: Nanos = 100_000;

/// Token of the device in epoll.
const DEVICE: u64 = 1;

/// Kinds of crash notes: what was at work.
mod note {
    /// A received frame.
    pub(super) const RX: u32 = 1;
    /// A frame to send.
    pub(super) const TX: u32 = 2;
}

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

    fn read_registrations(&mut self, plumbing: &Plumbing) {
        self.registered.clear();
        for (index, link) in plumbing.links.iter().enumerate() {
            let types = link.link().registered().map(|ethertype| (ethertype, index));
            self.registered.extend(types);
        }
    }

    /// Takes frames from the device and decides what becomes of each.
    fn receive(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        let now = cx.now;
        let Plumbing { alloc, arena, .. } = &mut *cx.plumbing;
        let Some(alloc) = alloc else { return 0 };
        let mut io = Io {
            now,
            alloc,
            arena,
            stats: &mut self.stats,
        };
        let taken = self.device.receive(&mut io, budget, &mut self.raw);
        let mut raw = std::mem::take(&mut self.raw);
        for skb in raw.drain(..) {
            cx.plumbing.vitals.note(note::RX, skb.handle().packet());
            if let Some((link, skb)) = self.accept(skb) {
                let ethertype = u64::from(skb.desc().ethertype);
                cx.trace(stage::DEVICE_IN, skb.handle(), skb.len(), ethertype);
                self.up.push((link, skb));
            }
        }
        self.raw = raw;
        if taken > 0 {
            cx.plumbing.vitals.note(0, 0);
        }
        taken
    }

    /// Reads the Ethernet header: what is for us and wanted goes up, with the header pulled.
    fn accept(&mut self, mut skb: SkBuff) -> Option<(usize, SkBuff)> {
        let Ok((header, len)) = Header::parse(skb.linear()) else {
            self.stats.add(Counter::RxMalformed, 1);
            return None;
        };
        if header.dst != self.mac && !header.dst.is_multicast() {
            self.stats.add(Counter::RxOtherHost, 1);
            return None;
        }
        let ethertype = header.ethertype.0;
        let Some(&(_, link)) = self.registered.iter().find(|(t, _)| *t == ethertype) else {
            self.stats.add(Counter::RxUnregistered, 1);
            return None;
        };
        let bytes = skb.len() as u64;
        let network = u16::try_from(skb.data_offset()).unwrap_or(0) + ethernet_len();
        if !skb.pull(len) {
            return None;
        }
        let index = self.config.index;
        let d = skb.desc_mut();
        d.network = network;
        d.ethertype = ethertype;
        d.dev_in = index.0;
        if header.dst.is_multicast() {
            d.flags |= flag::LINK_BROADCAST;
        }
        self.stats.add(Counter::RxPackets, 1);
        self.stats.add(Counter::RxBytes, bytes);
        self.stats
            .add(Counter::RxSuperFrames, u64::from(d.gso_type != 0));
        Some((link, skb))
    }

    /// Sends what waits, until the device is busy.
    fn transmit(&mut self, cx: &mut Context<'_>) {
        if self.retry.is_some_and(|at| cx.now < at) {
            return;
        }
        self.retry = None;
        let any = !self.down.is_empty();
        while let Some(skb) = self.down.front() {
            cx.plumbing.vitals.note(note::TX, skb.handle().packet());
            match self.send(cx) {
                Ok(()) => {
                    self.down.pop_front();
                }
                Err(Busy) => {
                    self.stats.add(Counter::TxBusy, 1);
                    self.retry = Some(cx.now + RETRY);
                    break;
                }
            }
        }
        if any {
            cx.plumbing.vitals.note(0, 0);
        }
    }

    /// Sends the first frame of the backlog, or counts why it cannot be sent.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Busy> {
        let Some(skb) = self.down.front() else {
            return Ok(());
        };
        if skb.frags().iter().any(|f| !cx.knows(RegionId(f.region))) {
            // The session is so new that its memory is still on its way to us.
            adopt_regions(cx.plumbing);
        }
        let now = cx.now;
        let Plumbing { alloc, arena, .. } = &mut *cx.plumbing;
        let Some(alloc) = alloc else { return Ok(()) };
        let frame = match Frame::gather(skb, arena) {
            Ok(frame) => frame,
            Err(PeerFault::UnknownRegion(_)) => {
                self.stats.add(Counter::TxUnknownRegion, 1);
                return Ok(());
            }
            Err(_) => {
                self.stats.add(Counter::TxMalformed, 1);
                return Ok(());
            }
        };
        let mut io = Io {
            now,
            alloc,
            arena,
            stats: &mut self.stats,
        };
        self.device.transmit(&mut io, &frame)?;
        let super_frame = frame.hdr().is_gso();
        self.stats.add(Counter::TxPackets, 1);
        self.stats.add(Counter::TxBytes, frame.len() as u64);
        self.stats
            .add(Counter::TxSuperFrames, u64::from(super_frame));
        cx.trace(stage::DEVICE_OUT, skb.handle(), skb.len(), 0);
        Ok(())
    }
}

/// What an sk_buff's fragments may point into, asked of the arena.
trait Knows {
    fn knows(&self, region: RegionId) -> bool;
}

impl Knows for Context<'_> {
    fn knows(&self, region: RegionId) -> bool {
        region.pool().is_some() || self.plumbing.arena.has_region(region)
    }
}

fn ethernet_len() -> u16 {
    const { assert!(ethernet::HEADER_LEN == 14) };
    14
}

/// Maps the session memories that came, read-only, and unmaps those that went.
fn adopt_regions(plumbing: &mut Plumbing) {
    for (id, memory) in plumbing.take_regions() {
        adopt(plumbing, id, memory);
    }
}

fn adopt(plumbing: &mut Plumbing, id: RegionId, memory: Option<OwnedFd>) {
    let Some(fd) = memory else {
        plumbing.arena.remove_region(id);
        return;
    };
    match Mapping::map(&fd, 1, false) {
        Ok(map) => plumbing.arena.add_region(id, Arc::new(map)),
        Err(error) => tracing::warn!(?id, %error, "a session memory that cannot be mapped"),
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
        earlier(self.device.deadline(), self.retry)
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
        adopt(cx.plumbing, id, memory);
    }

    fn query(&mut self, what: Query) -> (Vec<String>, Vec<Vec<String>>) {
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
