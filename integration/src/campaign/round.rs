//! One round: a constellation (or two), the mix, faults, and the reckoning.

use super::fault::Injector;
use super::{Fault, Kind, Peer, Plan, RECOVERY, Report, leaks};
use crate::mix::{Amounts, LATE, Mix, OWN_IDLE, Traffic};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::admin::DaemonState;
use strata::lab::{Lab, LabConfig};

/// How long everything may take to go on after a scribble, before what does not counts as lost.
const SCRIBBLED: Duration = Duration::from_secs(5);

/// How long a descriptor may be ready wrongly when everything has gone on.
const READY: Duration = Duration::from_secs(2);

/// What a round is of.
pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) peer: Peer,
}

/// A constellation, and what it was before there was traffic.
struct Side {
    lab: Lab,
    injector: Injector,
    before: leaks::Baseline,
}

impl Side {
    fn start() -> Result<Self> {
        let injector = Injector::new()?;
        let lab = Lab::start(&LabConfig {
            environment: injector.environment(),
            // Deaths come faster here than any machine's; and what is closed is to be gone soon.
            // What is at work in an abort or a panic that a dice threw is not to blame.
            extra: "[restart]\nat-once = 100000\ngive-up = 0\nquarantine = 0\nlost-buffers = \"1s\"\n[tcp]\ntime-wait = \"1s\"\n"
                .to_owned(),
            ..LabConfig::default()
        })?;
        let before = leaks::Baseline::of(&lab)?;
        Ok(Self {
            lab,
            injector,
            before,
        })
    }
}

