//! The traffic that faults are tried under: everything that a connection can be busy with, all at
//! once, every byte compared.
//!
//! ```text
//!   flows      bulk both ways, request and response
//!   states     idle, half closed, window closed, send buffer full, blocked accept, connect, read
//!   crowd      idle connections by the thousand, in other processes
//!   churn      connections opened and closed all the time, from both sides
//!   datagrams  UDP echo and ping: may lose, may not hang or lie
//!   quiet      datagram sockets and a listener with or without something to take, for levels
//!   late       connects that wait for room in a backlog
//! ```
//!
//! How long the receivers of bulk, of UDP and of pings hear nothing is the gap of a fault
//! ([`Silence`]).
//!
//! The other ends are the kernel's or another constellation's ([`ends`]); descriptors that should
//! be ready, or not, are looked at after each fault ([`levels`]).
//!
//! It goes on until [`Mix::finish`], which lets every stream end in good order and says what went
//! wrong: a reset, a byte that differs, a call that fails, something that does not end.

mod churn;
mod crowd;
mod datagrams;
mod ends;
mod flows;
mod late;
mod levels;
mod lost;
mod place;
mod quiet;
mod silence;
mod states;

pub use crowd::become_crowd_if_asked;
pub use late::NAME as LATE;
pub use silence::{Silence, Traffic};

use anyhow::{Result, anyhow, bail};
use core::ops::Deref;
use ends::Peer;
use levels::Levels;
use libsocket::Stack;
use place::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use strata::lab::Lab;

/// See [`Amounts::patience`].
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// Bulk transfers, alternately from and to the stack.
    pub bulk: usize,
    /// Pause of a bulk sender after each 64 KiB: what is left of the processor is for recovery.
    pub bulk_pause: Duration,
    /// Connections with requests and responses.
    pub requests: usize,
    /// Idle connections.
    pub idle: usize,
    /// Idle time in milliseconds after which the stack's ends of idle connections probe their
    /// peers (`SO_KEEPALIVE`), and time between probes; 0: they do not.
    pub keepalive_ms: u32,
    /// Connections whose receiver does not read before the end, in each direction; with them come
    /// calls that block and sockets to which nothing happens.
    pub stuck: usize,
    /// Threads that open and close connections, in each direction.
    pub churn: usize,
    /// UDP echo and ping.
    pub datagrams: bool,
    /// Connections that the peer leaves waiting, one after the other.
    pub late: usize,
    /// How long anything may take to go on, and to end once it is told to.
    pub patience: Duration,
}

/// Idle connections above this number are other processes', which need the kernel as peer.
pub const OWN_IDLE: usize = 100;

impl Default for Amounts {
    fn default() -> Self {
        Self {
            bulk: 8,
            bulk_pause: Duration::from_millis(4),
            requests: 4,
            idle: 20,
            keepalive_ms: 0,
            stuck: 1,
            churn: 1,
            datagrams: true,
            late: 1,
            patience: PATIENCE,
        }
    }
}

/// What all parts share.
#[derive(Debug, Default)]
struct Common {
    stopping: AtomicBool,
    /// What was done, by part, so that a standstill shows: see [`Mix::progress`].
    done: [AtomicU64; 6],
    silence: Silence,
    levels: Levels,
    /// How often signs of life were asked for: see [`lost`].
    calls: AtomicU64,
    /// Connections that are known to be lost and have no part of their own.
    lost: Mutex<BTreeSet<String>>,
}

/// What a part sees: what all share, and its own steps.
#[derive(Debug)]
struct Shared {
    common: Arc<Common>,
    signs: Arc<Signs>,
}

/// What one part shows of itself.
#[derive(Debug, Default)]
struct Signs {
    /// Steps of a connection that must never stand still; 0 for all others.
    steps: AtomicU64,
    /// Everything it did, if it moves all the time.
    moves: AtomicU64,
    /// The last of [`Common::calls`] that it has answered; those that answer none have the most.
    answered: AtomicU64,
}

impl Deref for Shared {
    type Target = Common;
    fn deref(&self) -> &Common {
        &self.common
    }
}

/// One part that runs.
#[derive(Debug)]
struct Running {
    /// The connection's name and, after a comma, which end.
    name: String,
    thread: JoinHandle<Result<()>>,
    signs: Arc<Signs>,
}

impl Running {
    /// What both ends of a connection have in common.
    fn connection(&self) -> &str {
        self.name.split(',').next().unwrap_or(&self.name)
    }
}

