//! Strata's supervisor, configuration and command line.
//!
//! ```text
//!   strata.toml -> config -> topology -> plumbing -> supervisor -> daemons (this executable)
//!                                                        ^
//!                                  admin socket <- commands (status, restart, ...)
//! ```

pub mod config;
pub mod netns;
pub mod policy;
pub mod rundir;
