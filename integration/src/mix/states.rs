//! Connections that wait: idle ones, half-closed ones, closed windows with full buffers behind
//! them, calls that block.

use super::ends::End;
use super::flows::Comparison;
use super::{Amounts, Mix, Place};
use crate::peer::Stream;
use abi::session::SockOpt;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::time::Duration;
use strata::demo::bytes::Bytes;

/// Bytes of a write by a sender that blocks.
const BLOCK: usize = 1 << 20;

/// More than a receiver has of them that has not read yet: bytes that show that the sender lives.
const ON_THE_WAY: u64 = 256 << 10;

/// Idle connections whose readiness is looked at.
const WATCHED: usize = 8;

pub(super) fn add(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    if amounts.idle > 0 {
        add_idle(mix, place, amounts)?;
    }
    for number in 0..amounts.stuck {
        let (theirs, ours) = place.connect(number % 2 == 0)?;
        let levels = &mix.shared.levels;
        let name = format!("stuck {number} up");
        let what = "a socket with a full send buffer";
        levels.expect(&*name, what, &ours, (false, false))?;
        add_stuck(mix, &name, ours, theirs)?;
        let (theirs, ours) = place.connect(number % 2 == 1)?;
        let levels = &mix.shared.levels;
        let name = format!("stuck {number} down");
        let what = "a socket with a closed window";
        levels.expect(&*name, what, &ours, (true, true))?;
        add_stuck(mix, &name, theirs, ours)?;
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
        let levels = &mix.shared.levels;
        levels.expect(idle_name(number), "an idle socket", ours, (false, true))?;
    }
    mix.spawn_waiting("idle connections", move |shared| {
        let mut pairs: Vec<_> = pairs.into_iter().enumerate().collect();
        let mut lost = Vec::new();
        let mut lose = |number, error: anyhow::Error| {
            lost.push(format!("{}: {error:#}", idle_name(number)));
            shared.lose(idle_name(number));
        };
        while shared.wait_call() {
            pairs.retain_mut(|(number, (theirs, ours))| match talk(theirs, ours) {
                Ok(()) => true,
                Err(error) => {
                    lose(*number, error);
                    false
                }
            });
            shared.answer();
        }
        for (number, (theirs, ours)) in pairs {
            if let Err(error) = greet(theirs, ours) {
                lose(number, error);
            }
        }
        ensure!(lost.is_empty(), "\n{}", lost.join("\n"));
        Ok(())
    })
}

/// As [`super::Ended::count`] knows it.
fn idle_name(number: usize) -> String {
    format!("idle connection {number}")
}

/// Both directions of a connection that was idle carry a few bytes.
fn talk(theirs: &mut End, ours: &mut libsocket::TcpStream) -> Result<()> {
    let mut buffer = [0; 5];
    theirs.write_all(b"hello").context("the peer sends")?;
    ours.read_exact(&mut buffer).context("the stack receives")?;
    ensure!(&buffer == b"hello");
    ours.write_all(b"world").context("the stack sends")?;
    theirs
        .read_exact(&mut buffer)
        .context("the peer receives")?;
    ensure!(&buffer == b"world");
    Ok(())
}

/// Likewise, and it ends.
pub(super) fn greet(mut theirs: End, mut ours: libsocket::TcpStream) -> Result<()> {
    talk(&mut theirs, &mut ours)?;
    let mut buffer = [0];
    ours.shut(Shutdown::Write)?;
    ensure!(theirs.read(&mut buffer)? == 0, "no end from the stack");
    theirs.shut(Shutdown::Write)?;
    ensure!(ours.read(&mut buffer)? == 0, "no end from the peer");
    Ok(())
}

/// A writer that blocks as nobody reads, until the end. (How much both buffers hold nobody can
/// say: they grow.)
fn add_stuck(mix: &mut Mix, name: &str, from: impl Stream, to: impl Stream) -> Result<()> {
    let mut from = from;
    let mut to = to;
    // It may have to wait as long as the mix runs.
    from.patience(Duration::from_secs(24 * 3600))?;
    let (tell, told) = channel();
    mix.spawn(format!("{name}, writer"), move |shared| {
        let mut bytes = Bytes::new(99);
        let mut block = vec![0; BLOCK];
        let mut total = 0;
        while !shared.is_stopping() {
            bytes.fill(&mut block);
            from.write_all(&block).context("writing")?;
            total += BLOCK as u64;
        }
        from.shut(Shutdown::Write)?;
        tell.send(total).context("nobody reads")
    })?;
    mix.spawn_waiting(format!("{name}, reader"), move |shared| {
        let mut comparison = Comparison::new(99);
        while shared.wait_call() {
            let enough = comparison.total + ON_THE_WAY;
            while comparison.total < enough {
                ensure!(comparison.read(&mut to)? > 0, "an early end");
            }
            shared.answer();
        }
        while comparison.read(&mut to)? > 0 {}
        let (came, sent) = (comparison.total, told.recv().context("the writer failed")?);
        ensure!(came == sent, "{came} bytes came of {sent}");
        Ok(())
    })
}

