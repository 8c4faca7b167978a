//! Requests: order of effects, repetition after a death, malformed ones, the session's end.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should say so at once"
)]

mod common;

use abi::LAYOUT_VERSION;
use abi::session::{Answer, Op, SockOptName, SocketId, SocketKind};
use common::{App, World, hung_up, readiness};
use nix::sys::epoll::EpollFlags;
use session::{Adopted, Event};
use std::os::fd::OwnedFd;

const STREAM: Op = Op::Socket {
    v6: false,
    kind: SocketKind::Stream,
};

#[test]
fn a_session_a_socket_and_a_call() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut app = world.app(&mut sessions);
    let (new, fd) = world.socket(&mut sessions, &mut app);
    assert_eq!(readiness(&fd), EpollFlags::EPOLLOUT);
    let sid = SocketId {
        slot: new.socket.slot,
        incarnation: new.incarnation,
    };
    let id = app.send(Op::GetOption(sid, SockOptName::NoDelay));
    let call = world.calls(&mut sessions).pop().unwrap();
    assert_eq!(sessions.resolve(call.region, sid), Some(7));
    assert_eq!(
        sessions.resolve(
            call.region,
            SocketId {
                incarnation: 0,
                ..sid
            }
        ),
        None
    );
    sessions.answer(&call, Err(libc_errno()));
    assert!(app.recv().is_none(), "nothing leaves before release");
    sessions.release(&mut world.store);
    let (reply, _) = app.recv().unwrap();
    assert_eq!((reply.id, reply.result), (id, Err(libc_errno())));
    assert!(world.calls(&mut sessions).is_empty(), "consumed");
}

fn libc_errno() -> i32 {
    92
}

#[test]
fn a_call_that_was_not_released_comes_again() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut app = world.app(&mut sessions);
    let id = app.send(STREAM);
    assert_eq!(world.calls(&mut sessions).len(), 1);
    drop(sessions);
    let mut sessions = world.boot();
    sessions.finish_restore(&mut world.store);
    let calls = world.calls(&mut sessions);
    assert_eq!((calls.len(), calls[0].id), (1, id));
}

/// Dies at each step of a `Socket` request; exactly one socket must be usable in the end.
#[test]
fn killed_at_each_step_of_a_socket_request() {
    for step in 0..4 {
        let mut world = World::new();
        let mut sessions = world.boot();
        let mut app = world.app(&mut sessions);
        let id = app.send(STREAM);
        let call = world.calls(&mut sessions).pop().unwrap();
        let mut record = None;
        if step >= 1 {
            // The transport has committed its record.
            let new = sessions.create(call.region).unwrap();
            sessions.set_owner(new.socket, 1);
            record = Some(new);
            sessions
                .answer_socket(&call, new.socket, &mut world.store)
                .unwrap();
        }
        if step >= 2 {
            use session::FdStore;
            world.store.flush().unwrap();
        }
        let mut got: Vec<(SocketId, OwnedFd)> = Vec::new();
        let mut collect = |app: &App| {
            while let Some((reply, mut fds)) = app.recv() {
                assert_eq!(reply.id, id);
                let Ok(Answer::Socket(s)) = reply.result else {
                    panic!()
                };
                got.push((s, fds.pop().unwrap()));
            }
        };
        if step >= 3 {
            sessions.release(&mut world.store);
            // Died before it took the request: the successor sees it again.
            app.send_as(id, STREAM);
            collect(&app);
        }
        drop(sessions);

        let mut sessions = world.boot();
        let adopted = record.map(|r| sessions.adopt(r.socket, r.incarnation, 1, &mut world.store));
        match step {
            0 => {}
            3 => assert_eq!(adopted, Some(Adopted::Live)),
            _ => assert_eq!(adopted, Some(Adopted::Lost), "step {step}"),
        }
        if adopted == Some(Adopted::Lost) {
            sessions.free(record.unwrap().socket, &mut world.store);
        }
        sessions.finish_restore(&mut world.store);
        for call in world.calls(&mut sessions) {
            assert_eq!(call.id, id);
            let new = sessions.create(call.region).unwrap();
            sessions.set_owner(new.socket, 2);
            sessions
                .answer_socket(&call, new.socket, &mut world.store)
                .unwrap();
        }
        sessions.release(&mut world.store);
        collect(&app);
        assert_eq!(got.len(), 1, "step {step}");
        let (sid, fd) = got.pop().unwrap();
        assert!(!hung_up(&fd));
        assert!(sessions.resolve(call.region, sid).is_some());
        sessions.readable(app.socket_ref(sid.slot), false);
        assert!(readiness(&fd).contains(EpollFlags::EPOLLIN));
        assert_eq!(
            world.store.kept.len(),
            4,
            "table, memory, request socket, shadow: step {step}"
        );
    }
}

