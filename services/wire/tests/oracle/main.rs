//! Every format against an independent implementation, smoltcp's wire module: what one writes
//! the other reads the same, and on arbitrary or damaged bytes both agree on what is acceptable
//! and on every field.
//!
//! Where the two differ on purpose, the test says so.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic here is a failed test"
)]

use std::net::IpAddr;

use proptest::prelude::*;

mod icmpv4;
mod ip;
mod link;
mod tcp;
mod udp;

/// Source and destination of one family.
fn any_addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(src, dst)| (src.into(), dst.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(src, dst)| (src.into(), dst.into())),
    ]
}

/// `bytes` as they are, cut short, or with a few bytes changed.
fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (bytes, changes, any::<Option<prop::sample::Index>>()).prop_map(|(mut bytes, changes, cut)| {
        if !bytes.is_empty() {
            for (at, value) in changes {
                let at = at.index(bytes.len().min(60));
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        }
        bytes
    })
}

/// Bytes without any plan.
fn noise(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..len)
}