impl World<'_> {
    pub(super) fn run(
        &self,
        faults: &[Fault],
        random: &mut fastrand::Rng,
        report: &mut Report,
        tell: impl FnMut(&Report),
    ) -> Result<()> {
        let side = Side::start()?;
        let mut amounts = Amounts {
            idle: self.plan.idle,
            ..Amounts::default()
        };
        if faults.iter().any(|fault| fault.kind == Kind::Scribble) {
            // What a word has stopped is waited for.
            amounts.patience = Duration::from_secs(12);
        }
        let (other, mix) = match self.peer {
            Peer::Kernel => (None, Mix::start(&side.lab, &amounts)?),
            Peer::Constellation => {
                // The kernel forwards from one to the other, and is no end of any connection.
                fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
                let other = Side::start()?;
                let idle = amounts.idle.min(OWN_IDLE);
                let mix = Mix::between(&side.lab, &other.lab, &Amounts { idle, ..amounts })?;
                (Some(other), mix)
            }
        };
        mix.wait_progress(3, RECOVERY)?;
        let sides: Vec<_> = [Some(side), other].into_iter().flatten().collect();
        if let Some(fault) = faults.iter().find(|fault| fault.kind == Kind::Scribble) {
            let fault = *fault;
            return self.scribbles(&sides, mix, (fault, faults.len()), random, report, tell);
        }
        self.faults(&sides, mix, faults, random, report, tell)
    }

    fn faults(
        &self,
        sides: &[Side],
        mix: Mix,
        faults: &[Fault],
        random: &mut fastrand::Rng,
        report: &mut Report,
        mut tell: impl FnMut(&Report),
    ) -> Result<()> {
        let mut failed = None;
        for &fault in faults {
            let side = chosen(sides, random)?;
            // At an arbitrary moment of the traffic; and a gap of its own.
            sleep(Duration::from_micros(random.u64(5_000..30_000)));
            mix.silence().take(Traffic::All);
            let begin = Instant::now();
            let recovered = side
                .injector
                .inject(&side.lab, &mix, fault, random)
                .and_then(|()| settle(&side.lab, &mix));
            let gap = mix.silence().take(fault.target.serves());
            report.note(
                fault,
                self.peer,
                gap.min(begin.elapsed()),
                recovered.is_ok(),
            );
            tell(report);
            if let Err(error) = recovered {
                failed = Some(error.context(fault.to_string()));
                break;
            }
            if self.plan.is_over() {
                break;
            }
        }
        let ended = mix.end();
        report.broke(ended.count());
        if failed.is_some() || !ended.lost.is_empty() {
            let mut text: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
            text.extend(ended.lost.into_values());
            let logs: Vec<_> = sides.iter().map(|side| side.lab.log()).collect();
            bail!("{}\n{}", text.join("\n"), logs.join("\n"));
        }
        for side in sides {
            if let Err(error) = side.before.compare(&side.lab, self.plan.idle) {
                report.leaked(format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// Random words, until one has cost a connection: each may cost one at the most, and every
    /// connection is looked at after each.
    fn scribbles(
        &self,
        sides: &[Side],
        mix: Mix,
        (fault, count): (Fault, usize),
        random: &mut fastrand::Rng,
        report: &mut Report,
        mut tell: impl FnMut(&Report),
    ) -> Result<()> {
        let mut lost = BTreeSet::new();
        let mut wrong = None;
        let mut done = 0;
        while done < count && lost.is_empty() && wrong.is_none() && !self.plan.is_over() {
            let side = chosen(sides, random)?;
            sleep(Duration::from_micros(random.u64(5_000..30_000)));
            mix.silence().take(Traffic::All);
            let begin = Instant::now();
            let injected = side.injector.inject(&side.lab, &mix, fault, random);
            let back = injected.and_then(|()| wait_running(&side.lab));
            let goes_on = mix.wait_progress(2, SCRIBBLED);
            let gap = mix.silence().take(fault.target.serves());
            report.note(fault, self.peer, gap.min(begin.elapsed()), true);
            done += 1;
            tell(report);
            lost = mix.lost(SCRIBBLED);
            wrong = back.err().or_else(|| {
                // A connect that blocks tells of an earlier word when its time is over.
                let late = lost.iter().filter(|name| name.starts_with(LATE)).count();
                let too_many = lost.len() - late > 1 || lost.len() > done;
                too_many.then(|| anyhow!("one word has cost {lost:?}: {goes_on:?}"))
            });
        }
        let ended = mix.end();
        // One that was ready wrongly, or stood still for long, may end well.
        let cost = ended.count().max(u64::try_from(lost.len())?);
        report.cost(fault, self.peer, cost);
        if cost > 0 {
            let words: Vec<_> = ended.lost.values().collect();
            eprintln!("{fault} has cost {lost:?}: {words:?}");
        }
        // What a word has broken of the ending of a connection shows here.
        if wrong.is_some() || ended.count() > u64::try_from(done)? {
            let mut text: Vec<_> = wrong.iter().map(|e| format!("{e:#}")).collect();
            text.extend(ended.lost.values().cloned());
            let logs: Vec<_> = sides.iter().map(|side| side.lab.log()).collect();
            let (text, logs) = (text.join("\n"), logs.join("\n"));
            bail!("one of {done} of {fault}: {text}\n{logs}");
        }
        if ended.stuck > 0 {
            // What the word belongs to is still held, by us.
            return Ok(());
        }
        for side in sides {
            if let Err(error) = side.before.compare(&side.lab, self.plan.idle) {
                report.leaked(format!("after {fault}: {error:#}"));
            }
        }
        Ok(())
    }
}

/// The constellation that a fault meets: mostly the first.
fn chosen<'a>(sides: &'a [Side], random: &mut fastrand::Rng) -> Result<&'a Side> {
    let place = if random.u8(0..3) == 0 {
        sides.len() - 1
    } else {
        0
    };
    sides.get(place).context("no constellation")
}

/// Waits until every layer runs and everything goes on.
fn settle(lab: &Lab, mix: &Mix) -> Result<()> {
    wait_running(lab)?;
    mix.wait_progress(2, RECOVERY)?;
    mix.check_levels(READY)
}

fn wait_running(lab: &Lab) -> Result<()> {
    let begin = Instant::now();
    loop {
        let status = lab.status().context("the supervisor")?;
        let mut all = status.daemons.iter();
        if status.keeper.is_some() && all.all(|d| d.state == DaemonState::Running) {
            return Ok(());
        }
        if begin.elapsed() > RECOVERY {
            bail!("not every layer is back");
        }
        sleep(Duration::from_millis(1));
    }
}
