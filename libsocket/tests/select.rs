//! `select`, in a process of its own: it cannot speak of descriptors above 1,023.
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
use nix::sys::select::{FdSet, select};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};

#[test]
fn select_works() {
    let world = World::new();
    let listener = world.stack.listen("127.0.0.1:0").unwrap();
    let a = world.stack.connect(listener.local_addr().unwrap()).unwrap();
    let (mut b, _) = listener.accept().unwrap();
    let mut set = FdSet::new();
    set.insert(b.as_fd());
    let mut none = nix::sys::time::TimeVal::new(0, 0);
    assert_eq!(
        select(b.as_raw_fd() + 1, &mut set, None, None, &mut none).unwrap(),
        0
    );
    (&a).write_all(b"x").unwrap();
    set.insert(b.as_fd());
    assert_eq!(
        select(b.as_raw_fd() + 1, &mut set, None, None, None).unwrap(),
        1
    );
    assert_eq!(b.read(&mut [0; 2]).unwrap(), 1);
}
