//! The loop as a daemon runs it: a control server, a descriptor channel, neighbours that sleep
//! and are woken, queries, a new configuration, drain, and a supervisor that dies.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test: what fails should say so at once"
)]

use abi::config::{DaemonConfig, Role};
use abi::control::{FromDaemon, Query, ToDaemon};
use abi::plumbing::ToWorker;
use abi::{Nanos, ServiceId};
use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver, IpcSender};
use runtime::channel::FdChannel;
use runtime::control::Handshake;
use runtime::testing::Fabric;
use runtime::{Boot, Context, Plumbing, Service};
use std::thread::JoinHandle;
use std::time::Duration;

const IPD: ServiceId = ServiceId(1);
const UDPD: ServiceId = ServiceId(2);

/// Sends every packet back where it came from: what a new service costs to write.
struct Echo {
    ready: Vec<(usize, shm::SkBuff)>,
    ticks: u64,
    next_tick: Nanos,
    configured: u32,
}

const TICK: Nanos = 20_000_000;

impl Service for Echo {
    const COUNTERS: &'static [&'static str] = &["echoed", "ticks"];

    fn restore(_: &DaemonConfig, _: &mut Plumbing, now: Nanos) -> anyhow::Result<Self> {
        Ok(Self {
            ready: Vec::new(),
            ticks: 0,
            next_tick: now + TICK,
            configured: 0,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        if cx.now >= self.next_tick {
            self.next_tick = cx.now + TICK;
            self.ticks += 1;
            cx.count(1, 1);
        }
        let Plumbing { links, arena, .. } = &mut *cx.plumbing;
        let mut handled = 0;
        for (i, link) in links.iter_mut().enumerate() {
            handled += link.recv(arena, budget, |skb| self.ready.push((i, skb)));
        }
        handled
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        for (i, skb) in self.ready.drain(..) {
            cx.plumbing.count(0, 1);
            let _ = cx.plumbing.links[i].send(skb);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.next_tick)
    }

    fn reconfigure(&mut self, config: &DaemonConfig, _: &mut Context<'_>) {
        self.configured = config.incarnation;
    }

    fn query(&mut self, _: Query, _: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        (
            vec!["configured".to_owned()],
            vec![vec![self.configured.to_string()]],
        )
    }
}

struct Daemon {
    thread: JoinHandle<()>,
    from: IpcReceiver<FromDaemon>,
    to: IpcSender<ToDaemon>,
    channel: FdChannel,
}

fn spawn(fabric: &Fabric, service: ServiceId) -> Daemon {
    spawn_as::<Echo>(fabric, service)
}

fn spawn_as<S: Service>(fabric: &Fabric, service: ServiceId) -> Daemon {
    let (server, name) = IpcOneShotServer::<Handshake>::new().unwrap();
    let (channel, theirs) = FdChannel::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let boot = Boot::connect(&name, theirs).unwrap().unwrap();
        assert_eq!(boot.role(), Role::Ipd);
        runtime::run::<S>(boot).unwrap();
    });
    let (
        _,
        Handshake {
            from_daemon: from,
            to_daemon: to,
        },
    ) = server.accept().unwrap();
    assert!(matches!(
        from.recv().unwrap(),
        FromDaemon::Hello {
            layout: abi::LAYOUT_VERSION,
            ..
        }
    ));
    to.send(ToDaemon::Configure(Box::new(fabric.config(service))))
        .unwrap();
    fabric.hand_out(service, &channel);
    assert!(matches!(from.recv().unwrap(), FromDaemon::Ready));
    Daemon {
        thread,
        from,
        to,
        channel,
    }
}

/// Sends one packet and waits for it to come back; the time it took.
fn round_trip(udpd: &mut Plumbing, fill: u8) -> Duration {
    let began = std::time::Instant::now();
    let mut skb = udpd
        .alloc
        .as_mut()
        .unwrap()
        .alloc(shm::SizeClass::Small)
        .unwrap();
    skb.put(100).unwrap().fill(fill);
    udpd.links[0].send(skb).unwrap();
    udpd.links[0].flush();
    let mut back = None;
    while back.is_none() {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the packet does not come back"
        );
        let Plumbing { links, arena, .. } = &mut *udpd;
        links[0].recv(arena, 1, |skb| back = Some(skb));
        std::thread::yield_now();
    }
    assert_eq!(back.unwrap().linear(), [fill; 100]);
    began.elapsed()
}

