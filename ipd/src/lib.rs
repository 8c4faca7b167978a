//! ipd: IP, ARP and ICMP as a process between transports and devices.
//!
//! ```text
//!   engine     what IP does, pure: packets and a time in, actions out
//!   service    the process around it: rings, state memory, timers, queries
//! ```
//!
//! A death of this process looks like a few lost packets: neighbours and path MTUs are in the
//! state memory, what was queued or half reassembled is lost, and everything else follows from
//! the configuration.

pub mod engine;
pub mod service;

pub use service::Ipd;

/// Runs the daemon until it is told to drain.
///
/// # Errors
/// When it cannot start.
pub fn main(boot: runtime::Boot) -> anyhow::Result<()> {
    runtime::run::<Ipd>(boot)
}
