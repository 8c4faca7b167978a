//! Killing layers while data moves.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;
use strata::admin::Request;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("kill_netdevd_in_mid_transfer", || {
        kill("netdevd", Signal::SIGKILL)
    });
    trials.add("kill_ipd_in_mid_transfer", || kill("ipd", Signal::SIGKILL));
    trials.add("kill_tcpd_in_mid_transfer", || {
        kill("tcpd", Signal::SIGKILL)
    });
    trials.add("kill_udpd_in_mid_transfer", || {
        kill("udpd", Signal::SIGKILL)
    });
    trials.add("hang_tcpd_in_mid_transfer", || {
        kill("tcpd", Signal::SIGSTOP)
    });
    trials.add("restart_every_layer_in_mid_transfer", restart);
    trials.add("accept_and_connect_across_kills_of_tcpd", opening);
    trials.add("closed_while_tcpd_was_dead", closed_meanwhile);
    trials.add("udp_socket_survives_udpd", udp_socket);
    trials.add("supervisor_and_layers_killed_at_once", supervisor);
    trials.add("upgrade_every_layer_in_mid_transfer", upgrade);
    trials.add("adopted_layers_are_left_alone", adopted);
    trials.add("sockets_made_without_a_supervisor_survive", unsupervised);
    trials.add("a_hung_supervisor_is_replaced", hung_supervisor);
    trials.add("an_upgrade_is_on_trial_under_the_next_supervisor", on_trial);
}

const LEN: u64 = 768 << 20;

/// Of a transfer during which a supervisor is replaced.
const LONG: u64 = 2 << 30;

fn kill(layer: &str, signal: Signal) -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (idle_theirs, idle_ours) = connect(&lab, &stack, false)?;
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, LEN, Writes::BIG));
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(60));
        let old = lab.signal(layer, signal)?;
        lab.wait_replaced(layer, old)?;
    }
    ensure!(
        !transfer.is_finished(),
        "the transfer was over before the last {signal}"
    );
    let silence = transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| format!("{signal} of {layer}\n{}", lab.log()))?;
    println!("{signal} of {layer}: longest silence {silence:?}");
    // A connection that was idle all the time is as it was.
    both_ways(idle_ours, idle_theirs, 1 << 20, Writes::MIXED).context("the idle connection")?;
    Ok(())
}

fn restart() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, LEN, Writes::BIG));
    for layer in ["netdevd", "ipd", "tcpd", "udpd"] {
        lab.ask(&Request::Restart {
            layer: layer.to_owned(),
        })?;
    }
    ensure!(
        !transfer.is_finished(),
        "the transfer was over before the last restart"
    );
    transfer.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    Ok(())
}

/// Connections opened both ways while tcpd dies again and again: each is accepted exactly once
/// and carries its own bytes.
fn opening() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    let to = listener.local_addr()?;
    let count = 60u32;
    let server = thread::spawn(move || -> Result<Vec<u32>> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut id = [0; 4];
            stream.read_exact(&mut id)?;
            stream.write_all(&id)?;
            seen.push(u32::from_le_bytes(id));
        }
        Ok(seen)
    });
    let clients = thread::spawn(move || -> Result<()> {
        for id in 0..count {
            let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(20))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(&id.to_le_bytes())?;
            let mut echoed = [0; 4];
            stream
                .read_exact(&mut echoed)
                .with_context(|| format!("connection {id}"))?;
            ensure!(echoed == id.to_le_bytes());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(70));
        let old = lab.signal("tcpd", Signal::SIGKILL)?;
        lab.wait_replaced("tcpd", old)?;
    }
    clients
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| lab.log())?;
    let mut seen = server.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    seen.sort_unstable();
    ensure!(seen == (0..count).collect::<Vec<_>>(), "accepted {seen:?}");
    Ok(())
}

