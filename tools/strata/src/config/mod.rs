//! `strata.toml`: reading, checking and resolving.
//!
//! ```text
//!   text --file--> File --resolve--> Config --topology--> StackConfig (ids, links)
//!                    \________________/
//!                        diagnostics: file:line:column, message, remedy
//! ```
//!
//! A file is checked whole before anything is started, and every problem in it is reported.

mod devices;
pub mod diagnostic;
pub mod file;
mod resolve;
mod routes;
mod sections;
pub mod units;

#[cfg(test)]
mod tests;

pub use diagnostic::{ConfigError, Diagnostic};

use crate::policy::RestartPolicy;
use abi::config::{DeviceKind, Impairment, Offload, TcpConfig, UdpConfig};
use core::net::IpAddr;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The name of a constellation that was given none.
pub const DEFAULT_NAME: &str = "default";

/// The kernel's network stack goes before all programs, and so does this one: what it is late for
/// is lost in a short queue, or waits.
pub const DEFAULT_NICE: i32 = -10;

/// Of a plan that a build without it left behind.
fn default_nice() -> i32 {
    DEFAULT_NICE
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The constellation's name, if the file gives one.
    pub name: Option<String>,
    /// Devices, in the order of the file.
    pub devices: Vec<Device>,
    /// Routes, in the order of the file.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// When to restart a daemon.
    pub restart: RestartPolicy,
    /// TCP's parameters.
    pub tcp: TcpConfig,
    /// UDP's parameters.
    pub udp: UdpConfig,
    /// Where the daemons run.
    pub pin: Pin,
    /// Priority of the processes, -20 (the highest) to 19.
    #[serde(default = "default_nice")]
    pub nice: i32,
    /// Memory.
    pub sizes: Sizes,
    /// Permission bits of the applications' sockets.
    pub access_mode: u32,
}

/// A checked device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The interface's name.
    pub name: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// The stack's own addresses.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The stack's own link-layer address; none: chosen at start.
    pub mac: Option<[u8; 6]>,
    /// What is left to the device.
    pub offload: Offload,
    /// The kernel's addresses at the other end of a TAP.
    pub host_addresses: Vec<IpNet>,
    /// Whether the kernel's end of a TAP is brought up.
    pub host_up: bool,
    /// Faults to inject.
    pub impairment: Impairment,
}

/// A checked route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Position of the device among [`Config::devices`].
    pub device: usize,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Lower wins.
    pub metric: u32,
}

/// Where the daemons run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Pin {
    /// All on the last core that the supervisor may use: a hop between processes on one core
    /// costs a tenth of a hop between two (limits.md).
    #[default]
    Auto,
    /// Wherever the kernel likes.
    Off,
    /// All on this core.
    Core(u32),
}

/// How many buffers the pools have, where it is not what `shm` has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sizes {
    /// Small buffers of each device's receive pool.
    pub receive_small: Option<u32>,
    /// Large buffers of each device's receive pool.
    pub receive_large: Option<u32>,
    /// Small buffers of each service's transmit pool.
    pub transmit_small: Option<u32>,
    /// Large buffers of each service's transmit pool.
    pub transmit_large: Option<u32>,
}

impl Config {
    /// Parses and checks `text`, which was read from `path`; the warnings come along.
    ///
    /// # Errors
    /// Every problem of the file, with its place and its remedy.
    pub fn parse(path: &Path, text: &str) -> Result<(Self, Vec<Diagnostic>), ConfigError> {
        let failed = |diagnostics| ConfigError {
            path: path.to_owned(),
            text: text.to_owned(),
            diagnostics,
        };
        let file: file::File =
            toml::from_str(text).map_err(|error| failed(vec![Diagnostic::from_toml(&error)]))?;
        resolve::resolve(&file).map_err(failed)
    }
}
