//! A connect that blocks, or that is under way on a socket that does not block, because the
//! listener's backlog is full: the SYN is dropped until somebody accepts. One after the other, so
//! that faults meet every state of the waiting.

use super::ends::{Door, End, Peer, shows};
use super::{Mix, Part, Place, Shared};
use crate::peer::Stream;
use anyhow::{Context, Result, anyhow, ensure};
use libsocket::{SocketKind, Stack, TcpStream};
use nix::poll::PollFlags;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// What their names begin with.
pub const NAME: &str = "blocked connect";

/// How long a connect may take once it is let in.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sender is kept waiting for less than the second after which it tries again.
const HOLD_MS: core::ops::Range<u64> = 100..900;

pub(super) fn add(mix: &mut Mix, place: &Place, number: usize) -> Result<()> {
    let (stack, peer) = (place.stack.clone(), place.peer.clone());
    let name = format!("{NAME} {number}");
    mix.spawn(name.clone(), move |shared| {
        let mut random = fastrand::Rng::with_seed(3);
        while !shared.is_stopping() {
            let hold = Duration::from_millis(random.u64(HOLD_MS));
            let (door, filler) = full(&stack, &peer)?;
            let to = door.address()?;
            let ours = if random.bool() {
                blocked(&stack, to, hold, (&door, filler), shared)?
            } else {
                under_way(&stack, &name, hold, (&door, filler), shared)?
            };
            end(ours, &door)?;
            shared.did(Part::Late);
        }
        Ok(())
    })
}

/// A door behind which there is no room, and who takes it.
fn full(stack: &Stack, peer: &Peer) -> Result<(Door, End)> {
    let door = peer.listen_for_one()?;
    let to = door.address()?;
    let filler = match peer {
        Peer::Kernel(_) => peer.connect(to)?,
        Peer::Constellation(..) => End::Stack(stack.connect(to)?),
    };
    // Connected at one end only, it does not count yet.
    let counts = shows(&door, PollFlags::POLLIN, PATIENCE)?;
    ensure!(counts, "who fills the backlog does not arrive");
    Ok((door, filler))
}

/// Holds a call that blocks.
fn blocked(
    stack: &Stack,
    to: SocketAddr,
    hold: Duration,
    (door, filler): (&Door, End),
    shared: &Shared,
) -> Result<TcpStream> {
    let stack = stack.clone();
    let connecting = thread::spawn(move || stack.connect(to));
    wait(hold, shared);
    ensure!(!connecting.is_finished(), "the connect did not block");
    let_in(door, filler)?;
    connecting
        .join()
        .map_err(|_| anyhow!("panicked"))?
        .context("the connect that blocked")
}

/// Holds a socket that `poll` says nothing of until it is connected.
fn under_way(
    stack: &Stack,
    name: &str,
    hold: Duration,
    (door, filler): (&Door, End),
    shared: &Shared,
) -> Result<TcpStream> {
    let socket = stack.socket(false, SocketKind::Stream)?;
    socket.set_nonblocking(true)?;
    match socket.connect(door.address()?) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => return Err(anyhow!("the connect did not wait: {other:?}")),
    }
    let level = (false, false);
    shared
        .levels
        .expect(name, "a socket that is connecting", &socket, level)?;
    wait(hold, shared);
    shared.levels.forget(name);
    let early = shows(
        &socket,
        PollFlags::POLLIN | PollFlags::POLLOUT,
        Duration::ZERO,
    )?;
    ensure!(!early, "the socket is ready before it is connected");
    let_in(door, filler)?;
    let connected = shows(&socket, PollFlags::POLLOUT, PATIENCE)?;
    ensure!(connected, "the socket does not turn writable");
    let error = socket.take_error()?;
    ensure!(error.is_none(), "the connect that was under way: {error:?}");
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

fn wait(hold: Duration, shared: &Shared) {
    let begin = Instant::now();
    while begin.elapsed() < hold && !shared.is_stopping() {
        sleep(Duration::from_millis(5));
    }
}

fn let_in(door: &Door, filler: End) -> Result<()> {
    let taken = door.accept_within(PATIENCE).context("who was first")?;
    drop((taken, filler));
    Ok(())
}

fn end(mut ours: TcpStream, door: &Door) -> Result<()> {
    let mut theirs = door
        .accept_within(PATIENCE)
        .context("the connect that waited does not come")?;
    ours.patience(PATIENCE)?;
    theirs.patience(PATIENCE)?;
    ours.write_all(b"at last").context("sending")?;
    drop(ours);
    let mut text = String::new();
    theirs.read_to_string(&mut text).context("receiving")?;
    ensure!(text == "at last", "{text}");
    Ok(())
}
