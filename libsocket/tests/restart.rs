//! The transport dies at random steps, over and over; no application notices.
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
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

fn mortal(world: &World, per_million: u32) {
    world.knobs.death.store(per_million, Ordering::Relaxed);
}

/// Transfers in both directions; the readers and writers block.
#[test]
fn transfers_go_on() {
    for (buffer, chunk) in [(4096, 0), (65536, 3000)] {
        let world = World::with_buffers(buffer, buffer);
        world.knobs.chunk.store(chunk, Ordering::Relaxed);
        let listener = world.stack.listen("127.0.0.1:80").unwrap();
        mortal(&world, 10_000);
        let client = world.stack.connect("127.0.0.1:80").unwrap();
        let (server, _) = listener.accept().unwrap();
        let sent = pattern(1, 2_000_000);
        thread::scope(|s| {
            for stream in [&client, &server] {
                let sent = &sent;
                s.spawn(move || {
                    for part in sent.chunks(10_007) {
                        (&mut &*stream).write_all(part).unwrap();
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
        assert!(world.knobs.deaths() > 10, "{} deaths", world.knobs.deaths());
    }
}

/// Every request is answered once, and every connection arrives once.
#[test]
fn connecting_and_accepting_go_on() {
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:80").unwrap();
    mortal(&world, 20_000);
    const CLIENTS: u32 = 400;
    let mut seen = vec![false; CLIENTS as usize];
    thread::scope(|s| {
        s.spawn(|| {
            for i in 0..CLIENTS {
                let mut c = world.stack.connect("127.0.0.1:80").unwrap();
                c.write_all(&i.to_ne_bytes()).unwrap();
                let mut back = [0; 4];
                c.read_exact(&mut back).unwrap();
                assert_eq!(u32::from_ne_bytes(back), i);
            }
        });
        for _ in 0..CLIENTS {
            let (mut c, _) = listener.accept().unwrap();
            let mut id = [0; 4];
            c.read_exact(&mut id).unwrap();
            let seen = &mut seen[u32::from_ne_bytes(id) as usize];
            assert!(!std::mem::replace(seen, true), "a connection came twice");
            c.write_all(&id).unwrap();
        }
    });
    assert!(seen.into_iter().all(|s| s));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    assert!(world.knobs.deaths() > 10, "{} deaths", world.knobs.deaths());
}

#[test]
fn requests_are_answered_whoever_asks() {
    let world = World::with_buffers(4096, 4096);
    let socket = world
        .stack
        .socket(false, libsocket::SocketKind::Stream)
        .unwrap();
    mortal(&world, 50_000);
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for ttl in 1..=100 {
                    socket.set_option(libsocket::SockOpt::Ttl(ttl)).unwrap();
                    socket.option(libsocket::SockOptName::Ttl).unwrap();
                    drop(
                        world
                            .stack
                            .socket(false, libsocket::SocketKind::Stream)
                            .unwrap(),
                    );
                }
            });
        }
    });
    assert!(world.knobs.deaths() > 10, "{} deaths", world.knobs.deaths());
}

#[test]
fn datagrams_go_on() {
    let world = World::new();
    let a = world.stack.udp("127.0.0.1:1000").unwrap();
    let b = world.stack.udp("127.0.0.1:2000").unwrap();
    mortal(&world, 5_000);
    b.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    a.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let start = Instant::now();
    for i in 0..2000u32 {
        a.send_to(&i.to_ne_bytes(), "127.0.0.1:2000").unwrap();
        let mut buf = [0; 8];
        let (n, from) = b.recv_from(&mut buf).unwrap();
        assert_eq!((n, &buf[..4]), (4, &i.to_ne_bytes()[..]));
        b.send_to(&buf[..n], from).unwrap();
        assert_eq!(a.recv(&mut buf).unwrap(), 4);
        if start.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    assert!(world.knobs.deaths() > 3, "{} deaths", world.knobs.deaths());
}
