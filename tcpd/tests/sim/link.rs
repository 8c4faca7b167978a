//! A path in one direction, with everything that can happen on it.

use abi::{Endpoint, Nanos};
use fastrand::Rng;
use std::collections::BTreeMap;

/// A TCP segment on the wire: header and payload, and what the device says about it.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) src: Endpoint,
    pub(crate) dst: Endpoint,
    pub(crate) bytes: Vec<u8>,
    /// Payload of each wire segment in a merged one.
    pub(crate) gso_size: u16,
}

/// What happens to packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Impairment {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) reorder: f64,
    pub(crate) delay: Nanos,
    pub(crate) jitter: Nanos,
    /// Bytes a second; 0 for no limit.
    pub(crate) rate: u64,
    /// Bytes that wait at the most when the rate is limited.
    pub(crate) queue: u64,
}

impl Impairment {
    pub(crate) fn none() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            delay: 50_000,
            jitter: 0,
            rate: 0,
            queue: 0,
        }
    }

    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut pick = |values: &[f64]| values[rng.usize(..values.len())];
        let loss = pick(&[0.0, 0.001, 0.01, 0.03, 0.1]);
        let duplicate = pick(&[0.0, 0.0, 0.01, 0.05]);
        let reorder = pick(&[0.0, 0.01, 0.1, 0.3]);
        let delay = pick(&[20e3, 500e3, 10e6, 100e6]) as Nanos;
        let jitter = pick(&[0.0, 0.0, 0.1, 1.0]) * delay as f64;
        let rate = pick(&[0.0, 0.0, 125e3, 1.25e6, 12.5e6]) as u64;
        let queue = pick(&[20e3, 60e3, 500e3]) as u64;
        Self {
            loss,
            duplicate,
            reorder,
            delay,
            jitter: jitter as Nanos,
            rate,
            queue,
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Link {
    impairment: Impairment,
    rng: Rng,
    queue: BTreeMap<(Nanos, u64), Packet>,
    order: u64,
    /// When the transmitter is free again.
    free_at: Nanos,
    pub(crate) lost: u64,
}

impl Link {
    pub(crate) fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            rng: Rng::with_seed(seed),
            queue: BTreeMap::new(),
            order: 0,
            free_at: 0,
            lost: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Nanos, packet: Packet) {
        let i = self.impairment;
        if self.rng.f64() < i.loss {
            self.lost += 1;
            return;
        }
        let copies = 1 + u32::from(self.rng.f64() < i.duplicate);
        for _ in 0..copies {
            self.enqueue(now, packet.clone());
        }
    }

    fn enqueue(&mut self, now: Nanos, packet: Packet) {
        let i = self.impairment;
        let mut at = now;
        if i.rate > 0 {
            let time = |bytes: u64| bytes * 1_000_000_000 / i.rate;
            self.free_at = self.free_at.max(now);
            let waiting = (self.free_at - now) * i.rate / 1_000_000_000;
            if waiting > i.queue {
                self.lost += 1;
                return;
            }
            self.free_at += time(packet.bytes.len() as u64 + 20);
            at = self.free_at;
        }
        at += i.delay;
        if i.jitter > 0 && self.rng.f64() < 0.5 {
            at += self.rng.u64(0..=i.jitter);
        }
        if self.rng.f64() < i.reorder {
            at += self.rng.u64(0..=2 * i.delay + 100_000);
        }
        self.order += 1;
        self.queue.insert((at, self.order), packet);
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        self.queue.keys().next().map(|&(at, _)| at)
    }

    pub(crate) fn arrivals(&mut self, now: Nanos) -> Vec<Packet> {
        let mut due = Vec::new();
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        due
    }
}
