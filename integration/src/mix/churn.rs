//! Connections opened and closed all the time, so that some are always in the middle of it.

use super::{Amounts, Mix, Part, Place, Shared};
use crate::peer::Stream;
use anyhow::{Context, Result, ensure};
use std::net::Shutdown;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long one connection may take from its opening to its end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn add(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    for number in 0..amounts.churn {
        let listener = place.stack.listen((place.stack_address, 0))?;
        let to = listener.local_addr()?;
        mix.spawn(format!("churn in {number}, the stack accepts"), move |_| {
            serve(|| {
                let (stream, _) = listener.accept().context("accept")?;
                Ok(stream)
            })
        })?;
        let peer = place.peer.clone();
        mix.spawn(
            format!("churn in {number}, the peer opens"),
            move |shared| open(shared, || peer.connect(to)),
        )?;
        let door = place.peer.listen()?;
        let to = door.address()?;
        let stack = place.stack.clone();
        mix.spawn(format!("churn out {number}, the peer accepts"), move |_| {
            serve(|| door.accept())
        })?;
        mix.spawn(
            format!("churn out {number}, the stack opens"),
            move |shared| open(shared, || Ok(stack.connect(to)?)),
        )?;
    }
    Ok(())
}

/// Seconds that closing may wait, on some.
const LINGER: u16 = 20;

/// The connection that says that it is the last.
const LAST: u64 = u64::MAX;

/// Opens connections one after the other; each carries its number there and back, and a client
/// that closes first or last by turns.
fn open<S: Stream>(shared: &Shared, mut connect: impl FnMut() -> Result<S>) -> Result<()> {
    let mut number = 0u64;
    loop {
        let last = shared.is_stopping();
        let id = if last { LAST } else { number };
        exchange(&mut connect, id).with_context(|| format!("connection {number}"))?;
        if last {
            return Ok(());
        }
        number += 1;
        shared.did(Part::Churn);
        sleep(Duration::from_millis(1));
    }
}

fn exchange<S: Stream>(connect: &mut impl FnMut() -> Result<S>, id: u64) -> Result<()> {
    let mut stream = connect().context("connecting")?;
    stream.patience(PATIENCE)?;
    stream.write_all(&id.to_le_bytes()).context("sending")?;
    if id.is_multiple_of(2) {
        stream.shut(Shutdown::Write).context("half-closing")?;
    }
    let mut back = [0; 8];
    stream.read_exact(&mut back).context("receiving")?;
    ensure!(back == id.to_le_bytes(), "another connection's bytes");
    if id.is_multiple_of(2) {
        let rest = stream.read(&mut back).context("waiting for the end")?;
        ensure!(rest == 0, "something more came");
    }
    if id.is_multiple_of(3) {
        // The peer acknowledges at once; so whoever dies meanwhile, this ends before its time.
        stream.linger_for(LINGER)?;
        let begin = Instant::now();
        drop(stream);
        let took = begin.elapsed();
        ensure!(
            took < Duration::from_secs(LINGER.into()) / 2,
            "closing lingered for {took:?}"
        );
    }
    Ok(())
}

/// Answers connections until the last.
fn serve<S: Stream>(mut accept: impl FnMut() -> Result<S>) -> Result<()> {
    loop {
        let mut stream = accept()?;
        stream.patience(PATIENCE)?;
        let mut id = [0; 8];
        stream.read_exact(&mut id).context("the request")?;
        stream.write_all(&id).context("the response")?;
        // Until the client has closed.
        let rest = stream.read(&mut [0]).context("the client's end")?;
        ensure!(rest == 0, "something more came");
        if u64::from_le_bytes(id) == LAST {
            return Ok(());
        }
    }
}
