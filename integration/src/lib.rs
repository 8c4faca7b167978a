//! Tests with real processes and the real Linux kernel as peer.
//!
//! A test executable has its own `main`, which enters a private network namespace before any
//! thread exists (so that it works for an ordinary user too) and then runs its trials one after
//! the other. The supervisor and the daemons are this executable again, in another role. Kernel
//! sockets are `std::net`'s, the stack's are `libsocket`'s; both live in the test's own process.
//!
//! ```text
//!   test process ── std::net ── kernel ── TAP or veth ── netdevd ─ ipd ─ tcpd/udpd ── libsocket ── test process
//! ```

pub mod application;
#[cfg(feature = "campaign")]
pub mod campaign;
pub mod harness;
pub mod mix;
pub mod peer;
pub mod transfer;

pub use harness::{Trials, main};
