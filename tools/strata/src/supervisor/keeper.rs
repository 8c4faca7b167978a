//! The supervisor's side of the keeper: starts it, gives it a copy of everything, and gets
//! everything from the one that a dead supervisor left. See [`crate::keeper`].

use super::Supervisor;
use super::spawn::Child;
use crate::keeper::{FromKeeper, Key, ToKeeper};
use crate::policy::{Decision, RestartPolicy};
use crate::rundir::RunDir;
use abi::Nanos;
use abi::plumbing::{FromWorker, MAX_FDS};
use anyhow::{Context, bail};
use core::time::Duration;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use runtime::channel::{FdChannel, Received};
use runtime::clock;
use shm::crash::{self, Point};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

/// How long a running keeper may take for everything it holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait for the keeper to make room before a daemon's message is believed to be safe
/// without it. It decides nothing and blocks on nothing, so only a keeper that is stopped takes
/// longer; then it is replaced.
const ROOM: Duration = Duration::from_millis(50);

/// What a keeper held, by name.
pub(super) type Held = BTreeMap<Key, Rc<OwnedFd>>;

/// The supervisor's side.
#[derive(Debug)]
pub(super) struct Keeper {
    channel: FdChannel,
    outgoing: VecDeque<(ToKeeper, Vec<Rc<OwnedFd>>)>,
    child: Child,
    started: Nanos,
}

impl Keeper {
    /// Starts a keeper. It holds nothing yet.
    pub(super) fn start(executable: &Path, rundir: &RunDir) -> anyhow::Result<Self> {
        let (channel, theirs) = FdChannel::pair().context("cannot make a socket pair")?;
        let base = rundir.path();
        let base = base.parent().context("a directory without parent")?;
        let base = base.to_str().context("a directory that is not UTF-8")?;
        let arguments = ["strata: keeper", "__keeper", base, rundir.name()];
        let child = Child::start(executable, &arguments, &theirs)?;
        Ok(Self {
            channel,
            outgoing: VecDeque::new(),
            child,
            started: clock::now(),
        })
    }

