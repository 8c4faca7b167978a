//! The kernel shows the truth: epoll (level and edge), poll, select and tokio work on the
//! descriptors without being told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected fails"
)]
#![allow(
    unsafe_code,
    reason = "tokio's AsyncFd asks for a promise about the descriptor"
)]

mod common;

use common::{World, pattern};
use libsocket::TcpStream;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One end of a connection in an event loop: sends all it has, and collects what comes.
struct End {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
    /// Sends back what comes instead.
    echo: bool,
    finished: bool,
    /// Has said that it will send no more.
    told: bool,
}

impl End {
    fn new(stream: TcpStream, out: Vec<u8>, echo: bool) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            out,
            sent: 0,
            got: Vec::new(),
            echo,
            finished: false,
            told: false,
        }
    }

    /// Reads until there is nothing, or until a short read if `trusting`.
    fn input(&mut self, trusting: bool) -> usize {
        let mut buf = [0; 1000];
        let mut reads = 0;
        while !self.finished {
            reads += 1;
            match self.stream.read(&mut buf) {
                Ok(0) => self.finished = true,
                Ok(n) => {
                    if self.echo {
                        self.out.extend_from_slice(&buf[..n]);
                    } else {
                        self.got.extend_from_slice(&buf[..n]);
                    }
                    if trusting && n < buf.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        reads
    }

    /// Writes until it is all out or the buffer is full; whether there is more.
    fn output(&mut self, trusting: bool) -> bool {
        while self.sent < self.out.len() {
            let rest = &self.out[self.sent..];
            match self.stream.write(rest) {
                Ok(n) => {
                    let short = n < rest.len();
                    self.sent += n;
                    if trusting && short {
                        return true;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) => panic!("{e}"),
            }
        }
        if self.echo && self.finished && !self.told {
            self.told = true;
            self.stream.shutdown(Shutdown::Write).unwrap();
        }
        false
    }
}

/// Hundreds of connections, both ends in one epoll loop; an echo server with everything else.
fn many_in_one_loop(edge: bool, trusting: bool, pairs: usize, each: usize) {
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:7").unwrap();
    listener.set_nonblocking(true).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    let want = |out: bool| match (edge, out) {
        (true, _) => both,
        (false, true) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        (false, false) => EpollFlags::EPOLLIN,
    };
    const LISTENER: u64 = u64::MAX;
    epoll
        .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
        .unwrap();

    let mut ends: Vec<End> = Vec::new();
    let add = |ends: &mut Vec<End>, end: End| {
        let id = ends.len() as u64;
        epoll
            .add(&end.stream, EpollEvent::new(want(true), id))
            .unwrap();
        ends.push(end);
    };
    let mut expected = Vec::new();
    for i in 0..pairs {
        let stream = world.stack.connect("127.0.0.1:7").unwrap();
        expected.push(pattern(i as u64, each + i));
        let out = expected[i].clone();
        add(&mut ends, End::new(stream, out, false));
    }
    let mut accepted = 0;
    let mut events = vec![EpollEvent::empty(); 64];
    let start = Instant::now();
    let mut rounds = 0u64;
    loop {
        let n = epoll.wait(&mut events, 5000u16).unwrap();
        assert!(n > 0, "nothing happens any more after {rounds} rounds");
        if start.elapsed() > Duration::from_secs(20) {
            for (i, e) in ends.iter().enumerate().filter(|(_, e)| !e.finished) {
                let (sent, of, got) = (e.sent, e.out.len(), e.got.len());
                eprintln!(
                    "{i}: echo {}, sent {sent} of {of}, got {got}, {:?}",
                    e.echo, e.stream
                );
            }
            panic!("too long: {rounds} rounds, {accepted} accepted");
        }
        rounds += 1;
        for event in &events[..n] {
            if event.data() == LISTENER {
                loop {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            add(&mut ends, End::new(stream, Vec::new(), true));
                            accepted += 1;
                        }
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::WouldBlock);
                            break;
                        }
                    }
                }
                continue;
            }
            let end = &mut ends[event.data() as usize];
            end.input(trusting);
            let more = end.output(trusting);
            if !edge {
                let mut event = EpollEvent::new(want(more), event.data());
                if end.finished && !more {
                    // Readable for good.
                    event = EpollEvent::new(EpollFlags::empty(), event.data());
                }
                epoll.modify(&end.stream, &mut event).unwrap();
            }
        }
        for (i, end) in ends[..pairs].iter_mut().enumerate() {
            if !end.told && end.got.len() == expected[i].len() {
                assert!(end.got == expected[i], "bytes of {i} differ");
                end.stream.shutdown(Shutdown::Write).unwrap();
                end.told = true;
            }
        }
        if accepted == pairs && ends.iter().all(|e| e.finished) {
            break;
        }
    }
    assert_eq!(world.stack.peer_faults(), 0);
}

#[test]
fn hundreds_of_sockets_level_triggered() {
    many_in_one_loop(false, false, 300, 9000);
}

#[test]
fn hundreds_of_sockets_edge_triggered() {
    many_in_one_loop(true, false, 300, 9000);
}

/// As epoll(7) allows: a short read or write means that the descriptor is exhausted.
#[test]
fn edge_triggered_and_trusting_short_counts() {
    many_in_one_loop(true, true, 50, 60_000);
}

#[test]
fn level_triggered_and_stopping_at_short_counts() {
    many_in_one_loop(false, true, 50, 60_000);
}

