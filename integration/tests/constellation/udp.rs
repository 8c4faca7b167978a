//! UDP and ping against the kernel.

use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::Stack;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("udp_datagrams_of_all_sizes_both_ways", sizes);
    trials.add("udp_port_unreachable_reaches_the_socket", refused);
    trials.add("udp_broadcast", broadcast);
    trials.add("ping_from_the_stack", ping);
}

const PATIENCE: Duration = Duration::from_secs(10);

fn sizes() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let ours = stack.udp((lab.stack, 0))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let theirs = UdpSocket::bind((lab.host, 0))?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    let (our_address, their_address) = (ours.local_addr()?, theirs.local_addr()?);
    let mut buffer = vec![0; 65_536];
    // 1472 fills a packet; more is fragmented.
    for len in [0usize, 1, 17, 1471, 1472, 1473, 4000, 20_000, 65_507] {
        let payload: Vec<u8> = (0..len)
            .map(|i| u8::try_from(i % 251).unwrap_or(0))
            .collect();
        ours.send_to(&payload, their_address)
            .with_context(|| format!("{len} bytes out"))?;
        let (n, from) = theirs
            .recv_from(&mut buffer)
            .with_context(|| format!("{len} bytes out"))?;
        ensure!(
            from == our_address && buffer.get(..n) == Some(&payload[..]),
            "{len} bytes out"
        );
        theirs.send_to(&payload, our_address)?;
        let (n, from) = ours
            .recv_from(&mut buffer)
            .with_context(|| format!("{len} bytes in"))?;
        ensure!(
            from == their_address && buffer.get(..n) == Some(&payload[..]),
            "{len} bytes in"
        );
    }
    Ok(())
}

fn refused() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    // From the kernel to a port of ours that nobody has.
    let theirs = UdpSocket::bind((lab.host, 0))?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    theirs.connect((lab.stack, 9))?;
    theirs.send(b"anybody?")?;
    let error = theirs
        .recv(&mut [0; 16])
        .err()
        .context("nobody answers there")?;
    ensure!(
        error.kind() == ErrorKind::ConnectionRefused,
        "the kernel got {error}"
    );
    // And the other way.
    let port = UdpSocket::bind((lab.host, 0))?.local_addr()?.port();
    let ours = stack.udp((lab.stack, 0))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    ours.connect((lab.host, port))?;
    ours.send(b"anybody?")?;
    let error = ours
        .recv(&mut [0; 16])
        .err()
        .context("nobody answers there")?;
    ensure!(
        error.kind() == ErrorKind::ConnectionRefused,
        "the stack got {error}"
    );
    Ok(())
}

fn broadcast() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let [a, b, c, _] = lab.host.octets();
    let ours = stack.udp(("0.0.0.0", 0))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let everybody = |port| SocketAddr::from(([a, b, c, 255], port));
    let theirs = UdpSocket::bind(("0.0.0.0", 0))?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    theirs.set_broadcast(true)?;
    theirs.send_to(b"to all", everybody(ours.local_addr()?.port()))?;
    let mut buffer = [0; 32];
    let (n, from) = ours
        .recv_from(&mut buffer)
        .context("broadcast of the kernel")?;
    ensure!(&buffer[..n] == b"to all" && from.ip() == lab.host);

    let to = everybody(theirs.local_addr()?.port());
    // Sends are queued, so what the route says against one is told by the next call.
    ours.send_to(b"not allowed", to)?;
    let error = ours
        .recv(&mut buffer)
        .err()
        .context("broadcast needs SO_BROADCAST")?;
    ensure!(error.kind() == ErrorKind::PermissionDenied, "got {error}");
    ours.set_broadcast(true)?;
    ours.send_to(b"to all", to)?;
    let (n, from) = theirs
        .recv_from(&mut buffer)
        .context("broadcast of the stack")?;
    ensure!(&buffer[..n] == b"to all" && from.ip() == lab.stack);
    Ok(())
}

fn ping() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let socket = stack.ping(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    for (seq, len) in [(1u16, 0usize), (2, 56), (3, 1472), (4, 8000)] {
        let payload = vec![0x5a; len];
        socket.send_to(seq, &payload, lab.host.into())?;
        let mut buffer = vec![0; 9000];
        let echo = socket
            .recv_from(&mut buffer)
            .with_context(|| format!("{len} bytes"))?;
        ensure!(echo.seq == seq && echo.len == len, "got {echo:?}");
        ensure!(buffer.get(..len) == Some(&payload[..]), "{len} bytes");
        thread::yield_now();
    }
    Ok(())
}