#[test]
fn hello_is_repeatable_and_survives_a_death_before_the_reply() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut app = App::connect(&world);
    let id = app.send(Op::Hello {
        version: LAYOUT_VERSION,
    });
    world.poll(&mut sessions);
    drop(sessions); // Nothing was flushed but the request socket is only in our hands: lost.
    let mut sessions = world.boot();
    sessions.finish_restore(&mut world.store);
    assert!(app.is_closed() || app.recv().is_none());

    let mut app2 = App::connect(&world);
    world.poll(&mut sessions);
    sessions.release(&mut world.store);
    let id2 = app2.send(Op::Hello {
        version: LAYOUT_VERSION,
    });
    world.poll(&mut sessions);
    {
        use session::FdStore;
        world.store.flush().unwrap();
    }
    drop(sessions);
    let mut sessions = world.boot();
    sessions.finish_restore(&mut world.store);
    world.poll(&mut sessions);
    sessions.release(&mut world.store);
    app2.take_session(id2);
    let region = app2.region;
    app2.send_as(
        id2,
        Op::Hello {
            version: LAYOUT_VERSION,
        },
    );
    world.poll(&mut sessions);
    sessions.release(&mut world.store);
    app2.take_session(id2);
    assert_eq!(app2.region, region);
    assert_eq!(id, 1);
}

#[test]
fn another_layout_is_refused() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut app = App::connect(&world);
    app.send(Op::Hello {
        version: LAYOUT_VERSION + 1,
    });
    world.poll(&mut sessions);
    sessions.release(&mut world.store);
    assert_eq!(app.recv().unwrap().0.result, Err(93));
}

#[test]
fn a_malformed_request_ends_its_session_and_no_other() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut good = world.app(&mut sessions);
    let too_long = vec![0u8; 70_000];
    let garbage: [&[u8]; 4] = [b"\xff\xff\xff\xff\xff", b"x", &[0; 300], &too_long];
    for bytes in garbage {
        let bad = world.app(&mut sessions);
        bad.send_raw(bytes);
        assert!(world.calls(&mut sessions).is_empty());
        sessions.release(&mut world.store);
        assert_eq!(bad.recv().unwrap().0.result, Err(71));
        assert!(bad.is_closed());
    }
    // Out of order: before Hello.
    let mut early = App::connect(&world);
    early.send(STREAM);
    world.poll(&mut sessions);
    sessions.release(&mut world.store);
    assert_eq!(early.recv().unwrap().0.result, Err(71));
    assert_eq!(sessions.take_tally().malformed, 5);
    world.socket(&mut sessions, &mut good);
    assert_eq!(sessions.population(), (1, 1));
}

#[test]
fn descriptors_in_a_request_are_not_leaked() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let app = world.app(&mut sessions);
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    use std::os::fd::AsRawFd;
    nix::sys::socket::sendmsg::<()>(
        app.request.as_raw_fd(),
        &[std::io::IoSlice::new(b"\xff")],
        &[nix::sys::socket::ControlMessage::ScmRights(
            &[a.as_raw_fd()],
        )],
        nix::sys::socket::MsgFlags::empty(),
        None,
    )
    .unwrap();
    drop(a);
    world.poll(&mut sessions);
    sessions.release(&mut world.store);
    assert!(hung_up(&b));
}