fn pair(world: &World) -> (TcpStream, TcpStream) {
    let listener = world.stack.listen("127.0.0.1:0").unwrap();
    let client = world.stack.connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn shows(stream: &TcpStream, flags: PollFlags, millis: u16) -> PollFlags {
    let mut fds = [PollFd::new(stream.as_fd(), flags)];
    poll(&mut fds, millis).unwrap();
    fds[0].revents().unwrap()
}

/// A program that polls and then makes a blocking call, as old ones do.
#[test]
fn poll_and_blocking_reads() {
    let world = World::new();
    let (a, mut b) = pair(&world);
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for i in 0..2000u32 {
        (&a).write_all(&i.to_ne_bytes()).unwrap();
        assert!(shows(&b, PollFlags::POLLIN, 5000).contains(PollFlags::POLLIN));
        let mut buf = [0; 4];
        b.read_exact(&mut buf).unwrap();
        assert_eq!(u32::from_ne_bytes(buf), i);
        if i % 100 == 0 {
            std::thread::sleep(Duration::from_millis(1));
            assert!(
                shows(&b, PollFlags::POLLIN, 0).is_empty(),
                "readable without data"
            );
        }
    }
}

/// Whatever stale token there may be, saying `WouldBlock` takes it.
#[test]
fn would_block_is_not_said_of_a_readable_descriptor() {
    let world = World::new();
    let (a, mut b) = pair(&world);
    b.set_nonblocking(true).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut buf = [0; 64];
    for _ in 0..3000 {
        (&a).write_all(&buf[..random.usize(1..=64)]).unwrap();
        let mut spins = 0;
        loop {
            let shown = shows(&b, PollFlags::POLLIN, if spins == 0 { 5000 } else { 0 });
            if shown.is_empty() {
                break;
            }
            spins += 1;
            assert!(
                spins < 100,
                "spins on a descriptor that is readable without data"
            );
            let _ = b.read(&mut buf);
        }
    }
}

fn readiness(stream: &TcpStream) -> EpollFlags {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let all = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP;
    epoll.add(stream, EpollEvent::new(all, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    match epoll.wait(&mut events, 0u16).unwrap() {
        0 => EpollFlags::empty(),
        _ => events[0].events(),
    }
}

#[test]
fn the_ends_show_as_the_kernels_do() {
    let world = World::new();
    let (a, b) = pair(&world);
    assert_eq!(readiness(&b), EpollFlags::EPOLLOUT);
    a.shutdown(Shutdown::Write).unwrap();
    shows(&b, PollFlags::POLLIN, 5000);
    std::thread::sleep(Duration::from_millis(20));
    let ended = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLOUT;
    assert_eq!(readiness(&b), ended);
    assert_eq!((&b).read(&mut [0]).unwrap(), 0);
    assert_eq!(readiness(&b), ended);

    let (a, b) = pair(&world);
    (&b).write_all(b"unread").unwrap();
    shows(&a, PollFlags::POLLIN, 5000);
    drop(a);
    shows(&b, PollFlags::empty(), 5000);
    std::thread::sleep(Duration::from_millis(20));
    let reset = EpollFlags::EPOLLHUP | EpollFlags::EPOLLIN | EpollFlags::EPOLLERR;
    assert!(readiness(&b).contains(reset), "{:?}", readiness(&b));
    assert_eq!(
        b.take_error().unwrap().unwrap().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn writability_comes_back_when_there_is_room() {
    let world = World::with_buffers(4096, 4096);
    let (mut a, mut b) = pair(&world);
    a.set_nonblocking(true).unwrap();
    for _ in 0..200 {
        loop {
            match a.write(&[1; 1000]) {
                Ok(1000) => {}
                Ok(_) => break,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        // Once it is full on both sides, it is unwritable.
        let start = Instant::now();
        while !shows(&a, PollFlags::POLLOUT, 0).is_empty() && a.write(&[1; 1000]).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        let mut buf = [0; 3000];
        let mut got = 0;
        while got < 3000 {
            got += b.read(&mut buf).unwrap();
        }
        assert!(shows(&a, PollFlags::POLLOUT, 5000).contains(PollFlags::POLLOUT));
    }
}

/// Through tokio, over any number of transport deaths.
#[test]
fn tokio_drives_it() {
    use tokio::io::unix::AsyncFd;
    async fn write(fd: &AsyncFd<TcpStream>, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut guard = fd.writable().await.unwrap();
            match guard.try_io(|fd| fd.get_ref().write(bytes)) {
                Ok(n) => bytes = &bytes[n.unwrap()..],
                Err(_would_block) => {}
            }
        }
    }
    async fn read(fd: &AsyncFd<TcpStream>, into: &mut [u8]) -> usize {
        loop {
            let mut guard = fd.readable().await.unwrap();
            if let Ok(n) = guard.try_io(|fd| fd.get_ref().read(into)) {
                return n.unwrap();
            }
        }
    }
    let world = World::with_buffers(8192, 8192);
    world.knobs.death.store(1000, Ordering::Relaxed);
    let (a, b) = pair(&world);
    let sent = pattern(5, 1_000_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let both = [a, b].map(|s| {
            s.set_nonblocking(true).unwrap();
            // SAFETY: the stream owns its descriptor, and nobody replaces or closes it.
            unsafe { AsyncFd::register(s) }.unwrap()
        });
        let [a, b] = &both;
        let echo = async {
            let mut buf = [0; 3000];
            loop {
                match read(b, &mut buf).await {
                    0 => return,
                    n => write(b, &buf[..n]).await,
                }
            }
        };
        let send = async {
            write(a, &sent).await;
            a.get_ref().shutdown(Shutdown::Write).unwrap();
        };
        let receive = async {
            let mut got = vec![0; sent.len()];
            let mut at = 0;
            while at < got.len() {
                at += read(a, &mut got[at..]).await;
            }
            assert!(got == sent, "bytes differ");
        };
        let all = async { tokio::join!(echo, send, receive) };
        tokio::time::timeout(Duration::from_secs(50), all)
            .await
            .unwrap();
    });
}
