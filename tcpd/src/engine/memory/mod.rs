//! Memory of the sockets: how large buffers are, and what they all take together.
//!
//! ```text
//!   measured per round trip            a socket                       all sockets
//!   receive: what was read    ->  rcv_buf  -> receive ring  \
//!   send:    congestion window -> snd_buf  -> send ring     /->  charge -> session -> total
//!                                     ^                                        |
//!                                     +------- no growth, small windows <- pressure
//!                                              pages that hold nothing go
//! ```
//!
//! - [`receive`] measures what the application takes in a round trip, and wants twice as much of
//!   a buffer; [`send`] wants twice the congestion window.
//! - [`offer`] lets the peer have of it what arrives has opened.
//! - [`grow`] changes the rings' sizes ([`abi::session::Ring`]), as far as [`account`] allows.
//! - [`account`] knows how many pages each socket can have touched, and the sums.
//! - [`idle`] finds sockets whose pages can be given back, [`spare`] under pressure the pages of
//!   busy ones that hold nothing.
//!
//! What positions and the window depend on is in the record ([`MemoryRecord`]). Measurements and
//! sums are volatile: after a restart the first are taken anew, the second are computed from the
//! records, as if nothing had ever been given back.
//!
//! A received segment takes its bytes and nothing else (the payload goes to its place in the
//! ring), so tiny segments need no special care, unlike where each keeps a buffer of its own.

mod account;
mod config;
mod grow;
mod idle;
mod offer;
mod receive;
mod record;
mod send;
mod spare;

pub use account::MemoryUse;
pub use config::{Limits, MemoryConfig};
pub use record::{MemoryRecord, RING_BASE, lock};

pub(crate) use account::Account;
use offer::Offer;
pub(crate) use receive::Measure;

use abi::Nanos;

/// What a socket has beside its record; volatile.
#[derive(Debug, Default)]
pub(crate) struct MemoryState {
    /// Receive side's measurement.
    pub(crate) measure: Measure,
    /// How much of the receive buffer is offered.
    pub(crate) offer: Offer,
    /// Receive buffer that the measurement asks for.
    pub(crate) want_rcv: u32,
    /// Pages that it can have touched, in bytes, as the account knows it.
    charged: u64,
    /// The session that it is charged to.
    region: u32,
    /// Stream positions (send, receive) before which all pages were given back.
    trimmed: (u64, u64),
    /// The shell was asked to give spare pages back and has not answered.
    asked: bool,
    /// In the list of sockets that have pages.
    listed: bool,
    /// Waits for a window.
    wanting: bool,
    /// When its application last wrote or read something.
    pub(crate) touched_at: Nanos,
    /// All memory is used up: nothing is taken that was not asked for.
    pub(crate) exhausted: bool,
}

impl MemoryState {
    /// See [`Measure::seen`].
    pub(crate) const fn measured(&self) -> (Nanos, u64) {
        self.measure.seen()
    }

    /// Bytes of the receive buffer that are offered at most.
    pub(crate) const fn offered(&self) -> u32 {
        self.offer.open()
    }
}
