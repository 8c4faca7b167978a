//! The supervisor dies at every point of what it does for daemons and of adopting what its
//! predecessor left, and the keeper at its own; daemons die meanwhile, and sockets come and go.

use super::{READY, lab};
use anyhow::{Context, Result, bail, ensure};
use integration::campaign::Baseline;
use integration::mix::{Amounts, Mix};
use libsocket::Stack;
use nix::sys::signal::Signal;
use shm::crash::{KEEPER, Point, SUPERVISOR, Site, Trigger};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};
use strata::lab::Lab;

/// What the supervisor must be seen to pass while it serves.
pub(super) const RUNNING: [Point; 8] = [
    Point::MessageCopied,
    Point::MessageTaken,
    Point::MessageDone,
    Point::ProcessMade,
    Point::WorkerKept,
    Point::PlumbingSent,
    Point::DeadDrained,
    Point::WorkerForgotten,
];

/// And while it adopts.
pub(super) const ADOPTING: [Point; 3] = [Point::HalfFetched, Point::Fetched, Point::HalfAdopted];

/// The keeper.
pub(super) const KEEPER_AT: [Point; 2] = [Point::KeeperHeard, Point::KeeperDone];

const PATIENCE: Duration = Duration::from_secs(20);

/// Deaths at each site of adoption: one for each daemon that may be half adopted.
const DAEMONS: u32 = 4;

struct Scene {
    trigger: Trigger,
    lab: Lab,
    before: Baseline,
    layers: std::iter::Cycle<std::array::IntoIter<&'static str, 4>>,
}

impl Scene {
    fn new() -> Result<Self> {
        let trigger = Trigger::new()?;
        let lab = lab(&trigger, "")?;
        let before = Baseline::of(&lab)?;
        Ok(Self {
            trigger,
            lab,
            before,
            layers: ["netdevd", "ipd", "tcpd", "udpd"].into_iter().cycle(),
        })
    }

    fn run(mut self, who: &str, all: impl Fn(&mut Self, &Mix) -> Result<usize>) -> Result<()> {
        let amounts = Amounts::default();
        let mix = Mix::start(&self.lab, &amounts)?;
        let stop = Arc::new(AtomicBool::new(false));
        let sockets = self.open_and_close(Arc::clone(&stop));
        let died = mix
            .wait_progress(3, PATIENCE)
            .and_then(|()| all(&mut self, &mix));
        stop.store(true, Ordering::Relaxed);
        let died = match died {
            Ok(died) => died,
            Err(error) => {
                let also = mix.finish().err().map(|e| format!("\n{e:#}"));
                let also = also.unwrap_or_default();
                return Err(error.context(format!("{}{also}", self.lab.log())));
            }
        };
        sockets.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        let progress = mix.finish().with_context(|| self.lab.log())?;
        self.before
            .compare(&self.lab, amounts.idle)
            .with_context(|| self.lab.log())?;
        let deaths = self.trigger.deaths();
        println!("{who}: {deaths} deaths at {died} sites, {progress:?}");
        Ok(())
    }

