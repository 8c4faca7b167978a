//! The traffic that faults are tried under: everything that a connection can be busy with, all at
//! once, every byte compared.
//!
//! ```text
//!   flows      bulk both ways, request and response     -> silence: how long receivers hear nothing
//!   states     idle, window closed, send buffer full, blocked accept and connect
//!   churn      connections opened and closed all the time, from both sides
//!   datagrams  UDP echo and ping: may lose, may not hang or lie
//! ```
//!
//! It goes on until [`Mix::finish`], which lets every stream end in good order and says what went
//! wrong: a reset, a byte that differs, a call that fails, something that does not end.

mod churn;
mod datagrams;
mod flows;
mod silence;
mod states;

pub use silence::Silence;

use crate::peer::Stream;
use anyhow::{Context, Result, anyhow, bail};
use libsocket::Stack;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use strata::lab::Lab;

/// How long anything may take to end once it is told to.
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
    /// Connections whose receiver does not read before the end, in each direction.
    pub stuck: usize,
    /// Threads that open and close connections, in each direction.
    pub churn: usize,
    /// UDP echo and ping.
    pub datagrams: bool,
}

impl Default for Amounts {
    fn default() -> Self {
        Self {
            bulk: 8,
            bulk_pause: Duration::from_millis(4),
            requests: 4,
            idle: 20,
            stuck: 1,
            churn: 1,
            datagrams: true,
        }
    }
}

/// What all parts share.
#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    /// What was done, by part, so that a standstill shows: see [`Mix::progress`].
    done: [AtomicU64; 5],
    silence: Silence,
}

/// Parts that make progress, in the order of [`Shared::done`].
#[derive(Debug, Clone, Copy)]
enum Part {
    Bulk,
    Requests,
    Churn,
    Datagrams,
    Pings,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn did(&self, part: Part) {
        if let Some(done) = self.done.get(part as usize) {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where both ends are.
#[derive(Debug, Clone)]
struct Place {
    stack: Stack,
    host: std::net::Ipv4Addr,
    stack_address: std::net::Ipv4Addr,
}

/// Traffic that runs.
#[derive(Debug)]
pub struct Mix {
    shared: Arc<Shared>,
    threads: Vec<(String, JoinHandle<Result<()>>)>,
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
}

impl Mix {
    /// Starts it.
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub fn start(lab: &Lab, amounts: &Amounts) -> Result<Self> {
        let place = Place {
            stack: Stack::open(lab.path()),
            host: lab.host,
            stack_address: lab.stack,
        };
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            done: Default::default(),
            silence: Silence::default(),
        });
        let mut mix = Self {
            shared,
            threads: Vec::new(),
        };
        states::add(&mut mix, &place, amounts)?;
        flows::add(&mut mix, &place, amounts)?;
        churn::add(&mut mix, &place, amounts)?;
        if amounts.datagrams {
            datagrams::add(&mut mix, &place)?;
        }
        Ok(mix)
    }

    fn spawn(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let name = name.into();
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || work(&shared))?;
        self.threads.push((name, thread));
        Ok(())
    }

    /// How long the receivers of bulk have heard nothing.
    #[must_use]
    pub fn silence(&self) -> &Silence {
        &self.shared.silence
    }

    /// What was done so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let [bulk, requests, churn, datagrams, pings] = [0, 1, 2, 3, 4].map(|i: usize| {
            let done = self.shared.done.get(i);
            done.map_or(0, |done| done.load(Ordering::Relaxed))
        });
        Progress {
            bulk,
            requests,
            churn,
            datagrams,
            pings,
        }
    }

    /// Waits until every part that is there has gone on by at least `steps`.
    ///
    /// # Errors
    /// When one stands still for `patience`, or a part has failed.
    pub fn wait_progress(&self, steps: u64, patience: Duration) -> Result<()> {
        let from = self.progress();
        let begin = Instant::now();
        let grown = |now: u64, before: u64, is_used: bool| !is_used || now >= before + steps;
        loop {
            let now = self.progress();
            // What has never done anything is not part of this mix.
            let all = grown(now.bulk, from.bulk, from.bulk > 0)
                && grown(now.requests, from.requests, from.requests > 0)
                && grown(now.churn, from.churn, from.churn > 0)
                && grown(now.datagrams, from.datagrams, from.datagrams > 0)
                && grown(now.pings, from.pings, from.pings > 0);
            if all {
                return Ok(());
            }
            if let Some((name, _)) = self.threads.iter().find(|(_, t)| t.is_finished()) {
                bail!("{name} ended before it was told to");
            }
            if begin.elapsed() > patience {
                bail!("something stands still: {from:?}, {patience:?} later {now:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether a part has ended, which before [`Mix::finish`] means that it failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(|(_, thread)| thread.is_finished())
    }

    /// Lets everything end, and answers what was done.
    ///
    /// # Errors
    /// Everything that went wrong.
    pub fn finish(mut self) -> Result<Progress> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let begin = Instant::now();
        let mut wrong = Vec::new();
        for (name, thread) in self.threads.drain(..) {
            while !thread.is_finished() && begin.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                wrong.push(format!("{name} does not end"));
                continue;
            }
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => wrong.push(format!("{name}: {error:#}")),
                Err(_) => wrong.push(format!("{name} panicked")),
            }
        }
        if wrong.is_empty() {
            Ok(self.progress())
        } else {
            Err(anyhow!("{}", wrong.join("\n")))
        }
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}

impl Place {
    /// A connection between the kernel and the stack.
    fn connect(&self, stack_opens: bool) -> Result<(TcpStream, libsocket::TcpStream)> {
        let (theirs, ours) = if stack_opens {
            let listener = TcpListener::bind((self.host, 0))?;
            let to = listener.local_addr()?;
            let ours = self.stack.connect(to);
            let ours = ours.with_context(|| format!("the stack connects to {to}"))?;
            (listener.accept()?.0, ours)
        } else {
            let listener = self.stack.listen((self.stack_address, 0))?;
            let to: SocketAddr = listener.local_addr()?;
            let theirs = TcpStream::connect_timeout(&to, PATIENCE);
            let theirs = theirs.with_context(|| format!("the kernel connects to {to}"))?;
            (theirs, listener.accept().context("accepting")?.0)
        };
        theirs.patience(PATIENCE)?;
        ours.patience(PATIENCE)?;
        Ok((theirs, ours))
    }
}
