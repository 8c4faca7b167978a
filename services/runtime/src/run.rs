//! The service loop.
//!
//! ```text
//!        +--> progress -> poll -> commit -> release, flush --+ work: at once again
//!        |                                                   |
//!        |   mask <- wait <- nothing <- look again <- arm <--+ none: adaptive
//!        +----+                 | something: mask
//!             +<----------------+
//! ```
//!
//! Awake, the bell is masked and neighbours write no eventfd. Armed, the loop looks at every
//! input once more before it waits (see [`shm::bell`]), so that nothing is slept through.

use crate::adaptive::{Adaptive, Next};
use crate::boot::Boot;
use crate::clock;
use crate::control::Control;
use crate::counters::{self, index};
use crate::poller::{self, RESERVED};
use crate::signals::Signals;
use crate::{Context, EpollFlags, LinkEnd, Plumbing, Service};
use abi::Nanos;
use abi::config::DaemonConfig;
use abi::control::{FromDaemon, ToDaemon};
use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shm::crash::{self, Point};
use shm::vitals::Phase;
use std::io::ErrorKind;
use std::os::fd::AsFd;

/// Packets a service takes from each input in one turn.
const BUDGET: usize = 64;

/// A busy loop looks at epoll this often, so that control messages and descriptors get their
/// turn too.
const LOOK_EVERY: Nanos = 200_000;

/// Runs a service until it is told to drain.
///
/// # Errors
/// When it cannot start; what happens later never ends the loop.
pub fn run<S: Service>(boot: Boot) -> anyhow::Result<()> {
    let Boot {
        config,
        control,
        channel,
    } = boot;
    abort_on_panic();
    let name = config.role.name();
    let _span = tracing::info_span!("daemon", name, id = config.service.0).entered();
    crash::install(config.service);
    let mut plumbing = Plumbing::receive(&config, channel)?;
    let signals = Signals::install().context("installing signal handlers")?;
    let service = start::<S>(&config, &mut plumbing)?;
    // Until now it could go beside its neighbours, who are at work; from now on it works with them.
    if let Some(core) = config.core {
        pin(core);
    }
    let mut this = Loop {
        service,
        plumbing,
        config,
        control,
        signals,
        adaptive: Adaptive::detect(),
        draining: false,
        last_look: 0,
        look_after_memory: 0,
    };
    this.register()?;
    this.control.send(FromDaemon::Ready);
    tracing::info!(incarnation = this.config.incarnation, "running");
    this.run();
    Ok(())
}

/// Has this thread work on `core` only.
fn pin(core: u32) {
    let mut cores = CpuSet::new();
    let core = usize::try_from(core).unwrap_or(usize::MAX);
    let pinned = cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
    if let Err(error) = pinned {
        tracing::debug!(core, %error, "the kernel chooses the core");
    }
}

/// A panic is a crash like any other: nothing is unwound, so that what was at work is found as it
/// was. The control thread may panic (a malformed message), and ends alone.
fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        if std::thread::current().name() == Some("main") {
            std::process::abort();
        }
    }));
}

/// Restores a service on its plumbing and wakes the neighbours.
pub(crate) fn start<S: Service>(
    config: &DaemonConfig,
    plumbing: &mut Plumbing,
) -> anyhow::Result<S> {
    plumbing
        .vitals
        .set_phase(Phase::Starting, config.incarnation);
    let names: Vec<&str> = counters::NAMES.iter().chain(S::COUNTERS).copied().collect();
    plumbing.vitals.name_counters(&names);
    let mut service = S::restore(config, plumbing, clock::now())
        .with_context(|| format!("restoring {}", config.role.name()))?;
    plumbing.vitals.note(0, 0);
    plumbing.vitals.note_no_socket();
    crash::reach(Point::Restored);
    plumbing
        .vitals
        .set_phase(Phase::Running, config.incarnation);
    hand_over_regions(&mut service, plumbing);
    // The predecessor may have died between publishing and ringing.
    for link in &plumbing.links {
        link.force_bell();
    }
    crash::reach(Point::Woken);
    Ok(service)
}

