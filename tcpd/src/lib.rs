//! tcpd: TCP as a process of its own.
//!
//! [`engine`] is the protocol, pure and sans-IO; the process around it feeds it from rings and
//! shared memory, commits its records and lets its output go.

pub mod engine;
pub mod process;

pub use process::{Tcpd, main};
