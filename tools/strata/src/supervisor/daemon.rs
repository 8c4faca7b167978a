//! One daemon: what is known of it, and of the worker that does its work at the moment.
//!
//! ```text
//!                 start                ready                   death
//!   Down/Waiting -------> Starting ------------> Running ------------------> Waiting -> ...
//!        ^                   |                      | restart, stop              |
//!        |                   +--- death ---+        v                            v
//!        +------------------------------- Draining (killed after a grace)      Failed
//! ```

use super::channel::Channel;
use super::control::Control;
use super::plumbing::Gauges;
use super::spare::{Process, Spare};
use super::spawn::Child;
use super::store::Store;
use super::upgrade::Trial;
use crate::admin::{DaemonState, DaemonStatus};
use crate::keeper::Key;
use crate::policy::{Decision, RestartPolicy};
use crate::topology::Service;
use abi::{Nanos, ServiceId};
use core::time::Duration;
use nix::unistd::Pid;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Why a living worker is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planned {
    /// To be started again at once.
    Restart,
    /// For good.
    Stop,
}

/// A process that does the daemon's work.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    pub(super) channel: Channel,
    pub(super) control: Control,
    /// When it was started.
    pub(super) started: Nanos,
    /// When it said that it is ready.
    pub(super) ready: Option<Nanos>,
    /// Set while it finishes.
    pub(super) planned: Option<Planned>,
    /// When it is killed if it still lives, and why.
    kill_at: Option<(Nanos, String)>,
    /// Why it was killed, if the supervisor did it.
    pub(super) killed: Option<String>,
    /// It was killed because it stood still by its own doing.
    pub(super) hung: bool,
    /// The progress word and when it last moved.
    progress: (u64, Nanos),
    /// When the next heartbeat is due.
    beat_at: Nanos,
}

impl Worker {
    pub(super) fn new(process: Process, now: Nanos) -> Self {
        let Process {
            child,
            channel,
            control,
        } = process;
        Self {
            child,
            channel,
            control,
            started: now,
            ready: None,
            planned: None,
            kill_at: None,
            killed: None,
            hung: false,
            progress: (0, now),
            beat_at: now,
        }
    }

    /// What the keeper holds of it. A copy that cannot be made is not kept.
    pub(super) fn keys(&self, id: ServiceId) -> impl Iterator<Item = (Key, Rc<OwnedFd>)> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok().map(Rc::new);
        [
            (Key::Channel(id), copy(self.channel.as_fd())),
            (Key::Worker(id), copy(self.child.as_fd())),
        ]
        .into_iter()
        .filter_map(|(key, fd)| Some((key, fd?)))
    }

    /// It said that it is ready: from now on it must make progress.
    pub(super) fn became_ready(&mut self, now: Nanos) {
        self.ready = Some(now);
        // It came: what was to happen otherwise is off.
        self.kill_at = None;
        self.progress.1 = now;
        self.beat_at = now;
    }

    /// Kills it for `why` unless it ends by itself before `at`.
    pub(super) fn kill_later(&mut self, at: Nanos, why: impl Into<String>) {
        if self
            .kill_at
            .as_ref()
            .is_none_or(|(earlier, _)| at < *earlier)
        {
            self.kill_at = Some((at, why.into()));
        }
    }

    /// It closed a channel that it cannot do without: most likely it is exiting, and its exit
    /// status says more than ours would.
    pub(super) fn lost(&mut self, now: Nanos, why: impl Into<String>) {
        self.kill_later(now.saturating_add(EXITING), why);
    }

    /// Kills it for `why`.
    pub(super) fn kill(&mut self, why: impl Into<String>) {
        if self.killed.is_none() {
            self.killed = Some(why.into());
        }
        self.child.kill();
    }
}

/// Whether somebody works, and if not, why and until when.
#[derive(Debug)]
pub(super) enum State {
    /// Never started, or stopped.
    Down,
    /// Dead; to be started at this time.
    Waiting(Nanos),
    /// Dead, and given up on.
    Failed,
    /// A process lives.
    Alive(Box<Worker>),
}

