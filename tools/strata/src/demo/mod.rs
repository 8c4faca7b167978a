//! `strata demo`.

pub mod bytes;
pub mod server;