    /// Finds the keeper of a constellation whose supervisor is dead, with all it holds.
    ///
    /// # Errors
    /// When there is one and it does not hand over.
    pub(super) fn find(rundir: &RunDir) -> anyhow::Result<Option<(Self, Held)>> {
        let begin = Instant::now();
        // It may have to notice first that its supervisor died.
        while begin.elapsed() < PATIENCE {
            let Some(channel) = reach(rundir, &ToKeeper::Fetch)? else {
                return Ok(None);
            };
            if let Some(held) = fetch(&channel)? {
                let keeper = Self {
                    child: Child::of_peer(&channel).context("the keeper's process")?,
                    channel,
                    outgoing: VecDeque::new(),
                    started: clock::now(),
                };
                return Ok(Some((keeper, held)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "the keeper of `{0}` does not hand over; `strata down --name {0}` ends everything",
            rundir.name()
        )
    }

    /// The plan of the constellation, whoever supervises it; none without a keeper.
    ///
    /// # Errors
    /// When the keeper does not answer.
    pub(super) fn plan(rundir: &RunDir) -> anyhow::Result<Option<Rc<OwnedFd>>> {
        let Some(channel) = reach(rundir, &ToKeeper::Look)? else {
            return Ok(None);
        };
        let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut wait, PollTimeout::from(1000u16));
        match channel.recv::<FromKeeper>()? {
            Received::Message(FromKeeper::Kept(_), fds) => Ok(fds.into_iter().next().map(Rc::new)),
            _ => bail!("the keeper does not answer"),
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> nix::unistd::Pid {
        self.child.pid()
    }

    /// Gives it copies.
    pub(super) fn keep(&mut self, all: impl IntoIterator<Item = (Key, Rc<OwnedFd>)>) {
        let mut all = all.into_iter().peekable();
        while all.peek().is_some() {
            let (keys, fds) = all.by_ref().take(MAX_FDS).unzip();
            self.outgoing.push_back((ToKeeper::Keep(keys), fds));
        }
        self.flush();
    }

    /// Takes them back.
    pub(super) fn forget(&mut self, keys: Vec<Key>) {
        self.outgoing
            .push_back((ToKeeper::Forget(keys), Vec::new()));
        self.flush();
    }

    /// Copies what a daemon's message stores before the message is taken off its channel: a
    /// supervisor that dies in between leaves it to its successor, in one place or the other.
    ///
    /// Answers whether it has room: one that has none for so long is to be replaced.
    pub(super) fn mirror(
        &mut self,
        id: abi::ServiceId,
        message: &FromWorker,
        fds: Vec<OwnedFd>,
    ) -> bool {
        let fds = fds.into_iter().map(Rc::new);
        match message {
            FromWorker::Store(keys) if keys.len() == fds.len() => {
                self.keep(keys.iter().map(|key| Key::Stored(id, *key)).zip(fds));
            }
            FromWorker::ShareRegion(region) if region.transport() == id => {
                self.keep([Key::Region(*region)].into_iter().zip(fds));
            }
            FromWorker::Forget(keys) => {
                self.forget(keys.iter().map(|key| Key::Stored(id, *key)).collect());
            }
            FromWorker::UnshareRegion(region) if region.transport() == id => {
                self.forget(vec![Key::Region(*region)]);
            }
            FromWorker::Store(_) | FromWorker::ShareRegion(_) | FromWorker::UnshareRegion(_) => {}
        }
        self.wait_for_room()
    }

    /// The constellation is down.
    pub(super) fn end(&mut self) {
        self.outgoing.push_back((ToKeeper::End, Vec::new()));
        self.wait_for_room();
    }

    /// Whether something waits to be sent.
    pub(super) fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what the socket takes. A failure is a death, and shows on the channel.
    pub(super) fn flush(&mut self) {
        while let Some((message, fds)) = self.outgoing.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            if self.channel.send(message, &fds).is_err() {
                return;
            }
            self.outgoing.pop_front();
        }
    }

    /// Waits, a little, until everything is sent: whether it is.
    fn wait_for_room(&mut self) -> bool {
        let begin = Instant::now();
        self.flush();
        while self.is_behind() && begin.elapsed() < ROOM {
            let mut wait = [PollFd::new(self.channel.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut wait, PollTimeout::from(1u8));
            std::thread::yield_now();
            self.flush();
        }
        !self.is_behind()
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Connects, and says this; none when nobody is there.
fn reach(rundir: &RunDir, message: &ToKeeper) -> anyhow::Result<Option<FdChannel>> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let address = UnixAddr::new(&rundir.keeper_socket())?;
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(None),
        Err(errno) => return Err(errno).context("cannot reach the keeper"),
    }
    let channel = FdChannel::new(socket)?;
    channel.send(message, &[])?;
    Ok(Some(channel))
}

/// Everything it holds; none when it hangs up, having a supervisor still.
fn fetch(channel: &FdChannel) -> anyhow::Result<Option<Held>> {
    let mut held = Held::new();
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        match channel.recv::<FromKeeper>()? {
            Received::Message(FromKeeper::Kept(keys), fds) => {
                if keys.len() != fds.len() {
                    bail!("too few descriptors are allowed (`ulimit -n`) to adopt what runs");
                }
                held.extend(keys.into_iter().zip(fds.into_iter().map(Rc::new)));
                crash::reach(Point::HalfFetched);
            }
            Received::Message(FromKeeper::Complete, _) => {
                crash::reach(Point::Fetched);
                return Ok(Some(held));
            }
            Received::Closed => return Ok(None),
            Received::Empty => {
                let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut wait, PollTimeout::from(100u8));
            }
        }
    }
    bail!("the keeper does not answer")
}

impl Supervisor {
    /// Everything there is to keep.
    fn to_keep(&self) -> Vec<(Key, Rc<OwnedFd>)> {
        let mut all: Vec<_> = self.plumbing.keys().collect();
        all.push((Key::Plan, Rc::clone(&self.plan)));
        for (id, daemon) in &self.daemons {
            let stored = daemon.store.iter();
            all.extend(stored.map(|(key, fd)| (Key::Stored(*id, key), fd)));
            if let Some(worker) = daemon.worker() {
                all.extend(worker.keys(*id));
            }
            all.extend(daemon.executables());
        }
        let regions = self.regions.iter();
        all.extend(regions.map(|(region, fd)| (Key::Region(region), fd)));
        all
    }

    /// Starts a keeper and gives it everything. A constellation without is one whose supervisor
    /// must not die, and works as well otherwise: it is not worth failing for.
    pub(super) fn start_keeper(&mut self) {
        let started = Keeper::start(&self.options.executable, &self.options.rundir);
        match started.and_then(|keeper| {
            self.watch(&keeper, super::Source::Keeper)?;
            Ok(keeper)
        }) {
            Ok(mut keeper) => {
                keeper.keep(self.to_keep());
                self.keeper = Some(keeper);
                self.note_processes();
            }
            Err(error) => {
                tracing::error!("no keeper: {error:#}");
                let delay = super::daemon::nanos(self.options.config.restart.backoff_max);
                self.keeper_due = Some(clock::now().saturating_add(delay));
            }
        }
    }

    /// The keeper said something, which it never does, or died.
    pub(super) fn on_keeper(&mut self, events: EpollFlags) {
        let Some(keeper) = &self.keeper else {
            return;
        };
        let alive = !events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
            && !matches!(keeper.channel.recv::<FromKeeper>(), Ok(Received::Closed));
        if !alive {
            self.replace_keeper("died");
        }
    }

    pub(super) fn replace_keeper(&mut self, why: &str) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        let _ = self.epoll.delete(&keeper);
        let now = clock::now();
        let lived = Duration::from_nanos(now.saturating_sub(keeper.started));
        keeper.child.kill();
        let _ = keeper.child.reap();
        let policy: RestartPolicy = self.options.config.restart;
        let (streak, decision) = policy.after_death(self.keeper_streak, Some(lived));
        self.keeper_streak = streak;
        let delay = match decision {
            Decision::Restart(delay) => delay,
            Decision::GiveUp => policy.backoff_max,
        };
        tracing::warn!("keeper {why}; started again in {delay:?}");
        self.keeper_due = Some(now.saturating_add(super::daemon::nanos(delay)));
    }

    /// What is due of the keeper.
    pub(super) fn tick_keeper(&mut self, now: Nanos) {
        if self.keeper_due.is_some_and(|at| at <= now) {
            self.keeper_due = None;
            self.start_keeper();
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.flush();
        }
    }
}