/// A daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) service: Service,
    pub(super) gauges: Gauges,
    pub(super) store: Store,
    pub(super) state: State,
    /// Incarnations so far.
    pub(super) incarnations: u32,
    /// Whether it was ever ready.
    pub(super) proven: bool,
    /// Deaths in a row.
    pub(super) streak: u32,
    pub(super) last_death: Option<String>,
    /// What is started; none: the supervisor's own executable.
    pub(super) executable: Option<Rc<OwnedFd>>,
    /// The last upgrade.
    pub(super) trial: Option<Trial>,
    /// Its next process.
    pub(super) spare: Option<Spare>,
    /// When to start one.
    pub(super) spare_at: Option<Nanos>,
}

impl Daemon {
    pub(super) fn new(service: Service, gauges: Gauges) -> Self {
        Self {
            service,
            gauges,
            store: Store::default(),
            state: State::Down,
            incarnations: 0,
            proven: false,
            streak: 0,
            last_death: None,
            executable: None,
            trial: None,
            spare: None,
            spare_at: None,
        }
    }

    /// Its worker, if one lives.
    pub(super) fn worker(&self) -> Option<&Worker> {
        match &self.state {
            State::Alive(worker) => Some(worker),
            _ => None,
        }
    }

    /// Its worker, if one lives.
    pub(super) fn worker_mut(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            State::Alive(worker) => Some(worker),
            _ => None,
        }
    }

    /// Whether it is ready and not about to end.
    pub(super) fn is_running(&self) -> bool {
        self.worker()
            .is_some_and(|worker| worker.ready.is_some() && worker.planned.is_none())
    }

    /// Does what is due at `now`: heartbeat, and killing what hangs. `late` is by how much the
    /// supervisor itself was held up; a daemon may have been held up as long.
    pub(super) fn tick(&mut self, policy: &RestartPolicy, now: Nanos, late: Nanos) {
        let hang = nanos(policy.hang);
        let start = nanos(policy.start);
        let State::Alive(worker) = &mut self.state else {
            return;
        };
        if worker.channel.is_behind() && worker.channel.flush().is_err() {
            worker.lost(now, "closed its descriptor channel");
        }
        if worker.killed.is_some() {
            return;
        }
        if let Some((_, why)) = worker.kill_at.take_if(|(at, _)| *at <= now) {
            worker.kill(why);
            return;
        }
        if worker.ready.is_none() {
            if now.saturating_sub(worker.started) > start {
                worker.hung = !is_stopped(worker.child.pid());
                worker.kill(format!("not ready after {:?}", policy.start));
            }
            return;
        }
        let turns = self.gauges.vitals.turns();
        if turns != worker.progress.0 {
            worker.progress = (turns, now);
        } else if late > 0 {
            worker.progress.1 = worker.progress.1.saturating_add(late).min(now);
        }
        if now.saturating_sub(worker.progress.1) >= hang {
            worker.hung = !is_stopped(worker.child.pid());
            worker.kill(format!("hung: no progress for {:?}", policy.hang));
            return;
        }
        if now >= worker.beat_at {
            self.gauges.bell.force();
            worker.beat_at = now.saturating_add(beat(policy));
        }
    }

    /// When [`Daemon::tick`] has something to do, or the daemon is to be started.
    pub(super) fn deadline(&self, policy: &RestartPolicy, now: Nanos) -> Option<Nanos> {
        match &self.state {
            State::Down | State::Failed => None,
            State::Waiting(at) => Some(*at),
            State::Alive(worker) if worker.killed.is_some() => None,
            State::Alive(worker) => {
                let mut at = match worker.ready {
                    Some(_) => worker.beat_at,
                    None => worker.started.saturating_add(nanos(policy.start)),
                };
                if let Some((kill_at, _)) = &worker.kill_at {
                    at = at.min(*kill_at);
                }
                if worker.channel.is_behind() {
                    at = at.min(now.saturating_add(RETRY));
                }
                Some(self.spare_due().map_or(at, |due| at.min(due)))
            }
        }
    }

    /// Takes note that its worker died. Answers the worker, for what it still had to say.
    pub(super) fn died(
        &mut self,
        policy: &RestartPolicy,
        now: Nanos,
        how: &str,
    ) -> Option<Box<Worker>> {
        let State::Alive(worker) = core::mem::replace(&mut self.state, State::Down) else {
            return None;
        };
        let lived = worker
            .ready
            .map(|ready| Duration::from_nanos(now.saturating_sub(ready)));
        self.state = match worker.planned {
            Some(Planned::Stop) => State::Down,
            Some(Planned::Restart) => {
                self.streak = 0;
                State::Waiting(now)
            }
            None => {
                let (streak, decision) = policy.after_death(self.streak, lived);
                self.streak = streak;
                self.last_death = Some(how.to_owned());
                match decision {
                    Decision::Restart(delay) => State::Waiting(now.saturating_add(nanos(delay))),
                    Decision::GiveUp => State::Failed,
                }
            }
        };
        Some(worker)
    }

    /// How it is, for people; `owns` is what the plumbing says.
    pub(super) fn status(&self, now: Nanos, owns: Vec<String>) -> DaemonStatus {
        let worker = self.worker();
        let state = match (&self.state, worker) {
            (State::Down, _) => DaemonState::Down,
            (State::Waiting(_), _) => DaemonState::Waiting,
            (State::Failed, _) => DaemonState::Failed,
            (State::Alive(worker), _) if worker.planned.is_some() => DaemonState::Draining,
            (State::Alive(worker), _) if worker.ready.is_some() => DaemonState::Running,
            (State::Alive(_), _) => DaemonState::Starting,
        };
        let number = |pid: Pid| u32::try_from(pid.as_raw()).ok();
        let pid = worker.and_then(|worker| number(worker.child.pid()));
        let pool_slots = self.gauges.pool.layout().slots();
        DaemonStatus {
            name: self.service.name.clone(),
            pid,
            spare: self.spare_pid().and_then(number),
            state,
            uptime_ms: worker
                .and_then(|worker| worker.ready)
                .map(|ready| now.saturating_sub(ready) / 1_000_000),
            restarts: self.incarnations.saturating_sub(1),
            last_death: self.last_death.clone(),
            streak: self.streak,
            starts_in_ms: match self.state {
                State::Waiting(at) => Some(at.saturating_sub(now) / 1_000_000),
                _ => None,
            },
            cpu_ms: pid.map_or(0, cpu_ms),
            turns: self.gauges.vitals.turns(),
            counters: self.gauges.vitals.counters(),
            pool_used: pool_slots.saturating_sub(self.gauges.pool.free_slots()),
            pool_slots,
            stored: self.store.len(),
            owns,
        }
    }
}

