//! What every daemon of the constellation is built on: one service loop, and what it needs.
//!
//! ```text
//!   boot       control channel, plumbing and stored descriptors from the supervisor
//!   run        the loop: poll -> commit -> release, adaptive polling, arm, recheck, sleep
//!   service    what a daemon implements        context   what the loop hands it
//!   plumbing   pools, links, bells, vitals     link_end  receiving from and sending to a neighbour
//!   store      descriptors kept alive with the supervisor
//!   quarantine what a packet is called when it is blamed, and which are left alone
//!   channel    messages with descriptors       control   typed messages, ipc-channel to epoll
//!   poller     epoll with tokens               adaptive  when to spin, yield and sleep
//!   fib        longest-prefix match            timers    many deadlines, one next
//! ```
//!
//! The order poll, commit, release is the crash rule: state is committed before anything that
//! depends on it can be seen outside, so that a death at any point looks like lost packets.

pub mod adaptive;
pub mod boot;
pub mod channel;
pub mod clock;
pub mod context;
pub mod control;
pub mod counters;
pub mod fib;
pub mod link_end;
mod logging;
pub mod plumbing;
pub mod poller;
pub mod quarantine;
pub mod run;
pub mod service;
mod signals;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timers;

pub use boot::{Boot, close_above, inherited_channel, widen_descriptor_table};
pub use context::Context;
pub use fib::Fib;
pub use link_end::LinkEnd;
pub use nix::sys::epoll::EpollFlags;
pub use plumbing::Plumbing;
pub use poller::Poller;
pub use run::run;
pub use service::Service;
pub use store::StoreClient;
