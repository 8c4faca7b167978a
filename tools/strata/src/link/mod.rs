//! A link that is as bad as one likes, between real interfaces: for comparing stacks over it.
//!
//! ```text
//!   stack  ----veth--+                      +--> up   pipe: loss, rate, queue, delay --+
//!                    |  [switch: by address, |                                          |--veth-- peer
//!   kernel ----veth--+   by port number]     +<-- down pipe ---------------------------+
//! ```
//!
//! A switch of several ports whose last one leads to the peer. Each TCP port number that was
//! given to a [`Path`] has a pipe each way; connections that are to share a bottleneck are given
//! the same path. What belongs to no path (ARP) passes at once and unharmed. The pipes are those
//! of netdevd's impairment decorator, so both stacks meet the same model with the same seeds.
//!
//! Frames must be complete and no longer than an MTU: switch the offloads of the interfaces off.
//! Frames come and go one by one, on a thread of real-time priority where that is allowed, since
//! a link that waits for the processor is no link.

mod port;
mod switch;

pub use port::Port;

use abi::config::Impairment;
use anyhow::{Context, Result, anyhow};
use netdevd::impair::Faults;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use switch::{Links, Switch};

/// Number of a path of a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path(usize);

/// What passed and what did not, one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that came out.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was done on purpose.
    pub faults: Faults,
}

impl Traffic {
    fn add(&mut self, more: Faults) {
        self.faults.lost += more.lost;
        self.faults.marked += more.marked;
        self.faults.duplicated += more.duplicated;
        self.faults.reordered += more.reordered;
        self.faults.corrupted += more.corrupted;
        self.faults.overflow += more.overflow;
    }
}

/// A running link; dropping it ends its thread.
#[derive(Debug)]
pub struct Link {
    links: Arc<Mutex<Links>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

fn lock(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Joins ports; the last one leads to the peer.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(ports: Vec<Port>) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).context("eventfd")?);
        let links = Arc::new(Mutex::new(Links::default()));
        let mut switch = Switch::new(ports, Arc::clone(&links), Arc::clone(&wake));
        let thread = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || switch.run())?;
        Ok(Self {
            links,
            wake,
            thread: Some(thread),
        })
    }

    /// A path with these faults towards the peer and from it. Its first frame draws the first of
    /// the seeds' numbers.
    pub fn path(&self, up: &Impairment, down: &Impairment) -> Path {
        let path = lock(&self.links).path(up, down);
        self.wake();
        Path(path)
    }

    /// Sends TCP segments from or to this port number along the path.
    pub fn assign(&self, port: u16, path: Path) {
        lock(&self.links).assign(port, path.0);
    }

    /// Changes the faults of a path; frames under way go on as they were.
    pub fn set(&self, path: Path, up: &Impairment, down: &Impairment) {
        lock(&self.links).set(path.0, up, down);
        self.wake();
    }

    /// What passed so far: up and down.
    #[must_use]
    pub fn traffic(&self, path: Path) -> [Traffic; 2] {
        lock(&self.links).traffic(path.0)
    }

    fn wake(&self) {
        // A full counter wakes as well.
        let _ = self.wake.write(1);
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// What made it end before.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        lock(&self.links).over = true;
        self.wake();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the link's thread panicked")),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
