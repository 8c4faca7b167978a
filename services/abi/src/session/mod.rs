//! What an application and a transport say to each other.
//!
//! Requests travel over a `SOCK_SEQPACKET` socket (one per application process and transport);
//! data travels through the session memory, whose layout is fixed here; readiness travels
//! through shadow fds.
//!
//! ```text
//! session memory (one sealed, sparse memfd)
//! +--------------------+  0
//! | SessionHeader      |  magic, sizes, armed word, dirty bitmap          (one page)
//! +--------------------+  CONTROL_OFFSET
//! | SocketControl [n]  |  256 bytes each
//! +--------------------+  buffers_offset
//! | tx 0 | rx 0 | tx 1 | rx 1 | ...       the base of each socket's buffers, page aligned
//! +--------------------+  windows_offset
//! | tx | rx | tx | rx | ...               windows: the rest, for those that outgrow their base
//! +--------------------+
//! ```
//!
//! Positions are counts of bytes since the socket began, so they only grow. Where in a stream's
//! buffer a position lies, a [`Ring`] says; places below the base are in the socket's own part,
//! the others in the window it was given. So the first pages of many idle sockets lie together,
//! and a table of pages serves many of them. Datagram sockets use their buffers, at positions modulo the capacity, as queues
//! of records: a [`DatagramHeader`], then the payload, padded to [`DATAGRAM_ALIGN`].

mod memory;
mod message;
mod request;
mod ring;

pub use memory::*;
pub use message::*;
pub use request::*;
pub use ring::*;
