//! Faults, and how they are brought about.

use super::scribble::{Memory, scribble};
use super::supervisor;
use crate::mix::{Mix, Traffic};
use anyhow::{Context, Result, bail};
use core::fmt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm::crash::{Action, Point, Trigger, VARIABLE};
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::admin::{Request, Status};
use strata::lab::Lab;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: how long receivers hear nothing anyway.
    None,
    /// `SIGKILL`.
    Kill,
    /// `SIGABRT`.
    Abort,
    /// A Rust panic.
    Panic,
    /// `SIGSTOP`: no progress, no processor time.
    Hang,
    /// A busy loop: no progress.
    Loop,
    /// The memory limit is reached.
    Memory,
    /// A planned restart.
    Restart,
    /// A random word written into shared memory.
    Scribble,
}

/// To whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One layer.
    Layer(&'static str),
    /// Two layers at once.
    Pair(&'static str, &'static str),
    /// All layers at once.
    All,
    /// The supervisor; another adopts what runs.
    Supervisor,
    /// The keeper.
    Keeper,
    /// The supervisor and all layers at once.
    AllButKeeper,
    /// Shared memory.
    Memory(Memory),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom.
    pub target: Target,
}

impl Kind {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "SIGKILL",
            Self::Abort => "abort",
            Self::Panic => "panic",
            Self::Hang => "hang (SIGSTOP)",
            Self::Loop => "busy loop",
            Self::Memory => "memory limit",
            Self::Restart => "planned restart",
            Self::Scribble => "random word",
        }
    }
}

impl Target {
    /// For people; pairs are one row of a table.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Layer(layer) => layer.to_owned(),
            Self::Pair(..) => "two layers at once".to_owned(),
            Self::All => "all layers at once".to_owned(),
            Self::Supervisor => "supervisor".to_owned(),
            Self::Keeper => "keeper".to_owned(),
            Self::AllButKeeper => "supervisor and all layers at once".to_owned(),
            Self::Memory(memory) => memory.name().to_owned(),
        }
    }

    /// The traffic that it serves: whose receivers' silence is the gap.
    #[must_use]
    pub const fn serves(self) -> Traffic {
        match self {
            Self::Layer(layer) => match layer.as_bytes() {
                b"tcpd" => Traffic::Streams,
                b"udpd" => Traffic::Datagrams,
                _ => Traffic::All,
            },
            _ => Traffic::All,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Pair(a, b) => write!(f, "{} of {a} and {b}", self.kind.name()),
            target => write!(f, "{} of {}", self.kind.name(), target.name()),
        }
    }
}

/// The layers and the numbers of their services in a lab.
const LAYERS: [(&str, u8); 4] = [("netdevd", 4), ("ipd", 1), ("tcpd", 2), ("udpd", 3)];

/// The faults of a campaign in rounds of at most `each`, in an order that `seed` gives: `kills`
/// times `SIGKILL` for each layer, and the others in proportion, each at least once. Rounds of
/// scribbles have one target each, and are shorter.
#[must_use]
pub fn schedule(seed: u64, kills: usize, each: usize) -> Vec<Vec<Fault>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = failures(kills, &mut random);
    random.shuffle(&mut all);
    let mut rounds: Vec<_> = all.chunks(each.max(1)).map(<[_]>::to_vec).collect();
    for memory in Memory::ALL {
        let fault = Fault {
            kind: Kind::Scribble,
            target: Target::Memory(memory),
        };
        let scribbles = vec![fault; kills / 10 + 1];
        rounds.extend(scribbles.chunks(SCRIBBLES).map(<[_]>::to_vec));
    }
    random.shuffle(&mut rounds);
    rounds
}

/// Scribbles in a round.
const SCRIBBLES: usize = 12;

/// What a process can do to itself, or be made to do, but `SIGKILL`.
const OTHERS: [Kind; 5] = [
    Kind::Abort,
    Kind::Panic,
    Kind::Hang,
    Kind::Loop,
    Kind::Memory,
];

