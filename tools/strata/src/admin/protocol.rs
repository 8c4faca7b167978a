//! What is said on the admin socket.

use abi::config::Impairment;
use abi::control::Query;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a command wants of the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// How everything is.
    Status,
    /// Stop everything. Answered when the daemons are down.
    Down,
    /// Restart a layer (`tcpd`, `netdevd`, `netdevd@tap0`, `tap0`, `all`). Answered when it is
    /// ready again.
    Restart {
        /// Which.
        layer: String,
    },
    /// Replace a layer by another build. Answered when that is ready, or the old one again.
    Upgrade {
        /// Which, as for a restart.
        layer: String,
        /// The build.
        executable: PathBuf,
    },
    /// Which layers there are of that name, and which layouts their memory has.
    Layouts {
        /// Which, as for a restart.
        layer: String,
    },
    /// Ask one daemon.
    Query {
        /// Which.
        layer: String,
        /// What.
        what: Query,
    },
    /// Every daemon's counters.
    Counters,
    /// Change the faults that a device injects.
    Impair {
        /// The device's name.
        device: String,
        /// The faults from now on.
        impairment: Impairment,
    },
    /// Trace the next packets through every layer.
    Trace {
        /// How many stages each daemon notes.
        packets: u32,
    },
    /// What has been traced.
    Traces,
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done; what there is to say about it.
    Done(String),
    /// How everything is.
    Status(Box<Status>),
    /// Rows of a table.
    Table {
        /// Column names.
        columns: Vec<String>,
        /// Rows of as many cells.
        rows: Vec<Vec<String>>,
        /// Whether another part follows.
        more: bool,
    },
    /// It could not be done, and why.
    Failed(String),
}

/// How a constellation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The constellation's name.
    pub name: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// The keeper's process id, unless it is being replaced.
    pub keeper: Option<u32>,
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// Its directory.
    pub run_dir: String,
    /// The daemons, lowest layer first.
    pub daemons: Vec<DaemonStatus>,
    /// What is quarantined, oldest first.
    pub quarantined: Vec<Quarantined>,
}

/// A packet, flow or socket that was at work in crash after crash, and is left alone since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The layer that died of it.
    pub layer: String,
    /// What it is.
    pub what: String,
    /// Crashes it was at work in.
    pub crashes: u32,
    /// Milliseconds since it was quarantined.
    pub for_ms: u64,
    /// The packets, with notes on the crashes, if they could be saved.
    pub file: Option<String>,
}

/// What a daemon is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonState {
    /// Started, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Finishing for a planned restart or stop.
    Draining,
    /// Dead; it is started again after a delay.
    Waiting,
    /// Dead, and given up on.
    Failed,
    /// Stopped.
    Down,
}

impl DaemonState {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Down => "down",
        }
    }
}

/// How a daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// What people call it: `tcpd`, `netdevd@tap0`.
    pub name: String,
    /// Its process id, if it lives.
    pub pid: Option<u32>,
    /// The process that will be it next, if one is in reserve.
    pub spare: Option<u32>,
    /// What it is up to.
    pub state: DaemonState,
    /// Milliseconds since it became ready.
    pub uptime_ms: Option<u64>,
    /// Times it was started again, planned ones included.
    pub restarts: u32,
    /// How it died last.
    pub last_death: Option<String>,
    /// How many deaths in quick succession that was.
    pub streak: u32,
    /// Milliseconds until it is started again, if it waits for that.
    pub starts_in_ms: Option<u64>,
    /// Processor time of the living process in milliseconds.
    pub cpu_ms: u64,
    /// Turns of its service loop.
    pub turns: u64,
    /// Its named counters.
    pub counters: Vec<(String, u64)>,
    /// Buffers of its pool that are in use.
    pub pool_used: u32,
    /// Buffers of its pool.
    pub pool_slots: u32,
    /// Descriptors it keeps with the supervisor.
    pub stored: usize,
    /// What it owns.
    pub owns: Vec<String>,
}
