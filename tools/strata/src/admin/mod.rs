//! The supervisor's admin socket: `supervisor.sock`, `SOCK_SEQPACKET`, one message a packet.
//!
//! A client connects, sends one [`Request`] and receives [`Reply`]s until one is the last: a
//! table that is too long for a message comes in several.

mod client;
mod protocol;
pub(crate) mod server;

pub use client::{Answer, CallError, call};
pub use protocol::{DaemonState, DaemonStatus, Quarantined, Reply, Request, Status};
