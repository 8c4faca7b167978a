//! A daemon dies at every point where what others see of it changes, under all kinds of traffic.

use anyhow::{Context, Result, bail, ensure};
use integration::Trials;
use integration::mix::{Amounts, Mix};
use nix::sys::signal::Signal;
use shm::crash::{Point, Trigger, VARIABLE};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::admin::Request;
use strata::lab::{Lab, LabConfig};
use strata::netns::set_address;
use strata::topology::{IPD, TCPD, UDPD};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("every_crash_point_is_listed", listed);
    trials.add("netdevd_dies_at_every_crash_point", || {
        everywhere("netdevd", abi::ServiceId(4))
    });
    trials.add("ipd_dies_at_every_crash_point", || everywhere("ipd", IPD));
    trials.add("tcpd_dies_at_every_crash_point", || {
        everywhere("tcpd", TCPD)
    });
    trials.add("udpd_dies_at_every_crash_point", || {
        everywhere("udpd", UDPD)
    });
}

/// Points that a daemon passes only while it starts.
const STARTING: [Point; 4] = [Point::Attached, Point::Swept, Point::Restored, Point::Woken];

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
    let all: BTreeSet<_> = Point::ALL.iter().copied().collect();
    let nowhere: Vec<_> = all.difference(&reached).collect();
    ensure!(nowhere.is_empty(), "reached by no daemon: {nowhere:?}");
    Ok(())
}

fn everywhere(layer: &str, service: abi::ServiceId) -> Result<()> {
    let trigger = Trigger::new()?;
    let lab = Lab::start(&LabConfig {
        environment: vec![(VARIABLE.to_owned(), trigger.path())],
        // Deaths come faster here than any machine's.
        extra: "[restart]\nat-once = 1000\ngive-up = 0\n".to_owned(),
        ..LabConfig::default()
    })?;
    let mix = Mix::start(&lab, &Amounts::default())?;
    let wrong = |mix: Mix, error: anyhow::Error| {
        let also = mix.finish().err().map(|e| format!("\n{e:#}"));
        error.context(format!("{}{}", lab.log(), also.unwrap_or_default()))
    };
    match die_everywhere(&lab, &mix, &trigger, layer, service) {
        Ok(()) => {}
        Err(error) => return Err(wrong(mix, error)),
    }
    let progress = mix.finish().with_context(|| lab.log())?;
    let deaths = trigger.deaths();
    println!("{layer}: {deaths} deaths, {progress:?}");
    Ok(())
}

fn die_everywhere(
    lab: &Lab,
    mix: &Mix,
    trigger: &Trigger,
    layer: &str,
    service: abi::ServiceId,
) -> Result<()> {
    mix.wait_progress(5, Duration::from_secs(20))?;
    lab.ask(&Request::Restart {
        layer: layer.to_owned(),
    })?;
    let mut hosts = 10;
    let mut random = fastrand::Rng::with_seed(service.0.into());
    for &point in Point::ALL {
        let is_expected = expected(layer).contains(&point);
        if !is_expected && trigger.reached(service, point) == 0 {
            continue;
        }
        let deaths = trigger.deaths();
        let nth = match trigger.reached(service, point) {
            0..100 => 1,
            _ => random.u32(1..20),
        };
        trigger.arm(service, point, nth);
        if STARTING.contains(&point) {
            lab.signal(layer, Signal::SIGKILL)?;
        }
        let begin = Instant::now();
        while trigger.deaths() == deaths {
            ensure!(
                begin.elapsed() < Duration::from_secs(5),
                "{layer} did not reach {} once more (before: {} times)",
                point.name(),
                trigger.reached(service, point)
            );
            stimulate(lab, layer, &mut hosts)?;
            sleep(Duration::from_millis(1));
        }
        mix.wait_progress(3, Duration::from_secs(20))
            .with_context(|| format!("after death at {}", point.name()))?;
        if mix.is_broken() {
            bail!("broken by death at {}", point.name());
        }
    }
    trigger.disarm();
    Ok(())
}

/// What the mix has no need of, or seldom: a session and a socket, a neighbour that is new.
fn stimulate(lab: &Lab, layer: &str, hosts: &mut u8) -> Result<()> {
    let stack = libsocket::Stack::open(lab.path());
    match layer {
        "tcpd" => {
            drop(stack.listen((lab.stack, 0)).context("a listener")?);
            // Refused: nobody listens there.
            let refused = stack.connect((lab.host, 9)).map(drop).map_err(|e| e.kind());
            ensure!(
                refused == Err(std::io::ErrorKind::ConnectionRefused),
                "{refused:?} of a port where nobody listens"
            );
        }
        "udpd" => drop(stack.udp((lab.stack, 0)).context("a socket")?),
        "ipd" if *hosts < 200 => {
            let [a, b, c, _] = lab.host.octets();
            let host = std::net::Ipv4Addr::new(a, b, c, *hosts);
            *hosts += 1;
            set_address(&lab.host_interface, format!("{host}/24").parse()?)?;
            let socket = stack.udp((lab.stack, 0))?;
            socket.send_to(b"who are you", (host, 9))?;
            sleep(Duration::from_millis(5));
        }
        _ => {}
    }
    Ok(())
}
