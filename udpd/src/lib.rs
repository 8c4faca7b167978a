//! udpd: UDP, ICMP echo and raw sockets as a process between applications and ipd.
//!
//! ```text
//!   engine     the socket table: names, ports, who gets a datagram; pure, a call at a time
//!   process    around it: rings, application sessions, state memory
//! ```
//!
//! A death of this process looks like a few lost datagrams. Sockets with their names and options
//! are in the state memory, one record each; queued datagrams are in the applications' session
//! memories, and so are the positions of the queues, which only the application they belong to
//! could spoil. Nothing else is kept.

pub mod engine;
pub mod process;

pub use process::Udpd;

/// Runs the daemon until it is told to drain.
///
/// # Errors
/// When it cannot start.
pub fn main(boot: runtime::Boot) -> anyhow::Result<()> {
    runtime::run::<Udpd>(boot)
}
