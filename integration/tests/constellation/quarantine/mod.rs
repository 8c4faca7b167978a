//! A packet or connection that kills its layer whenever it is worked on: three deaths, then it is
//! shut out and saved, and everything else lives on.

mod kinds;

use crate::tcp::connect;
use abi::ServiceId;
use anyhow::{Context, Result, bail, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use shm::crash::{Action, Trigger, VARIABLE};
use std::io::{ErrorKind, Read, Write};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use strata::admin::{DaemonState, Quarantined};
use strata::lab::{Lab, LabConfig};
use strata::topology::{IPD, TCPD, UDPD};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("a_poisoned_connection_of_netdevd_is_quarantined", || {
        connection("netdevd", NETDEVD, Action::Abort)
    });
    trials.add("a_poisoned_connection_of_ipd_is_quarantined", || {
        connection("ipd", IPD, Action::Panic)
    });
    trials.add("a_poisoned_connection_of_tcpd_is_quarantined", || {
        connection("tcpd", TCPD, Action::Abort)
    });
    trials.add("a_packet_that_hangs_tcpd_is_quarantined", || {
        connection("tcpd", TCPD, Action::Loop)
    });
    trials.add("a_poisoned_datagram_of_netdevd_is_quarantined", || {
        datagram("netdevd", NETDEVD)
    });
    trials.add("a_poisoned_datagram_of_ipd_is_quarantined", || {
        datagram("ipd", IPD)
    });
    trials.add("a_poisoned_datagram_of_udpd_is_quarantined", || {
        datagram("udpd", UDPD)
    });
    kinds::add(trials);
    trials.add("a_quarantine_outlives_the_supervisor", successors);
    trials.add(
        "a_connection_whose_record_kills_tcpd_is_reset_alone",
        record,
    );
    trials.add(
        "a_socket_whose_record_kills_udpd_is_ended_alone",
        datagram_socket,
    );
    trials.add("killed_from_outside_nothing_is_quarantined", killed);
}

const NETDEVD: ServiceId = ServiceId(4);
const POISON: [u8; 16] = *b"\xde\x00poison\x00packet\xad";
const PATIENCE: Duration = Duration::from_secs(20);

/// A constellation with a transfer that runs on the side, its bytes compared.
struct Scene {
    trigger: Trigger,
    lab: Lab,
    stack: Stack,
    transfer: thread::JoinHandle<Result<Duration>>,
}

fn scene() -> Result<Scene> {
    scene_beside(192 << 20)
}

/// The transfer is of so many bytes each way.
fn scene_beside(bytes: u64) -> Result<Scene> {
    let trigger = Trigger::new()?;
    let lab = Lab::start(&LabConfig {
        environment: vec![(VARIABLE.to_owned(), trigger.path())],
        extra: "[restart]\nhang = \"200ms\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, bytes, Writes::BIG));
    Ok(Scene {
        trigger,
        lab,
        stack,
        transfer,
    })
}

impl Scene {
    /// Until `layer` has died three times and runs again; `again` may provoke it.
    fn wait_quarantined(
        &self,
        layer: &str,
        mut again: impl FnMut() -> Result<()>,
    ) -> Result<Quarantined> {
        let begin = Instant::now();
        loop {
            let status = self.lab.status()?;
            let runs = status
                .daemons
                .iter()
                .any(|d| d.name.starts_with(layer) && d.state == DaemonState::Running);
            if let [held] = &status.quarantined[..]
                && runs
            {
                return Ok(held.clone());
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "{} deaths, quarantined {:?}\n{}",
                self.trigger.deaths(),
                status.quarantined,
                self.lab.log()
            );
            again()?;
            sleep(Duration::from_millis(10));
        }
    }

    /// The end of every trial: three deaths and no more, the file, the other transfer.
    fn finish(self, layer: &str, held: &Quarantined, packets: bool) -> Result<()> {
        let deaths = self.trigger.deaths();
        ensure!(deaths == 3, "{deaths} deaths\n{}", self.lab.log());
        ensure!(
            held.layer.starts_with(layer) && held.crashes == 3,
            "{held:?}"
        );
        let file = held.file.as_ref().context("it is not saved")?;
        let saved = read_pcapng(&std::fs::read(file)?)?;
        ensure!(saved.len() == 3, "{} packets in {file}", saved.len());
        for (bytes, comment) in &saved {
            ensure!(
                comment.contains("died") && comment.contains(&held.what),
                "{comment}"
            );
            ensure!(packets == contains(bytes, &POISON), "{comment}: {bytes:x?}");
        }
        let silence = self
            .transfer
            .join()
            .map_err(|_| anyhow::anyhow!("panicked"))?
            .with_context(|| self.lab.log())?;
        println!("{held:?}; the other transfer was silent for {silence:?}");
        Ok(())
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|at| at == part)
}

/// Packets and their comments; an error when the blocks do not fit together.
fn read_pcapng(mut file: &[u8]) -> Result<Vec<(Vec<u8>, String)>> {
    let word = |bytes: &[u8], at: usize| -> Result<usize> {
        let word = bytes.get(at..at + 4).context("cut off")?;
        Ok(usize::try_from(u32::from_le_bytes(word.try_into()?))?)
    };
    let mut packets = Vec::new();
    ensure!(word(file, 0)? == 0x0a0d_0d0a && word(file, 8)? == 0x1a2b_3c4d);
    while !file.is_empty() {
        let (kind, len) = (word(file, 0)?, word(file, 4)?);
        let block = file.get(..len).context("cut off")?;
        ensure!(word(block, len - 4)? == len, "the block's lengths differ");
        if kind == 6 {
            let captured = word(block, 20)?;
            let options = &block[28 + captured.next_multiple_of(4)..];
            ensure!(options[..2] == [1, 0], "no comment");
            let said = usize::from(u16::from_le_bytes([options[2], options[3]]));
            let comment = String::from_utf8(options[4..4 + said].to_vec())?;
            packets.push((block[28..28 + captured].to_vec(), comment));
        }
        file = &file[len..];
    }
    Ok(packets)
}

/// A segment that kills the layer is sent, and sent again until the connection ends: by the kernel.
fn connection(layer: &str, service: ServiceId, action: Action) -> Result<()> {
    segment(layer, service, action, true)
}

/// By the kernel, or (not `inbound`) by the stack.
fn segment(layer: &str, service: ServiceId, action: Action, inbound: bool) -> Result<()> {
    let scene = scene()?;
    let (mut theirs, mut ours) = connect(&scene.lab, &scene.stack, false)?;
    let (other_theirs, other_ours) = connect(&scene.lab, &scene.stack, false)?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    scene.trigger.poison(service, POISON, action);
    if inbound {
        theirs.write_all(&POISON)?;
    } else {
        ours.write_all(&POISON)?;
    }
    let held = scene.wait_quarantined(layer, || Ok(()))?;
    ensure!(held.what.starts_with("TCP "), "{held:?}");
    // Both ends hear of it.
    match ours.read(&mut [0; 64]) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
            ) => {}
        other => bail!("the application got {other:?}\n{}", scene.lab.log()),
    }
    match theirs.read(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => bail!("the peer got {other:?}\n{}", scene.lab.log()),
    }
    both_ways(other_ours, other_theirs, 4 << 20, Writes::MIXED).context("an idle connection")?;
    scene.finish(layer, &held, true)
}

