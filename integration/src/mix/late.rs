//! A connect that blocks, because the listener's backlog is full: the kernel drops the SYN until
//! somebody accepts. One after the other, so that faults meet every state of the waiting.

use super::{Mix, Part, Peer, Place, Shared};
use crate::peer::Stream;
use anyhow::{Context, Result, anyhow, bail, ensure};
use libsocket::Stack;
use nix::sys::socket::{Backlog, listen};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How long a connect may take once it is let in.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sender is kept waiting for less than the second after which it tries again.
const HOLD_MS: core::ops::Range<u64> = 100..900;

pub(super) fn add(mix: &mut Mix, place: &Place, number: usize) -> Result<()> {
    let Peer::Kernel(host) = place.peer else {
        bail!("a backlog that is full is the kernel's");
    };
    let stack = place.stack.clone();
    mix.spawn(format!("blocked connect {number}"), move |shared| {
        let mut random = fastrand::Rng::with_seed(3);
        while !shared.is_stopping() {
            let hold = Duration::from_millis(random.u64(HOLD_MS));
            one(&stack, host, hold, shared)?;
        }
        Ok(())
    })
}

fn one(stack: &Stack, host: Ipv4Addr, hold: Duration, shared: &Shared) -> Result<()> {
    let listener = TcpListener::bind((host, 0))?;
    // One connection fits.
    listen(&listener, Backlog::new(0)?)?;
    let to = listener.local_addr()?;
    let filler = TcpStream::connect(to)?;
    let stack = stack.clone();
    let connecting = thread::spawn(move || stack.connect(to));
    let begin = Instant::now();
    while begin.elapsed() < hold && !shared.is_stopping() {
        sleep(Duration::from_millis(5));
    }
    ensure!(!connecting.is_finished(), "the connect did not block");
    drop((accept(&listener)?, filler));
    let mut theirs = accept(&listener)?;
    let mut ours = connecting
        .join()
        .map_err(|_| anyhow!("panicked"))?
        .context("the connect that blocked")?;
    ours.patience(PATIENCE)?;
    theirs.patience(PATIENCE)?;
    ours.write_all(b"at last").context("sending")?;
    drop(ours);
    let mut text = String::new();
    theirs.read_to_string(&mut text).context("receiving")?;
    ensure!(text == "at last", "{text}");
    shared.did(Part::Late);
    Ok(())
}

/// Accepts within [`PATIENCE`].
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let begin = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "the connect that blocked does not come"
        );
        sleep(Duration::from_millis(2));
    }
}
