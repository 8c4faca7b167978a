//! netdevd drives one network device: frames from the device go up to whoever registered their
//! EtherType, frames from above go out.
//!
//! ```text
//!              ring to ipd                     ring from ipd
//!                   ^                                |
//!   service    filter, EtherTypes                 backlog
//!                   ^                                |
//!   device     Impaired      seeded loss, delay, ... |   (a decorator; passes through when off)
//!              Software      checksums and GSO for devices without
//!              VnetDevice    TAP or AF_PACKET: readv, writev   |  Loopback: in memory
//! ```
//!
//! It keeps no state: the device's descriptor is the supervisor's, packets in its hands when it
//! dies are lost packets.

pub mod counters;
pub mod device;
pub mod impair;
pub mod open;
mod service;

pub use open::{configure_host_side, open_device};
pub use service::Netdevd;

/// Runs the daemon; called in a process of its own.
///
/// # Errors
/// When it cannot start.
pub fn main(boot: runtime::Boot) -> anyhow::Result<()> {
    runtime::run::<Netdevd>(boot)
}