#[test]
fn a_sleeping_daemon_is_woken_controlled_and_drained() {
    let mut fabric = Fabric::new(&[(IPD, Role::Ipd), (UDPD, Role::Udpd)]);
    let mut udpd = fabric.plumbing(UDPD);
    let daemon = spawn(&fabric, IPD);

    for fill in 0..50 {
        if fill % 10 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        round_trip(&mut udpd, fill);
    }
    // Timers fire while nothing arrives.
    std::thread::sleep(Duration::from_millis(150));

    let mut config = fabric.config(IPD);
    config.incarnation = 42;
    daemon
        .to
        .send(ToDaemon::Configure(Box::new(config)))
        .unwrap();
    daemon
        .to
        .send(ToDaemon::Query {
            id: 9,
            what: Query::Summary,
        })
        .unwrap();
    let FromDaemon::Report { id: 9, rows, .. } = daemon.from.recv().unwrap() else {
        panic!()
    };
    assert_eq!(rows, [["42"]]);

    let vitals = fabric.vitals(IPD);
    let counter = |name: &str| {
        let all = vitals.counters();
        all.into_iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v)
            .unwrap()
    };
    assert_eq!(counter("echoed"), 50);
    assert!(counter("ticks") >= 3, "{}", counter("ticks"));
    assert!(counter("rt_to_interrupt") > 0);
    assert_eq!(counter("rt_peer_faults"), 0);

    // The heartbeat: a forced bell moves the progress word.
    let before = vitals.turns();
    fabric.bell(IPD).force();
    let began = std::time::Instant::now();
    while vitals.turns() == before {
        assert!(began.elapsed() < Duration::from_secs(5), "no progress");
        std::thread::sleep(Duration::from_millis(1));
    }

    daemon.to.send(ToDaemon::Drain).unwrap();
    assert!(matches!(daemon.from.recv().unwrap(), FromDaemon::Drained));
    daemon.thread.join().unwrap();
    assert_eq!(fabric.free_slots(UDPD), fabric.slots());
}

/// Never has nothing to do; counts how often it is told to look at everybody.
struct Busy {
    looks: u64,
}

impl Service for Busy {
    const COUNTERS: &'static [&'static str] = &["looks"];

    fn restore(_: &DaemonConfig, _: &mut Plumbing, _: Nanos) -> anyhow::Result<Self> {
        Ok(Self { looks: 0 })
    }

    fn poll(&mut self, cx: &mut Context<'_>, _: usize) -> usize {
        cx.count(0, std::mem::take(&mut self.looks));
        1
    }

    fn release(&mut self, _: &mut Context<'_>) {}

    fn arm(&mut self, armed: bool) {
        self.looks += u64::from(!armed);
    }

    fn deadline(&self) -> Option<Nanos> {
        None
    }
}

