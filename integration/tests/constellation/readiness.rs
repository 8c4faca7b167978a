//! Shadow fds in event loops.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::Stack;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("hundreds_of_sockets_in_one_epoll_loop_level", || {
        epoll_loop(EpollFlags::empty())
    });
    trials.add("hundreds_of_sockets_in_one_epoll_loop_edge", || {
        epoll_loop(EpollFlags::EPOLLET)
    });
    trials.add("tokio_async_fd", tokio_async_fd);
    trials.add("a_socket_that_was_read_is_not_readable", read_means_quiet);
}

const SOCKETS: usize = 300;
const ROUNDS: usize = 20;

/// Messages to a reader that looks all the time.
const MESSAGES: usize = 3000;

/// The kernel's ends ping-pong through the stack's, which one epoll loop serves.
fn epoll_loop(mode: EpollFlags) -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let pairs = (0..SOCKETS)
        .map(|i| connect(&lab, &stack, i % 2 == 0))
        .collect::<Result<Vec<_>>>()?;
    let (theirs, mut ours): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let clients = thread::spawn(move || -> Result<()> {
        let mut theirs = theirs;
        for stream in &theirs {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        }
        for round in 0..ROUNDS {
            for (i, stream) in theirs.iter_mut().enumerate() {
                stream.write_all(&message(i, round))?;
            }
            for (i, stream) in theirs.iter_mut().enumerate() {
                let mut answer = [0; 16];
                stream
                    .read_exact(&mut answer)
                    .with_context(|| format!("socket {i} round {round}"))?;
                ensure!(answer == message(i, round), "socket {i} round {round}");
            }
        }
        Ok(())
    });

    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (i, stream) in ours.iter().enumerate() {
        stream.set_nonblocking(true)?;
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | mode;
        epoll.add(stream.as_fd(), EpollEvent::new(events, i as u64))?;
    }
    let (mut open, deadline) = (SOCKETS, Instant::now() + Duration::from_secs(40));
    let mut events = [EpollEvent::empty(); 64];
    while open > 0 {
        ensure!(Instant::now() < deadline, "{open} sockets are still open");
        let n = epoll.wait(&mut events, EpollTimeout::from(1000u16))?;
        for event in events.iter().take(n) {
            let i = usize::try_from(event.data())?;
            let stream = ours.get_mut(i).context("event of no socket")?;
            loop {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) => {
                        epoll.delete(stream.as_fd())?;
                        open -= 1;
                        break;
                    }
                    Ok(n) => stream.write_all(buffer.get(..n).unwrap_or_default())?,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e).with_context(|| format!("socket {i}")),
                }
            }
        }
    }
    clients
        .join()
        .map_err(|_| anyhow::anyhow!("the clients panicked"))?
}

/// A reader that looks all the time meets bytes whose descriptor does not tell of them yet. Once it
/// has them, nothing is left to tell of.
fn read_means_quiet() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (mut theirs, mut ours) = connect(&lab, &stack, true)?;
    theirs.set_nodelay(true)?;
    let mut wrong = 0;
    for round in 0..MESSAGES {
        // Every other time the reader sleeps for it.
        let waits = round % 2 == 0;
        ours.set_nonblocking(!waits)?;
        theirs.write_all(&message(0, round))?;
        let (mut got, mut have) = ([0; 16], 0);
        while let Some(rest) = got.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match ours.read(rest) {
                Ok(0) => anyhow::bail!("an early end"),
                Ok(n) => have += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        ensure!(got == message(0, round), "message {round}");
        let is_readable = |patience: u16| -> Result<bool> {
            let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
            Ok(poll(&mut fds, patience)? > 0)
        };
        // What is to come comes within microseconds.
        wrong += usize::from(is_readable(1)? && is_readable(0)?);
    }
    ensure!(
        wrong == 0,
        "readable with nothing to read {wrong} times of {MESSAGES}"
    );
    Ok(())
}

fn message(socket: usize, round: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(socket as u64).to_le_bytes());
    bytes[8..].copy_from_slice(&(round as u64).to_le_bytes());
    bytes
}

fn tokio_async_fd() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pairs = (0..20)
        .map(|i| connect(&lab, &stack, i % 2 == 0))
        .collect::<Result<Vec<_>>>()?;
    let mut kernel = Vec::new();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for (theirs, ours) in pairs {
            kernel.push(thread::spawn(move || {
                integration::transfer::both_ways_end(theirs, 512 * 1024)
            }));
            ours.set_nonblocking(true)?;
            tasks.push(tokio::spawn(echo(ours)));
        }
        for task in tasks {
            task.await??;
        }
        anyhow::Ok(())
    })?;
    for thread in kernel {
        thread.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    }
    Ok(())
}

/// An echo server on tokio's readiness.
async fn echo(stream: libsocket::TcpStream) -> Result<()> {
    #[allow(
        deprecated,
        reason = "`register` is unsafe for types whose descriptor may change; ours does not"
    )]
    let fd = tokio::io::unix::AsyncFd::new(Arc::new(stream))?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = loop {
            let mut guard = fd.readable().await?;
            if let Ok(result) = guard.try_io(|fd| (&**fd.get_ref()).read(&mut buffer)) {
                break result?;
            }
        };
        if n == 0 {
            fd.get_ref().shutdown(std::net::Shutdown::Write)?;
            return Ok(());
        }
        let mut rest = buffer.get(..n).unwrap_or_default();
        while !rest.is_empty() {
            let mut guard = fd.writable().await?;
            if let Ok(result) = guard.try_io(|fd| (&**fd.get_ref()).write(rest)) {
                rest = rest.get(result?..).unwrap_or_default();
            }
        }
    }
}
