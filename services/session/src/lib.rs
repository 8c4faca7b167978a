//! The transport's side of the socket layer: application sessions, shadow fds, session memory.
//!
//! tcpd and udpd are built on it; what a socket *does* is theirs, what a socket *is* to an
//! application is here. Contract with applications: [`abi::session`].
//!
//! ```text
//!   application                      transport (this crate)              supervisor
//!   connect ------------------------> accept, store the request socket -----> kept
//!   Hello   ------------------------> make the session memory, store it ----> kept
//!   Socket  -- peek --> Event::Call --> record committed --> store shadow --> kept
//!           <----------------- reply (with descriptors) -- flush <--'
//!              consume the request
//!   words, dirty bits, doorbell ----> Event::Dirty
//!   last copy of a shadow closed ---> Event::Closed
//! ```
//!
//! A transport's turn:
//! 1. poll: [`Sessions::poll`] gives [`Event`]s; the transport handles them and answers calls
//!    ([`Sessions::answer`], [`Sessions::answer_socket`]): nothing is visible yet;
//! 2. commit: the transport writes its records;
//! 3. release: first the words that a reply tells of (the state), since the application looks
//!    right after it; then [`Sessions::release`] (stores, replies, consumes requests, hands over
//!    new connections); then positions and readiness ([`Words`], [`Sessions::readable`] and the
//!    like).
//!
//! Invariants, which make a kill at any step look like a delay:
//! - A request is consumed only after its reply was sent; a successor sees it again. The
//!   transport makes its answer repeatable by keeping the number of the last request that
//!   changed a socket in the socket's record, and answering that number again without doing
//!   it twice. (`Socket` requests are told apart here: see `restore`.)
//! - A descriptor is stored with the supervisor before the application can use its far end.
//! - What only an application could have scribbled is never believed further than its own
//!   sockets: words are loaded once and validated ([`Words::load`]).
//! - Readiness is a level in shared words first and a token second: a successor makes it right
//!   from its records ([`Sessions::reconcile`]); a token too many costs a spurious wake-up.

#![forbid(unsafe_code)]

mod accept;
mod calls;
mod doorbell;
mod end;
mod epoll;
mod error;
mod pages;
mod readiness;
mod restore;
mod session;
mod sessions;
mod shadow;
mod slots;
mod sockets;
mod state;
mod stock;
mod store;
mod words;

pub use accept::Revoked;
pub use calls::Call;
pub use error::SessionError;
pub use pages::{Empty, Held};
pub use restore::Adopted;
pub use sessions::{Event, Params, Sessions, Tally};
pub use shadow::{Shadow, pair as shadow_pair};
pub use slots::NO_OWNER;
pub use state::MAX_SESSIONS;
pub use store::{FdStore, MemoryStore};
pub use words::{AppWords, Known, Words};

use abi::RegionId;

/// Durable name of a socket's buffers: which session memory and which slot of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketRef {
    /// The session.
    pub region: RegionId,
    /// The slot.
    pub slot: u32,
}

/// A socket just made in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSocket {
    /// Where.
    pub socket: SocketRef,
    /// Which use of the slot; belongs into the transport's record.
    pub incarnation: u32,
}
