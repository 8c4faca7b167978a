//! Handing connections over: one owner whatever dies, queues that fill, listeners that close.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should say so at once"
)]

mod common;

use abi::Endpoint;
use abi::session::control;
use common::{App, World, accept_message, hung_up, readiness, take};
use nix::sys::epoll::EpollFlags;
use session::{Adopted, Event, NewSocket, Revoked, Sessions, SocketRef};
use std::os::fd::OwnedFd;

struct Listening {
    world: World,
    sessions: Sessions,
    app: App,
    listener: NewSocket,
    fd: OwnedFd,
}

impl Listening {
    fn new() -> Self {
        let mut world = World::new();
        let mut sessions = world.boot();
        let mut app = world.app(&mut sessions);
        let (listener, fd) = world.socket(&mut sessions, &mut app);
        Self {
            world,
            sessions,
            app,
            listener,
            fd,
        }
    }

    fn connection(&mut self) -> NewSocket {
        let new = self
            .sessions
            .create_waiting(self.listener.socket.region)
            .unwrap();
        self.sessions.set_owner(new.socket, 100 + new.socket.slot);
        new
    }

    fn hand_over(&mut self, new: NewSocket) {
        let peer = Endpoint::from("10.77.0.1:4000".parse::<std::net::SocketAddr>().unwrap());
        self.sessions
            .hand_over(
                self.listener.socket,
                new,
                peer,
                Endpoint::NONE,
                &mut self.world.store,
            )
            .unwrap();
    }

    fn release(&mut self) {
        self.sessions.release(&mut self.world.store);
    }

    fn restart(&mut self, connections: &[NewSocket]) -> Vec<Adopted> {
        self.sessions = self.world.boot();
        let l = self.listener;
        let a = self
            .sessions
            .adopt(l.socket, l.incarnation, 7, &mut self.world.store);
        assert_eq!(a, Adopted::Live);
        let all = connections
            .iter()
            .map(|c| {
                self.sessions
                    .adopt(c.socket, c.incarnation, 9, &mut self.world.store)
            })
            .collect();
        self.sessions.finish_restore(&mut self.world.store);
        all
    }

    fn revoke(&mut self, socket: SocketRef) -> Revoked {
        self.sessions.revoke(socket, &mut self.world.store).unwrap()
    }
}

#[test]
fn a_connection_is_handed_over() {
    let mut t = Listening::new();
    assert!(!readiness(&t.fd).contains(EpollFlags::EPOLLIN));
    let new = t.connection();
    t.hand_over(new);
    assert!(
        accept_message(&t.fd).is_none(),
        "nothing leaves before release"
    );
    t.release();
    assert!(readiness(&t.fd).contains(EpollFlags::EPOLLIN));
    let (m, fd) = accept_message(&t.fd).unwrap();
    assert_eq!((m.slot, m.incarnation), (new.socket.slot, new.incarnation));
    assert_eq!(m.peer.port, 4000);
    assert!(!t.sessions.accepted(new.socket));
    assert!(take(t.app.memory(), &m));
    assert!(!take(t.app.memory(), &m), "once");
    assert!(t.sessions.accepted(new.socket));
    assert_eq!(t.revoke(new.socket), Revoked::Taken);
    t.sessions.readable(new.socket, false);
    assert!(readiness(&fd).contains(EpollFlags::EPOLLIN));
    drop(fd);
    let events = t.world.poll(&mut t.sessions);
    assert!(matches!(events[..], [Event::Closed(s)] if s == new.socket));
}

/// Dies before the message is sent, after it, after it was received, and after it was taken.
#[test]
fn one_owner_whatever_step_the_transport_dies_at() {
    for step in 0..4 {
        let mut t = Listening::new();
        let new = t.connection();
        let mut held = None;
        if step >= 1 {
            t.hand_over(new);
            t.release();
        }
        if step >= 2 {
            held = accept_message(&t.fd);
        }
        if step >= 3 {
            assert!(take(t.app.memory(), &held.as_ref().unwrap().0));
        }
        let adopted = t.restart(&[new]);
        assert_eq!(
            adopted[0],
            if step == 0 {
                Adopted::Lost
            } else {
                Adopted::Live
            }
        );
        match t.revoke(new.socket) {
            Revoked::Taken => assert_eq!(step, 3),
            Revoked::Fresh(again) => {
                assert!(step < 3);
                assert_ne!(again.incarnation, new.incarnation);
                t.hand_over(again);
                t.release();
            }
        }
        // The application takes what it can get, as libsocket does.
        let mut owned = Vec::new();
        if step == 3 {
            owned.push(held.take().unwrap());
        }
        let mut stale = 0;
        for (m, fd) in held
            .into_iter()
            .chain(std::iter::from_fn(|| accept_message(&t.fd)))
        {
            if take(t.app.memory(), &m) {
                owned.push((m, fd));
            } else {
                stale += 1;
            }
        }
        assert_eq!(owned.len(), 1, "step {step}");
        assert_eq!(stale, usize::from(step == 1 || step == 2));
        assert!(t.sessions.accepted(new.socket));
        let events = t.world.poll(&mut t.sessions);
        assert!(
            !events.iter().any(|e| matches!(e, Event::Closed(_))),
            "{events:?}"
        );
        t.sessions.readable(new.socket, false);
        assert!(readiness(&owned[0].1).contains(EpollFlags::EPOLLIN));
        assert!(!hung_up(&owned[0].1));
    }
}

