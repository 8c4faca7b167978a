//! The socket table and its rules, without input or output.
//!
//! ```text
//!   record    what is durable of a socket       socket   with what is not
//!   table     opening, closing, restoring       bind     names and conflicts
//!   connect   default peers                     ports    ephemeral ports (RFC 6056)
//!   demux     who gets a datagram               options  SO_*, IP_*
//!   queue     datagram records in a buffer      errors   ICMP errors to errno
//! ```
//!
//! Calls answer `Result<_, Errno>`, as the system calls they serve. A changed socket is put on
//! the dirty list; the process commits the records on it before anything leaves.
#![forbid(unsafe_code)]

pub mod bind;
pub mod connect;
pub mod demux;
pub mod errors;
pub mod options;
pub mod ports;
pub mod queue;
pub mod record;
pub mod socket;
pub mod table;

pub use record::{Kind, Record};
pub use socket::Socket;
pub use table::Engine;

/// An error number of `errno.h`, positive.
pub type Errno = i32;

#[cfg(test)]
mod tests;