/// One turn; answers what `poll` handled.
pub(crate) fn turn<S: Service>(service: &mut S, plumbing: &mut Plumbing, now: Nanos) -> usize {
    plumbing.vitals.progress();
    let mut cx = Context { now, plumbing };
    let handled = service.poll(&mut cx, BUDGET);
    settle(service, plumbing, now);
    if handled > 0 {
        plumbing.vitals.count(index::BUSY_TURNS, 1);
        plumbing.vitals.count(index::HANDLED, handled as u64);
    }
    handled
}

/// Commit and release, and what the runtime does after them.
fn settle<S: Service>(service: &mut S, plumbing: &mut Plumbing, now: Nanos) {
    let mut cx = Context { now, plumbing };
    crash::reach(Point::Polled);
    service.commit(&mut cx);
    crash::reach(Point::Committed);
    service.release(&mut cx);
    crash::reach(Point::Released);
    for link in &mut plumbing.links {
        link.flush();
        let faults = link.take_faults();
        if faults != crate::link_end::LinkFaults::default() {
            plumbing.vitals.count(index::PEER_FAULTS, faults.peer);
            plumbing.vitals.count(index::STALE_HANDLES, faults.stale);
            plumbing.vitals.count(index::RING_FULL, faults.full);
            plumbing
                .vitals
                .count(index::QUARANTINED, faults.quarantined);
        }
    }
    crash::reach(Point::Flushed);
    if let Err(error) = plumbing.store.flush()
        && error.kind() != ErrorKind::WouldBlock
    {
        tracing::warn!(%error, "storing descriptors with the supervisor");
    }
}

/// Gives the service the session memories that came and went.
pub(crate) fn hand_over_regions<S: Service>(service: &mut S, plumbing: &mut Plumbing) {
    for (id, memory) in plumbing.take_regions() {
        let mut cx = Context {
            now: clock::now(),
            plumbing,
        };
        service.region(id, memory, &mut cx);
    }
}

struct Loop<S> {
    service: S,
    plumbing: Plumbing,
    config: DaemonConfig,
    control: Control,
    signals: Signals,
    adaptive: Adaptive,
    draining: bool,
    last_look: Nanos,
    /// When to look again for what was written over.
    look_after_memory: Nanos,
}

impl<S: Service> Loop<S> {
    /// Puts the runtime's own descriptors into the set. The bell is edge-triggered: each ring is
    /// an edge, so it need not be read.
    fn register(&self) -> anyhow::Result<()> {
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let p = &self.plumbing;
        p.poller.add(p.bell.event(), poller::BELL, edge)?;
        p.poller.add(self.control.event(), poller::CONTROL, edge)?;
        p.poller
            .add(p.channel.as_fd(), poller::CHANNEL, EpollFlags::EPOLLIN)?;
        p.poller
            .add(self.signals.fd(), poller::SIGNAL, EpollFlags::EPOLLIN)?;
        Ok(())
    }

    fn run(&mut self) {
        let mut now = clock::now();
        // What came before the descriptors were registered shows in no edge.
        self.control_messages(now);
        while !self.draining {
            let handled = turn(&mut self.service, &mut self.plumbing, now);
            if now >= self.look_after_memory {
                let after = self.config.lost_buffers;
                self.look_after_memory = self.plumbing.look_after_memory(now, after);
                self.service.look_again();
            }
            match self.adaptive.after_turn(now, handled) {
                Next::Again => {
                    now = clock::now();
                    if now.saturating_sub(self.last_look) > LOOK_EVERY && self.wait(now, Some(0)) {
                        // An application that found its session armed has rung, and the edge is
                        // gone: it will end no wait, so what it tells of is looked for now.
                        self.service.arm(false);
                    }
                }
                Next::Yield => {
                    self.plumbing.vitals.count(index::YIELDS, 1);
                    std::thread::yield_now();
                    now = clock::now();
                }
                Next::Sleep => {
                    self.sleep();
                    now = clock::now();
                }
            }
        }
        self.drained(now);
    }