/// Datagrams of one sender kill the layer; those of others to the same socket arrive.
fn datagram(layer: &str, service: ServiceId) -> Result<()> {
    let scene = scene()?;
    let ours = scene.stack.udp((scene.lab.stack, 0))?;
    ours.set_read_timeout(Some(Duration::from_millis(100)))?;
    let to = ours.local_addr()?;
    let sender = || std::net::UdpSocket::bind((scene.lab.host, 0));
    let (poisoner, other) = (sender()?, sender()?);
    poisoner.send_to(b"hello", to)?;
    let mut buffer = [0; 64];
    ours.recv(&mut buffer).context("before anything happens")?;
    scene.trigger.poison(service, POISON, Action::Abort);
    let held = scene.wait_quarantined(layer, || {
        poisoner.send_to(&POISON, to)?;
        sleep(Duration::from_millis(50));
        Ok(())
    })?;
    ensure!(held.what.starts_with("UDP "), "{held:?}");
    for _ in 0..20 {
        poisoner.send_to(&POISON, to)?;
        poisoner.send_to(b"of the same flow", to)?;
    }
    let arrived = (0..20u8).any(|n| {
        other.send_to(&[n; 3], to).is_ok() && ours.recv(&mut buffer).is_ok_and(|n| n == 3)
    });
    ensure!(
        arrived,
        "another sender's datagrams do not arrive\n{}",
        scene.lab.log()
    );
    let others = (0..5).filter(|_| ours.recv(&mut buffer).is_ok_and(|n| n != 3));
    ensure!(
        others.count() == 0,
        "something of the quarantined flow arrived"
    );
    scene.finish(layer, &held, true)
}

