//! The engine, segment by segment: what goes in at which time, what must come out, with the RFC
//! section that says so. Numbers are relative to each side's initial sequence number, so 0 is
//! the SYN and 1 the first byte. Most of what can be shown so is a file of `../scenarios`; here is
//! what needs more than that language.

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

#[allow(dead_code, reason = "a toolbox: modules come and go")]
mod bench;
mod cookies;
mod ecn;
mod icmp;
mod info;
mod keepalive;
mod loss;
mod odd_options;
mod pacing;
mod pmtu;
mod resources;
mod send;
mod urgent;
mod user_timeout;
mod words;
