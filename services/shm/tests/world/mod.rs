//! Services, pools and links with real memfds in one process; every service has mappings of its
//! own. A service can die at any point between its calls and be succeeded.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use abi::{Handle, PoolId, ServiceId};
use shm::lost::Lost;
use shm::ring::{Consumer, Producer};
use shm::sync::Ordering;
use shm::{Allocator, Arena, Link, Pool, PoolLayout, Side, SizeClass, SkBuff, pool, sweep};
use std::collections::HashSet;

pub const LAYOUT: PoolLayout = PoolLayout {
    small_slots: 3,
    small_size: 512,
    large_slots: 2,
    large_size: 1024,
};

/// All three: every pool is everyone's.
const VISITORS: [ServiceId; 3] = [ServiceId(1), ServiceId(2), ServiceId(3)];

/// A link's place: upper and lower service by index.
const LINKS: [(usize, usize); 2] = [(1, 0), (2, 1)];

/// One end of a link.
struct End {
    link: &'static Link,
    side: Side,
    peer: ServiceId,
    producer: Producer<'static>,
    consumer: Consumer<'static>,
}

/// A service while it lives.
pub struct Service {
    me: ServiceId,
    arena: Arena,
    alloc: Allocator,
    ends: Vec<End>,
    lost: Lost,
    pub held: Vec<SkBuff>,
}

/// What a service can do in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Allocates a packet of one slot or two.
    Alloc { two: bool },
    /// Puts the oldest packet it holds behind a ring's end.
    Push { end: usize },
    /// Publishes what it pushed.
    Publish { end: usize },
    /// Pops and claims the next packet, if one waits.
    Take { end: usize },
    /// Gives the places back.
    Advance { end: usize },
    /// Frees the oldest packet it holds.
    Free,
    /// Dies, and its successor sweeps and attaches.
    Die,
    /// Dies after sealing a packet, before pushing it.
    DieSealed,
    /// Looks for lost slots, long enough after everything before.
    Look,
    /// Something from outside writes over the ownership word of a slot of its pool.
    Scribble {
        /// Which slot.
        slot: u32,
        /// The owner's byte.
        owner: u8,
    },
}

impl Service {
    fn attach(world: &World, index: usize) -> Self {
        let me = id(index);
        let mut arena = Arena::new(me);
        for pool in &world.pools[index] {
            arena.add_pool(pool);
        }
        let alloc = Allocator::new(world.pools[index][index], me);
        let ends = LINKS
            .iter()
            .zip(&world.links)
            .filter_map(|(&(upper, lower), link)| {
                let (side, peer) = match index {
                    i if i == upper => (Side::Upper, id(lower)),
                    i if i == lower => (Side::Lower, id(upper)),
                    _ => return None,
                };
                let producer = link.producer(side)?;
                let consumer = link.consumer(side)?;
                Some(End {
                    link,
                    side,
                    peer,
                    producer,
                    consumer,
                })
            });
        Self {
            me,
            arena,
            alloc,
            ends: ends.collect(),
            lost: Lost::default(),
            held: Vec::new(),
        }
    }
}

/// All of it.
pub struct World {
    /// By service, then by pool.
    pools: Vec<Vec<&'static Pool>>,
    links: Vec<&'static Link>,
    pub services: Vec<Service>,
    /// Pool and slot of what was scribbled over and is perhaps in somebody's hands still.
    scribbled: HashSet<(PoolId, u32)>,
    now: u64,
}

fn id(index: usize) -> ServiceId {
    ServiceId(u8::try_from(index + 1).unwrap())
}

/// What a packet's bytes are.
fn pattern(packet: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&packet.to_le_bytes());
    bytes[8..].copy_from_slice(&(!packet).to_le_bytes());
    bytes
}

impl World {
    /// Three services in a row, each with a pool that all map.
    pub fn new() -> Self {
        let n = 3;
        let fds: Vec<_> = (0..n)
            .map(|_| pool::create("pool", LAYOUT).unwrap())
            .collect();
        let attach = |_| {
            let pools = fds.iter().enumerate().map(|(p, fd)| {
                Pool::attach_for(PoolId(u8::try_from(p).unwrap()), id(p), fd).unwrap()
            });
            pools.collect()
        };
        let pools = (0..n).map(attach).collect();
        let link = |_| Link::attach(&shm::link::create("link").unwrap()).unwrap();
        let links = LINKS.iter().map(link).collect();
        let mut world = Self {
            pools,
            links,
            services: Vec::new(),
            scribbled: HashSet::new(),
            now: 0,
        };
        world.services = (0..n).map(|i| Service::attach(&world, i)).collect();
        world
    }

