//! A daemon dies at every point where what others see of it changes, at each line that passes the
//! point and for each kind of thing, under all kinds of traffic. After each death everything goes
//! on and every descriptor is ready as it should be; at the end nothing has leaked.

mod lost;
mod pages;
mod requests;
mod stimulus;
mod supervisor;

use abi::ServiceId;
use anyhow::{Context, Result, bail, ensure};
use integration::Trials;
use integration::campaign::Baseline;
use integration::mix::{Amounts, Mix};
use nix::sys::signal::Signal;
use shm::crash::{Point, Site, Trigger, VARIABLE};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};
use stimulus::Stimulus;
use strata::admin::Request;
use strata::lab::{Lab, LabConfig};
use strata::topology::{IPD, TCPD, UDPD};

/// How long a descriptor may be ready wrongly when everything has gone on.
const READY: Duration = Duration::from_secs(2);

pub(crate) fn add(trials: &mut Trials) {
    trials.add("every_crash_point_is_listed", listed);
    trials.add("netdevd_dies_at_every_crash_point", || {
        everywhere("netdevd", ServiceId(4))
    });
    trials.add("ipd_dies_at_every_crash_point", || everywhere("ipd", IPD));
    trials.add("tcpd_dies_at_every_crash_point", || {
        everywhere("tcpd", TCPD)
    });
    trials.add("udpd_dies_at_every_crash_point", || {
        everywhere("udpd", UDPD)
    });
    trials.add(
        "the_supervisor_dies_at_every_crash_point",
        supervisor::everywhere,
    );
    trials.add("the_keeper_dies_at_every_crash_point", supervisor::keeper);
    trials.add(
        "what_a_request_changes_is_committed_first",
        requests::not_before_the_commit,
    );
    trials.add("daemons_die_while_they_free_lost_buffers", lost::everywhere);
    trials.add("tcpd_dies_while_it_gives_pages_back", pages::short);
}

/// Points that a daemon passes only, or mostly, while it starts.
const STARTING: [Point; 7] = [
    Point::Attached,
    Point::Swept,
    Point::HalfLoaded,
    Point::Restored,
    Point::Woken,
    Point::LinkHalfSaid,
    Point::HalfRevoked,
];

/// What a daemon must be seen to pass under the mix, by its kind; a point that is in nobody's
/// list would be one that no test reaches.
fn expected(layer: &str) -> BTreeSet<Point> {
    use Point::*;
    let packets = [
        SlotAllocated,
        SlotClaimed,
        SlotFreed,
        RingWritten,
        RingPublished,
        RingAdvanced,
        BellSignalled,
        BellArmed,
        Polled,
        Committed,
        Released,
        Flushed,
        Attached,
        Swept,
        Restored,
        Woken,
        LinkHalfSaid,
    ];
    let records = [RecordWritten, RecordFlipped];
    let sockets = [
        RequestTaken,
        ReplySent,
        RequestConsumed,
        SessionMade,
        ShadowMade,
        PositionShown,
        TokenWritten,
        SocketFreed,
        StoreSent,
        RecordCleared,
    ];
    let streams = [
        HandOverSent,
        EndShown,
        ShadowDrained,
        ExtraClaimed,
        RingsHalfShown,
        RoomShown,
        ConnectedShown,
        ResetShown,
        UrgentShown,
        UrgentMarked,
        UrgentSent,
        HalfRevoked,
        HalfLoaded,
        PagesGiven,
    ];
    let mut all: BTreeSet<Point> = packets.into();
    match layer {
        "netdevd" => all.extend([DeviceWritten, DeviceRead]),
        "ipd" => all.extend(records.into_iter().chain([ExtraClaimed])),
        "tcpd" => all.extend(records.into_iter().chain(sockets).chain(streams)),
        _ => all.extend(records.into_iter().chain(sockets)),
    }
    all
}

/// ARCHITECTURE.md names every point.
fn listed() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
    let text = std::fs::read_to_string(path)?;
    let missing: Vec<_> = Point::ALL
        .iter()
        .filter(|point| !text.contains(&format!("\n| `{}` |", point.name())))
        .map(|point| point.name())
        .collect();
    ensure!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:?}");
    let (_, table) = text.split_once("\n| Point |").context("no table")?;
    let (table, _) = table.split_once("\n\n").context("a table without an end")?;
    let rows = table.lines().filter(|line| line.starts_with("| `")).count();
    ensure!(
        rows == Point::ALL.len(),
        "{rows} rows, {} points",
        Point::ALL.len()
    );
    let mut reached = BTreeSet::new();
    for layer in ["netdevd", "ipd", "tcpd", "udpd"] {
        reached.extend(expected(layer));
    }
    reached.extend(pages::POINTS);
    reached.extend(supervisor::RUNNING);
    reached.extend(supervisor::ADOPTING);
    reached.extend(supervisor::KEEPER_AT);
    let all: BTreeSet<_> = Point::ALL.iter().copied().collect();
    let nowhere: Vec<_> = all.difference(&reached).collect();
    ensure!(nowhere.is_empty(), "reached by no daemon: {nowhere:?}");
    Ok(())
}