/// Parts that make progress, in the order of [`Shared::done`].
#[derive(Debug, Clone, Copy)]
enum Part {
    Bulk,
    Requests,
    Churn,
    Datagrams,
    Pings,
    Late,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn did(&self, part: Part) {
        if let Some(done) = self.done.get(part as usize) {
            done.fetch_add(1, Ordering::Relaxed);
        }
        // A connect that is kept waiting takes its time.
        if !matches!(part, Part::Late) {
            self.signs.moves.fetch_add(1, Ordering::Relaxed);
        }
        // Others may wait for a packet to be sent again, or have lost it for good.
        if matches!(part, Part::Bulk | Part::Requests) {
            self.signs.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Until everything is to end.
    fn wait(&self) {
        while !self.is_stopping() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Traffic that runs.
#[derive(Debug)]
pub struct Mix {
    shared: Arc<Common>,
    parts: Vec<Running>,
    patience: Duration,
}

/// What became of it all.
#[derive(Debug)]
pub struct Ended {
    /// What was done.
    pub progress: Progress,
    /// Connections that were lost, each with what its ends said.
    pub lost: BTreeMap<String, String>,
    /// Calls that do not return: they hold their sockets until the constellation goes.
    pub stuck: usize,
}

impl Ended {
    /// How many connections that is. (A part with many of them names each on a line.)
    #[must_use]
    pub fn count(&self) -> u64 {
        let lines = self.lost.values().map(|text| {
            text.lines()
                .filter(|l| l.starts_with("idle connection "))
                .count()
        });
        lines.map(|lines| lines.max(1) as u64).sum()
    }
}

/// Everything that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Blocks of up to 64 KiB received in bulk.
    pub bulk: u64,
    /// Responses.
    pub requests: u64,
    /// Connections opened, used and closed.
    pub churn: u64,
    /// Datagrams that came back.
    pub datagrams: u64,
    /// Echo replies.
    pub pings: u64,
    /// Connects that blocked and then succeeded.
    pub late: u64,
}

impl Mix {
    /// Starts it, with the kernel at the other end.
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub fn start(lab: &Lab, amounts: &Amounts) -> Result<Self> {
        Self::begin(lab, Peer::Kernel(lab.host), amounts)
    }

    /// Starts it, with another constellation at the other end. (Idle connections by the thousand
    /// need the kernel there.)
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub fn between(lab: &Lab, other: &Lab, amounts: &Amounts) -> Result<Self> {
        let peer = Peer::Constellation(Stack::open(other.path()), other.stack);
        Self::begin(lab, peer, amounts)
    }

    fn begin(lab: &Lab, peer: Peer, amounts: &Amounts) -> Result<Self> {
        let place = Place {
            stack: Stack::open(lab.path()),
            stack_address: lab.stack,
            peer,
            patience: amounts.patience,
        };
        let mut mix = Self {
            shared: Arc::default(),
            parts: Vec::new(),
            patience: amounts.patience,
        };
        if amounts.idle > OWN_IDLE {
            crowd::add(&mut mix, &place, amounts)?;
        }
        let amounts = &Amounts {
            idle: amounts.idle.min(OWN_IDLE),
            ..*amounts
        };
        states::add(&mut mix, &place, amounts)?;
        if amounts.stuck > 0 {
            quiet::add(&mut mix, &place, amounts.datagrams)?;
        }
        flows::add(&mut mix, &place, amounts)?;
        churn::add(&mut mix, &place, amounts)?;
        if amounts.datagrams {
            datagrams::add(&mut mix, &place)?;
        }
        for number in 0..amounts.late {
            late::add(&mut mix, &place, number)?;
        }
        Ok(mix)
    }

    /// Starts a part that moves all the time, or whose connections have nothing to show before the
    /// end.
    fn spawn(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.spawn_with(name.into(), u64::MAX, work)
    }

    /// Starts a part that waits, and answers each call ([`Shared::wait_call`]).
    fn spawn_waiting(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.spawn_with(name.into(), 0, work)
    }

    fn spawn_with(
        &mut self,
        name: String,
        answered: u64,
        work: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let signs = Arc::new(Signs {
            answered: AtomicU64::new(answered),
            ..Signs::default()
        });
        let shared = Shared {
            common: Arc::clone(&self.shared),
            signs: Arc::clone(&signs),
        };
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || work(&shared))?;
        self.parts.push(Running {
            name,
            thread,
            signs,
        });
        Ok(())
    }

    /// How long receivers have heard nothing.
    #[must_use]
    pub fn silence(&self) -> &Silence {
        &self.shared.silence
    }

    /// What was done so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let [bulk, requests, churn, datagrams, pings, late] = [0, 1, 2, 3, 4, 5].map(|i: usize| {
            let done = self.shared.done.get(i);
            done.map_or(0, |done| done.load(Ordering::Relaxed))
        });
        Progress {
            bulk,
            requests,
            churn,
            datagrams,
            pings,
            late,
        }
    }

    /// Waits until every part that is there, and every connection that carries bulk or requests,
    /// has gone on by at least `steps`.
    ///
    /// # Errors
    /// When one stands still for `patience`, or a part has failed.
    pub fn wait_progress(&self, steps: u64, patience: Duration) -> Result<()> {
        self.wait_steps(steps, patience, true)
    }

    /// As [`Mix::wait_progress`], for what is connected: new connections may wait.
    ///
    /// # Errors
    /// As there.
    pub fn wait_connected(&self, steps: u64, patience: Duration) -> Result<()> {
        self.wait_steps(steps, patience, false)
    }

    fn wait_steps(&self, steps: u64, patience: Duration, churn: bool) -> Result<()> {
        let from = self.progress();
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| part.signs.steps.load(Ordering::Relaxed))
            .collect();
        let begin = Instant::now();
        let grown = |now: u64, before: u64, is_used: bool| !is_used || now >= before + steps;
        loop {
            let now = self.progress();
            let stands = self.parts.iter().zip(&parts).find(|(part, before)| {
                let now = part.signs.steps.load(Ordering::Relaxed);
                !grown(now, **before, now > 0)
            });
            // What has never done anything is not part of this mix.
            let all = grown(now.bulk, from.bulk, from.bulk > 0)
                && grown(now.requests, from.requests, from.requests > 0)
                && grown(now.churn, from.churn, churn && from.churn > 0)
                && grown(now.datagrams, from.datagrams, from.datagrams > 0)
                && grown(now.pings, from.pings, from.pings > 0);
            if all && stands.is_none() {
                return Ok(());
            }
            if let Some(part) = self.parts.iter().find(|part| part.thread.is_finished()) {
                bail!("{} ended before it was told to", part.name);
            }
            if begin.elapsed() > patience {
                let who = stands.map_or("something", |(part, _)| &part.name);
                bail!("{who} stands still: {from:?}, {patience:?} later {now:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until every descriptor whose state does not change while the mix runs is readable
    /// and writable as it should be.
    ///
    /// # Errors
    /// The first that is not, after `patience`.
    pub fn check_levels(&self, patience: Duration) -> Result<()> {
        self.shared.levels.check(patience)
    }

    /// Whether a part has ended, which before [`Mix::finish`] means that it failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.parts.iter().any(|part| part.thread.is_finished())
    }

    /// Lets everything end, and answers what was done.
    ///
    /// # Errors
    /// Everything that went wrong.
    pub fn finish(self) -> Result<Progress> {
        let ended = self.end();
        if ended.lost.is_empty() {
            return Ok(ended.progress);
        }
        let texts: Vec<_> = ended.lost.into_values().collect();
        Err(anyhow!("{}", texts.join("\n")))
    }

    /// Lets everything end, and answers what was done and which connections were lost.
    #[must_use]
    pub fn end(mut self) -> Ended {
        self.shared.levels.clear();
        self.shared.stopping.store(true, Ordering::Relaxed);
        let begin = Instant::now();
        let mut lost: BTreeMap<String, String> = BTreeMap::new();
        let mut stuck = 0;
        for part in self.parts.drain(..) {
            while !part.thread.is_finished() && begin.elapsed() < self.patience {
                thread::sleep(Duration::from_millis(1));
            }
            let connection = part.connection().to_owned();
            let name = part.name;
            let wrong = if part.thread.is_finished() {
                match part.thread.join() {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => format!("{name}: {error:#}"),
                    Err(_) => format!("{name} panicked"),
                }
            } else {
                stuck += 1;
                format!("{name} does not end")
            };
            let text = lost.entry(connection).or_default();
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&wrong);
        }
        Ended {
            progress: self.progress(),
            lost,
            stuck,
        }
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        self.shared.levels.clear();
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}
