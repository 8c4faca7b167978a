//! Words and readiness: tokens, stuffing, arming, resets, hostile values, deaths in between.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should say so at once"
)]

mod common;

use abi::session::{SocketState, control, event, shut};
use common::{App, World, readiness, stuff};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv};
use session::{Adopted, Event, Known, NewSocket, Sessions};
use shm::PeerFault;
use shm::sync::{AtomicU32, Ordering, fence};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

const IN: EpollFlags = EpollFlags::EPOLLIN;
const OUT: EpollFlags = EpollFlags::EPOLLOUT;

struct One {
    world: World,
    sessions: Sessions,
    app: App,
    new: NewSocket,
    fd: OwnedFd,
}

impl One {
    fn new() -> Self {
        let mut world = World::new();
        let mut sessions = world.boot();
        let mut app = world.app(&mut sessions);
        let (new, fd) = world.socket(&mut sessions, &mut app);
        Self {
            world,
            sessions,
            app,
            new,
            fd,
        }
    }

    fn restart(&mut self) {
        self.sessions = self.world.boot();
        let a = self.sessions.adopt(
            self.new.socket,
            self.new.incarnation,
            7,
            &mut self.world.store,
        );
        assert_eq!(a, Adopted::Live);
        self.sessions.finish_restore(&mut self.world.store);
    }

    fn word(&self, word: usize) -> &AtomicU32 {
        self.app.memory().u32(self.new.socket.slot, word).unwrap()
    }

    fn take_tokens(&self) -> usize {
        let n = recv(self.fd.as_raw_fd(), &mut [0; 256], MsgFlags::MSG_DONTWAIT).unwrap_or(0);
        self.word(control::RX_TOKEN).store(0, Ordering::SeqCst);
        n
    }
}

/// A transport that looked at the position first and at the end afterwards ended a stream five
/// megabytes early: that much was written between its two looks.
#[test]
fn whoever_sees_the_end_of_a_stream_sees_all_of_it() {
    const ROUNDS: u32 = 100_000;
    let t = One::new();
    let app = t.app.memory();
    let tail = app.u64(t.new.socket.slot, control::TX_TAIL).unwrap();
    let end = t.word(control::SHUTDOWN);
    let round = AtomicU32::new(0);
    let mut missed = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for now in 1..=ROUNDS {
                while round.load(Ordering::Acquire) < now {
                    thread::yield_now();
                }
                tail.store(1, Ordering::Release);
                end.store(shut::WR, Ordering::Release);
            }
        });
        let known = Known {
            tx_limit: 1,
            ..Known::default()
        };
        let words = t.sessions.words(t.new.socket).unwrap();
        for now in 1..=ROUNDS {
            tail.store(0, Ordering::Relaxed);
            end.store(0, Ordering::Relaxed);
            round.store(now, Ordering::Release);
            let last = loop {
                let seen = words.load(&known).unwrap();
                if seen.shutdown == shut::WR {
                    break seen.tx_tail;
                }
                std::hint::spin_loop();
            };
            missed += 1 - last;
        }
    });
    assert_eq!(
        missed, 0,
        "ends of {ROUNDS} were seen without the last byte"
    );
}

#[test]
fn one_token_until_it_is_taken_and_an_edge_for_each_refill() {
    let mut t = One::new();
    let s = t.new.socket;
    t.sessions.readable(s, false);
    t.sessions.readable(s, false);
    assert_eq!(readiness(&t.fd), IN | OUT);
    assert_eq!(t.take_tokens(), 1);
    assert_eq!(readiness(&t.fd), OUT);
    t.sessions.readable(s, false);
    t.sessions.readable(s, true);
    assert_eq!(t.take_tokens(), 2);
}

#[test]
fn stuffing_is_drained_whether_the_mark_comes_first_or_late() {
    let mut t = One::new();
    let s = t.new.socket;
    // In order: mark, stuff, then room.
    t.word(control::TX_STUFFED).store(1, Ordering::SeqCst);
    stuff(&t.fd);
    assert_eq!(readiness(&t.fd), EpollFlags::empty());
    t.sessions.writable(s);
    assert_eq!(readiness(&t.fd), OUT);
    assert_eq!(t.word(control::TX_STUFFED).load(Ordering::SeqCst), 0);
    // Room comes between mark and stuffing: the application looks again and is dirty.
    t.word(control::TX_STUFFED).store(1, Ordering::SeqCst);
    t.sessions.writable(s);
    stuff(&t.fd);
    t.sessions.writable(s);
    assert_eq!(readiness(&t.fd), OUT);
}