/// A constellation whose daemons may die as often as they like.
fn lab(trigger: &Trigger, extra: &str) -> Result<Lab> {
    Lab::start(&LabConfig {
        environment: vec![(VARIABLE.to_owned(), trigger.path())],
        // Deaths come faster here than any machine's; and what is closed is to be gone soon.
        extra: format!(
            "[restart]\nat-once = 100000\ngive-up = 0\nlost-buffers = \"1s\"\n\
             [tcp]\ntime-wait = \"1s\"\n{extra}"
        ),
        ..LabConfig::default()
    })
}

fn everywhere(layer: &'static str, service: ServiceId) -> Result<()> {
    let trigger = Trigger::new()?;
    let lab = lab(&trigger, "")?;
    let before = Baseline::of(&lab)?;
    let amounts = Amounts::default();
    let mix = Mix::start(&lab, &amounts)?;
    let died = Deaths {
        lab: &lab,
        trigger: &trigger,
        layer,
        service,
    }
    .everywhere(&mix);
    let died = match died {
        Ok(died) => died,
        Err(error) => {
            let also = mix.finish().err().map(|e| format!("\n{e:#}"));
            return Err(error.context(format!("{}{}", lab.log(), also.unwrap_or_default())));
        }
    };
    let progress = mix.finish().with_context(|| lab.log())?;
    before
        .compare(&lab, amounts.idle)
        .with_context(|| lab.log())?;
    let deaths = trigger.deaths();
    println!("{layer}: {deaths} deaths at {died} sites, {progress:?}");
    Ok(())
}

/// One daemon's.
struct Deaths<'a> {
    lab: &'a Lab,
    trigger: &'a Trigger,
    layer: &'static str,
    service: ServiceId,
}

impl Deaths<'_> {
    /// Dies at every site there is, those included that show only meanwhile; answers how many.
    fn everywhere(&self, mix: &Mix) -> Result<usize> {
        mix.wait_progress(5, Duration::from_secs(20))?;
        self.lab.ask(&Request::Restart {
            layer: self.layer.to_owned(),
        })?;
        let mut stimulus = Stimulus::new(self.lab, self.layer)?;
        let mut random = fastrand::Rng::with_seed(self.service.0.into());
        let mut died = BTreeSet::new();
        let new = |died: &BTreeSet<Site>| {
            let mut all = self.trigger.sites(self.service);
            all.sort();
            all.into_iter().find(|(site, _)| !died.contains(site))
        };
        while let Some((site, passed)) = new(&died) {
            let nth = match passed {
                0..100 => 1,
                _ => random.u32(1..20),
            };
            let deaths = self.trigger.deaths();
            self.trigger.arm_at(self.service, &site, nth);
            self.die(mix, site.point, &site.to_string(), &mut stimulus, deaths)?;
            died.insert(site);
        }
        for point in expected(self.layer) {
            if self.trigger.reached(self.service, point) == 0 {
                let deaths = self.trigger.deaths();
                self.trigger.arm(self.service, point, 1);
                self.die(mix, point, point.name(), &mut stimulus, deaths)?;
            }
        }
        // The last may have shown more.
        while let Some((site, _)) = new(&died) {
            let deaths = self.trigger.deaths();
            self.trigger.arm_at(self.service, &site, 1);
            self.die(mix, site.point, &site.to_string(), &mut stimulus, deaths)?;
            died.insert(site);
        }
        self.trigger.disarm();
        stimulus.finish()?;
        Ok(died.len())
    }

    /// Waits for the death that is armed, the next after so many `deaths`, and for everything to go
    /// on.
    fn die(
        &self,
        mix: &Mix,
        point: Point,
        name: &str,
        stimulus: &mut Stimulus<'_>,
        deaths: u32,
    ) -> Result<()> {
        if STARTING.contains(&point) {
            self.lab.signal(self.layer, Signal::SIGKILL)?;
        }
        let (begin, mut restarts) = (Instant::now(), 0);
        while self.trigger.deaths() == deaths {
            let waited = begin.elapsed();
            ensure!(
                waited < Duration::from_secs(8),
                "{} did not pass {name} again",
                self.layer
            );
            // Some things are done only, or more often, by a successor.
            if waited > Duration::from_secs(1 + restarts) {
                restarts += 1;
                self.lab.signal(self.layer, Signal::SIGKILL)?;
            }
            stimulus
                .act(point)
                .with_context(|| format!("on the way to death at {name}"))?;
            sleep(Duration::from_millis(1));
        }
        mix.wait_progress(2, Duration::from_secs(20))
            .and_then(|()| mix.check_levels(READY))
            .with_context(|| format!("after death at {name}"))?;
        if mix.is_broken() {
            bail!("broken by death at {name}");
        }
        Ok(())
    }
}