    /// One step of service `index`; faults that honest services can meet are stale handles.
    pub fn step(&mut self, index: usize, op: Op) {
        let service = &mut self.services[index];
        match op {
            Op::Alloc { two } => {
                let Some(mut skb) = service.alloc.alloc(SizeClass::Small) else {
                    return;
                };
                let bytes = pattern(skb.handle().packet());
                if two {
                    let Some(mut extra) = service.alloc.alloc(SizeClass::Large) else {
                        return;
                    };
                    skb.put(8).unwrap().copy_from_slice(&bytes[..8]);
                    extra.put(8).unwrap().copy_from_slice(&bytes[8..]);
                    assert!(skb.attach_extra(extra));
                } else {
                    skb.put(16).unwrap().copy_from_slice(&bytes);
                }
                service.held.push(skb);
            }
            Op::Push { end } => {
                let end = end % service.ends.len();
                if service.held.is_empty() {
                    return;
                }
                let skb = service.held.remove(0);
                let pool = service.arena.pool(skb.handle().pool()).unwrap();
                let handle = skb.into_handle();
                if !service.ends[end].producer.push(handle.0) {
                    let back = SkBuff::reclaim(pool, handle, service.me);
                    assert!(SkBuff::reclaim(pool, handle, service.me).is_none());
                    service.held.push(back.expect("it was not published"));
                }
            }
            Op::Publish { end } => {
                let end = end % service.ends.len();
                service.ends[end].producer.publish();
            }
            Op::Take { end } => {
                let end = end % service.ends.len();
                let end = &mut service.ends[end];
                end.consumer.available().expect("honest peers");
                let Some(raw) = end.consumer.pop() else {
                    return;
                };
                match service.arena.claim(Handle(raw), end.peer) {
                    Ok(skb) => {
                        let mut bytes = [0; 16];
                        service
                            .arena
                            .copy_out(&skb, 0, &mut bytes)
                            .expect("16 bytes");
                        assert_eq!(bytes, pattern(skb.handle().packet()));
                        assert!(service.arena.claim(Handle(raw), end.peer).is_err());
                        service.held.push(skb);
                    }
                    // What a predecessor had taken, or half taken, when it died.
                    Err(shm::PeerFault::Stale(_) | shm::PeerFault::Descriptor(_)) => {}
                    Err(fault) => panic!("{fault} among honest services"),
                }
            }
            Op::Advance { end } => {
                let end = end % service.ends.len();
                service.ends[end].consumer.advance();
            }
            Op::Free => {
                if !service.held.is_empty() {
                    drop(service.held.remove(0));
                }
            }
            Op::Die => self.die(index),
            Op::Look => self.look(index),
            Op::Scribble { slot, owner } => {
                let pool = self.pools[index][index];
                let word = pool.slots().word(slot).unwrap();
                let now = shm::owner::generation(word.load(Ordering::SeqCst));
                let scribbled = shm::owner::pack(now + 5, ServiceId(owner));
                word.store(scribbled, Ordering::SeqCst);
                self.scribbled.insert((pool.id(), slot));
            }
            Op::DieSealed => {
                if !service.held.is_empty() {
                    let _ = service.held.remove(0).into_handle();
                }
                self.die(index);
            }
        }
    }

    /// A look of service `index` for lost slots. Between any two, everyone has let go of the
    /// packets that it held at the first, but its own.
    fn look(&mut self, index: usize) {
        let scribbled = core::mem::take(&mut self.scribbled);
        for service in &mut self.services {
            let is_over = |skb: &SkBuff| {
                let own = skb.handle().pool().0 + 1 == service.me.0;
                let h = skb.handle();
                let gone = |slot| !own && scribbled.contains(&(h.pool(), slot));
                let word = service.arena.pool(h.pool()).unwrap();
                let extra = skb.frags().iter().any(|_| true);
                gone(h.slot()) || (extra && (0..word.layout().slots()).any(gone))
            };
            service.held.retain(|skb| !is_over(skb));
        }
        self.scribbled = scribbled;
        self.now += 1;
        let service = &mut self.services[index];
        let outgoing: Vec<_> = service
            .ends
            .iter_mut()
            .map(|e| {
                e.producer.publish();
                e.link.words(e.side).unwrap()
            })
            .collect();
        sweep::look(
            &mut service.lost,
            service.me,
            &VISITORS,
            (self.now, 1),
            self.pools[index].iter().copied(),
            outgoing.into_iter(),
        );
    }

    fn die(&mut self, index: usize) {
        for skb in self.services[index].held.drain(..) {
            std::mem::forget(skb);
        }
        for pool in &self.pools[index] {
            pool.hold_nothing();
        }
        let outgoing: Vec<_> = self.services[index]
            .ends
            .iter()
            .map(|e| e.link.words(e.side).unwrap())
            .collect();
        sweep::sweep(
            id(index),
            &VISITORS,
            self.pools[index].iter().copied(),
            outgoing.into_iter(),
        );
        self.services[index] = Service::attach(self, index);
    }

    /// Every packet that a service holds is its own, and nobody else's.
    pub fn check(&self) {
        let mut seen = HashSet::new();
        for service in &self.services {
            for skb in &service.held {
                let h = skb.handle();
                assert!(seen.insert((h.pool(), h.slot())), "{h:?} is held twice");
                let pool = service.arena.pool(h.pool()).unwrap();
                let owner = pool.owner_of(h.slot());
                let scribbled = self.scribbled.contains(&(h.pool(), h.slot()));
                assert!(scribbled || owner == Some((h.generation(), service.me)));
            }
        }
    }

    /// Everybody comes to rest: nothing may be left.
    pub fn settle(&mut self) {
        for index in 0..self.services.len() {
            self.die(index);
        }
        self.drain();
        self.check_free();
    }

    /// Everybody comes to rest, and nobody dies.
    pub fn settle_alive(&mut self) {
        for service in &mut self.services {
            service.held.clear();
            for end in &mut service.ends {
                end.producer.publish();
            }
        }
        self.drain();
        for index in (0..self.services.len())
            .cycle()
            .take(2 * self.services.len())
        {
            self.look(index);
        }
        self.check_free();
        self.scribbled.clear();
    }

    fn drain(&mut self) {
        for _ in 0..2 {
            for index in 0..self.services.len() {
                for end in 0..self.services[index].ends.len() {
                    while self.services[index].ends[end].consumer.available().unwrap() > 0 {
                        self.step(index, Op::Take { end });
                        self.step(index, Op::Advance { end });
                        self.services[index].held.clear();
                    }
                }
            }
        }
    }

    fn check_free(&self) {
        for pool in &self.pools[0] {
            assert_eq!(
                pool.free_slots(),
                LAYOUT.slots(),
                "slots of {:?} leaked",
                pool.id()
            );
        }
    }
}
