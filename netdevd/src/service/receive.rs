//! From the device upwards: what is for us and wanted, with the Ethernet header pulled.

use super::Netdevd;
use crate::counters::Counter;
use crate::device::{Device, Io};
use abi::skbuff::flag;
use abi::suspect::note;
use runtime::counters::index;
use runtime::{Context, Plumbing};
use shm::SkBuff;
use shm::crash::{self, Point};
use shm::vitals::stage;
use wire::ethernet::{self, Header};

impl Netdevd {
    /// Reads which EtherTypes are wanted: levels, so that who is restarted need not ask again.
    pub(super) fn read_registrations(&mut self, plumbing: &Plumbing) {
        self.registered.clear();
        for (index, link) in plumbing.links.iter().enumerate() {
            let types = link.link().registered().map(|ethertype| (ethertype, index));
            self.registered.extend(types);
        }
    }

    /// Takes frames from the device and decides what becomes of each.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
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
        if taken > 0 {
            crash::reach(Point::DeviceRead);
        }
        let mut raw = std::mem::take(&mut self.raw);
        for skb in raw.drain(..) {
            let held = &cx.plumbing.quarantine;
            if !held.is_empty() && held.holds(note::FRAME, skb.desc(), skb.linear(), false) {
                cx.plumbing.vitals.count(index::QUARANTINED, 1);
                continue;
            }
            cx.plumbing.vitals.note_packet(note::FRAME, &skb);
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
}

fn ethernet_len() -> u16 {
    const { assert!(ethernet::HEADER_LEN == 14) };
    14
}
