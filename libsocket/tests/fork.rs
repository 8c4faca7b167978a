//! Children of `fork` use the sockets that they inherit, and make their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected fails"
)]
#![allow(unsafe_code, reason = "fork")]

mod common;

use common::World;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::io::{Read, Write};
use std::net::Shutdown;

/// Runs `child` in a child, and answers whether it ended well. The library takes no lock that
/// another thread of the parent could hold at that moment; the test's other threads are the
/// transport's.
fn in_child(child: impl FnOnce()) -> nix::unistd::Pid {
    // SAFETY: the child runs `child`, which uses this library, and exits without unwinding.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
    }
}

fn ended_well(pid: nix::unistd::Pid) -> bool {
    matches!(waitpid(pid, None), Ok(WaitStatus::Exited(_, 0)))
}

/// As a preforking server: children accept from the inherited listener and set options on
/// what they got, while the parent makes requests on the same session.
#[test]
fn prefork() {
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:80").unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            in_child(|| {
                loop {
                    let (mut c, _) = listener.accept().unwrap();
                    c.set_nodelay(true).unwrap();
                    assert!(c.nodelay().unwrap());
                    let mut text = String::new();
                    c.read_to_string(&mut text).unwrap();
                    if text == "stop" {
                        return;
                    }
                    c.write_all(text.to_uppercase().as_bytes()).unwrap();
                }
            })
        })
        .collect();
    let ask = |text: &str| {
        let mut c = world.stack.connect("127.0.0.1:80").unwrap();
        c.set_nodelay(true).unwrap();
        c.write_all(text.as_bytes()).unwrap();
        c.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        c.read_to_string(&mut back).unwrap();
        back
    };
    for i in 0..100 {
        assert_eq!(ask(&format!("question {i}")), format!("QUESTION {i}"));
    }
    for _ in 0..4 {
        ask("stop");
    }
    for child in children {
        assert!(ended_well(child));
    }
}

/// A connection lives until its last descriptor is closed, in whatever process.
#[test]
fn the_last_copy_closes() {
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:81").unwrap();
    let client = world.stack.connect("127.0.0.1:81").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let child = in_child(|| {
        (&client).write_all(b"from the child").unwrap();
        // A socket of its own, through a session of its own.
        let mut own = world.stack.connect("127.0.0.1:81").unwrap();
        own.write_all(b"own").unwrap();
        let mut end = [0; 1];
        assert_eq!(own.read(&mut end).unwrap(), 1);
    });
    drop(client);
    let (mut own, _) = listener.accept().unwrap();
    let mut buf = [0; 3];
    own.read_exact(&mut buf).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut text = [0; 14];
    while server.peek(&mut text).ok() != Some(14) {}
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"from the child");
    assert!(
        server.read(&mut text).is_err(),
        "closed although the child lives"
    );
    own.write_all(b"!").unwrap();
    assert!(ended_well(child));
    server.set_nonblocking(false).unwrap();
    assert_eq!(server.read(&mut text).unwrap(), 0);
}

/// A process without room for a descriptor is told so, and the connection waits.
#[test]
fn no_room_for_an_accepted_descriptor() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let world = World::with_buffers(4096, 4096);
    let listener = world.stack.listen("127.0.0.1:82").unwrap();
    let mut client = world.stack.connect("127.0.0.1:82").unwrap();
    client
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let child = in_child(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        listener.set_nonblocking(true).unwrap();
        let error = listener.accept().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"ok").unwrap();
    });
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ok");
    assert!(ended_well(child));
}
