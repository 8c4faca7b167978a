//! Connections that wait: idle ones, half-closed ones, closed windows with full buffers behind
//! them, calls that block.

use super::ends::End;
use super::flows::compare;
use super::{Amounts, Mix, Place};
use crate::peer::Stream;
use abi::session::SockOpt;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::time::Duration;
use strata::demo::bytes::Bytes;

/// More than both buffers of a connection hold.
const MORE_THAN_FITS: usize = 24 << 20;

/// Idle connections whose readiness is looked at.
const WATCHED: usize = 8;

pub(super) fn add(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    if amounts.idle > 0 {
        add_idle(mix, place, amounts)?;
    }
    for number in 0..amounts.stuck {
        let (theirs, ours) = place.connect(number % 2 == 0)?;
        let levels = &mix.shared.levels;
        levels.expect("a socket with a full send buffer", &ours, (false, false))?;
        add_stuck(mix, &format!("stuck {number} up"), ours, theirs)?;
        let (theirs, ours) = place.connect(number % 2 == 1)?;
        let levels = &mix.shared.levels;
        levels.expect("a socket with a closed window", &ours, (true, true))?;
        add_stuck(mix, &format!("stuck {number} down"), theirs, ours)?;
    }
    if amounts.stuck > 0 {
        add_half_closed(mix, place)?;
        add_blocked_accept(mix, place)?;
        add_blocked_read(mix, place)?;
    }
    Ok(())
}

/// Idle connections, with keepalive if it is wanted.
pub(super) fn idle(
    place: &Place,
    count: usize,
    keepalive_ms: u32,
) -> Result<Vec<(End, libsocket::TcpStream)>> {
    let pairs = place.connect_many(count)?;
    if keepalive_ms > 0 {
        for (_, ours) in &pairs {
            let socket = ours.socket();
            socket.set_option(SockOpt::KeepIdle(keepalive_ms))?;
            socket.set_option(SockOpt::KeepInterval(keepalive_ms))?;
            socket.set_option(SockOpt::KeepAlive(true))?;
        }
    }
    Ok(pairs)
}

fn add_idle(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    let pairs = idle(place, amounts.idle, amounts.keepalive_ms)?;
    for (number, (_, ours)) in pairs.iter().enumerate().take(WATCHED) {
        let name = format!("the socket of idle connection {number}");
        mix.shared.levels.expect(name, ours, (false, true))?;
    }
    mix.spawn("idle connections", move |shared| {
        shared.wait();
        let mut lost = Vec::new();
        for (number, (theirs, ours)) in pairs.into_iter().enumerate() {
            if let Err(error) = greet(theirs, ours) {
                lost.push(format!("idle connection {number}: {error:#}"));
            }
        }
        ensure!(lost.is_empty(), "\n{}", lost.join("\n"));
        Ok(())
    })
}

/// Both directions of a connection that was idle carry a few bytes, and it ends.
pub(super) fn greet(mut theirs: End, mut ours: libsocket::TcpStream) -> Result<()> {
    let mut buffer = [0; 5];
    theirs.write_all(b"hello").context("the peer sends")?;
    ours.read_exact(&mut buffer).context("the stack receives")?;
    ensure!(&buffer == b"hello");
    ours.write_all(b"world").context("the stack sends")?;
    theirs
        .read_exact(&mut buffer)
        .context("the peer receives")?;
    ensure!(&buffer == b"world");
    ours.shut(Shutdown::Write)?;
    ensure!(theirs.read(&mut buffer)? == 0, "no end from the stack");
    theirs.shut(Shutdown::Write)?;
    ensure!(ours.read(&mut buffer)? == 0, "no end from the peer");
    Ok(())
}