/// An application writes its last bytes and closes while tcpd hangs; tcpd is killed before it has
/// seen either. The peer gets the bytes and an orderly end.
fn closed_meanwhile() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (mut theirs, mut ours) = connect(&lab, &stack, stack_opens)?;
        theirs.set_read_timeout(Some(Duration::from_secs(20)))?;
        theirs.write_all(b"question")?;
        let old = lab.layer("tcpd")?.pid.context("tcpd has no process")?;
        ours.read_exact(&mut [0; 4])?;
        lab.signal("tcpd", Signal::SIGSTOP)?;
        ours.read_exact(&mut [0; 4])?;
        ours.write_all(b"answer")?;
        drop(ours);
        lab.signal("tcpd", Signal::SIGKILL)?;
        lab.wait_replaced("tcpd", old)?;
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).context("the peer's end")?;
        ensure!(rest == b"answer", "the peer got {rest:?}");
    }
    Ok(())
}

fn udp_socket() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let ours = stack.udp((lab.stack, 0))?;
    ours.set_read_timeout(Some(Duration::from_millis(200)))?;
    let theirs = std::net::UdpSocket::bind((lab.host, 0))?;
    theirs.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (to_us, to_them) = (ours.local_addr()?, theirs.local_addr()?);
    for round in 0..5u8 {
        let old = lab.signal("udpd", Signal::SIGKILL)?;
        lab.wait_replaced("udpd", old)?;
        let mut buffer = [0; 8];
        // Datagrams may be lost around a death, so each is tried a few times.
        let arrived = (0..10).any(|_| {
            ours.send_to(&[round], to_them).is_ok()
                && theirs.recv(&mut buffer).is_ok()
                && theirs.send_to(&[round], to_us).is_ok()
                && ours.recv(&mut buffer).is_ok_and(|n| n == 1)
        });
        ensure!(arrived, "nothing arrives after death {round}");
    }
    Ok(())
}

/// The supervisor and every layer die in the same moment, twice; the next supervisor brings all
/// back with what the keeper holds.
fn supervisor() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (idle_theirs, idle_ours) = connect(&lab, &stack, false)?;
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, LONG, Writes::BIG));
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(60));
        let pids: Vec<_> = lab.status()?.daemons.iter().filter_map(|d| d.pid).collect();
        lab.kill_supervisor()?;
        for pid in pids {
            kill_process(pid, Signal::SIGKILL)?;
        }
        lab.adopt()?;
    }
    ensure!(!transfer.is_finished(), "the transfer was over too soon");
    let silence = transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| lab.log())?;
    println!("everything but the keeper killed: longest silence {silence:?}");
    both_ways(idle_ours, idle_theirs, 1 << 20, Writes::MIXED).context("the idle connection")?;
    Ok(())
}

/// Every layer is replaced by another file while data moves; one that is no build of strata is
/// taken back; a later supervisor starts what was upgraded to.
fn upgrade() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, LONG, Writes::BIG));
    let copy = lab.path().join("another-build");
    std::fs::copy(std::env::current_exe()?, &copy)?;
    let runs = |layer: &str| -> Result<std::path::PathBuf> {
        let pid = lab.layer(layer)?.pid.context("no process")?;
        Ok(std::fs::read_link(format!("/proc/{pid}/exe"))?)
    };
    let layers = ["netdevd", "ipd", "tcpd", "udpd"];
    let to = |layer: &str, executable: &std::path::Path| Request::Upgrade {
        layer: layer.to_owned(),
        executable: executable.to_path_buf(),
    };
    for layer in layers {
        lab.ask(&to(layer, &copy))?;
        ensure!(runs(layer)? == copy, "{layer} runs {:?}", runs(layer)?);
    }
    let refused = lab.ask(&to("tcpd", "/bin/false".as_ref()));
    let text = format!("{:#}", refused.err().context("/bin/false was taken")?);
    ensure!(text.contains("the build before runs again"), "{text}");
    ensure!(runs("tcpd")? == copy);
    lab.kill_supervisor()?;
    lab.adopt()?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    ensure!(runs("tcpd")? == copy);
    ensure!(!transfer.is_finished(), "the transfer was over too soon");
    let silence = transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| lab.log())?;
    println!("every layer upgraded: longest silence {silence:?}");
    Ok(())
}

