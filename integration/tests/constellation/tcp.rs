//! TCP, as client and as server, with the kernel at the other end.

use anyhow::{Context, Result, ensure};
use integration::transfer::{Writes, both_ways, one_way};
use integration::{Trials, peer};
use libsocket::Stack;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig, LabDevice};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("tcp_single_stream_both_ways_both_roles", single_stream);
    trials.add(
        "tcp_single_stream_over_a_packet_socket",
        single_stream_packet,
    );
    trials.add("tcp_without_offloads", without_offloads);
    trials.add("tcp_64_parallel_streams", parallel_streams);
    trials.add("tcp_tiny_writes", tiny_writes);
    trials.add("tcp_half_close", half_close);
    trials.add("tcp_reset", reset);
    trials.add("tcp_connection_refused", refused);
    trials.add("tcp_unreachable_host", unreachable);
    trials.add("tcp_zero_window_stall_and_recovery", zero_window);
    trials.add("tcp_loss_and_reordering", loss);
    trials.add("tcp_between_two_sockets_of_the_stack", looped_back);
}

const MIB: u64 = 1 << 20;

/// Connected streams: (kernel's end, stack's end), opened by the stack or by the kernel.
pub(crate) fn connect(
    lab: &Lab,
    stack: &Stack,
    stack_opens: bool,
) -> Result<(std::net::TcpStream, libsocket::TcpStream)> {
    if stack_opens {
        let listener = std::net::TcpListener::bind((lab.host, 0))?;
        let to = listener.local_addr()?;
        let ours = stack
            .connect(to)
            .with_context(|| format!("connecting to {to}"))?;
        let (theirs, from) = listener.accept()?;
        ensure!(
            ours.local_addr()? == from,
            "the kernel sees another address"
        );
        Ok((theirs, ours))
    } else {
        let listener = stack.listen((lab.stack, 0)).context("listening")?;
        let to = listener.local_addr()?;
        let theirs = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10))
            .with_context(|| format!("the kernel connects to {to}"))?;
        let (ours, from) = listener.accept().context("accepting")?;
        ensure!(
            theirs.local_addr()? == from,
            "the stack sees another address"
        );
        Ok((theirs, ours))
    }
}

fn run_single_stream(config: &LabConfig, len: u64) -> Result<()> {
    let lab = Lab::start(config)?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        one_way(ours, theirs, len, Writes::BIG).with_context(|| {
            format!("stack to kernel, stack opens: {stack_opens}\n{}", lab.log())
        })?;
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        one_way(theirs, ours, len, Writes::BIG).with_context(|| {
            format!("kernel to stack, stack opens: {stack_opens}\n{}", lab.log())
        })?;
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        both_ways(ours, theirs, len, Writes::MIXED)
            .with_context(|| format!("both ways, stack opens: {stack_opens}\n{}", lab.log()))?;
    }
    Ok(())
}

fn single_stream() -> Result<()> {
    run_single_stream(&LabConfig::default(), 64 * MIB)
}

fn single_stream_packet() -> Result<()> {
    let config = LabConfig {
        kind: Some(LabDevice::Packet),
        ..Default::default()
    };
    run_single_stream(&config, 16 * MIB)
}

fn without_offloads() -> Result<()> {
    let config = LabConfig {
        device: "offload = \"none\"".to_owned(),
        ..Default::default()
    };
    run_single_stream(&config, 8 * MIB)
}

fn parallel_streams() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let pairs = (0..64)
        .map(|i| connect(&lab, &stack, i % 2 == 0))
        .collect::<Result<Vec<_>>>()?;
    let threads: Vec<_> = pairs
        .into_iter()
        .map(|(theirs, ours)| thread::spawn(move || both_ways(ours, theirs, MIB, Writes::MIXED)))
        .collect();
    for (i, thread) in threads.into_iter().enumerate() {
        let result = thread.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        result.with_context(|| format!("stream {i}"))?;
    }
    Ok(())
}

fn tiny_writes() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for nodelay in [false, true] {
        let (theirs, ours) = connect(&lab, &stack, nodelay)?;
        ours.set_nodelay(nodelay)?;
        theirs.set_nodelay(nodelay)?;
        both_ways(ours, theirs, MIB, Writes::TINY).with_context(|| format!("nodelay {nodelay}"))?;
    }
    Ok(())
}