#[test]
fn no_token_for_what_is_taken_already() {
    let mut t = One::new();
    let s = t.new.socket;
    t.sessions.words(s).unwrap().set_rx_tail(10);
    let head = t.app.memory().u64(s.slot, control::RX_HEAD).unwrap();
    head.store(10, Ordering::SeqCst);
    t.sessions.received(s, false);
    t.sessions.received(s, true);
    t.sessions.reconcile(s, true, false, false);
    assert_eq!(t.take_tokens(), 0);
    assert_eq!(t.word(control::RX_TOKEN).load(Ordering::SeqCst), 0);
    // The mark of one that may be unread stays.
    t.word(control::RX_TOKEN).store(1, Ordering::SeqCst);
    t.sessions.received(s, true);
    assert_eq!(t.word(control::RX_TOKEN).load(Ordering::SeqCst), 1);
    assert_eq!(t.take_tokens(), 0);
    // And what comes afterwards is told of.
    t.sessions.words(s).unwrap().set_rx_tail(20);
    t.sessions.received(s, true);
    assert_eq!(t.take_tokens(), 1);
}

#[test]
fn reconcile_repairs_each_step_of_a_death() {
    // Between the token's mark and its byte.
    let mut t = One::new();
    let s = t.new.socket;
    t.sessions.words(s).unwrap().set_rx_tail(10);
    t.word(control::RX_TOKEN).store(1, Ordering::SeqCst);
    t.restart();
    t.sessions.reconcile(s, true, false, false);
    assert_eq!(readiness(&t.fd), IN | OUT);
    assert_eq!(t.take_tokens(), 1);
    // Between taking the stuffed mark and draining.
    stuff(&t.fd);
    t.restart();
    t.sessions.reconcile(s, false, true, false);
    assert_eq!(readiness(&t.fd), OUT);
    // Nothing to repair: not readable, no room.
    t.word(control::TX_STUFFED).store(1, Ordering::SeqCst);
    stuff(&t.fd);
    t.restart();
    t.sessions.reconcile(s, false, false, false);
    assert_eq!(readiness(&t.fd), EpollFlags::empty());
    t.sessions.writable(s);
    assert_eq!(readiness(&t.fd), OUT);
    // Between committing the FIN and showing it.
    t.restart();
    t.sessions.reconcile(s, false, true, true);
    assert_eq!(readiness(&t.fd), IN | OUT | EpollFlags::EPOLLRDHUP);
    // Once more, as every later restart does.
    t.restart();
    t.sessions.reconcile(s, true, true, true);
    assert_eq!(readiness(&t.fd), IN | OUT | EpollFlags::EPOLLRDHUP);
}

#[test]
fn reconcile_repairs_the_token_of_what_is_no_data() {
    // Between the mark and the look that would have taken it back: the next data is told of.
    let mut t = One::new();
    let s = t.new.socket;
    t.word(control::RX_TOKEN).store(1, Ordering::SeqCst);
    t.restart();
    t.sessions.reconcile(s, false, false, false);
    t.sessions.words(s).unwrap().set_rx_tail(10);
    t.sessions.received(s, false);
    assert_eq!(t.take_tokens(), 1);
    // Between posting an error and its token.
    t.sessions.words(s).unwrap().post_error(libc::ECONNREFUSED);
    t.restart();
    t.sessions.reconcile(s, false, false, false);
    assert_eq!(readiness(&t.fd), IN | OUT);
}

#[test]
fn a_reset_shows_and_the_slot_comes_back_last() {
    let mut t = One::new();
    let s = t.new.socket;
    let words = t.sessions.words(s).unwrap();
    words.post_error(104);
    words.add_events(event::RESET);
    t.sessions.reset(s, &mut t.world.store);
    assert_eq!(
        readiness(&t.fd),
        IN | OUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP
    );
    t.sessions.release(&mut t.world.store);
    assert!(readiness(&t.fd).contains(EpollFlags::EPOLLERR));
    t.sessions.free(s, &mut t.world.store);
    assert_eq!(
        t.word(control::ERROR).load(Ordering::Relaxed),
        104,
        "still to be read"
    );
    assert_eq!(
        t.word(control::STATE).load(Ordering::Relaxed),
        SocketState::Closed as u32
    );
    let (other, _fd) = t.world.socket(&mut t.sessions, &mut t.app);
    assert_ne!(other.socket.slot, s.slot);
    assert_eq!(
        t.sessions.resolve(
            s.region,
            abi::session::SocketId {
                slot: s.slot,
                incarnation: t.new.incarnation
            }
        ),
        None
    );
    // The application says that it is done with it.
    t.word(control::SHUTDOWN)
        .store(shut::RD | shut::WR, Ordering::SeqCst);
    let _ = t.app.memory().mark_dirty(s.slot);
    t.world.poll(&mut t.sessions);
    let (again, _fd) = t.world.socket(&mut t.sessions, &mut t.app);
    assert_eq!(again.socket.slot, s.slot);
    assert_ne!(again.incarnation, t.new.incarnation);
}

