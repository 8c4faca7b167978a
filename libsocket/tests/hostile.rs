//! A transport that writes nonsense gets errors, not panics, endless loops or stray accesses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use common::World;
use std::io::{BufRead, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn random_words_never_hurt() {
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:80").unwrap();
    listener.set_nonblocking(true).unwrap();
    let clients: Vec<_> = (0..8)
        .map(|_| world.stack.connect("127.0.0.1:80").unwrap())
        .collect();
    let mut streams = clients;
    while let Ok((stream, _)) = listener.accept() {
        streams.push(stream);
    }
    let udp: Vec<_> = (1..5u16)
        .map(|p| world.stack.udp(("127.0.0.1", p)).unwrap())
        .collect();
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    for socket in &udp {
        socket.set_nonblocking(true).unwrap();
    }
    world.knobs.hostile.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let mut buf = [0; 5000];
    let mut random = fastrand::Rng::with_seed(9);
    while start.elapsed() < Duration::from_secs(3) {
        for stream in &streams {
            let _ = (&*stream).read(&mut buf[..random.usize(..5000)]);
            let _ = stream.peek(&mut buf);
            let _ = (&*stream).write(&buf[..random.usize(..5000)]);
            let _ = stream.take_error();
            let mut lender = stream.lend();
            if let Ok(lent) = lender.fill_buf() {
                let len = lent.len();
                assert!(len <= 4096);
                lender.consume(random.usize(..=len + 1));
            }
        }
        for socket in &udp {
            let _ = socket.recv_from(&mut buf);
            let _ = socket.peek_from(&mut buf);
            let to = ("127.0.0.1", random.u16(1..5));
            let _ = socket.send_to(&buf[..random.usize(..2000)], to);
            let _ = socket.take_error();
        }
        let _ = listener.accept();
    }
    assert!(world.stack.peer_faults() > 0, "nothing impossible was seen");
    world.knobs.hostile.store(false, Ordering::Relaxed);
}
