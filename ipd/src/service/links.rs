//! The links: which are transports, which are devices, and what their shared words say.

use super::lower::Lower;
use crate::engine::{Engine, Upper};
use abi::{DevIndex, Nanos};
use arrayvec::ArrayVec;
use runtime::{LinkEnd, Plumbing};
use shm::link::DeviceWords;
use shm::{Side, SkBuff};
use wire::ethernet::EtherType;

/// What ipd takes from devices.
const ETHERTYPES: [u16; 2] = [EtherType::ARP.0, EtherType::IPV4.0];
/// Protocols that one link can register.
const MAX_REGISTERED: usize = 15;

/// What is at the other end of a link, in the order of [`Plumbing::links`].
#[derive(Debug)]
pub(super) enum Port {
    /// A transport and what it serves, as last seen.
    Transport {
        upper: Upper,
        serves: ArrayVec<u16, MAX_REGISTERED>,
    },
    /// A device.
    Device(Lower),
}

impl Port {
    /// The transport, if it is one.
    pub(super) fn upper(&self) -> Option<Upper> {
        match self {
            Self::Transport { upper, .. } => Some(*upper),
            Self::Device(_) => None,
        }
    }

    /// The device; 0 for a transport.
    pub(super) fn device(&self) -> DevIndex {
        match self {
            Self::Transport { .. } => DevIndex(0),
            Self::Device(lower) => lower.device,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Ports(Vec<Port>);

impl Ports {
    /// Sorts the links and registers with the devices' drivers.
    pub(super) fn new(plumbing: &Plumbing, engine: &mut Engine) -> Self {
        let port = |(link, at): (&LinkEnd, u8)| match link.side {
            Side::Lower => {
                engine.expect(Upper(at));
                Port::Transport {
                    upper: Upper(at),
                    serves: ArrayVec::new(),
                }
            }
            Side::Upper => {
                link.link().register(&ETHERTYPES);
                Port::Device(Lower::new(link.device.unwrap_or_default()))
            }
        };
        Self(plumbing.links.iter().zip(0u8..).map(port).collect())
    }

    pub(super) fn get(&self, at: usize) -> Option<&Port> {
        self.0.get(at)
    }

    fn lowers(&self) -> impl Iterator<Item = &Lower> {
        self.0.iter().filter_map(|p| match p {
            Port::Device(lower) => Some(lower),
            Port::Transport { .. } => None,
        })
    }

    /// Reads the words that the neighbours may have changed: a few loads when they have not.
    pub(super) fn look(&mut self, links: &[LinkEnd], engine: &mut Engine, now: Nanos) {
        for (link, port) in links.iter().zip(&mut self.0) {
            match port {
                Port::Transport { upper, serves } => {
                    if link.link().registered().eq(serves.iter().copied()) {
                        continue;
                    }
                    *serves = link.link().registered().take(MAX_REGISTERED).collect();
                    engine.register(*upper, serves.iter().copied());
                }
                Port::Device(lower) => {
                    let words = link.link().device();
                    if words.present && words != lower.words {
                        lower.words = words;
                        engine.device_report(lower.device, words.mac, words.mtu, now);
                    }
                }
            }
        }
    }

    /// Makes the next look report everything anew.
    pub(super) fn forget_words(&mut self) {
        for port in &mut self.0 {
            if let Port::Device(lower) = port {
                lower.words = DeviceWords::default();
            }
        }
    }

    /// Sends a frame to a device's driver; false when it had to be dropped.
    pub(super) fn transmit(
        &mut self,
        links: &mut [LinkEnd],
        device: DevIndex,
        skb: SkBuff,
        now: Nanos,
    ) -> bool {
        let found = links
            .iter_mut()
            .zip(&mut self.0)
            .find_map(|(link, port)| match port {
                Port::Device(lower) if lower.device == device => Some((link, lower)),
                _ => None,
            });
        found.is_some_and(|(link, lower)| lower.transmit(link, skb, now))
    }

    /// Tries again to send what was held back.
    pub(super) fn retry(&mut self, links: &mut [LinkEnd], now: Nanos) {
        for (link, port) in links.iter_mut().zip(&mut self.0) {
            if let Port::Device(lower) = port {
                lower.retry(link, now);
            }
        }
    }

    /// Whether transports are to wait for a device.
    pub(super) fn is_paused(&self, now: Nanos) -> bool {
        self.lowers().any(|l| l.pauses(now))
    }

    /// When to try again.
    pub(super) fn retry_at(&self, now: Nanos) -> Option<Nanos> {
        self.lowers().filter_map(|l| l.retry_at(now)).min()
    }
}
