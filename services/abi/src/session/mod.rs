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
//! | tx 0 | rx 0 | tx 1 | rx 1 | ...       powers of two, page aligned
//! +--------------------+
//! ```
//!
//! Positions are counts of bytes since the socket began, so they only grow; the place in a
//! buffer is the position modulo its capacity. Datagram sockets use the same buffers as queues
//! of records: a [`DatagramHeader`], then the payload, padded to [`DATAGRAM_ALIGN`].

mod memory;
mod message;
mod request;

pub use memory::*;
pub use message::*;
pub use request::*;
