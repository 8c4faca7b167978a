//! What the running kernel shows of a shadow fd, which everything above relies on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should say so at once"
)]

mod common;

use abi::session::shadow::{SNDBUF, STUFFING};
use common::{readiness, stuff};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, sockopt};
use session::shadow_pair;
use std::os::fd::{AsFd, AsRawFd};

const IN: EpollFlags = EpollFlags::EPOLLIN;
const OUT: EpollFlags = EpollFlags::EPOLLOUT;
const PRI: EpollFlags = EpollFlags::EPOLLPRI;
const ERR: EpollFlags = EpollFlags::EPOLLERR;
const HUP: EpollFlags = EpollFlags::EPOLLHUP;
const RDHUP: EpollFlags = EpollFlags::EPOLLRDHUP;

#[test]
fn fresh_is_writable_and_not_readable() {
    let (_ours, theirs) = shadow_pair().unwrap();
    assert_eq!(readiness(&theirs), OUT);
    assert_eq!(getsockopt(&theirs, sockopt::SndBuf).unwrap(), SNDBUF);
}

#[test]
fn a_token_makes_readable_until_it_is_taken() {
    let (ours, theirs) = shadow_pair().unwrap();
    ours.token().unwrap();
    ours.token().unwrap();
    assert_eq!(readiness(&theirs), IN | OUT);
    assert_eq!(
        recv(theirs.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT),
        Ok(2)
    );
    assert_eq!(readiness(&theirs), OUT);
}

#[test]
fn tokens_never_block() {
    let (ours, _theirs) = shadow_pair().unwrap();
    for _ in 0..10_000 {
        ours.token().unwrap();
    }
}

#[test]
fn stuffing_takes_writability_and_draining_gives_it_back() {
    let (ours, theirs) = shadow_pair().unwrap();
    for _ in 0..10 {
        stuff(&theirs);
        assert_eq!(readiness(&theirs), EpollFlags::empty());
        assert!(ours.drain());
        assert_eq!(readiness(&theirs), OUT);
        assert!(!ours.drain());
    }
}

#[test]
fn stuffing_without_poison_works_too() {
    let (ours, theirs) = shadow_pair().unwrap();
    for n in [200, STUFFING, 1000] {
        send(theirs.as_raw_fd(), &vec![0; n], MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(readiness(&theirs), EpollFlags::empty());
        assert!(ours.drain());
        assert_eq!(readiness(&theirs), OUT);
    }
}

#[test]
fn an_edge_triggered_writer_gets_its_edge() {
    let (ours, theirs) = shadow_pair().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll
        .add(&theirs, EpollEvent::new(IN | OUT | EpollFlags::EPOLLET, 1))
        .unwrap();
    let mut events = [EpollEvent::empty(); 4];
    assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
    stuff(&theirs);
    assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0));
    ours.drain();
    assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
    assert_eq!(events[0].events(), OUT);
    for _ in 0..3 {
        // Each token is an edge, taken or not.
        ours.token().unwrap();
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
        assert_eq!(events[0].events(), IN | OUT);
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0));
    }
}

#[test]
fn fin_shows_rdhup() {
    let (ours, theirs) = shadow_pair().unwrap();
    ours.shut_wr();
    assert_eq!(readiness(&theirs), IN | OUT | RDHUP);
}

#[test]
fn reset_shows_err_and_hup() {
    let (ours, theirs) = shadow_pair().unwrap();
    drop(ours);
    assert_eq!(readiness(&theirs), IN | OUT | RDHUP | HUP | ERR);
    // Also when it was stuffed, drained, and had its FIN before.
    let (ours, theirs) = shadow_pair().unwrap();
    stuff(&theirs);
    ours.drain();
    ours.shut_wr();
    drop(ours);
    assert_eq!(readiness(&theirs), IN | OUT | RDHUP | HUP | ERR);
}

#[test]
fn the_copy_in_the_store_does_not_delay_hup() {
    let (ours, theirs) = shadow_pair().unwrap();
    let kept = ours.as_fd().try_clone_to_owned().unwrap();
    ours.token().unwrap();
    ours.shut_both();
    drop(ours);
    assert_eq!(readiness(&theirs), IN | OUT | RDHUP | HUP);
    drop(kept);
    assert_eq!(readiness(&theirs), IN | OUT | RDHUP | HUP | ERR);
}

#[test]
fn urgent_shows_pri_until_taken() {
    let (ours, theirs) = shadow_pair().unwrap();
    ours.urgent().unwrap();
    assert!(readiness(&theirs).contains(PRI));
    assert_eq!(
        recv(theirs.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_OOB),
        Ok(1)
    );
    assert!(!readiness(&theirs).contains(PRI));
}

#[test]
fn the_last_copy_closed_hangs_up() {
    let (ours, theirs) = shadow_pair().unwrap();
    let copy = theirs.try_clone().unwrap();
    drop(theirs);
    assert!(!ours.is_hung_up());
    drop(copy);
    assert!(ours.is_hung_up());
    assert!(ours.token().is_err());
}

#[test]
fn hostile_stuffing_is_drained_in_bounded_steps() {
    let (ours, theirs) = shadow_pair().unwrap();
    nix::sys::socket::setsockopt(&theirs, sockopt::SndBuf, &(1 << 20)).unwrap();
    while send(theirs.as_raw_fd(), &[0xff; 1000], MsgFlags::MSG_DONTWAIT).is_ok() {}
    let mut rounds = 0;
    while ours.drain() {
        rounds += 1;
        assert!(rounds < 1000);
    }
    assert_eq!(readiness(&theirs), OUT);
}