fn failures(kills: usize, random: &mut fastrand::Rng) -> Vec<Fault> {
    let tenth = kills / 10 + 1;
    let twentieth = kills / 20 + 1;
    let hundredth = kills / 100 + 1;
    let mut all = Vec::new();
    let mut add = |kind, target, count| {
        all.extend(core::iter::repeat_n(Fault { kind, target }, count));
    };
    for (layer, _) in LAYERS {
        let layer = Target::Layer(layer);
        add(Kind::Kill, layer, kills);
        add(Kind::Abort, layer, tenth);
        add(Kind::Panic, layer, tenth);
        for kind in [Kind::Hang, Kind::Loop, Kind::Memory, Kind::Restart] {
            add(kind, layer, twentieth);
        }
    }
    let mut pairs = Vec::new();
    for (i, (a, _)) in LAYERS.iter().enumerate() {
        let others = LAYERS.iter().skip(i + 1);
        pairs.extend(others.map(|(b, _)| Target::Pair(a, b)));
    }
    for &pair in &pairs {
        add(Kind::Kill, pair, twentieth);
    }
    for kind in OTHERS {
        // A campaign of a few kills is to be short: one pair for each kind.
        let some = if kills < PAIRS_FROM { 1 } else { pairs.len() };
        random.shuffle(&mut pairs);
        for &pair in pairs.iter().take(some) {
            add(kind, pair, hundredth);
        }
        add(kind, Target::All, twentieth);
    }
    add(Kind::Kill, Target::All, tenth);
    // See `supervisor` on the kinds that these do not meet.
    for kind in [Kind::Kill, Kind::Abort, Kind::Hang] {
        add(kind, Target::Supervisor, tenth);
    }
    for target in [Target::Keeper, Target::AllButKeeper] {
        add(Kind::Kill, target, twentieth);
        add(Kind::Abort, target, hundredth);
    }
    add(Kind::None, Target::All, tenth);
    all
}

/// Campaigns of so many kills have faults other than kills for all pairs.
const PAIRS_FROM: usize = 20;

/// Brings faults about.
#[derive(Debug)]
pub(super) struct Injector {
    trigger: Trigger,
}

