//! Sockets to which nothing happens before the end, each in a state of readiness of its own that
//! is looked at after each fault: datagram sockets with and without something to read, a listener
//! with a connection that nobody has accepted.

use super::ends::shows;
use super::{Mix, Place};
use crate::peer::Stream;
use anyhow::{Context, Result, bail, ensure};
use nix::poll::PollFlags;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Time between two datagrams when the first may have been lost.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) fn add(mix: &mut Mix, place: &Place, datagrams: bool) -> Result<()> {
    if datagrams {
        add_blocked_receive(mix, place)?;
        add_unread_datagram(mix, place)?;
        add_pings(mix, place)?;
    }
    add_pending(mix, place)
}

/// Sends until something has arrived at `fd`.
fn until_arrived(
    fd: &impl AsFd,
    patience: Duration,
    mut send: impl FnMut() -> Result<()>,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        send()?;
        if shows(fd, PollFlags::POLLIN, AGAIN)? {
            return Ok(());
        }
        ensure!(begin.elapsed() < patience, "nothing arrives");
    }
}

/// A receive that blocks until the end, and then gets its datagram.
fn add_blocked_receive(mix: &mut Mix, place: &Place) -> Result<()> {
    let ours = place.stack.udp((place.stack_address, 0))?;
    let to = ours.local_addr()?;
    let theirs = place.peer.datagrams()?;
    let levels = &mix.shared.levels;
    levels.expect(
        "blocked receive",
        "a UDP socket whose receive blocks",
        &ours,
        (false, true),
    )?;
    let (tell, told) = channel();
    mix.spawn("blocked receive", move |_| {
        let mut buffer = [0; 100];
        loop {
            let received = ours.recv_from(&mut buffer);
            let (n, _) = received.context("the recv_from that blocked")?;
            // Who waits may have given up.
            let _ = tell.send(());
            match buffer.get(..n) {
                Some(b"at last") => return Ok(()),
                Some(b"and on") => {}
                _ => bail!("{n} bytes that nobody has sent"),
            }
        }
    })?;
    let patience = place.patience;
    mix.spawn_waiting("blocked receive, who ends it", move |shared| {
        let wake = |text: &[u8]| -> Result<()> {
            let begin = Instant::now();
            // One that was sent twice is of the last time.
            while told.try_recv().is_ok() {}
            loop {
                theirs.send_to(text, to)?;
                match told.recv_timeout(AGAIN) {
                    Err(RecvTimeoutError::Timeout) => {}
                    // If it failed, it says so itself.
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                ensure!(begin.elapsed() < patience, "it stays blocked");
            }
        };
        while shared.wait_call() {
            wake(b"and on")?;
            shared.answer();
        }
        wake(b"at last")
    })
}

/// A datagram that is read at the end.
fn add_unread_datagram(mix: &mut Mix, place: &Place) -> Result<()> {
    let ours = place.stack.udp((place.stack_address, 0))?;
    let to = ours.local_addr()?;
    let theirs = place.peer.datagrams()?;
    until_arrived(&ours, place.patience, || {
        theirs.send_to(b"unread", to)?;
        Ok(())
    })?;
    let levels = &mix.shared.levels;
    levels.expect(
        "unread datagram",
        "a UDP socket with a datagram",
        &ours,
        (true, true),
    )?;
    ours.set_read_timeout(Some(place.patience))?;
    mix.spawn("unread datagram", move |shared| {
        shared.wait();
        let mut buffer = [0; 100];
        let (n, from) = ours.recv_from(&mut buffer)?;
        ensure!(from == theirs.address()?, "from {from}");
        ensure!(buffer.get(..n) == Some(b"unread"), "{n} bytes");
        Ok(())
    })
}

/// A ping socket without a reply, and one with a reply that is read at the end.
fn add_pings(mix: &mut Mix, place: &Place) -> Result<()> {
    let host = place.peer.address();
    let patience = place.patience;
    let quiet = place.stack.ping(false)?;
    let levels = &mix.shared.levels;
    levels.expect("quiet ping socket", "a ping socket", &quiet, (false, true))?;
    mix.spawn("quiet ping socket", move |shared| {
        shared.wait();
        until_arrived(&quiet, patience, || {
            Ok(quiet.send_to(1, b"hello", host.into())?)
        })
    })?;
    let ours = place.stack.ping(false)?;
    until_arrived(&ours, patience, || {
        Ok(ours.send_to(1, b"hello", host.into())?)
    })?;
    let levels = &mix.shared.levels;
    levels.expect(
        "unread reply",
        "a ping socket with a reply",
        &ours,
        (true, true),
    )?;
    ours.set_read_timeout(Some(patience))?;
    mix.spawn("unread reply", move |shared| {
        shared.wait();
        let mut buffer = [0; 100];
        let echo = ours.recv_from(&mut buffer)?;
        ensure!(buffer.get(..echo.len) == Some(b"hello"), "{echo:?}");
        Ok(())
    })
}

/// A connection that is accepted at the end.
fn add_pending(mix: &mut Mix, place: &Place) -> Result<()> {
    let listener = place.stack.listen((place.stack_address, 0))?;
    let mut theirs = place.peer.connect(listener.local_addr()?)?;
    theirs.patience(place.patience)?;
    let came = shows(&listener, PollFlags::POLLIN, place.patience)?;
    ensure!(came, "a connection does not arrive");
    let levels = &mix.shared.levels;
    levels.expect(
        "pending connection",
        "a listener with a connection",
        &listener,
        (true, true),
    )?;
    let patience = place.patience;
    mix.spawn("pending connection", move |shared| {
        shared.wait();
        let (mut ours, _) = listener.accept().context("accepting it")?;
        ours.patience(patience)?;
        theirs.write_all(b"at last").context("the peer sends")?;
        theirs.shut(Shutdown::Write)?;
        let mut text = String::new();
        ours.read_to_string(&mut text).context("receiving")?;
        ensure!(text == "at last", "{text}");
        Ok(())
    })
}
