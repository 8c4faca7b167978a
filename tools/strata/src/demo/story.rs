//! The steps, in order.

use super::capture::Capture;
use super::fault::Victim;
use super::screen::Screen;
use super::summary::Summary;
use super::transfer::{Direction, Transfer};
use super::{Arguments, datagrams, echo, log_tail, path, server, transfer, who};
use crate::lab::{Lab, LabConfig, LabDevice};
use crate::netns::Privilege;
use anyhow::{Context, Error, Result};
use libsocket::Stack;
use std::fs;
use std::time::Instant;

/// Tells the whole story.
pub(super) fn tell(json: bool, arguments: &Arguments, privilege: Privilege) -> Result<()> {
    let begin = Instant::now();
    let screen = Screen::new(json);
    screen.say(
        "Strata: a TCP/IP stack in which every layer is a process of its own. All that follows\n\
         happens in a network namespace that ends with this program.",
    );
    screen.step("A private network and a constellation in it");
    let offload = !arguments.no_offload && arguments.capture.is_none();
    let loss = arguments
        .loss
        .map(|loss| format!("impairment = {{ seed = 1, loss = {} }}", loss.0));
    let lab = Lab::start(&LabConfig {
        device: loss.unwrap_or_default(),
        offload,
        ..LabConfig::default()
    })
    .context("the constellation could not be started")?;
    screen.say(setting(&lab, privilege, offload));
    let capture = arguments.capture.as_ref();
    let capture = capture.map(|file| Capture::start(&lab.host_interface, file));
    let capture = capture
        .transpose()
        .context("the capture could not be started")?;

    let mut summary = Summary::new(&lab);
    steps(&screen, &lab, arguments, &mut summary).map_err(|error| failed(&screen, &lab, &error))?;
    if let Some(capture) = capture {
        let told = capture
            .finish()
            .context("the capture could not be finished")?;
        screen.say(format!("\n{told}"));
    }

    screen.step("What remains");
    lab.stop()?;
    screen.say(
        "Nothing: every process has ended, their directory is gone, and the namespace ends with\n\
         this process.",
    );
    summary.seconds = begin.elapsed().as_secs_f64();
    if json {
        return crate::commands::table::print_json(&summary);
    }
    screen.step("Summary");
    screen.say(summary.render());
    Ok(())
}

/// What was built, in words.
fn setting(lab: &Lab, privilege: Privilege, offload: bool) -> String {
    let namespace = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let who = match privilege {
        Privilege::Root => "made as root",
        Privilege::User => "made through a user namespace, without root",
    };
    let device = match lab.device() {
        LabDevice::Tap => format!("TAP {}", lab.interface),
        LabDevice::Packet => format!(
            "packet socket on the veth {}, for /dev/net/tun may not be opened here",
            lab.interface
        ),
    };
    let units = if offload {
        "up to 64 KiB through all layers; checksums and segmentation are the device's"
    } else {
        "complete frames of at most 1500 bytes; nothing is left to the device"
    };
    format!(
        "namespace  {}, {who}\n\
         device     {device}\n\
         units      {units}\n\
         \n\
         {} Linux kernel  <-- {} -->  netdevd - ipd - tcpd, udpd  {}",
        namespace.display(),
        lab.host,
        lab.host_interface,
        lab.stack,
    )
}

fn steps(screen: &Screen, lab: &Lab, arguments: &Arguments, summary: &mut Summary) -> Result<()> {
    let stack = Stack::open(lab.path());

    screen.step("Who is running");
    screen.say(who::table(lab)?);

    screen.step("The first packet, down and up");
    let server = server::serve((lab.host, 0).into())?;
    let walk = path::walk(lab, &stack, server)?;
    screen.say(walk.render());
    summary.path = Some(walk);

    screen.step("Ping, both ways");
    for ping in [echo::from_kernel(lab)?, echo::from_stack(lab, &stack)?] {
        screen.say(ping.render());
        summary.pings.push(ping);
    }

    screen.step("UDP datagrams, both ways");
    for exchange in [
        datagrams::from_kernel(lab, &stack)?,
        datagrams::from_stack(lab, &stack)?,
    ] {
        screen.say(exchange.render());
        summary.datagrams.push(exchange);
    }

    screen.step("TCP: a download and an upload");
    let mut run = |direction, victims: &'static [Victim]| -> Result<()> {
        // Time for all of them to die in one transfer.
        let parts = if victims.is_empty() { 1 } else { 4 };
        let plan = Transfer::new(direction, arguments.bytes() * parts, victims);
        let result = transfer::run(screen, lab, &stack, server, plan)?;
        screen.say(result.render());
        summary.transfers.push(result);
        Ok(())
    };
    run(Direction::Download, &[])?;
    run(Direction::Upload, &[])?;
    if arguments.no_faults {
        return Ok(());
    }

    screen.step("The same while one process after the other is killed with SIGKILL");
    run(Direction::Download, VICTIMS)?;
    run(Direction::Upload, VICTIMS)
}

/// Who dies in a transfer, in this order.
const VICTIMS: &[Victim] = &[
    Victim::Layer("netdevd"),
    Victim::Layer("ipd"),
    Victim::Layer("tcpd"),
    Victim::Layer("udpd"),
    Victim::Layers,
    Victim::Supervisor,
];

fn failed(screen: &Screen, lab: &Lab, error: &Error) -> Error {
    anyhow::anyhow!(
        "step {} failed: {error:#}{}",
        screen.number(),
        log_tail(lab)
    )
}
