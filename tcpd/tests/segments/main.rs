//! The engine, segment by segment: what goes in at which time, what must come out, with the RFC
//! section that says so. Numbers are relative to each side's initial sequence number, so 0 is
//! the SYN and 1 the first byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test: whatever fails shall fail loudly"
)]

mod bench;
mod close;
mod cookies;
mod ecn;
mod handshake;
mod icmp;
mod listen;
mod loss;
mod pmtu;
mod receive;
mod reset;
mod resources;
mod send;
mod timers;
mod words;
