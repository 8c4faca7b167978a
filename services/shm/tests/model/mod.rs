//! What the loom models share: shared words that are not in a memfd, and deaths at every step.
#![allow(dead_code, unreachable_pub, reason = "each model uses a part")]
#![allow(unsafe_code, reason = "reads and writes loom's cells")]

use abi::{Handle, PoolId, ServiceId};
use loom::cell::UnsafeCell;
use shm::lost::{Looked, Lost};
use shm::owner::{FIRST_GENERATION, pack};
use shm::ring::{RingWords, SLOTS_OFFSET};
use shm::slots::{Slots, Use};
use shm::sync::model::{exchange, mortal};
use shm::sync::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Nobody steps over so many words before it is done.
const LONGEST_LIFE: usize = 100;

/// Runs `model` with its mortal actor dying before its first step, its second, and so on, until
/// it lives to its end in every execution.
pub fn at_every_step(preemptions: usize, model: impl Fn(Actor) + Sync + Send + Clone + 'static) {
    for steps in 0.. {
        assert!(steps < LONGEST_LIFE, "the actor never ends");
        let actor = Actor {
            steps,
            died: Arc::default(),
        };
        let died = Arc::clone(&actor.died);
        let model = model.clone();
        let run = move || model(actor.clone());
        check(preemptions, run);
        if !died.load(Ordering::Relaxed) {
            assert!(steps > 0, "the actor took no step");
            return;
        }
    }
}

/// Runs `model` in every order with so many preemptions of a thread that could go on, once with
/// weak accesses and once with strong ones.
pub fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let model = Arc::new(model);
    for strong in [false, true] {
        exchange(strong);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        let model = Arc::clone(&model);
        builder.check(move || model());
    }
}

/// The one that dies.
#[derive(Clone)]
pub struct Actor {
    steps: usize,
    died: Arc<AtomicBool>,
}

impl Actor {
    /// Runs `life` until it ends or its steps do.
    pub fn live(&self, life: impl FnOnce()) {
        if mortal(self.steps, life).is_err() {
            self.died.store(true, Ordering::Relaxed);
        }
    }
}

/// A ring's words.
pub struct Ring {
    head: AtomicU32,
    tail: AtomicU32,
    slots: Vec<AtomicU64>,
}

impl Ring {
    /// An empty one, whose indices are about to wrap.
    pub fn new(capacity: usize) -> Self {
        assert_eq!(SLOTS_OFFSET % 64, 0);
        let start = u32::MAX;
        Self {
            head: AtomicU32::new(start),
            tail: AtomicU32::new(start),
            slots: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn words(&self) -> RingWords<'_> {
        RingWords {
            head: &self.head,
            tail: &self.tail,
            slots: &self.slots,
        }
    }

    pub fn indices(&self) -> (u32, u32) {
        (
            self.head.load(Ordering::SeqCst),
            self.tail.load(Ordering::SeqCst),
        )
    }
}

/// A pool: ownership words, the `extra` of each descriptor, and buffers that loom watches for
/// two owners at a time.
pub struct Pool {
    words: Vec<AtomicU64>,
    extra: Vec<AtomicU64>,
    buffers: Vec<UnsafeCell<u32>>,
}

impl Pool {
    pub const ID: PoolId = PoolId(5);

    pub fn new(slots: usize) -> Self {
        let free = pack(FIRST_GENERATION, ServiceId::NOBODY);
        Self {
            words: (0..slots).map(|_| AtomicU64::new(free)).collect(),
            extra: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            buffers: (0..slots).map(|_| UnsafeCell::new(0)).collect(),
        }
    }

    pub fn slots(&self) -> Slots<'_> {
        Slots::new(&self.words)
    }

    /// Any free slot.
    pub fn allocate(&self, me: ServiceId) -> Option<Use> {
        let all = 0..u32::try_from(self.words.len()).unwrap();
        let of = all
            .into_iter()
            .find_map(|slot| self.slots().allocate(slot, me))?;
        self.touch(of);
        Some(of)
    }

    /// Uses the buffer as only its owner may.
    pub fn touch(&self, of: Use) {
        self.buffers[of.slot as usize].with_mut(|buffer| {
            // SAFETY: loom fails the model when another owner's access is not ordered with this.
            unsafe { *buffer = of.generation }
        });
    }

    /// Writes the descriptor, as for publishing.
    pub fn seal(&self, head: Use, extra: Option<Use>) -> u64 {
        let extra = extra.map_or(0, |e| handle(e).0);
        self.extra[head.slot as usize].store(extra, Ordering::Relaxed);
        handle(head).0
    }

    pub fn extra_of(&self, h: Handle) -> Handle {
        Handle(self.extra[h.slot() as usize].load(Ordering::Relaxed))
    }

    /// Takes over what `from` published; the packet's slots as they are now named.
    pub fn claim(&self, raw: u64, from: ServiceId, me: ServiceId) -> Option<(Use, Option<Use>)> {
        let h = Handle(raw);
        let taken = self.slots().claim(named(h), from, me, || {
            let extra = self.extra_of(h);
            Ok((!extra.is_none()).then_some(named(extra)))
        })?;
        self.touch(taken.head);
        if let Some(extra) = taken.extra {
            self.touch(extra);
        }
        if taken.incomplete {
            self.free(taken.head, me);
            return None;
        }
        Some((taken.head, taken.extra))
    }

    pub fn free(&self, of: Use, me: ServiceId) {
        self.touch(of);
        assert!(
            self.slots().free(of, me),
            "{of:?} was not {me:?}'s any more"
        );
    }

    pub fn sweep<'a>(&self, dead: ServiceId, outgoing: impl Iterator<Item = RingWords<'a>>) -> u32 {
        let spared =
            shm::slots::published(dead, outgoing, |_| Some(self.slots()), |h| self.extra_of(h));
        self.slots().sweep(dead, |of| spared.contains(&handle(of)))
    }

    /// A look of `me` for lost slots, holding none; all are its to allocate.
    pub fn look<'a>(
        &self,
        lost: &mut Lost,
        me: ServiceId,
        now: u64,
        visitors: &[ServiceId],
        outgoing: impl Iterator<Item = RingWords<'a>>,
    ) -> u32 {
        let spared =
            shm::slots::published(me, outgoing, |_| Some(self.slots()), |h| self.extra_of(h));
        let looked = Looked {
            pool: Self::ID,
            slots: self.slots(),
            visitors: Some(visitors),
        };
        let spared = |of| spared.contains(&handle(of));
        lost.look(me, looked, (now, 1), |_| false, spared)
    }

    /// Owners of all slots.
    pub fn owners(&self) -> Vec<u8> {
        let owner = |w: &AtomicU64| shm::owner::owner(w.load(Ordering::SeqCst)).0;
        self.words.iter().map(owner).collect()
    }
}

pub fn handle(of: Use) -> Handle {
    Handle::new(Pool::ID, of.slot, of.generation)
}

pub fn named(h: Handle) -> Use {
    Use {
        slot: h.slot(),
        generation: h.generation(),
    }
}
