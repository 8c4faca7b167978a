//! Header views and builders, checksums and sequence numbers: everything Strata knows about
//! bytes on a wire, and nothing about processes, time or memory ownership.
//!
//! Two levels, from the bottom up:
//!
//! - a *view* (`ethernet::Frame`, `ipv4::Packet`, `tcp::Segment`, …) borrows bytes and has
//!   checked once that every length the header claims lies inside them; its `raw` header is a
//!   zerocopy reference, so reading a field is one load;
//! - a *`Repr`* is validated meaning: `Repr::parse` turns bytes into one, `emit` writes one
//!   back, and `emit` then `parse` gives the same value.
//!
//! Invariants:
//!
//! - no input makes any function here panic, and none reads outside the slice it was given;
//! - nothing allocates (the pcapng writer's sink aside) and payload is never copied;
//! - multi-byte fields are native integers here and network order on the wire; the virtio
//!   header alone is little-endian.
//!
//! Everyone may call this crate; it depends on no other crate of the workspace.
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
mod error;
pub mod ethernet;
#[cfg(test)]
mod fixtures;
pub mod gso;
pub mod icmpv4;
pub mod ipv4;
pub mod ipv6;
pub mod pcapng;
pub mod protocol;
mod seq;
pub mod tcp;
pub mod udp;
pub mod vnet;

pub use error::Error;
pub use ethernet::MacAddr;
pub use seq::SeqNumber;

/// What every parser and builder here returns.
pub type Result<T> = core::result::Result<T, Error>;