#[test]
fn the_end_waits_for_the_last_shadow() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut app = world.app(&mut sessions);
    let (new, fd) = world.socket(&mut sessions, &mut app);
    let region = app.region.unwrap();
    assert!(world.store.shared.contains_key(&region));
    drop(app);
    assert!(world.poll(&mut sessions).is_empty());
    assert!(
        sessions.memory(region).is_some(),
        "a child may hold the descriptor"
    );
    drop(fd);
    let events = world.poll(&mut sessions);
    assert!(
        matches!(events[..], [Event::Closed(s)] if s == new.socket),
        "{events:?}"
    );
    assert!(!sessions.is_open(new.socket));
    sessions.free(new.socket, &mut world.store);
    sessions.release(&mut world.store);
    assert!(sessions.memory(region).is_none());
    assert_eq!(world.store.kept.len(), 1, "the table alone");
    assert!(world.store.shared.is_empty());
    // The number does not come back at once.
    for _ in 0..3 {
        assert_ne!(world.app(&mut sessions).region, Some(region));
    }
}

#[test]
fn region_numbers_do_not_come_back_after_a_restart() {
    let mut world = World::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        let mut sessions = world.boot();
        sessions.finish_restore(&mut world.store);
        for _ in 0..300 {
            let app = world.app(&mut sessions);
            assert!(seen.insert(app.region.unwrap()));
            drop(app);
            world.poll(&mut sessions);
            sessions.release(&mut world.store);
        }
    }
}

#[test]
fn a_successor_takes_sessions_and_sockets_up() {
    let mut world = World::new();
    let mut sessions = world.boot();
    let mut app = world.app(&mut sessions);
    let (a, a_fd) = world.socket(&mut sessions, &mut app);
    let (b, b_fd) = world.socket(&mut sessions, &mut app);
    drop(sessions);
    drop(b_fd); // Closed while nobody looked.
    let mut sessions = world.boot();
    assert_eq!(
        sessions.adopt(a.socket, a.incarnation, 3, &mut world.store),
        Adopted::Live
    );
    assert_eq!(
        sessions.adopt(b.socket, b.incarnation, 4, &mut world.store),
        Adopted::Lost
    );
    let nowhere = session::SocketRef {
        slot: 9999,
        ..a.socket
    };
    assert_eq!(
        sessions.adopt(nowhere, 1, 5, &mut world.store),
        Adopted::Gone
    );
    assert_eq!(
        sessions.adopt(a.socket, a.incarnation, 3, &mut world.store),
        Adopted::Gone
    );
    sessions.free(b.socket, &mut world.store);
    sessions.finish_restore(&mut world.store);
    let events = world.poll(&mut sessions);
    assert!(
        matches!(events[..], [Event::Dirty(s)] if s == a.socket),
        "{events:?}"
    );
    assert_eq!(sessions.owner(a.socket), Some(3));
    drop(a_fd);
    let events = world.poll(&mut sessions);
    assert!(matches!(events[..], [Event::Closed(s)] if s == a.socket));
    let (c, _fd) = world.socket(&mut sessions, &mut app);
    assert_ne!(
        (c.socket.slot, c.incarnation),
        (b.socket.slot, b.incarnation)
    );
}

#[test]
fn more_applications_than_sessions_are_refused_not_fatal() {
    let mut world = World::new();
    world.params.sockets = 1;
    let mut sessions = world.boot();
    let mut app = world.app(&mut sessions);
    let (_s, _fd) = world.socket(&mut sessions, &mut app);
    app.send(STREAM);
    let call = world.calls(&mut sessions).pop().unwrap();
    let error = sessions.create(call.region).unwrap_err();
    sessions.answer(&call, Err(error.errno()));
    sessions.release(&mut world.store);
    assert_eq!(app.recv().unwrap().0.result, Err(23));
}
