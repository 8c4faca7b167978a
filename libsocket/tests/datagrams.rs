//! UDP and ping sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use common::{World, pattern};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

#[test]
fn datagrams_keep_their_bounds() {
    let world = World::new();
    let a = world.stack.udp("127.0.0.1:0").unwrap();
    let b = world.stack.udp("127.0.0.1:53").unwrap();
    let from = a.local_addr().unwrap();
    for len in [0usize, 1, 15, 16, 17, 1472, 65_507] {
        let sent = pattern(len as u64, len);
        assert_eq!(a.send_to(&sent, "127.0.0.1:53").unwrap(), len);
        let mut buf = vec![0; 70_000];
        assert_eq!(b.recv_from(&mut buf).unwrap(), (len, from));
        assert_eq!(buf[..len], sent[..]);
    }
    let too_long = a.send_to(&vec![0; 65_508], "127.0.0.1:53").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(
        a.send_to(b"x", "127.0.0.1:0").unwrap_err().raw_os_error(),
        Some(libc::EINVAL)
    );
    assert_eq!(
        a.send(b"x").unwrap_err().raw_os_error(),
        Some(libc::EDESTADDRREQ)
    );
}

#[test]
fn what_does_not_fit_is_cut() {
    let world = World::new();
    let a = world.stack.udp("127.0.0.1:0").unwrap();
    let b = world.stack.udp("127.0.0.1:53").unwrap();
    a.send_to(b"a long datagram", "127.0.0.1:53").unwrap();
    a.send_to(b"next", "127.0.0.1:53").unwrap();
    let mut buf = [0; 6];
    assert_eq!(b.peek_from(&mut buf).unwrap(), (6, a.local_addr().unwrap()));
    let got = b.recv_message(&mut buf).unwrap();
    assert_eq!((got.len, got.full_len, got.header.ttl), (6, 15, 64));
    assert_eq!(b.recv(&mut buf).unwrap(), 4);
    assert_eq!(&buf[..4], b"next");
    b.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert_eq!(b.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn connected_sockets_and_errors() {
    let world = World::new();
    let a = world.stack.udp("127.0.0.1:0").unwrap();
    let b = world.stack.udp("127.0.0.1:53").unwrap();
    a.connect("127.0.0.1:53").unwrap();
    assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
    a.send(b"hi").unwrap();
    let mut buf = [0; 8];
    assert_eq!(b.recv(&mut buf).unwrap(), 2);
    // Nobody there: the next call is told, once.
    a.connect("127.0.0.1:99").unwrap();
    a.send(b"hi").unwrap();
    let error = a.recv(&mut buf).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(a.take_error().unwrap().is_none());
    a.socket().disconnect().unwrap();
    assert!(a.send(b"hi").is_err());
    assert!(world.stack.udp("127.0.0.1:53").is_err());
    assert!(a.connect("[::1]:5").is_err());
}

/// Many datagrams of all lengths, so that records meet the buffers' ends in all ways.
#[test]
fn queues_wrap_and_fill() {
    let world = World::with_buffers(8192, 8192);
    let a = world.stack.udp("127.0.0.1:0").unwrap();
    let b = world.stack.udp("127.0.0.1:53").unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            let mut random = fastrand::Rng::with_seed(2);
            let mut buf = vec![0; 4000];
            for i in 0..5000u32 {
                let len = random.usize(4..3000);
                let sent = pattern(u64::from(i), len);
                let sent = [&i.to_ne_bytes(), &sent[4..]].concat();
                a.set_read_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                a.send_to(&sent, "127.0.0.1:53").unwrap();
                loop {
                    match a.recv(&mut buf) {
                        Ok(n) if buf[..4] == sent[..4] => break assert_eq!(n, len),
                        // The echo of one that was sent twice.
                        Ok(_) => {}
                        // A queue was full, or the machine is slow.
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::WouldBlock);
                            a.send_to(&sent, "127.0.0.1:53").unwrap();
                        }
                    }
                }
            }
            for _ in 0..3 {
                a.send_to(b"", "127.0.0.1:53").unwrap();
            }
        });
        let mut buf = vec![0; 4000];
        loop {
            let (n, from) = b.recv_from(&mut buf).unwrap();
            if n == 0 {
                break;
            }
            let i = u32::from_ne_bytes(buf[..4].try_into().unwrap());
            assert!(
                buf[4..n] == pattern(u64::from(i), n)[4..],
                "bytes of {i} differ"
            );
            b.send_to(&buf[..n], from).unwrap();
        }
    });
    assert_eq!(world.stack.peer_faults(), 0);
}

#[test]
fn a_flood_is_held_back_not_lost_at_the_sender() {
    let world = World::with_buffers(4096, 1 << 20);
    let a = world.stack.udp("127.0.0.1:0").unwrap();
    let b = world.stack.udp("127.0.0.1:53").unwrap();
    for i in 0..3000u32 {
        a.send_to(&i.to_ne_bytes(), "127.0.0.1:53").unwrap();
    }
    let mut buf = [0; 16];
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for i in 0..3000u32 {
        assert_eq!(b.recv(&mut buf).unwrap(), 4);
        assert_eq!(buf[..4], i.to_ne_bytes());
    }
}

/// Readiness of datagram sockets: readable while there is one, however they are read.
#[test]
fn polling_datagrams() {
    use nix::poll::{PollFd, PollFlags, poll};
    let world = World::new();
    let a = world.stack.udp("127.0.0.1:0").unwrap();
    let b = world.stack.udp("127.0.0.1:53").unwrap();
    b.set_nonblocking(true).unwrap();
    let readable = |millis: u16| {
        let mut fds = [PollFd::new(b.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, millis).unwrap() > 0
    };
    let mut buf = [0; 16];
    for _ in 0..500 {
        for i in 0..3u8 {
            a.send_to(&[i], "127.0.0.1:53").unwrap();
        }
        for i in 0..3u8 {
            loop {
                assert!(readable(5000));
                match b.recv(&mut buf) {
                    Ok(n) => break assert_eq!(buf[..n], [i]),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
            }
        }
        assert_eq!(b.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn ping() {
    let world = World::new();
    for (v6, to) in [
        (false, IpAddr::from(Ipv4Addr::LOCALHOST)),
        (true, "::1".parse().unwrap()),
    ] {
        let ping = world.stack.ping(v6).unwrap();
        ping.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for seq in [1, 500, u16::MAX] {
            ping.send_to(seq, b"fifty-six bytes or so", to).unwrap();
            let mut payload = [0; 64];
            let echo = ping.recv_from(&mut payload).unwrap();
            assert_eq!((echo.seq, echo.from, echo.len, echo.ttl), (seq, to, 21, 64));
            assert_eq!(&payload[..21], b"fifty-six bytes or so");
        }
    }
}
