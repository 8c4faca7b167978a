//! A further network namespace, kept by a thread: sockets belong to the namespace of the thread
//! that makes them, and may be used from any.

use super::set_up;
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace that is gone when this is dropped and its last socket closed.
#[derive(Debug)]
pub struct Namespace {
    jobs: Sender<Job>,
    file: File,
}

impl Namespace {
    /// Makes one, its loopback interface up.
    ///
    /// # Errors
    /// When it is not allowed.
    pub fn new(name: &str) -> Result<Self> {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let (entered, entering) = channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _ = entered.send(enter());
                queue.into_iter().for_each(|job| job());
            })?;
        let file = entering
            .recv()
            .map_err(|_| anyhow!("the namespace's thread is gone"))??;
        Ok(Self { jobs, file })
    }

    /// Does something in it.
    ///
    /// # Errors
    /// When an earlier piece of work ended its thread.
    pub fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, answered) = channel();
        let gone = || anyhow!("the namespace's thread is gone");
        self.jobs
            .send(Box::new(move || {
                let _ = answer.send(work());
            }))
            .map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves the calling thread, alone, into a network namespace of its own.
fn enter() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a further network namespace")?;
    set_up("lo").context("cannot bring up its loopback interface")?;
    File::open("/proc/thread-self/ns/net").context("cannot open the further namespace")
}
