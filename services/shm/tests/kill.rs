//! Real processes, really killed: two services echo packets as fast as they can while either is
//! SIGKILLed again and again. In the end no slot is lost, and no packet ever had other bytes than
//! it was sent with.
#![cfg(not(feature = "loom"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests are tests"
)]

use abi::{Handle, PoolId, ServiceId};
use shm::sync::{AtomicU64, Ordering};
use shm::{Arena, Link, Mapping, Pool, PoolLayout, Side, SizeClass, SkBuff, pool, sweep};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const LAYOUT: PoolLayout = PoolLayout {
    small_slots: 24,
    small_size: 512,
    large_slots: 8,
    large_size: 1024,
};
const POOL: PoolId = PoolId(1);
/// The lower service sends from its pool, the upper one echoes.
const LOWER: ServiceId = ServiceId(1);
const UPPER: ServiceId = ServiceId(2);
/// Tells the child how to get at the memory, and which service it is.
const PLUMBING: &str = "STRATA_SHM_KILL_TEST";
const RUN_FOR: Duration = Duration::from_secs(4);

struct Service {
    me: ServiceId,
    side: Side,
    peer: ServiceId,
    pool: &'static Pool,
    link: &'static Link,
    arena: Arena,
    score: Mapping,
}

impl Service {
    fn attach(fds: [&OwnedFd; 3], me: ServiceId) -> Self {
        let pool = Pool::attach_for(POOL, LOWER, fds[0]).unwrap();
        let mut arena = Arena::new(me);
        arena.add_pool(pool);
        let (side, peer) = if me == LOWER {
            (Side::Lower, UPPER)
        } else {
            (Side::Upper, LOWER)
        };
        let link = Link::attach(fds[1]).unwrap();
        let score = Mapping::map(fds[2], 4096, true).unwrap();
        Self {
            me,
            side,
            peer,
            pool,
            link,
            arena,
            score,
        }
    }

    fn score(&self, index: usize) -> &AtomicU64 {
        self.score.u64_at(index * 8).unwrap()
    }

    fn sweep(&self) -> u32 {
        let outgoing = self.link.words(self.side).into_iter();
        sweep::sweep(self.me, &[LOWER, UPPER], [self.pool].into_iter(), outgoing)
    }

    fn is_sound(&self, skb: &SkBuff) -> bool {
        let mut bytes = [0; 16];
        let packet = skb.handle().packet();
        self.arena.copy_out(skb, 0, &mut bytes).is_ok()
            && bytes[..8] == packet.to_le_bytes()
            && bytes[8..] == (!packet).to_le_bytes()
    }

    /// Takes what is there.
    fn receive(&self, each: &mut dyn FnMut(SkBuff)) {
        let mut c = self.link.consumer(self.side).unwrap();
        if c.available().is_err() {
            self.score(3).fetch_add(1, Ordering::Relaxed);
        }
        let mut n = 0;
        while let Some(raw) = c.pop() {
            match self.arena.claim(Handle(raw), self.peer) {
                Ok(skb) if self.is_sound(&skb) => each(skb),
                Ok(_) => drop(self.score(2).fetch_add(1, Ordering::Relaxed)),
                Err(_) => drop(self.score(1).fetch_add(1, Ordering::Relaxed)),
            }
            n += 1;
            if n % 3 == 0 {
                c.advance();
            }
        }
        c.advance();
    }

    fn work(&self) -> ! {
        self.sweep();
        let mut alloc = shm::Allocator::new(self.pool, self.me);
        let mut p = self.link.producer(self.side).unwrap();
        let mut two = false;
        loop {
            self.receive(&mut |skb| {
                if self.me == LOWER {
                    self.score(0).fetch_add(1, Ordering::Relaxed);
                } else {
                    let handle = skb.into_handle();
                    if !p.push(handle.0) {
                        drop(SkBuff::reclaim(self.pool, handle, self.me));
                    }
                }
            });
            while self.me == LOWER && p.room().is_ok_and(|n| n > 0) {
                let Some(mut skb) = alloc.alloc(SizeClass::Small) else {
                    break;
                };
                let packet = skb.handle().packet();
                skb.put(8).unwrap().copy_from_slice(&packet.to_le_bytes());
                two = !two;
                if let Some(mut extra) = two.then(|| alloc.alloc(SizeClass::Large)).flatten() {
                    extra
                        .put(8)
                        .unwrap()
                        .copy_from_slice(&(!packet).to_le_bytes());
                    assert!(skb.attach_extra(extra));
                } else {
                    skb.put(8)
                        .unwrap()
                        .copy_from_slice(&(!packet).to_le_bytes());
                }
                if !p.push(skb.into_handle().0) {
                    break;
                }
            }
            p.publish();
            std::thread::yield_now();
        }
    }
}

/// The child's life: this test does nothing when it is not started by the other one.
#[test]
fn child() {
    let Ok(plumbing) = std::env::var(PLUMBING) else {
        return;
    };
    let mut words = plumbing.split(' ');
    let me = ServiceId(words.next().unwrap().parse().unwrap());
    let fds: Vec<OwnedFd> = words
        .map(|path| {
            File::options()
                .read(true)
                .write(true)
                .open(path)
                .unwrap()
                .into()
        })
        .collect();
    let [pool, link, score] = &fds[..] else {
        panic!("three descriptors")
    };
    Service::attach([pool, link, score], me).work()
}

fn start(fds: [&OwnedFd; 3], me: ServiceId) -> Child {
    let paths = fds.map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(PLUMBING, format!("{} {}", me.0, paths.join(" ")))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_services_lose_packets_and_nothing_else() {
    let pool = pool::create("pool", LAYOUT).unwrap();
    let link = shm::link::create("link").unwrap();
    let score = shm::mapping::create("score", 4096).unwrap();
    let fds = [&pool, &link, &score];
    let seed = u64::from(std::process::id());
    let mut random = fastrand::Rng::with_seed(seed);
    let services = [LOWER, UPPER];
    let mut children = services.map(|me| start(fds, me));
    let (end, mut kills) = (Instant::now() + RUN_FOR, 0);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_micros(random.u64(3_000..20_000)));
        let i = random.usize(0..2);
        children[i].kill().unwrap();
        children[i].wait().unwrap();
        children[i] = start(fds, services[i]);
        kills += 1;
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let [lower, upper] = services.map(|me| Service::attach(fds, me));
    lower.sweep();
    upper.sweep();
    let (mut down, mut up) = (0, 0);
    upper.receive(&mut |_| up += 1);
    lower.receive(&mut |_| down += 1);
    let score = |i| lower.score(i).load(Ordering::Relaxed);
    let told = format!(
        "seed {seed}: {kills} kills, {} echoes, {} stale, {down} and {up} left on the rings",
        score(0),
        score(1)
    );
    println!("{told}");
    assert_eq!(
        lower.pool.free_slots(),
        LAYOUT.slots(),
        "slots leaked; {told}"
    );
    assert_eq!(score(2), 0, "garbled packets; {told}");
    assert_eq!(score(3), 0, "impossible indices; {told}");
    assert!(score(0) > 1000, "hardly any traffic; {told}");
}