/// A crash counts under later supervisors too, and so does the quarantine.
fn successors() -> Result<()> {
    let Scene {
        trigger,
        lab,
        stack,
        transfer,
    } = scene()?;
    let ours = stack.udp((lab.stack, 0))?;
    let to = ours.local_addr()?;
    let poisoner = std::net::UdpSocket::bind((lab.host, 0))?;
    // ipd knows the neighbour from here on.
    poisoner.send_to(b"hello", to)?;
    ours.recv(&mut [0; 64])?;
    trigger.poison(IPD, POISON, Action::Abort);
    let poison_until = |over: &dyn Fn() -> Result<bool>| -> Result<()> {
        let begin = Instant::now();
        while !over()? {
            ensure!(begin.elapsed() < PATIENCE, "{} deaths", trigger.deaths());
            poisoner.send_to(&POISON, to)?;
            sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    let old = lab.layer("ipd")?.pid.context("no process")?;
    poison_until(&|| Ok(trigger.deaths() > 0))?;
    lab.wait_replaced("ipd", old)?;
    ensure!(lab.status()?.quarantined.is_empty());
    lab.kill_supervisor()?;
    lab.adopt()?;
    poison_until(&|| Ok(!lab.status()?.quarantined.is_empty()))?;
    let held = lab.status()?.quarantined;
    ensure!(held.len() == 1 && held[0].crashes == 3, "{held:?}");
    // How the adopted process ended is not known where the kernel (before 6.15) keeps it for its
    // parent alone; then that death does not count.
    let deaths = trigger.deaths();
    let log = lab.log();
    let is_unknown = log.contains("ipd died: it ended");
    ensure!(
        deaths == 3 + u32::from(is_unknown),
        "{deaths} deaths\n{log}"
    );
    lab.kill_supervisor()?;
    lab.adopt()?;
    let old = lab.signal("ipd", nix::sys::signal::Signal::SIGKILL)?;
    lab.wait_replaced("ipd", old)?;
    for _ in 0..20 {
        poisoner.send_to(&POISON, to)?;
        sleep(Duration::from_millis(2));
    }
    ensure!(trigger.deaths() == deaths, "{} deaths", trigger.deaths());
    ensure!(lab.status()?.quarantined.len() == 1, "it was let go");
    transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| lab.log())?;
    Ok(())
}

/// The last bytes of an IPv4 `abi::Endpoint`: zeros, family, port.
fn end_of(port: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[12..14].copy_from_slice(&abi::endpoint::FAMILY_V4.to_ne_bytes());
    bytes[14..].copy_from_slice(&port.to_ne_bytes());
    bytes
}

/// udpd dies whenever it works on one socket's record, at its start too.
fn datagram_socket() -> Result<()> {
    let scene = scene()?;
    let (ours, other) = (
        scene.stack.udp((scene.lab.stack, 0))?,
        scene.stack.udp((scene.lab.stack, 0))?,
    );
    let theirs = std::net::UdpSocket::bind((scene.lab.host, 0))?;
    let patience = Some(PATIENCE);
    ours.set_read_timeout(patience)?;
    other.set_read_timeout(patience)?;
    theirs.set_read_timeout(patience)?;
    let poison = end_of(ours.local_addr()?.port());
    scene.trigger.poison(UDPD, poison, Action::Abort);
    ours.send_to(b"the straw", theirs.local_addr()?)?;
    let held = scene.wait_quarantined("udpd", || Ok(()))?;
    ensure!(held.what.starts_with("socket "), "{held:?}");
    let end = ours.recv(&mut [0; 64]);
    ensure!(end.is_err(), "the application got {end:?}");
    other.send_to(b"and another", theirs.local_addr()?)?;
    let mut buffer = [0; 64];
    let (n, from) = theirs.recv_from(&mut buffer)?;
    ensure!(&buffer[..n] == b"and another", "{:?} came", &buffer[..n]);
    theirs.send_to(b"its answer", from)?;
    ensure!(other.recv(&mut buffer)? == 10);
    scene.finish("udpd", &held, false)
}

/// tcpd dies whenever it works on one connection's record, at its start too.
fn record() -> Result<()> {
    let scene = scene()?;
    let (mut theirs, mut ours) = connect(&scene.lab, &scene.stack, false)?;
    let (other_theirs, other_ours) = connect(&scene.lab, &scene.stack, false)?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let poison = end_of(theirs.local_addr()?.port());
    scene.trigger.poison(TCPD, poison, Action::Abort);
    ours.write_all(b"the straw")?;
    let held = scene.wait_quarantined("tcpd", || Ok(()))?;
    ensure!(held.what.starts_with("socket "), "{held:?}");
    let end = ours.read(&mut [0; 64]);
    ensure!(end.is_err(), "the application got {end:?}");
    let mut bytes = [0; 64];
    let end = loop {
        match theirs.read(&mut bytes) {
            Ok(n) if n > 0 => {}
            end => break end,
        }
    };
    ensure!(
        end.as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
        "the peer got {end:?}\n{}",
        scene.lab.log()
    );
    both_ways(other_ours, other_theirs, 4 << 20, Writes::MIXED).context("an idle connection")?;
    scene.finish("tcpd", &held, false)
}

/// SIGKILL is nobody's fault, however often it strikes while one connection is at work.
fn killed() -> Result<()> {
    let scene = scene()?;
    for layer in ["netdevd", "ipd", "tcpd", "udpd"] {
        for _ in 0..4 {
            let old = scene.lab.signal(layer, nix::sys::signal::Signal::SIGKILL)?;
            scene.lab.wait_replaced(layer, old)?;
        }
    }
    let status = scene.lab.status()?;
    ensure!(status.quarantined.is_empty(), "{:?}", status.quarantined);
    scene
        .transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| scene.lab.log())?;
    Ok(())
}