/// A new supervisor waits two seconds for what its predecessor started. What has come by then is
/// not replaced.
fn adopted() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let pids = || -> Result<Vec<Option<u32>>> {
        Ok(lab.status()?.daemons.iter().map(|d| d.pid).collect())
    };
    let before = pids()?;
    lab.kill_supervisor()?;
    lab.adopt()?;
    thread::sleep(Duration::from_millis(2500));
    ensure!(pids()? == before, "{:?}, not {before:?}", pids()?);
    Ok(())
}

/// `strata up --replace` ends a supervisor that hangs, and adopts; with another configuration it
/// leaves everything as it is.
fn hung_supervisor() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, LONG, Writes::BIG));
    let before = lab.status()?;
    kill_process(before.pid, Signal::SIGSTOP)?;

    let good = std::fs::read_to_string(lab.path().with_file_name("strata.toml"))?;
    let other = lab.path().join("other.toml");
    std::fs::write(&other, good.replace("mtu = 1500", "mtu = 1400"))?;
    let refused = lab
        .strata(&["up", "--replace", "--config"])?
        .arg(&other)
        .output()?;
    let words = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1) && words.contains("is not replaced"),
        "{words}"
    );
    ensure!(words.contains("with another configuration"), "{words}");

    // Not stored before somebody can store it.
    let pair = thread::scope(|s| {
        let opening = s.spawn(|| connect(&lab, &stack, false));
        lab.replace_supervisor()?;
        opening.join().map_err(|_| anyhow::anyhow!("panicked"))?
    });
    let after = lab.status()?;
    ensure!(after.pid != before.pid);
    let layers = |status: &strata::admin::Status| -> Vec<_> {
        status.daemons.iter().map(|d| d.pid).collect()
    };
    ensure!(layers(&after) == layers(&before), "a layer was restarted");
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    let silence = transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| lab.log())?;
    println!("the hung supervisor replaced, tcpd killed: longest silence {silence:?}");
    let (theirs, ours) = pair?;
    both_ways(ours, theirs, 1 << 20, Writes::MIXED).with_context(|| lab.log())?;
    // One that works is replaced as well: by a newer build, for instance.
    lab.replace_supervisor()?;
    ensure!(lab.status()?.pid != after.pid);
    Ok(())
}

/// A build that dies soon after its start is taken back, also by another supervisor than the one
/// that started it.
fn on_trial() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let copy = lab.path().join("another-build");
    std::fs::copy(std::env::current_exe()?, &copy)?;
    let runs = || -> Result<std::path::PathBuf> {
        let pid = lab.layer("tcpd")?.pid.context("no process")?;
        Ok(std::fs::read_link(format!("/proc/{pid}/exe"))?)
    };
    let before = runs()?;
    lab.ask(&Request::Upgrade {
        layer: "tcpd".to_owned(),
        executable: copy.clone(),
    })?;
    ensure!(runs()? == copy);
    lab.kill_supervisor()?;
    lab.adopt()?;
    ensure!(runs()? == copy);
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    ensure!(runs()? == before, "{:?}", runs()?);
    Ok(())
}

/// What is opened while there is no supervisor is stored all the same: the keeper takes it.
fn unsupervised() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let tcpd = lab.layer("tcpd")?.pid.context("tcpd has no process")?;
    lab.kill_supervisor()?;
    let stack = Stack::open(lab.path());
    let pairs = [true, false].map(|stack_opens| connect(&lab, &stack, stack_opens));
    kill_process(tcpd, Signal::SIGKILL)?;
    lab.adopt()?;
    for pair in pairs {
        let (theirs, ours) = pair?;
        both_ways(ours, theirs, 4 << 20, Writes::MIXED).with_context(|| lab.log())?;
    }
    // The keeper may die as well, as long as the supervisor does not.
    let keeper = lab.status()?.keeper.context("no keeper")?;
    kill_process(keeper, Signal::SIGKILL)?;
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    both_ways(ours, theirs, 4 << 20, Writes::MIXED).with_context(|| lab.log())?;
    Ok(())
}

fn kill_process(pid: u32, signal: Signal) -> Result<()> {
    Ok(nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid)?),
        signal,
    )?)
}