/// Time from closing a channel to the end of the process.
const EXITING: Nanos = 200_000_000;

/// Pause before a full descriptor channel is tried again.
pub(super) const RETRY: Nanos = 2_000_000;

/// Time between heartbeats: four to a hang.
fn beat(policy: &RestartPolicy) -> Nanos {
    nanos(policy.hang) / 4
}

/// A duration on the constellation's clock.
pub(super) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Whether somebody has stopped the process (`SIGSTOP`, a debugger).
fn is_stopped(pid: Pid) -> bool {
    matches!(process_state(pid), Some('T' | 't'))
}

/// Whether the process lives and is not stopped.
pub(super) fn is_waiting(pid: Pid) -> bool {
    matches!(process_state(pid), Some('R' | 'S' | 'D'))
}

/// The third field of proc(5)'s `stat`.
fn process_state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, behind) = stat.rsplit_once(')')?;
    behind.trim_start().chars().next()
}

/// Processor time of a process in milliseconds (proc(5): user and system time are the 14th and
/// 15th field, in ticks of 10 ms on every Linux that there is).
fn cpu_ms(pid: u32) -> u64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0;
    };
    // The second field, the name, may hold spaces; what follows its bracket is the third.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<u64>().ok())
        .sum::<u64>()
        * 10
}