fn half_close() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for stack_closes in [true, false] {
        let (mut theirs, mut ours) = connect(&lab, &stack, true)?;
        let mut rest = Vec::new();
        if stack_closes {
            ours.write_all(b"question")?;
            ours.shutdown(Shutdown::Write)?;
            theirs.read_to_end(&mut rest)?;
            theirs.write_all(b"answer")?;
            drop(theirs);
            ensure!(rest == b"question");
            rest.clear();
            ours.read_to_end(&mut rest)?;
        } else {
            theirs.write_all(b"question")?;
            theirs.shutdown(Shutdown::Write)?;
            ours.read_to_end(&mut rest)?;
            ours.write_all(b"answer")?;
            drop(ours);
            ensure!(rest == b"question");
            rest.clear();
            theirs.read_to_end(&mut rest)?;
        }
        ensure!(rest == b"answer", "got {rest:?}");
    }
    Ok(())
}

fn reset() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    // By the kernel: closing with unread data.
    let (theirs, mut ours) = connect(&lab, &stack, true)?;
    ours.write_all(b"never read")?;
    thread::sleep(Duration::from_millis(100));
    drop(theirs);
    let error = ours
        .read(&mut [0; 16])
        .err()
        .context("a reset connection was read from")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "got {error}");
    // By the stack, likewise.
    let (mut theirs, ours) = connect(&lab, &stack, false)?;
    theirs.write_all(b"never read")?;
    thread::sleep(Duration::from_millis(100));
    drop(ours);
    theirs.set_read_timeout(Some(Duration::from_secs(10)))?;
    let error = theirs
        .read(&mut [0; 16])
        .err()
        .context("a reset connection was read from")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "got {error}");
    Ok(())
}

fn refused() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let port = std::net::TcpListener::bind((lab.host, 0))?
        .local_addr()?
        .port();
    let error = stack
        .connect((lab.host, port))
        .err()
        .context("nobody listens there")?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "got {error}");
    let to = SocketAddr::new(lab.stack.into(), 9);
    let error = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10))
        .err()
        .context("nobody listens there")?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "got {error}");
    Ok(())
}

fn unreachable() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let [a, b, c, _] = lab.host.octets();
    let nobody = SocketAddr::from(([a, b, c, 200], 80));
    let begin = Instant::now();
    let error = stack
        .connect(nobody)
        .err()
        .context("nobody has that address")?;
    ensure!(error.kind() == ErrorKind::HostUnreachable, "got {error}");
    ensure!(
        begin.elapsed() < Duration::from_secs(10),
        "after {:?}",
        begin.elapsed()
    );
    Ok(())
}

fn zero_window() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for stack_sends in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, true)?;
        let stall = Duration::from_millis(1500);
        if stack_sends {
            stalled(ours, theirs, stall).context("stack to kernel")?;
        } else {
            stalled(theirs, ours, stall).context("kernel to stack")?;
        }
    }
    Ok(())
}

/// `from` fills `to`'s buffers; `to` begins to read only after `stall`.
fn stalled(mut from: impl peer::Stream, mut to: impl peer::Stream, stall: Duration) -> Result<()> {
    to.patience(Duration::from_secs(30))?;
    let len = 24 * MIB;
    let sender = thread::spawn(move || integration::transfer::send(&mut from, 3, len, Writes::BIG));
    thread::sleep(stall);
    integration::transfer::receive(&mut to, 3, len)?;
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))?
}

fn loss() -> Result<()> {
    let config = LabConfig {
        device: r#"impairment = { seed = 7, loss = 0.01, reorder = 0.02, delay = "500us" }"#
            .to_owned(),
        ..Default::default()
    };
    let lab = Lab::start(&config)?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        both_ways(ours, theirs, 4 * MIB, Writes::MIXED)
            .with_context(|| format!("stack opens: {stack_opens}"))?;
    }
    Ok(())
}

fn looped_back() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for address in [lab.stack, std::net::Ipv4Addr::LOCALHOST] {
        let listener = stack.listen((address, 0))?;
        let a = stack.connect(listener.local_addr()?)?;
        let (b, _) = listener.accept()?;
        both_ways(a, b, 16 * MIB, Writes::MIXED).with_context(|| format!("by {address}"))?;
    }
    Ok(())
}
