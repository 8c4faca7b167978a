//! One end of a link: receiving from and sending to a neighbour.
//!
//! ```text
//!   recv:  pop -> claim (ownership word) -> SkBuff, a batch at a time
//!   send:  SkBuff -> handle, written behind the ring's end, not yet visible
//!   flush: publish all of it, ring the neighbour's bell once
//! ```
//!
//! What the neighbour wrote is not trusted: what cannot be claimed is counted and skipped.

use crate::quarantine::{self, Quarantine};
use abi::{DevIndex, LinkId, ServiceId};
use shm::ring::{Consumer, Producer};
use shm::{Arena, Bell, Link, PeerFault, Side, SkBuff};
use std::sync::Arc;

/// What went wrong at a link since the counts were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkFaults {
    /// Impossible indices, forged handles, malformed descriptors.
    pub peer: u64,
    /// Handles that are stale: after a restart, what the predecessor had already claimed.
    pub stale: u64,
    /// Packets that found the neighbour's ring full.
    pub full: u64,
    /// Packets that are quarantined: dropped unseen.
    pub quarantined: u64,
}

/// A neighbour, seen from this service.
#[derive(Debug)]
pub struct LinkEnd {
    /// The link's number.
    pub id: LinkId,
    /// Which end this service is.
    pub side: Side,
    /// Who is at the other end.
    pub peer: ServiceId,
    /// The device below, when the lower service is a netdevd.
    pub device: Option<DevIndex>,
    memory: &'static Link,
    incoming: Consumer<'static>,
    outgoing: Producer<'static>,
    /// Places known to be free in the outgoing ring.
    credit: u32,
    bell: Arc<Bell>,
    faults: LinkFaults,
    paused: bool,
    quarantine: Arc<Quarantine>,
}

impl LinkEnd {
    /// Takes up an end where a predecessor left it; none when the link's memory is too small.
    pub(crate) fn attach(
        id: LinkId,
        side: Side,
        peer: ServiceId,
        device: Option<DevIndex>,
        memory: &'static Link,
        bell: Arc<Bell>,
    ) -> Option<Self> {
        let incoming = memory.consumer(side)?;
        let outgoing = memory.producer(side)?;
        let faults = LinkFaults::default();
        Some(Self {
            id,
            side,
            peer,
            device,
            memory,
            incoming,
            outgoing,
            credit: 0,
            bell,
            faults,
            paused: false,
            quarantine: Arc::default(),
        })
    }

    /// Pops and claims up to `budget` packets and hands each to `each`; answers how many handles
    /// were taken off the ring, those that turned out faulty included.
    pub fn recv(&mut self, arena: &Arena, budget: usize, mut each: impl FnMut(SkBuff)) -> usize {
        let waiting = match self.incoming.available() {
            Ok(n) => usize::try_from(n).unwrap_or(0),
            Err(fault) => {
                self.fault(fault);
                return 1;
            }
        };
        let mut taken = 0;
        while taken < waiting.min(budget) {
            let Some(raw) = self.incoming.pop() else {
                break;
            };
            taken += 1;
            match arena.claim(abi::Handle(raw), self.peer) {
                Ok(skb) if self.is_held(&skb) => self.faults.quarantined += 1,
                Ok(skb) => each(skb),
                Err(fault) => self.fault(fault),
            }
        }
        // After the claims: a place given back earlier could be overwritten while its packet is
        // still the neighbour's.
        self.incoming.advance();
        taken
    }

    #[inline]
    fn is_held(&self, skb: &SkBuff) -> bool {
        if self.quarantine.is_empty() {
            return false;
        }
        let upper = self.side == Side::Upper;
        let (begins, down) = quarantine::coming(self.device.is_some(), upper);
        self.quarantine
            .holds(begins, skb.desc(), skb.linear(), down)
    }

    /// What is dropped from now on instead of being received.
    pub(crate) fn set_quarantine(&mut self, quarantine: &Arc<Quarantine>) {
        self.quarantine = Arc::clone(quarantine);
    }

    /// Puts a packet behind the ring's end, not yet visible to the neighbour.
    ///
    /// # Errors
    /// Gives the packet back when the ring is full; drop it or try again after the neighbour ran.
    #[allow(
        clippy::result_large_err,
        reason = "a box would be an allocation a packet"
    )]
    pub fn send(&mut self, skb: SkBuff) -> Result<(), SkBuff> {
        if self.credit == 0 {
            match self.outgoing.room() {
                Ok(n) if n > 0 => self.credit = n,
                Ok(_) => {
                    self.faults.full += 1;
                    return Err(skb);
                }
                Err(fault) => {
                    self.fault(fault);
                    // The consumer repairs its word when it looks.
                    self.bell.force();
                    return Err(skb);
                }
            }
        }
        self.credit -= 1;
        let _ = self.outgoing.push(skb.into_handle().0);
        Ok(())
    }

    /// Publishes what was sent and rings the neighbour's bell once, if anything was.
    pub fn flush(&mut self) {
        if self.outgoing.publish() > 0 {
            self.bell.ring();
        }
    }

    /// The link's shared words: registrations and what the device is.
    #[must_use]
    pub fn link(&self) -> &'static Link {
        self.memory
    }

    /// Whether nothing waits, by a look at shared memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.incoming.is_empty()
    }

    /// Takes nothing from this neighbour for now: what waits there is no reason to stay awake,
    /// and when the ring is full the neighbour is held back. A deadline must end it.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether something waits that would be taken.
    pub(crate) fn has_input(&self) -> bool {
        !self.paused && !self.is_empty()
    }

    /// Wakes the neighbour whatever it is doing: after a restart, when the predecessor may have
    /// died between publishing and ringing.
    pub fn force_bell(&self) {
        self.bell.force();
    }

    /// Takes the faults counted since the last call.
    pub fn take_faults(&mut self) -> LinkFaults {
        std::mem::take(&mut self.faults)
    }

    fn fault(&mut self, fault: PeerFault) {
        match fault {
            PeerFault::Stale(_) => self.faults.stale += 1,
            _ => self.faults.peer += 1,
        }
        tracing::debug!(link = self.id.0, peer = self.peer.0, %fault, "peer fault");
    }
}
