//! The sizes of TCP's buffers are what the configuration says, and what is shown of them is true.

use crate::path::{ACKED, info_of_kernel, info_of_stack};
use crate::tcp::connect;
use abi::control::Query;
use anyhow::{Context, Result, bail, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Write};
use std::thread::{self, sleep};
use std::time::Duration;
use strata::admin::{Answer, Request};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("buffers_are_as_large_as_configured", sizes);
    trials.add("memory_and_connections_are_shown", shown);
    trials.add("pages_are_given_back_under_a_transfer", pressure);
}

/// Bytes that can be written until there was no room for a while.
fn fill(stream: &mut impl Write) -> Result<u64> {
    let (mut written, mut idle) = (0, 0);
    while idle < 20 {
        match stream.write(&[7; 16 << 10]) {
            Ok(n) => (written, idle) = (written + n as u64, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle += 1;
                sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn sizes() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        extra: "[tcp]\nreceive-buffer = [\"16KiB\", \"48KiB\"]\nsend-buffer = [\"16KiB\", \
                \"32KiB\"]\n"
            .to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (mut theirs, mut ours) = connect(&lab, &stack, stack_opens)?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let written = fill(&mut ours)?;
        let kept = written - info_of_stack(&ours)?.u64(ACKED);
        ensure!(
            (8 << 10..=32 << 10).contains(&kept),
            "{kept} bytes in the send buffer"
        );
        fill(&mut theirs)?;
        // The kernel counts its SYN.
        let taken = info_of_kernel(&theirs)?.u64(ACKED);
        ensure!(
            (8 << 10..=(48 << 10) + 1).contains(&taken),
            "{taken} bytes in the receive buffer"
        );
    }
    Ok(())
}

/// Sockets that nobody reads use the memory up while another transfers: the pages that hold nothing
/// of its buffers go, again and again, and every byte is right; also when tcpd dies of it.
fn pressure() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        extra: "[tcp]\nmemory = \"4MiB\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let mut stalled = Vec::new();
    while lab.counter("tcpd", "memory_pressure")? == 0 {
        ensure!(stalled.len() < 100, "100 full buffers are no pressure");
        let (mut theirs, ours) = connect(&lab, &stack, true)?;
        // What does not fit waits in the kernel.
        theirs.write_all(&[7; 200 << 10])?;
        sleep(Duration::from_millis(5));
        stalled.push((theirs, ours));
    }
    let before = lab.counter("tcpd", "memory_idle_trims")?;
    let transfer = thread::spawn(move || both_ways(ours, theirs, 8 << 20, Writes::BIG));
    sleep(Duration::from_millis(50));
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .with_context(|| lab.log())?;
    let given_back = lab
        .counter("tcpd", "memory_idle_trims")?
        .saturating_sub(before);
    let memory = lab.counter("tcpd", "memory_bytes")?;
    println!(
        "{} stalled sockets; pages given back {given_back} times; {memory} bytes",
        stalled.len()
    );
    ensure!(given_back > 16, "given back {given_back} times");
    ensure!(memory < 6 << 20, "{memory} bytes are charged");
    ensure!(lab.counter("tcpd", "memory_pressure")? == 1);
    Ok(())
}

/// What `strata status --sockets` and `strata counters` say of memory and of a connection.
fn shown() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        extra: "[tcp]\nmemory = \"64MiB\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    let (mut theirs, ours) = connect(&lab, &stack, true)?;
    theirs.write_all(&[7; 50_000])?;
    ours.set_read_timeout(Some(Duration::from_secs(5)))?;
    while ours.peek(&mut [0; 50_000])? < 50_000 {
        sleep(Duration::from_millis(1));
    }
    ensure!(lab.counter("tcpd", "memory_limit_bytes")? == 64 << 20);
    let memory = lab.counter("tcpd", "memory_bytes")?;
    ensure!(
        (50_000..1 << 20).contains(&memory),
        "{memory} bytes charged"
    );
    ensure!(lab.counter("tcpd", "memory_pressure")? == 0);
    ensure!(lab.counter("tcpd", "active_opens")? == 1);
    let Answer::Table { columns, rows } = lab.ask(&Request::Query {
        layer: "tcpd".to_owned(),
        what: Query::Sockets,
    })?
    else {
        bail!("no table");
    };
    let of = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        rows.first()?.get(at).cloned()
    };
    ensure!(rows.len() == 1, "{rows:?}");
    ensure!(of("recv-q").as_deref() == Some("50000"), "{rows:?}");
    ensure!(of("memory") == Some(memory.to_string()), "{rows:?}");
    ensure!(of("retrans").as_deref() == Some("0"), "{rows:?}");
    ensure!(of("ssthresh").as_deref() == Some("-"), "{rows:?}");
    ensure!(of("srtt_us").is_some_and(|us| us != "0"), "{rows:?}");
    Ok(())
}