#[test]
fn dirty_sockets_are_found_awake_armed_and_asleep() {
    let mut t = One::new();
    let slot = t.new.socket.slot;
    let dirty = |t: &mut One| {
        let mut events = Vec::new();
        t.sessions.poll(&mut t.world.store, &mut events);
        events
            .iter()
            .filter(|e| matches!(e, Event::Dirty(s) if *s == t.new.socket))
            .count()
    };
    // Awake: masked, no bell.
    dirty(&mut t);
    assert!(!t.app.memory().mark_dirty(slot), "masked");
    assert_eq!(dirty(&mut t), 1);
    assert_eq!(dirty(&mut t), 0);
    // Between arming and sleeping.
    t.sessions.arm(true);
    fence(Ordering::SeqCst);
    assert!(!t.sessions.has_input());
    assert!(
        t.app.memory().mark_dirty(slot),
        "armed: the bell must be rung"
    );
    assert!(t.sessions.has_input());
    t.sessions.arm(false);
    assert_eq!(dirty(&mut t), 1);
    // Asleep, for a second time without having been busy.
    t.sessions.arm(true);
    t.sessions.arm(false);
    assert_eq!(dirty(&mut t), 0);
    t.sessions.arm(true);
    fence(Ordering::SeqCst);
    assert!(!t.sessions.has_input());
    assert!(t.app.memory().mark_dirty(slot));
    t.sessions.arm(false);
    assert_eq!(dirty(&mut t), 1);
    // Busy all the time: found within a few turns without a wake-up.
    t.sessions.arm(true);
    let _ = t.app.memory().mark_dirty(slot);
    let found: usize = (0..20).map(|_| dirty(&mut t)).sum();
    assert_eq!(found, 1);
}

#[test]
fn positions_are_validated() {
    let t = One::new();
    let known = Known {
        tx_tail: 10,
        tx_head: 5,
        tx_limit: 4096,
        rx_head: 3,
        rx_tail: 9,
    };
    let memory = t.app.memory();
    let slot = t.new.socket.slot;
    let set = |w, v| memory.u64(slot, w).unwrap().store(v, Ordering::Release);
    let load = || t.sessions.words(t.new.socket).unwrap().load(&known);
    set(control::TX_TAIL, 10);
    set(control::RX_HEAD, 3);
    assert_eq!((load().unwrap().tx_tail, load().unwrap().rx_head), (10, 3));
    set(control::TX_TAIL, 5 + 4096);
    set(control::RX_HEAD, 9);
    set(control::TX_URGENT, u64::MAX);
    assert_eq!(load().unwrap().tx_urgent, 0, "never past the tail");
    set(control::TX_URGENT, 5 + 4096);
    assert_eq!(load().unwrap().tx_urgent, 5 + 4096);
    for (word, good, bad) in [
        (control::TX_TAIL, 10, [9, 5 + 4097, u64::MAX]),
        (control::RX_HEAD, 3, [2, 10, u64::MAX]),
    ] {
        for b in bad {
            set(word, b);
            assert!(matches!(load(), Err(PeerFault::Position { .. })), "{b}");
        }
        set(word, good);
    }
    t.word(control::SHUTDOWN).store(u32::MAX, Ordering::Relaxed);
    assert_eq!(load().unwrap().shutdown, shut::RD | shut::WR);
}

