//! The process around the engine.
//!
//! ```text
//!   poll      words of the links -> input of every ring, in turn -> timers      engine: actions
//!   commit    changed neighbours and path MTUs to the state memory
//!   release   actions to the rings
//! ```
//!
//! A transport whose ring is full loses the packet, as a host under load would. A device whose
//! ring is full holds its packets back for a moment, and the transports with it (see [`lower`]).

mod links;
mod lower;
mod state;
#[cfg(test)]
mod tests;

use crate::engine::{Action, Counter, Engine, Env, Upper, counters};
use abi::Nanos;
use abi::config::{DaemonConfig, StackConfig};
use abi::control::Query;
use abi::suspect::note;
use anyhow::{Context as _, ensure};
use links::Ports;
use runtime::{Context, Plumbing, Service, clock};
use shm::vitals::stage;
use state::State;

/// The daemon.
#[derive(Debug)]
pub struct Ipd {
    engine: Engine,
    ports: Ports,
    state: State,
    actions: Vec<Action>,
    /// Which link is served first, in turn.
    first: usize,
    retry_at: Option<Nanos>,
}

impl Service for Ipd {
    const COUNTERS: &'static [&'static str] = counters::NAMES;
    const STATE_KIND: u64 = state::LAYOUT.kind;

    fn state_size(_: &StackConfig) -> usize {
        state::LAYOUT.size()
    }

    fn restore(config: &DaemonConfig, plumbing: &mut Plumbing, now: Nanos) -> anyhow::Result<Self> {
        ensure!(plumbing.alloc.is_some(), "ipd has no pool of its own");
        let fd = plumbing.state.as_ref().context("ipd has no state memory")?;
        let state = State::attach(fd).context("attaching ipd's state memory")?;
        let mut engine = Engine::new(&config.stack, now, config.incarnation == 0);
        state.restore(&mut engine, now);
        let ports = Ports::new(plumbing, &mut engine);
        Ok(Self {
            engine,
            ports,
            state,
            actions: Vec::with_capacity(256),
            first: 0,
            retry_at: None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        let now = cx.now;
        let Plumbing {
            arena,
            alloc: Some(alloc),
            links,
            vitals,
            ..
        } = &mut *cx.plumbing
        else {
            return 0;
        };
        self.ports.look(links, &mut self.engine, now);
        let paused = self.ports.is_paused(now);
        let (engine, ports) = (&mut self.engine, &self.ports);
        let mut env = Env {
            now,
            arena,
            alloc,
            out: &mut self.actions,
        };
        let count = links.len();
        let mut handled = 0;
        for turn in 0..count {
            let at = (self.first + turn) % count;
            let (Some(link), Some(port)) = (links.get_mut(at), ports.get(at)) else {
                continue;
            };
            if paused && port.upper().is_some() {
                continue;
            }
            handled += link.recv(env.arena, budget, |skb| {
                let begins = match port.upper() {
                    Some(_) => note::TRANSPORT,
                    None => note::IP,
                };
                vitals.note_packet(begins, &skb);
                match port.upper() {
                    Some(upper) => engine.output(&mut env, upper, skb),
                    None => {
                        if vitals.tracing() {
                            let detail = u64::from(skb.desc().ethertype);
                            vitals.trace(
                                clock::now(),
                                stage::IP_IN,
                                skb.handle(),
                                skb.len(),
                                detail,
                            );
                        }
                        engine.input(&mut env, port.device(), skb);
                    }
                }
            });
        }
        self.first = self.first.wrapping_add(1) % count.max(1);
        if engine.deadline().is_some_and(|at| at <= now) {
            engine.expire(&mut env);
            handled += 1;
        }
        vitals.note(0, 0);
        if paused && handled == 0 {
            // The driver cannot make room while we have its core.
            std::thread::yield_now();
        }
        handled
    }

    fn commit(&mut self, _: &mut Context<'_>) {
        if self.engine.is_dirty() {
            self.state.commit(&mut self.engine);
        }
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let Plumbing { links, vitals, .. } = &mut *cx.plumbing;
        self.ports.retry(links, now);
        for action in self.actions.drain(..) {
            match action {
                Action::Transmit { device, skb } => {
                    if vitals.tracing() {
                        let detail = u64::from(skb.desc().ethertype);
                        vitals.trace(clock::now(), stage::IP_OUT, skb.handle(), skb.len(), detail);
                    }
                    if !self.ports.transmit(links, device, skb, now) {
                        self.engine.counters.bump(Counter::LowerRingFull);
                    }
                }
                Action::Deliver {
                    upper: Upper(at),
                    skb,
                } => {
                    let sent = links
                        .get_mut(usize::from(at))
                        .is_some_and(|l| l.send(skb).is_ok());
                    if !sent {
                        self.engine.counters.bump(Counter::UpperRingFull);
                    }
                }
            }
        }
        self.retry_at = self.ports.retry_at(now);
        self.engine
            .counters
            .take(|index, n| cx.plumbing.count(index, n));
    }

    fn deadline(&self) -> Option<Nanos> {
        [self.engine.deadline(), self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn reconfigure(&mut self, config: &DaemonConfig, _: &mut Context<'_>) {
        self.engine.reconfigure(&config.stack);
        self.ports.forget_words();
    }

    fn query(&mut self, what: Query, _: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        match what {
            Query::Neighbours => self.engine.neighbours(clock::now()),
            Query::Routes => self.engine.routes(clock::now()),
            Query::Summary => self.engine.summary(),
            Query::Sockets => Default::default(),
        }
    }
}
