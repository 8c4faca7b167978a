//! Control messages between supervisor and daemon, over ipc-channel; never on the packet path.

use crate::config::DaemonConfig;
use serde::{Deserialize, Serialize};

/// From the supervisor to a daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToDaemon {
    /// The configuration: first message, and again when it changes.
    Configure(Box<DaemonConfig>),
    /// Finish the batch, commit, stop taking input, answer [`FromDaemon::Drained`] and exit 0.
    Drain,
    /// Answer [`FromDaemon::Report`] with the same number.
    Query {
        /// Echoed in the answer.
        id: u64,
        /// What is wanted.
        what: Query,
    },
}

/// What a daemon can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Its sockets, one row each (transports).
    Sockets,
    /// Neighbour table (ipd).
    Neighbours,
    /// Routes (ipd).
    Routes,
    /// Anything else worth knowing: free key and value pairs.
    Summary,
}

/// From a daemon to the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromDaemon {
    /// First message after connecting.
    Hello {
        /// Process id.
        pid: u32,
        /// [`crate::LAYOUT_VERSION`] of the build.
        layout: u32,
    },
    /// State restored, plumbing attached: packets flow from now on.
    Ready,
    /// Everything is committed; the process is about to exit.
    Drained,
    /// Something that a person should know, once.
    Warning(String),
    /// Answer to [`ToDaemon::Query`].
    Report {
        /// From the query.
        id: u64,
        /// Column names.
        columns: Vec<String>,
        /// Rows of as many cells.
        rows: Vec<Vec<String>>,
    },
}