#[test]
fn a_full_queue_is_sent_in_order_as_room_comes() {
    let mut t = Listening::new();
    let mut expected = Vec::new();
    for _ in 0..400 {
        let new = t.connection();
        expected.push(new.socket.slot);
        t.hand_over(new);
    }
    t.release();
    assert!(t.sessions.hand_overs_waiting() > 50);
    let mut got = Vec::new();
    let mut fds = Vec::new();
    for _ in 0..1000 {
        while let Some((m, fd)) = accept_message(&t.fd) {
            assert!(take(t.app.memory(), &m));
            got.push(m.slot);
            fds.push(fd);
        }
        t.world.poll(&mut t.sessions);
        t.release();
        if got.len() == 400 {
            break;
        }
    }
    assert_eq!(got, expected);
    assert_eq!(t.sessions.hand_overs_waiting(), 0);
}

#[test]
fn a_closed_listener_gives_back_what_nobody_took() {
    let mut t = Listening::new();
    let (a, b) = (t.connection(), t.connection());
    t.hand_over(a);
    t.hand_over(b);
    t.release();
    let (m, a_fd) = accept_message(&t.fd).unwrap();
    assert!(take(t.app.memory(), &m));
    let Listening {
        mut world,
        mut sessions,
        fd,
        listener,
        app: _app,
    } = t;
    drop(fd);
    let events = world.poll(&mut sessions);
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Closed(s) if *s == listener.socket))
    );
    // b's descriptor was in the listener's queue and died with it.
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Closed(s) if *s == b.socket))
    );
    assert_eq!(
        sessions.revoke(a.socket, &mut world.store),
        Some(Revoked::Taken)
    );
    assert!(matches!(
        sessions.revoke(b.socket, &mut world.store),
        Some(Revoked::Fresh(_))
    ));
    sessions.free(b.socket, &mut world.store);
    sessions.free(listener.socket, &mut world.store);
    sessions.release(&mut world.store);
    assert!(!hung_up(&a_fd));
    assert!(sessions.is_open(a.socket));
}

#[test]
fn a_scribbled_accept_word_confuses_only_its_application() {
    let mut t = Listening::new();
    let new = t.connection();
    t.hand_over(new);
    t.release();
    let word = t
        .app
        .memory()
        .u32(new.socket.slot, control::ACCEPTED)
        .unwrap();
    word.store(0xdead_beef, shm::sync::Ordering::SeqCst);
    assert!(!t.sessions.accepted(new.socket));
    let Revoked::Fresh(again) = t.revoke(new.socket) else {
        panic!()
    };
    t.hand_over(again);
    t.release();
    let (stale, _fd) = accept_message(&t.fd).unwrap();
    assert!(!take(t.app.memory(), &stale));
    let (m, _fd) = accept_message(&t.fd).unwrap();
    assert!(take(t.app.memory(), &m));
}

#[test]
fn pairs_are_made_ahead_by_demand_and_forgotten_by_a_successor() {
    let mut t = Listening::new();
    let before = t.world.store.kept.len();
    let mut fds = Vec::new();
    let mut grown = Vec::new();
    for _ in 0..200 {
        let new = t.connection();
        t.hand_over(new);
        t.release();
        let (m, fd) = accept_message(&t.fd).unwrap();
        assert!(take(t.app.memory(), &m));
        assert_eq!((m.slot, m.incarnation), (new.socket.slot, new.incarnation));
        fds.push((new, fd));
        // As the runtime does after a turn.
        session::FdStore::flush(&mut t.world.store).unwrap();
        grown.push(t.world.store.kept.len() - before - fds.len());
    }
    assert!(
        grown[0] >= 4 && *grown.iter().max().unwrap() <= 64,
        "{grown:?}"
    );
    // Each works, and its hang-up is seen.
    for (new, fd) in &fds {
        t.sessions.readable(new.socket, false);
        assert!(readiness(fd).contains(EpollFlags::EPOLLIN));
    }
    let (gone, fd) = fds.pop().unwrap();
    drop(fd);
    let events = t.world.poll(&mut t.sessions);
    assert!(matches!(events[..], [Event::Closed(s)] if s == gone.socket));
    let connections: Vec<NewSocket> = fds.iter().map(|(new, _)| *new).collect();
    let adopted = t.restart(&connections);
    assert!(adopted.iter().all(|a| *a == Adopted::Live));
    assert_eq!(t.world.store.kept.len(), before + fds.len());
    let new = t.connection();
    t.hand_over(new);
    t.release();
    let (m, _fd) = accept_message(&t.fd).unwrap();
    assert!(take(t.app.memory(), &m));
}

#[test]
fn a_connection_that_is_freed_or_revoked_before_its_hand_over_leaves_nothing() {
    let mut t = Listening::new();
    for round in 0..100 {
        let new = t.connection();
        if round % 2 == 0 {
            t.sessions.free(new.socket, &mut t.world.store);
        } else {
            let Revoked::Fresh(again) = t.revoke(new.socket) else {
                panic!()
            };
            t.hand_over(again);
            t.release();
            let (m, _fd) = accept_message(&t.fd).unwrap();
            assert_eq!(m.incarnation, again.incarnation);
            assert!(take(t.app.memory(), &m));
            t.sessions.free(new.socket, &mut t.world.store);
        }
        t.release();
    }
    let Listening {
        mut world,
        mut sessions,
        fd,
        app,
        listener,
    } = t;
    drop((fd, app));
    for _ in 0..3 {
        for e in world.poll(&mut sessions) {
            if let Event::Closed(s) = e {
                assert_eq!(s, listener.socket);
                sessions.free(s, &mut world.store);
            }
        }
        sessions.release(&mut world.store);
    }
    assert_eq!(sessions.population(), (0, 0));
    assert_eq!(world.store.kept.len(), 1, "{:?}", world.store.kept.keys());
}