/// A writer that blocks as nobody reads, until the end.
fn add_stuck(mix: &mut Mix, name: &str, from: impl Stream, to: impl Stream) -> Result<()> {
    let mut from = from;
    let mut to = to;
    // It may have to wait as long as the mix runs.
    from.patience(Duration::from_secs(24 * 3600))?;
    mix.spawn(format!("{name}, writer"), move |_| {
        let mut bytes = Bytes::new(99);
        let mut all = vec![0; MORE_THAN_FITS];
        bytes.fill(&mut all);
        from.write_all(&all).context("writing")?;
        from.shut(Shutdown::Write)?;
        Ok(())
    })?;
    mix.spawn(format!("{name}, reader"), move |shared| {
        shared.wait();
        let total = compare(&mut to, 99, |_| {})?;
        ensure!(total == MORE_THAN_FITS as u64, "{total} bytes came");
        Ok(())
    })
}

/// An accept that blocks until the end, and then gets its connection.
fn add_blocked_accept(mix: &mut Mix, place: &Place) -> Result<()> {
    let listener = place.stack.listen((place.stack_address, 0))?;
    let to = listener.local_addr()?;
    let levels = &mix.shared.levels;
    levels.expect("a listener whose accept blocks", &listener, (false, true))?;
    let peer = place.peer.clone();
    mix.spawn("blocked accept", move |_| {
        let (mut ours, _) = listener.accept().context("the accept that blocked")?;
        ours.patience(Duration::from_secs(30))?;
        let mut text = String::new();
        ours.read_to_string(&mut text)?;
        ensure!(text == "at last", "{text}");
        Ok(())
    })?;
    mix.spawn("blocked accept, who ends it", move |shared| {
        shared.wait();
        let mut theirs = peer.connect(to)?;
        theirs.write_all(b"at last")?;
        Ok(())
    })
}

/// A read that blocks until the end, and then gets its bytes.
fn add_blocked_read(mix: &mut Mix, place: &Place) -> Result<()> {
    let (mut theirs, mut ours) = place.connect(false)?;
    ours.set_read_timeout(None)?;
    let (tell, told) = channel();
    mix.spawn("blocked read", move |_| {
        let mut buffer = [0; 7];
        ours.read_exact(&mut buffer)
            .context("the read that blocked")?;
        ensure!(&buffer == b"at last");
        tell.send(ours).context("nobody waits")?;
        Ok(())
    })?;
    mix.spawn("blocked read, who ends it", move |shared| {
        shared.wait();
        theirs.write_all(b"at last")?;
        drop(told.recv_timeout(Duration::from_secs(30))?);
        ensure!(theirs.read(&mut [0])? == 0, "no end from the stack");
        Ok(())
    })
}

/// One end has closed its direction long ago; the other direction works all the same, at the end.
fn add_half_closed(mix: &mut Mix, place: &Place) -> Result<()> {
    let (mut theirs, ours) = place.connect(true)?;
    ours.shut(Shutdown::Write)?;
    let levels = &mix.shared.levels;
    levels.expect("a socket that has sent its FIN", &ours, (false, true))?;
    mix.spawn("half closed by the stack", move |shared| {
        let mut ours = ours;
        ensure!(theirs.read(&mut [0])? == 0, "no end from the stack");
        shared.wait();
        theirs.write_all(b"at last")?;
        theirs.shut(Shutdown::Write)?;
        let mut text = String::new();
        ours.read_to_string(&mut text).context("receiving")?;
        ensure!(text == "at last", "{text}");
        Ok(())
    })?;
    let (theirs, mut ours) = place.connect(false)?;
    theirs.shut(Shutdown::Write)?;
    ensure!(ours.read(&mut [0])? == 0, "no end from the peer");
    mix.spawn("half closed by the peer", move |shared| {
        let mut theirs = theirs;
        shared.wait();
        ours.write_all(b"at last").context("sending")?;
        ours.shut(Shutdown::Write)?;
        let mut text = String::new();
        theirs.read_to_string(&mut text)?;
        ensure!(text == "at last", "{text}");
        Ok(())
    })
}