    /// A daemon dies.
    fn stir(&mut self) -> Result<()> {
        if let Some(layer) = self.layers.next() {
            // It may have died of the last time, with nobody to start it.
            let _ = self.lab.signal(layer, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(20));
        Ok(())
    }

    /// Sessions and sockets that come and go. Without a supervisor no daemon that died is started,
    /// and who asks it waits.
    fn open_and_close(&self, stop: Arc<AtomicBool>) -> JoinHandle<()> {
        let (path, address) = (self.lab.path(), self.lab.stack);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let stack = Stack::open(&path);
                drop(stack.listen((address, 0)));
                drop(stack.udp((address, 0)));
                sleep(Duration::from_millis(1));
            }
        })
    }

    /// Stirs until the death that is armed.
    fn await_death(&mut self, deaths: u32, name: &str) -> Result<()> {
        let begin = Instant::now();
        while self.trigger.deaths() == deaths {
            ensure!(
                begin.elapsed() < Duration::from_secs(10),
                "{name} was not passed again"
            );
            self.stir()?;
        }
        Ok(())
    }

    fn goes_on(&self, mix: &Mix, name: &str) -> Result<()> {
        mix.wait_progress(2, PATIENCE)
            .and_then(|()| mix.check_levels(READY))
            .with_context(|| format!("after death at {name}"))?;
        if mix.is_broken() {
            bail!("broken by death at {name}");
        }
        Ok(())
    }

    /// The supervisor has died at `name`; another one comes.
    fn succeed(&self, mix: &Mix, name: &str) -> Result<()> {
        // Waits for it.
        self.lab.kill_supervisor()?;
        self.lab
            .adopt()
            .with_context(|| format!("after death at {name}"))?;
        self.goes_on(mix, name)
    }

    fn new_site(&self, who: abi::ServiceId, of: &[Point], died: &BTreeSet<Site>) -> Option<Site> {
        let mut all = self.trigger.sites(who);
        all.sort();
        let mut all = all.into_iter().map(|(site, _)| site);
        all.find(|site| of.contains(&site.point) && !died.contains(site))
    }
}

pub(super) fn everywhere() -> Result<()> {
    Scene::new()?.run("supervisor", |scene, mix| {
        let mut died = BTreeSet::new();
        while let Some(site) = scene.new_site(SUPERVISOR, &RUNNING, &died) {
            let deaths = scene.trigger.deaths();
            scene.trigger.arm_at(SUPERVISOR, &site, 1);
            let name = site.to_string();
            scene.await_death(deaths, &name)?;
            scene.succeed(mix, &name)?;
            died.insert(site);
        }
        // The deaths so far were adoptions, too.
        while let Some(site) = scene.new_site(SUPERVISOR, &ADOPTING, &died) {
            for nth in 1..=DAEMONS {
                scene.lab.kill_supervisor()?;
                let deaths = scene.trigger.deaths();
                scene.trigger.arm_at(SUPERVISOR, &site, nth);
                let name = format!("{site}, time {nth}");
                // It may pass there fewer times.
                let adopted = scene.lab.adopt();
                if scene.trigger.deaths() > deaths {
                    ensure!(adopted.is_err());
                    mix.wait_connected(1, PATIENCE)
                        .with_context(|| format!("after death at {name}"))?;
                    scene.succeed(mix, &name)?;
                } else {
                    adopted?;
                    ensure!(nth > 1, "{name} was not passed again");
                    scene.trigger.disarm();
                    break;
                }
            }
            died.insert(site);
        }
        all_passed(scene, SUPERVISOR, RUNNING.iter().chain(&ADOPTING))?;
        Ok(died.len())
    })
}

pub(super) fn keeper() -> Result<()> {
    Scene::new()?.run("keeper", |scene, mix| {
        let mut died = BTreeSet::new();
        while let Some(site) = scene.new_site(KEEPER, &KEEPER_AT, &died) {
            let old = scene.lab.status()?.keeper;
            let deaths = scene.trigger.deaths();
            scene.trigger.arm_at(KEEPER, &site, 1);
            let name = site.to_string();
            scene.await_death(deaths, &name)?;
            let begin = Instant::now();
            loop {
                let keeper = scene.lab.status()?.keeper;
                if keeper.is_some() && keeper != old {
                    break;
                }
                ensure!(begin.elapsed() < PATIENCE, "no new keeper");
                sleep(Duration::from_millis(1));
            }
            scene.goes_on(mix, &name)?;
            // What it was given is all that the next supervisor has.
            scene.lab.kill_supervisor()?;
            scene.lab.adopt()?;
            scene.goes_on(mix, &name)?;
            died.insert(site);
        }
        all_passed(scene, KEEPER, KEEPER_AT.iter())?;
        Ok(died.len())
    })
}

fn all_passed<'a>(
    scene: &Scene,
    who: abi::ServiceId,
    mut all: impl Iterator<Item = &'a Point>,
) -> Result<()> {
    let missed = all.find(|&&point| scene.trigger.reached(who, point) == 0);
    ensure!(missed.is_none(), "{missed:?} was never passed");
    Ok(())
}