/// An application that scribbles over everything it can write, sends nonsense and closes at
/// random, under a transport that dies at random: nobody panics, others are untouched, and
/// nothing is left in the end.
#[test]
fn hostile_applications_and_random_deaths() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(fastrand::u64(..));
    println!("SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new();
    let mut sessions = world.boot();
    sessions.finish_restore(&mut world.store);
    let mut honest = world.app(&mut sessions);
    let (honest_socket, honest_fd) = world.socket(&mut sessions, &mut honest);
    // What a transport would have committed: sockets by owner.
    let mut records: Vec<NewSocket> = vec![honest_socket];
    let mut bad: Vec<(App, Vec<OwnedFd>)> = Vec::new();
    for _ in 0..3000 {
        match rng.u32(0..12) {
            0 if bad.len() < 5 => bad.push((world.app(&mut sessions), Vec::new())),
            1 if !bad.is_empty() => {
                bad.swap_remove(rng.usize(..bad.len()));
            }
            2..6 if !bad.is_empty() => {
                let i = rng.usize(..bad.len());
                let (app, _) = &mut bad[i];
                let m = app.memory();
                for _ in 0..rng.usize(1..200) {
                    let at = rng.usize(..8192) & !7;
                    let value = if rng.bool() {
                        rng.u64(..)
                    } else {
                        rng.u64(..16)
                    };
                    m.mapping()
                        .u64_at(at)
                        .unwrap()
                        .store(value, Ordering::Relaxed);
                }
            }
            6 if !bad.is_empty() => {
                let i = rng.usize(..bad.len());
                if !bad[i].0.is_closed() {
                    let n = rng.usize(1..64);
                    let bytes: Vec<u8> = (0..n).map(|_| rng.u8(..)).collect();
                    let _ = nix::sys::socket::send(
                        bad[i].0.request.as_raw_fd(),
                        &bytes,
                        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                    );
                }
            }
            7 | 8 if !bad.is_empty() => {
                let i = rng.usize(..bad.len());
                let (app, fds) = &mut bad[i];
                while let Some((_, got)) = app.recv() {
                    fds.extend(got);
                }
                let request = abi::codec::encode(&abi::session::Request {
                    id: rng.u64(..6),
                    op: abi::session::Op::Socket {
                        v6: false,
                        kind: abi::session::SocketKind::Stream,
                    },
                });
                let _ = nix::sys::socket::send(
                    app.request.as_raw_fd(),
                    &request.unwrap(),
                    MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                );
                if rng.bool() {
                    fds.clear();
                }
            }
            9 => {
                // A death, anywhere between two turns.
                drop(sessions);
                sessions = world.boot();
                records.retain(|r| {
                    match sessions.adopt(r.socket, r.incarnation, 7, &mut world.store) {
                        Adopted::Live => {
                            sessions.reconcile(r.socket, rng.bool(), rng.bool(), false);
                            true
                        }
                        Adopted::Lost => {
                            sessions.free(r.socket, &mut world.store);
                            false
                        }
                        Adopted::Gone => false,
                    }
                });
                sessions.finish_restore(&mut world.store);
            }
            _ => {}
        }
        for e in world.poll(&mut sessions) {
            match e {
                Event::Call(call) => match sessions.create(call.region) {
                    Ok(new) => {
                        sessions.set_owner(new.socket, 7);
                        records.push(new);
                        sessions
                            .answer_socket(&call, new.socket, &mut world.store)
                            .unwrap();
                    }
                    Err(e) => sessions.answer(&call, Err(e.errno())),
                },
                Event::Dirty(s) => {
                    let words = sessions.words(s).unwrap();
                    let _ = words.load(&Known {
                        tx_limit: 4096,
                        ..Known::default()
                    });
                    sessions.writable(s);
                    sessions.readable(s, rng.bool());
                    if rng.u8(..) < 20 && s != honest_socket.socket {
                        sessions.reset(s, &mut world.store);
                        sessions.free(s, &mut world.store);
                        records.retain(|r| r.socket != s);
                    }
                }
                Event::Closed(s) => {
                    sessions.free(s, &mut world.store);
                    records.retain(|r| r.socket != s);
                }
            }
        }
        if rng.u8(..) > 20 {
            sessions.release(&mut world.store);
        }
        assert!(sessions.is_open(honest_socket.socket));
    }
    sessions.readable(honest_socket.socket, true);
    assert!(readiness(&honest_fd).contains(IN));
    drop((bad, honest, honest_fd));
    for _ in 0..3 {
        for e in world.poll(&mut sessions) {
            if let Event::Closed(s) = e {
                sessions.free(s, &mut world.store);
            }
        }
        sessions.release(&mut world.store);
    }
    assert_eq!(sessions.population(), (0, 0));
    assert_eq!(world.store.kept.len(), 1, "{:?}", world.store.kept.keys());
}
