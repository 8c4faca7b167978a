//! What a hop costs: four services in a chain, as application, transport, ipd and netdevd are,
//! each a thread on the real loop, all on one core or unpinned.
//!
//! ```text
//! cargo run --release -p runtime --features testing --example chain
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: what fails should say so at once"
)]

use abi::config::{DaemonConfig, LinkConfig, Role, StackConfig};
use abi::control::{FromDaemon, ToDaemon};
use abi::{LinkId, Nanos, ServiceId};
use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver, IpcSender};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use runtime::channel::FdChannel;
use runtime::control::Handshake;
use runtime::testing::Fabric;
use runtime::{Boot, Context, Plumbing, Service, clock};
use shm::{SizeClass, SkBuff};

/// Passes packets on to the other neighbour; with one neighbour only, back.
struct Pass(Vec<(usize, SkBuff)>);

impl Service for Pass {
    const COUNTERS: &'static [&'static str] = &[];

    fn restore(_: &DaemonConfig, _: &mut Plumbing, _: Nanos) -> anyhow::Result<Self> {
        Ok(Self(Vec::new()))
    }

    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        let Plumbing { links, arena, .. } = &mut *cx.plumbing;
        let last = links.len() - 1;
        let mut handled = 0;
        for (i, link) in links.iter_mut().enumerate() {
            handled += link.recv(arena, budget, |skb| self.0.push((last - i, skb)));
        }
        handled
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        for (to, skb) in self.0.drain(..) {
            let _ = cx.plumbing.links[to].send(skb);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        None
    }
}

fn pin(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
    }
}

fn spawn(
    fabric: &Fabric,
    id: ServiceId,
    cpu: Option<usize>,
) -> (IpcReceiver<FromDaemon>, IpcSender<ToDaemon>, FdChannel) {
    let (server, name) = IpcOneShotServer::<Handshake>::new().unwrap();
    let (channel, theirs) = FdChannel::pair().unwrap();
    std::thread::spawn(move || {
        pin(cpu);
        runtime::run::<Pass>(Boot::connect(&name, theirs).unwrap().unwrap()).unwrap();
    });
    let (
        _,
        Handshake {
            from_daemon,
            to_daemon,
        },
    ) = server.accept().unwrap();
    to_daemon
        .send(ToDaemon::Configure(Box::new(fabric.config(id))))
        .unwrap();
    fabric.hand_out(id, &channel);
    while !matches!(from_daemon.recv().unwrap(), FromDaemon::Ready) {}
    (from_daemon, to_daemon, channel)
}

/// Waits for `count` packets to come back, sleeping as a daemon does.
fn collect(head: &mut Plumbing, count: usize) {
    let mut got = 0;
    while got < count {
        let Plumbing {
            links, arena, bell, ..
        } = &mut *head;
        got += links[0].recv(arena, 64, drop);
        if got < count {
            bell.arm();
            if links[0].is_empty() {
                let mut fds = [nix::poll::PollFd::new(
                    bell.event(),
                    nix::poll::PollFlags::POLLIN,
                )];
                nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
            }
            bell.mask();
            bell.drain();
        }
    }
}

fn measure(stack: &StackConfig, roles: &[(ServiceId, Role)], cpu: Option<usize>) {
    let mut fabric = Fabric::with_stack(stack.clone(), roles);
    let daemons: Vec<_> = roles[1..]
        .iter()
        .map(|(id, _)| spawn(&fabric, *id, cpu))
        .collect();
    pin(cpu);
    let mut head = fabric.plumbing(roles[0].0);
    for batch in [1, 16, 64] {
        let rounds = 40_000 / batch;
        let began = clock::now();
        for _ in 0..rounds {
            for _ in 0..batch {
                let alloc = head.alloc.as_mut().unwrap();
                let mut skb = alloc.alloc(SizeClass::Small).unwrap();
                skb.put(64).unwrap().fill(0);
                head.links[0].send(skb).unwrap();
            }
            head.links[0].flush();
            collect(&mut head, batch);
        }
        let ns = (clock::now() - began) / (rounds * batch) as u64;
        let place = cpu.map_or("unpinned".to_owned(), |c| format!("on core {c}"));
        println!(
            "{place}: {batch:>3} in flight: {ns:>6} ns a round trip, {:>5} ns a hop",
            ns / 6
        );
    }
    for (i, (from, to, _channel)) in daemons.into_iter().enumerate() {
        let vitals = fabric.vitals(roles[i + 1].0);
        let all: Vec<String> = vitals
            .counters()
            .into_iter()
            .filter(|(_, v)| *v > 0)
            .map(|(n, v)| format!("{n} {v}"))
            .collect();
        println!("    {}", all.join(", "));
        to.send(ToDaemon::Drain).unwrap();
        while !matches!(from.recv().unwrap(), FromDaemon::Drained) {}
    }
}

fn main() {
    let roles: Vec<_> = (1..=4)
        .map(|i| (ServiceId(i), if i == 1 { Role::Tcpd } else { Role::Ipd }))
        .collect();
    let mut stack = Fabric::new(&[]).stack_mut().clone();
    stack.links = (1..4)
        .map(|i| LinkConfig {
            link: LinkId(i),
            upper: ServiceId(i),
            lower: ServiceId(i + 1),
            device: None,
        })
        .collect();
    measure(&stack, &roles, None);
    measure(&stack, &roles, Some(1));
}
