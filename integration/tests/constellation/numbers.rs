//! Initial sequence numbers (RFC 6528) of a stack whose processes die: the secret is kept.

use crate::floods::Peer;
use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::Stack;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};
use wire::tcp::Flags;

pub(crate) fn add(trials: &mut Trials) {
    trials.add("initial_numbers_go_on_across_deaths", numbers);
}

const PORTS: [u16; 3] = [5_000, 5_001, 5_002];

/// Time that the machine may be late by.
const SLACK: Duration = Duration::from_millis(2);

/// The number of the stack's SYN,ACK, and when it was chosen: between the two.
type Seen = (u32, Instant, Instant);

/// RFC 6528 3: between the same ends, a clock of 4 microseconds, whoever serves them; with other
/// ends, numbers that have nothing to do with each other.
fn numbers() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    // The kernel learns the stack's address with it.
    drop(connect(&lab, &stack, false)?);
    let mut peer = Peer::new(&lab, listener.local_addr()?.port())?;
    let mut of_all = || -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for port in PORTS {
            let before = Instant::now();
            peer.connect(port, 60_000)?;
            let after = Instant::now();
            let (stream, _) = listener.accept()?;
            seen.push((peer.flows[&port].ack.wrapping_sub(1), before, after));
            peer.send(port, Flags::RST, 1, &[])?;
            drop(stream);
        }
        Ok(seen)
    };
    let first = of_all()?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    let second = of_all()?;
    // tcpd while nobody is there to start it, and the supervisor that knew the secret.
    let (supervisor, tcpd) = (lab.status()?.pid, lab.layer("tcpd")?.pid.context("tcpd")?);
    let [supervisor, tcpd] = [supervisor, tcpd].map(|pid| i32::try_from(pid).map(Pid::from_raw));
    kill(supervisor?, Signal::SIGSTOP)?;
    kill(tcpd?, Signal::SIGKILL)?;
    lab.replace_supervisor()?;
    let third = of_all()?;
    for (earlier, later) in [(&first, &second), (&second, &third)] {
        for (a, b) in earlier.iter().zip(later) {
            let went = Duration::from_micros(4 * u64::from(b.0.wrapping_sub(a.0)));
            let least = (b.1 - a.2).saturating_sub(SLACK);
            let most = (b.2 - a.1) + SLACK;
            ensure!(
                (least..=most).contains(&went),
                "the clock went {went:?}, not {least:?} to {most:?}"
            );
        }
    }
    // One guess in four thousand would be a second off by chance.
    let [a, b, c] = [&first[0], &first[1], &first[2]];
    let steps = [b.0.wrapping_sub(a.0), c.0.wrapping_sub(b.0)];
    let second = 250_000;
    ensure!(
        steps
            .iter()
            .all(|step| *step > second && *step < second.wrapping_neg()),
        "the numbers of other ends are near: {steps:?}"
    );
    ensure!(
        steps[0].abs_diff(steps[1]) > second,
        "as far as the last: {steps:?}"
    );
    Ok(())
}