/// An application whose session is armed rings although the daemon is awake. The busy loop's look
/// at epoll takes the edge; nothing but this look can tell the service, and before it did,
/// applications waited for the next heartbeat.
#[test]
fn a_ring_that_a_busy_loop_takes_is_passed_on() {
    let fabric = Fabric::new(&[(IPD, Role::Ipd), (UDPD, Role::Udpd)]);
    let daemon = spawn_as::<Busy>(&fabric, IPD);
    let (vitals, bell) = (fabric.vitals(IPD), fabric.bell(IPD));
    let looks = || {
        let all = vitals.counters();
        all.into_iter().find(|(n, _)| n == "looks").unwrap().1
    };
    for rings in 1..=3 {
        let before = looks();
        bell.force();
        let began = std::time::Instant::now();
        while looks() == before {
            assert!(began.elapsed() < Duration::from_secs(5), "ring {rings}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    daemon.to.send(ToDaemon::Drain).unwrap();
    assert!(matches!(daemon.from.recv().unwrap(), FromDaemon::Drained));
    daemon.thread.join().unwrap();
}

#[test]
fn a_daemon_outlives_its_supervisor() {
    let mut fabric = Fabric::new(&[(IPD, Role::Ipd), (UDPD, Role::Udpd)]);
    let mut udpd = fabric.plumbing(UDPD);
    let Daemon {
        from, to, channel, ..
    } = spawn(&fabric, IPD);
    round_trip(&mut udpd, 1);
    drop((from, to, channel));
    std::thread::sleep(Duration::from_millis(20));
    for fill in 2..10 {
        round_trip(&mut udpd, fill);
    }
}

#[test]
fn a_successor_takes_up_where_the_predecessor_stopped() {
    let mut fabric = Fabric::new(&[(IPD, Role::Ipd), (UDPD, Role::Udpd)]);
    let mut udpd = fabric.plumbing(UDPD);
    let mut first = fabric.worker::<Echo>(IPD);
    // Taken in and never released: the worker dies between poll and release.
    for _ in 0..3 {
        let mut skb = udpd
            .alloc
            .as_mut()
            .unwrap()
            .alloc(shm::SizeClass::Small)
            .unwrap();
        skb.put(8).unwrap().fill(0);
        udpd.links[0].send(skb).unwrap();
    }
    udpd.links[0].flush();
    let mut cx = Context {
        now: 1,
        plumbing: &mut first.plumbing,
    };
    assert_eq!(first.service.poll(&mut cx, 64), 3);
    first.kill();
    assert_eq!(fabric.free_slots(UDPD), fabric.slots() - 3);

    let mut second = fabric.worker::<Echo>(IPD);
    assert_eq!(fabric.free_slots(UDPD), fabric.slots(), "swept");
    assert_eq!(second.counter("rt_swept"), Some(3));
    let mut skb = udpd
        .alloc
        .as_mut()
        .unwrap()
        .alloc(shm::SizeClass::Small)
        .unwrap();
    skb.put(1).unwrap().fill(9);
    udpd.links[0].send(skb).unwrap();
    udpd.links[0].flush();
    assert_eq!(second.settle(2), 1);
    let Plumbing { links, arena, .. } = &mut udpd;
    let mut got = 0;
    links[0].recv(arena, 64, |skb| got += skb.len());
    assert_eq!(got, 1);
}

#[test]
fn forged_handles_and_impossible_indices_are_counted() {
    let mut fabric = Fabric::new(&[(IPD, Role::Ipd), (UDPD, Role::Udpd)]);
    let udpd = fabric.plumbing(UDPD);
    let mut ipd = fabric.worker::<Echo>(IPD);
    let words = udpd.links[0].link().words(udpd.links[0].side).unwrap();
    let mut ring = shm::ring::Producer::attach(words);
    for raw in [
        0,
        u64::MAX,
        7 << 56,
        (2 << 56) | 1,
        (2 << 56) | (5000 << 32) | 1,
    ] {
        assert!(ring.push(raw));
    }
    ring.publish();
    assert_eq!(ipd.settle(1), 5);
    let bad = ipd.counter("rt_peer_faults").unwrap() + ipd.counter("rt_stale_handles").unwrap();
    assert_eq!(bad, 5);

    words.tail.store(123_456, shm::sync::Ordering::Release);
    assert!(ipd.settle(1) > 0);
    assert!(ipd.counter("rt_peer_faults").unwrap() + ipd.counter("rt_stale_handles").unwrap() > 5);
}

#[test]
fn stored_descriptors_and_regions_come_back() {
    use abi::plumbing::{StoreClass, StoreKey};
    use std::os::fd::AsFd;
    let roles = [
        (IPD, Role::Ipd),
        (UDPD, Role::Udpd),
        (
            ServiceId(3),
            Role::Netdevd {
                device: abi::DevIndex(1),
            },
        ),
    ];
    let mut fabric = Fabric::new(&roles);
    let mut udpd = fabric.plumbing(UDPD);
    let mut netdevd = fabric.plumbing(ServiceId(3));
    let file = std::fs::File::open("/dev/null").unwrap();
    let key = |id| StoreKey {
        class: StoreClass::Shadow,
        id,
        incarnation: 0,
    };
    for id in 0..300 {
        udpd.store.store(key(id), file.as_fd());
    }
    udpd.store.forget(key(7));
    udpd.store
        .share_region(abi::RegionId(2 << 24 | 1), file.as_fd());
    udpd.store.flush().unwrap();
    drop(udpd);
    let udpd = fabric.plumbing(UDPD);
    assert_eq!(udpd.stored.len(), 299);
    assert!(udpd.stored.iter().all(|(k, _)| k.id != 7));
    let regions = netdevd.take_regions();
    assert!(matches!(
        &regions[..],
        [(abi::RegionId(0x0200_0001), Some(_))]
    ));
    // And again for a netdevd that starts later.
    drop(netdevd);
    assert_eq!(fabric.plumbing(ServiceId(3)).take_regions().len(), 1);
}

#[test]
fn incomplete_plumbing_is_refused() {
    let (server, name) = IpcOneShotServer::<Handshake>::new().unwrap();
    let (channel, theirs) = FdChannel::pair().unwrap();
    let fabric = Fabric::new(&[(IPD, Role::Ipd)]);
    let thread = std::thread::spawn(move || {
        let boot = Boot::connect(&name, theirs).unwrap().unwrap();
        runtime::run::<Echo>(boot).unwrap_err().to_string()
    });
    let (
        _,
        Handshake {
            from_daemon: _from,
            to_daemon: to,
        },
    ) = server.accept().unwrap();
    to.send(ToDaemon::Configure(Box::new(fabric.config(IPD))))
        .unwrap();
    channel.send(&ToWorker::Start, &[]).unwrap();
    assert_eq!(thread.join().unwrap(), "no vital signs among the plumbing");
}