/// An accept that blocks until the end, and then gets its connection.
fn add_blocked_accept(mix: &mut Mix, place: &Place) -> Result<()> {
    let listener = place.stack.listen((place.stack_address, 0))?;
    let to = listener.local_addr()?;
    let levels = &mix.shared.levels;
    let what = "a listener whose accept blocks";
    levels.expect("blocked accept", what, &listener, (false, true))?;
    let peer = place.peer.clone();
    mix.spawn("blocked accept", move |_| {
        loop {
            let (mut ours, _) = listener.accept().context("the accept that blocked")?;
            ours.patience(Duration::from_secs(30))?;
            let mut text = String::new();
            ours.read_to_string(&mut text)?;
            match &*text {
                "at last" => return Ok(()),
                "and on" => {}
                other => bail!("{other}"),
            }
        }
    })?;
    mix.spawn_waiting("blocked accept, who ends it", move |shared| {
        let wake = |text: &[u8]| -> Result<()> {
            let mut theirs = peer.connect(to)?;
            theirs.patience(Duration::from_secs(30))?;
            theirs.write_all(text)?;
            theirs.shut(Shutdown::Write)?;
            ensure!(theirs.read(&mut [0])? == 0, "no end from the stack");
            Ok(())
        };
        while shared.wait_call() {
            wake(b"and on")?;
            shared.answer();
        }
        wake(b"at last")
    })
}

/// A read that blocks until the end, and then gets its bytes.
fn add_blocked_read(mix: &mut Mix, place: &Place) -> Result<()> {
    let (mut theirs, mut ours) = place.connect(false)?;
    ours.set_read_timeout(None)?;
    let (tell, told) = channel();
    mix.spawn("blocked read", move |_| {
        let mut buffer = [0; 7];
        loop {
            ours.read_exact(&mut buffer)
                .context("the read that blocked")?;
            tell.send(()).context("nobody waits")?;
            if &buffer == b"at last" {
                return Ok(());
            }
            ensure!(&buffer == b"and on.");
        }
    })?;
    mix.spawn_waiting("blocked read, who ends it", move |shared| {
        let patience = Duration::from_secs(30);
        while shared.wait_call() {
            theirs.write_all(b"and on.")?;
            told.recv_timeout(patience)?;
            shared.answer();
        }
        theirs.write_all(b"at last")?;
        told.recv_timeout(patience)?;
        ensure!(theirs.read(&mut [0])? == 0, "no end from the stack");
        Ok(())
    })
}

/// One end has closed its direction long ago; the other direction works all the same, at the end.
fn add_half_closed(mix: &mut Mix, place: &Place) -> Result<()> {
    let (mut theirs, ours) = place.connect(true)?;
    ours.shut(Shutdown::Write)?;
    let levels = &mix.shared.levels;
    let (name, what) = ("half closed by the stack", "a socket that has sent its FIN");
    levels.expect(name, what, &ours, (false, true))?;
    mix.spawn_waiting(name, move |shared| {
        let mut ours = ours;
        ensure!(theirs.read(&mut [0])? == 0, "no end from the stack");
        while shared.wait_call() {
            theirs.write_all(b"+")?;
            ours.read_exact(&mut [0]).context("receiving")?;
            shared.answer();
        }
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
    mix.spawn_waiting("half closed by the peer", move |shared| {
        let mut theirs = theirs;
        while shared.wait_call() {
            ours.write_all(b"+").context("sending")?;
            theirs.read_exact(&mut [0])?;
            shared.answer();
        }
        ours.write_all(b"at last").context("sending")?;
        ours.shut(Shutdown::Write)?;
        let mut text = String::new();
        theirs.read_to_string(&mut text)?;
        ensure!(text == "at last", "{text}");
        Ok(())
    })
}