impl Injector {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            trigger: Trigger::new()?,
        })
    }

    /// What the supervisor's environment needs.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        vec![(VARIABLE.to_owned(), self.trigger.path())]
    }

    /// Brings `fault` about under `mix`; it has happened, or is about to, when this returns.
    pub(super) fn inject(
        &self,
        lab: &Lab,
        mix: &Mix,
        fault: Fault,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        let Fault { kind, target } = fault;
        let layers: Vec<&str> = match target {
            Target::Layer(layer) => vec![layer],
            Target::Pair(a, b) => vec![a, b],
            Target::All | Target::AllButKeeper => LAYERS.map(|(layer, _)| layer).to_vec(),
            Target::Supervisor | Target::Keeper | Target::Memory(_) => Vec::new(),
        };
        let status = lab.status()?;
        if let Target::Memory(memory) = target {
            return self.scribble(lab, memory, &status, random);
        }
        let mut pids = Vec::new();
        for layer in &layers {
            let of = |name: &str| name == *layer || name.split('@').next() == Some(layer);
            let daemon = status.daemons.iter().find(|d| of(&d.name));
            pids.push(daemon.and_then(|d| d.pid).context("a layer is down")?);
        }
        if target == Target::Keeper {
            pids.push(status.keeper.context("no keeper")?);
        }
        let signal = match kind {
            Kind::None | Kind::Scribble => {
                sleep(Duration::from_millis(20));
                return Ok(());
            }
            Kind::Kill => Signal::SIGKILL,
            Kind::Abort => Signal::SIGABRT,
            Kind::Hang => Signal::SIGSTOP,
            Kind::Restart => {
                for layer in layers {
                    let layer = layer.to_owned();
                    lab.ask(&Request::Restart { layer })?;
                }
                return Ok(());
            }
            Kind::Panic => return self.have(&layers, Action::Panic, random),
            Kind::Loop => return self.have(&layers, Action::Loop, random),
            Kind::Memory => return self.have(&layers, Action::Exhaust, random),
        };
        if target == Target::Supervisor && kind == Kind::Hang {
            return supervisor::hang(lab, status.pid, mix, random);
        }
        let supervisor = matches!(target, Target::Supervisor | Target::AllButKeeper);
        if supervisor {
            supervisor::end(lab, status.pid, signal)?;
        }
        for pid in &pids {
            let pid = Pid::from_raw(i32::try_from(*pid)?);
            kill(pid, signal).with_context(|| fault.to_string())?;
        }
        if supervisor {
            lab.adopt()?;
        } else {
            gone(lab, &pids)?;
        }
        Ok(())
    }

    /// Has the layers do it to themselves in the middle of their work; several at the same time,
    /// each in the turn it is in.
    fn have(&self, layers: &[&str], action: Action, random: &mut fastrand::Rng) -> Result<()> {
        let service = |layer: &&str| {
            let known = LAYERS.iter().find(|(known, _)| known == layer);
            known.map(|(_, number)| abi::ServiceId(*number))
        };
        let services: Option<Vec<_>> = layers.iter().map(service).collect();
        let services = services.context("no such layer")?;
        let points = [Point::Polled, Point::Committed, Point::Released];
        let point = random.choice(points).context("no point")?;
        let nth = random.u32(1..30);
        let before = self.trigger.deaths();
        match *services {
            [service] => self.trigger.arm_for(service, point, nth, action),
            ref all => self.trigger.arm_together(all, point, action),
        }
        let all = before + u32::try_from(services.len())?;
        let begin = Instant::now();
        while self.trigger.deaths() < all {
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("not all of them came to {}", point.name());
            }
            sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn scribble(
        &self,
        lab: &Lab,
        memory: Memory,
        status: &Status,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        scribble(status.pid, memory, random)?;
        if let Some(layer) = memory.reader(random) {
            let pid = lab.signal(layer, Signal::SIGKILL)?;
            gone(lab, &[pid])?;
        }
        Ok(())
    }
}

/// Waits until the supervisor has noticed: none of `pids` is a layer's or the keeper's any more.
fn gone(lab: &Lab, pids: &[u32]) -> Result<()> {
    let begin = Instant::now();
    loop {
        let status = lab.status()?;
        let named = |pid: &u32| {
            let layers = status.daemons.iter().filter_map(|d| d.pid);
            layers.chain(status.keeper).any(|p| p == *pid)
        };
        if !pids.iter().any(named) {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(10) {
            bail!("the supervisor does not notice");
        }
        sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_what_was_asked_for_and_is_its_seeds() {
        let faults: Vec<_> = schedule(1, 20, 60).concat();
        let killed = |layer| {
            let fault = Fault {
                kind: Kind::Kill,
                target: Target::Layer(layer),
            };
            faults.iter().filter(|f| **f == fault).count()
        };
        assert_eq!((killed("tcpd"), killed("netdevd")), (20, 20));
        assert_eq!(faults, schedule(1, 20, 60).concat());
        assert_ne!(faults, schedule(2, 20, 60).concat());
    }

    #[test]
    fn the_shortest_campaign_has_every_kind_for_one_two_and_all_layers() {
        let faults = schedule(3, 1, 60).concat();
        for kind in OTHERS.into_iter().chain([Kind::Kill]) {
            let met =
                |is: fn(Target) -> bool| faults.iter().any(|f| f.kind == kind && is(f.target));
            assert!(met(|target| matches!(target, Target::Layer(_))), "{kind:?}");
            assert!(met(|target| matches!(target, Target::Pair(..))), "{kind:?}");
            assert!(met(|target| target == Target::All), "{kind:?}");
        }
    }
}
