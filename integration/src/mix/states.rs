//! Connections that wait: idle ones, closed windows with full buffers behind them, calls that
//! block.

use super::flows::compare;
use super::{Amounts, Mix, Place, Shared};
use crate::peer::Stream;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::Duration;
use strata::demo::bytes::Bytes;

/// More than both buffers of a connection hold.
const MORE_THAN_FITS: usize = 24 << 20;

pub(super) fn add(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    if amounts.idle > 0 {
        let pairs: Vec<_> = (0..amounts.idle)
            .map(|number| place.connect(number % 2 == 0))
            .collect::<Result<_>>()?;
        mix.spawn("idle connections", move |shared| {
            wait(shared);
            for (number, (theirs, ours)) in pairs.into_iter().enumerate() {
                greet(theirs, ours).with_context(|| format!("idle connection {number}"))?;
            }
            Ok(())
        })?;
    }
    for number in 0..amounts.stuck {
        let (theirs, ours) = place.connect(number % 2 == 0)?;
        add_stuck(mix, "the stack's send buffer full", ours, theirs)?;
        let (theirs, ours) = place.connect(number % 2 == 1)?;
        add_stuck(mix, "the stack's window closed", theirs, ours)?;
    }
    if amounts.stuck > 0 {
        add_blocked_accept(mix, place)?;
        add_blocked_read(mix, place)?;
    }
    Ok(())
}

fn wait(shared: &Shared) {
    while !shared.is_stopping() {
        sleep(Duration::from_millis(5));
    }
}

/// Both directions of a connection that was idle carry a few bytes, and it ends.
fn greet(mut theirs: TcpStream, mut ours: libsocket::TcpStream) -> Result<()> {
    let mut buffer = [0; 5];
    theirs.write_all(b"hello").context("the kernel sends")?;
    ours.read_exact(&mut buffer).context("the stack receives")?;
    ensure!(&buffer == b"hello");
    ours.write_all(b"world").context("the stack sends")?;
    theirs
        .read_exact(&mut buffer)
        .context("the kernel receives")?;
    ensure!(&buffer == b"world");
    ours.shut(Shutdown::Write)?;
    ensure!(theirs.read(&mut buffer)? == 0, "no end from the stack");
    theirs.shut(Shutdown::Write)?;
    ensure!(ours.read(&mut buffer)? == 0, "no end from the kernel");
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
        wait(shared);
        let total = compare(&mut to, 99, |_| {})?;
        ensure!(total == MORE_THAN_FITS as u64, "{total} bytes came");
        Ok(())
    })
}

/// An accept that blocks until the end, and then gets its connection.
fn add_blocked_accept(mix: &mut Mix, place: &Place) -> Result<()> {
    let listener = place.stack.listen((place.stack_address, 0))?;
    let to = listener.local_addr()?;
    mix.spawn("blocked accept", move |_| {
        let (mut ours, _) = listener.accept().context("the accept that blocked")?;
        ours.patience(Duration::from_secs(30))?;
        let mut text = String::new();
        ours.read_to_string(&mut text)?;
        ensure!(text == "at last", "{text}");
        Ok(())
    })?;
    mix.spawn("who ends the blocked accept", move |shared| {
        wait(shared);
        let mut theirs = TcpStream::connect_timeout(&to, Duration::from_secs(30))?;
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
    mix.spawn("who ends the blocked read", move |shared| {
        wait(shared);
        theirs.write_all(b"at last")?;
        drop(told.recv_timeout(Duration::from_secs(30))?);
        ensure!(theirs.read(&mut [0])? == 0, "no end from the stack");
        Ok(())
    })
}