    /// Arms, looks once more, waits, masks.
    fn sleep(&mut self) {
        self.service.arm(true);
        // Its fence orders the service's arming before the looks as well.
        self.plumbing.bell.arm();
        let cx = Context {
            now: clock::now(),
            plumbing: &mut self.plumbing,
        };
        let looks = self.look_after_memory;
        let deadline = self.service.deadline().map_or(looks, |d| d.min(looks));
        let timeout = Some(deadline.saturating_sub(cx.now));
        let now = cx.now;
        if timeout == Some(0) {
            self.mask();
            return;
        }
        if cx.plumbing.links.iter().any(LinkEnd::has_input) || self.service.has_input(&cx) {
            cx.plumbing.vitals.count(index::RECHECK_HITS, 1);
            self.mask();
            return;
        }
        cx.plumbing.vitals.count(index::TO_INTERRUPT, 1);
        self.wait(now, timeout);
        self.plumbing.vitals.count(index::TO_POLLING, 1);
        self.adaptive.woken();
        self.mask();
    }

    fn mask(&mut self) {
        self.plumbing.bell.mask();
        self.service.arm(false);
    }

    /// Waits for events and deals with them; answers whether the bell was among them.
    fn wait(&mut self, now: Nanos, timeout: Option<Nanos>) -> bool {
        let mut events = [(0, EpollFlags::empty()); 64];
        let mut count = 0;
        let slots = events.iter_mut();
        let mut slots = slots;
        self.plumbing.poller.wait(timeout, |token, flags| {
            if let Some(slot) = slots.next() {
                *slot = (token, flags);
                count += 1;
            }
        });
        let now = if timeout == Some(0) {
            now
        } else {
            clock::now()
        };
        self.last_look = now;
        let mut rung = false;
        for &(token, flags) in events.iter().take(count) {
            match token {
                poller::CONTROL => self.control_messages(now),
                poller::CHANNEL => {
                    hand_over_regions(&mut self.service, &mut self.plumbing);
                    self.meet_new_supervisor();
                }
                poller::SIGNAL => self.draining |= self.signals.terminated(),
                RESERVED.. => rung |= token == poller::BELL,
                _ => {
                    let mut cx = Context {
                        now,
                        plumbing: &mut self.plumbing,
                    };
                    self.service.on_fd(&mut cx, token, flags);
                }
            }
        }
        if rung {
            self.plumbing.say_again();
        }
        rung
    }

    /// A supervisor that took over has said where it listens. One that does not answer is no
    /// reason to stop: it will see to us as it thinks fit.
    fn meet_new_supervisor(&mut self) {
        let Some(server) = self.plumbing.control_server.take() else {
            return;
        };
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let met = Control::connect(&server).and_then(|control| {
            let poller = &self.plumbing.poller;
            let _ = poller.delete(self.control.event());
            poller.add(control.event(), poller::CONTROL, edge)?;
            Ok(control)
        });
        match met {
            Ok(control) => {
                self.control = control;
                self.control.send(FromDaemon::Ready);
                tracing::info!("under a new supervisor");
            }
            Err(error) => tracing::warn!("a new supervisor cannot be reached: {error:#}"),
        }
    }

    fn control_messages(&mut self, now: Nanos) {
        while let Some(message) = self.control.try_recv() {
            match message {
                ToDaemon::Configure(config) => {
                    self.config = *config;
                    self.plumbing.set_quarantine(&self.config);
                    let mut cx = Context {
                        now,
                        plumbing: &mut self.plumbing,
                    };
                    self.service.reconfigure(&self.config, &mut cx);
                }
                ToDaemon::Drain => self.draining = true,
                ToDaemon::Query { id, what } => {
                    let mut cx = Context {
                        now,
                        plumbing: &mut self.plumbing,
                    };
                    let (columns, rows) = self.service.query(what, &mut cx);
                    self.control.send(FromDaemon::Report { id, columns, rows });
                }
            }
        }
    }

    /// Between two turns everything taken in has been dealt with: what is left is to commit and
    /// release what control messages changed.
    fn drained(&mut self, now: Nanos) {
        self.plumbing
            .vitals
            .set_phase(Phase::Draining, self.config.incarnation);
        settle(&mut self.service, &mut self.plumbing, now);
        tracing::info!("drained");
        self.control.send(FromDaemon::Drained);
    }
}
