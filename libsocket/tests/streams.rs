//! Streams and listeners behave as std's do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use common::{BLACK_HOLE, World, pattern};
use libsocket::TcpListener;
use std::io::{BufRead, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

fn pair(world: &World) -> (libsocket::TcpStream, libsocket::TcpStream) {
    let listener = world.stack.listen("127.0.0.1:0").unwrap();
    let client = world.stack.connect(listener.local_addr().unwrap()).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert_eq!(server.peer_addr().unwrap(), from);
    assert_eq!(server.local_addr().unwrap(), listener.local_addr().unwrap());
    assert_eq!(client.peer_addr().unwrap(), listener.local_addr().unwrap());
    (client, server)
}

#[test]
fn bytes_arrive_in_both_directions() {
    let world = World::new();
    let (mut a, mut b) = pair(&world);
    a.write_all(b"ping").unwrap();
    let mut buf = [0; 16];
    assert_eq!(b.read(&mut buf).unwrap(), 4);
    assert_eq!(&buf[..4], b"ping");
    b.write_all(b"pong").unwrap();
    a.read_exact(&mut buf[..4]).unwrap();
    assert_eq!(&buf[..4], b"pong");
    assert_eq!(world.stack.peer_faults(), 0);
}

/// A transfer through buffers that are much smaller than it, with all sorts of unit sizes.
#[test]
fn bulk_through_small_buffers() {
    for (tx, rx, chunk) in [
        (4096, 4096, 0),
        (4096, 65536, 1500),
        (1 << 20, 4096, 700),
        (8192, 8192, 5),
    ] {
        let world = World::with_buffers(tx, rx);
        world
            .knobs
            .chunk
            .store(chunk, std::sync::atomic::Ordering::Relaxed);
        let len = if chunk == 5 { 100_000 } else { 3_000_000 };
        let (a, b) = pair(&world);
        let sent = pattern(7, len);
        thread::scope(|s| {
            for stream in [&a, &b] {
                let sent = &sent;
                s.spawn(move || {
                    let mut writer = stream;
                    let mut rest = sent.as_slice();
                    let mut random = fastrand::Rng::with_seed(3);
                    while !rest.is_empty() {
                        let n = random.usize(1..=70_000).min(rest.len());
                        writer.write_all(&rest[..n]).unwrap();
                        rest = &rest[n..];
                    }
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                s.spawn(move || {
                    let mut got = Vec::new();
                    (&mut &*stream).read_to_end(&mut got).unwrap();
                    assert!(got == *sent, "bytes differ");
                });
            }
        });
        assert_eq!(world.stack.peer_faults(), 0);
    }
}

#[test]
fn a_half_closed_stream_still_receives() {
    let world = World::new();
    let (mut a, mut b) = pair(&world);
    a.write_all(b"question").unwrap();
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(a.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut got = String::new();
    b.read_to_string(&mut got).unwrap();
    assert_eq!(got, "question");
    b.write_all(b"answer").unwrap();
    drop(b);
    got.clear();
    a.read_to_string(&mut got).unwrap();
    assert_eq!(got, "answer");
    assert_eq!(a.read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn shutdown_of_reading_wakes_a_reader() {
    let world = World::new();
    let (a, _b) = pair(&world);
    thread::scope(|s| {
        let reader = s.spawn(|| (&mut &a).read(&mut [0; 4]).unwrap());
        thread::sleep(Duration::from_millis(30));
        a.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
    });
    // Sending goes on.
    (&a).write_all(b"x").unwrap();
}

#[test]
fn refused_and_unanswered_connects() {
    let world = World::new();
    let refused = world.stack.connect("127.0.0.1:9").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let nowhere = SocketAddr::from(([127, 0, 0, 1], BLACK_HOLE));
    let start = Instant::now();
    let late = world
        .stack
        .connect_timeout(nowhere, Duration::from_millis(50))
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(50));
    let wrong = world
        .stack
        .connect_timeout(nowhere, Duration::ZERO)
        .unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_nonblocking_connect_tells_by_its_descriptor() {
    let world = World::new();
    let listener = world.stack.listen("127.0.0.1:80").unwrap();
    for (port, outcome) in [
        (80, None),
        (9, Some(ErrorKind::ConnectionRefused)),
        (BLACK_HOLE, None),
    ] {
        let socket = world
            .stack
            .socket(false, libsocket::SocketKind::Stream)
            .unwrap();
        socket.set_nonblocking(true).unwrap();
        let begun = socket.connect(SocketAddr::from(([127, 0, 0, 1], port)));
        match begun {
            Ok(()) => assert_eq!(port, 80),
            Err(e) if port != 9 => assert_eq!(e.raw_os_error(), Some(libc::EINPROGRESS)),
            Err(e) => {
                let fine = [Some(libc::EINPROGRESS), Some(libc::ECONNREFUSED)];
                assert!(fine.contains(&e.raw_os_error()), "{e}");
                if e.raw_os_error() == Some(libc::ECONNREFUSED) {
                    continue;
                }
            }
        }
        let out = nix::poll::PollFlags::POLLOUT;
        let mut fds = [nix::poll::PollFd::new(socket.as_fd(), out)];
        let patience = if port == BLACK_HOLE { 50u16 } else { 5000 };
        let n = nix::poll::poll(&mut fds, patience).unwrap();
        assert_eq!(n, i32::from(port != BLACK_HOLE));
        assert_eq!(socket.take_error().unwrap().map(|e| e.kind()), outcome);
        assert!(socket.take_error().unwrap().is_none());
    }
    drop(listener);
}

#[test]
fn peek_timeouts_and_nonblocking() {
    let world = World::new();
    let (mut a, mut b) = pair(&world);
    a.write_all(b"abc").unwrap();
    let mut buf = [0; 8];
    assert_eq!(b.peek(&mut buf).unwrap(), 3);
    assert_eq!(b.peek(&mut buf[..2]).unwrap(), 2);
    assert_eq!(b.read(&mut buf).unwrap(), 3);
    assert_eq!(b.read(&mut []).unwrap(), 0);

    b.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(b.read_timeout().unwrap(), Some(Duration::from_millis(20)));
    let start = Instant::now();
    assert_eq!(b.read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(b.set_read_timeout(Some(Duration::ZERO)).is_err());
    b.set_read_timeout(None).unwrap();

    b.set_nonblocking(true).unwrap();
    assert_eq!(b.read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    let other = b.try_clone().unwrap();
    // The flag is the descriptor's, which both share.
    assert_eq!(
        (&other).read(&mut buf).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    let mut written = 0;
    loop {
        match b.write(&[5; 100_000]) {
            Ok(n) => written += n,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(written >= 1 << 20);
    drop((b, other));
    let mut got = Vec::new();
    a.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), written);
}

#[test]
fn a_blocked_writer_times_out_with_what_it_wrote() {
    let world = World::with_buffers(4096, 4096);
    let (mut a, b) = pair(&world);
    a.set_write_timeout(Some(Duration::from_millis(30)))
        .unwrap();
    let mut written = 0;
    let error = loop {
        match a.write(&[1; 3000]) {
            Ok(n) => written += n,
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(written, 8192);
    drop(b);
}

#[test]
fn vectored_reads_and_writes() {
    let world = World::new();
    let (mut a, mut b) = pair(&world);
    let n = a
        .write_vectored(&[
            IoSlice::new(b"one"),
            IoSlice::new(b""),
            IoSlice::new(b"two"),
        ])
        .unwrap();
    assert_eq!(n, 6);
    let (mut x, mut y) = ([0; 4], [0; 9]);
    while b.peek(&mut y).unwrap() < 6 {}
    let got = b
        .read_vectored(&mut [IoSliceMut::new(&mut x), IoSliceMut::new(&mut y)])
        .unwrap();
    assert_eq!(got, 6);
    assert_eq!((&x, &y[..2]), (b"onet", &b"wo"[..]));
}

#[test]
fn the_receive_buffer_is_lent() {
    let world = World::with_buffers(4096, 4096);
    let (a, b) = pair(&world);
    let lines: String = (0..3000)
        .map(|i| format!("line {i} of the text\n"))
        .collect();
    thread::scope(|s| {
        s.spawn(|| {
            (&a).write_all(lines.as_bytes()).unwrap();
            a.shutdown(Shutdown::Write).unwrap();
        });
        let mut lender = b.lend();
        let mut first = String::new();
        lender.read_line(&mut first).unwrap();
        assert_eq!(first, "line 0 of the text\n");
        assert!(lender.fill_buf().unwrap().starts_with(b"line 1 "));
        let rest: Vec<_> = lender.by_ref().lines().map(Result::unwrap).collect();
        assert_eq!(rest.len(), 2999);
        assert_eq!(rest[2998], "line 2999 of the text");
        assert!(lender.fill_buf().unwrap().is_empty());
    });
    assert_eq!((&b).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_reset_is_told_once_after_the_data() {
    let world = World::new();
    let (mut a, b) = pair(&world);
    (&b).write_all(b"last words").unwrap();
    let mut buf = [0; 4];
    a.read_exact(&mut buf).unwrap();
    a.write_all(b"unread").unwrap();
    while b.peek(&mut [0; 8]).unwrap() < 6 {}
    drop(b);
    a.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut rest = Vec::new();
    let error = a.read_to_end(&mut rest).unwrap_err();
    assert_eq!(
        (error.kind(), rest.as_slice()),
        (ErrorKind::ConnectionReset, &b" words"[..])
    );
    assert_eq!(a.read(&mut buf).unwrap(), 0);
    assert_eq!(a.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn options_and_info() {
    let world = World::new();
    let (a, _b) = pair(&world);
    assert!(!a.nodelay().unwrap());
    a.set_nodelay(true).unwrap();
    assert!(a.nodelay().unwrap());
    a.set_ttl(33).unwrap();
    assert_eq!(a.ttl().unwrap(), 33);
    assert!(a.set_ttl(300).is_err());
    a.set_linger(Some(Duration::from_secs(2))).unwrap();
    assert_eq!(a.linger().unwrap(), Some(Duration::from_secs(2)));
    a.set_keepalive(true).unwrap();
    assert!(a.keepalive().unwrap());
    assert_eq!(a.tcp_info().unwrap().len(), 104);
}

#[test]
fn binding_twice_and_to_a_chosen_address() {
    let world = World::new();
    let listener = world.stack.listen("127.0.0.1:8080").unwrap();
    let again = world.stack.listen("127.0.0.1:8080").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AddrInUse);
    let to = listener.local_addr().unwrap();
    let _client = world
        .stack
        .connect_from("127.0.0.9:5555".parse().unwrap(), to)
        .unwrap();
    assert_eq!(
        listener.accept().unwrap().1,
        "127.0.0.9:5555".parse().unwrap()
    );
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(
        listener
            .socket()
            .connect("[::1]:80".parse().unwrap())
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EAFNOSUPPORT)
    );
}

#[test]
fn many_clients_and_threads_that_share_a_listener() {
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:80").unwrap();
    let serve = |listener: TcpListener| {
        for _ in 0..25 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buf = [0; 64];
            let n = stream.read(&mut buf).unwrap();
            stream.write_all(&buf[..n]).unwrap();
        }
    };
    thread::scope(|s| {
        for _ in 0..4 {
            let listener = listener.try_clone().unwrap();
            s.spawn(move || serve(listener));
            s.spawn(|| {
                for i in 0..25u8 {
                    let mut c = world.stack.connect("127.0.0.1:80").unwrap();
                    c.write_all(&[i; 10]).unwrap();
                    let mut buf = [0; 10];
                    c.read_exact(&mut buf).unwrap();
                    assert_eq!(buf, [i; 10]);
                }
            });
        }
    });
    assert_eq!(world.stack.peer_faults(), 0);
}

/// More sockets than a session has slots.
#[test]
fn a_second_session_is_opened_when_the_first_is_full() {
    let world = World::with(|p| session::Params {
        sockets: 8,
        tx_capacity: 4096,
        rx_capacity: 4096,
        base: 4096,
        windows: 0,
        ..p
    });
    let sockets: Vec<_> = (0..50)
        .map(|_| {
            world
                .stack
                .socket(false, libsocket::SocketKind::Stream)
                .unwrap()
        })
        .collect();
    drop(sockets);
    // Freed slots are found again.
    thread::sleep(Duration::from_millis(50));
    for _ in 0..100 {
        world
            .stack
            .socket(false, libsocket::SocketKind::Stream)
            .unwrap();
    }
}

#[test]
fn a_constellation_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let error = libsocket::Stack::open(dir.path())
        .connect("10.0.0.1:80")
        .unwrap_err();
    assert!(error.to_string().contains("no constellation at"), "{error}");
    assert_eq!(libsocket::errno(&error), libc::ENETDOWN);
    assert!(libsocket::Stack::named("../x").is_err());
}
