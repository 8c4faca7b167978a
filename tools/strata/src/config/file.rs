//! `strata.toml` as it is written: the serde form, before anything is checked across keys.
//!
//! Everything that can be wrong in relation to something else is [`Spanned`], so that the error
//! can point at it.

use super::units::{HumanDuration, HumanRate, HumanSize, MemoryShare, Probability};
use abi::config::{DeviceKind, EcnMode, FastOpen, MtuProbing, Offload};
use core::net::IpAddr;
use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The constellation's name, unless the command line gives one.
    pub name: Option<Spanned<String>>,
    /// Devices.
    pub device: Vec<Spanned<Device>>,
    /// Routes beside the connected ones.
    pub route: Vec<Spanned<Route>>,
    /// Name servers.
    pub dns: Dns,
    /// When to restart.
    pub restart: Restart,
    /// TCP.
    pub tcp: Tcp,
    /// UDP.
    pub udp: Udp,
    /// Placement.
    pub cpu: Cpu,
    /// Memory.
    pub sizes: Sizes,
    /// Who may use the stack.
    pub access: Access,
}

/// A `[[device]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// The interface's name.
    pub name: Spanned<String>,
    /// Its kind.
    pub kind: DeviceKind,
    /// The stack's own addresses, each with its prefix length.
    #[serde(default)]
    pub addresses: Vec<Spanned<String>>,
    /// Largest IP packet in bytes.
    pub mtu: Option<Spanned<i64>>,
    /// The stack's own link-layer address.
    pub mac: Option<Spanned<String>>,
    /// What is left to the device.
    pub offload: Option<Offload>,
    /// The kernel's addresses at the other end of a TAP.
    pub host_address: Option<Spanned<OneOrMany>>,
    /// Whether the kernel's end of a TAP is brought up.
    pub host_up: Option<Spanned<bool>>,
    /// Faults to inject.
    pub impairment: Option<ImpairmentFile>,
}

/// One string, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => core::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Faults, in the units of `tc netem`.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImpairmentFile {
    /// Seed of the generator.
    pub seed: u64,
    /// Probability that a frame is lost.
    pub loss: Option<Probability>,
    /// Frames that are lost in a row, on average.
    pub loss_burst: f64,
    /// Mark packets that understand it instead of losing them.
    pub ecn: bool,
    /// Probability that a frame is sent twice.
    pub duplicate: Option<Probability>,
    /// Probability that a frame is held back behind later ones.
    pub reorder: Option<Probability>,
    /// Probability that one bit is flipped.
    pub corrupt: Option<Probability>,
    /// Delay of each frame.
    pub delay: Option<HumanDuration>,
    /// Random addition to the delay.
    pub jitter: Option<HumanDuration>,
    /// Rate limit.
    pub rate: Option<HumanRate>,
    /// Frames that wait at the most.
    pub queue: u32,
}

/// A `[[route]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `default`, or a prefix.
    pub to: Spanned<String>,
    /// Next hop.
    pub via: Option<Spanned<IpAddr>>,
    /// Device; found from `via` when left out.
    pub dev: Option<Spanned<String>>,
    /// Lower wins.
    #[serde(default)]
    pub metric: u32,
    /// Preferred source address.
    pub source: Option<Spanned<IpAddr>>,
}

/// `[dns]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Name servers, tried in order.
    pub servers: Vec<IpAddr>,
}

/// `[restart]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Restart {
    /// A daemon that makes no progress for so long is killed.
    pub hang: Option<Spanned<HumanDuration>>,
    /// A daemon that is not ready after so long is killed.
    pub start: Option<Spanned<HumanDuration>>,
    /// First delay once deaths repeat.
    pub backoff: Option<Spanned<HumanDuration>>,
    /// Longest delay.
    pub backoff_max: Option<Spanned<HumanDuration>>,
    /// A life of this length clears the count of deaths.
    pub stable: Option<Spanned<HumanDuration>>,
    /// Deaths in a row that are restarted at once.
    pub at_once: Option<u32>,
    /// Deaths in a row after which nothing more is tried; 0: never give up.
    pub give_up: Option<u32>,
    /// Crashes after which what was at work in all of them is quarantined; 0: never.
    pub quarantine: Option<u32>,
    /// Packet buffers that nobody has had for so long are taken back.
    pub lost_buffers: Option<Spanned<HumanDuration>>,
    /// Whether each daemon has a process in reserve.
    pub spare: Option<bool>,
}

/// `[tcp]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tcp {
    /// Connections and listeners in all.
    pub max_sockets: Option<Spanned<u32>>,
    /// Default congestion control.
    pub congestion: Option<Spanned<String>>,
    /// How long TIME_WAIT lasts.
    pub time_wait: Option<Spanned<HumanDuration>>,
    /// Explicit congestion notification: `off`, `on` or `passive`.
    pub ecn: Option<EcnMode>,
    /// Path MTU discovery without ICMP: `off`, `blackhole` or `always`.
    pub mtu_probing: Option<MtuProbing>,
    /// Data with SYNs: `off`, `client`, `server` or `both`.
    pub fast_open: Option<FastOpen>,
    /// How long Fast Open cookies are given under the same key; they are good for as long again.
    pub fast_open_key: Option<Spanned<HumanDuration>>,
    /// SYN cookies when a listener's queue is full.
    pub syn_cookies: Option<bool>,
    /// Whether user timeouts are told to peers and adopted from them (RFC 5482).
    pub user_timeout_option: Option<bool>,
    /// Receive buffer: at the start, and most.
    pub receive_buffer: Option<Spanned<[HumanSize; 2]>>,
    /// Send buffer, likewise.
    pub send_buffer: Option<Spanned<[HumanSize; 2]>>,
    /// Where memory pressure begins.
    pub memory: Option<Spanned<MemoryShare>>,
}

/// `[udp]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Udp {
    /// Sockets in all.
    pub max_sockets: Option<Spanned<u32>>,
}

/// `[cpu]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpu {
    /// `"auto"`, `"off"` or a core's number.
    pub pin: Option<Spanned<PinFile>>,
    /// The processes' priority before others; -20 is the highest, 0 that of other programs.
    pub nice: Option<Spanned<i32>>,
}

/// A word or a core's number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum PinFile {
    /// A core.
    Core(u32),
    /// A word.
    Word(String),
}

/// `[sizes]`: how many packet buffers each pool has. A small buffer takes one frame, a large one
/// a 64 KiB super-frame.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sizes {
    /// Small buffers of each device's receive pool.
    pub receive_small: Option<Spanned<u32>>,
    /// Large buffers of each device's receive pool.
    pub receive_large: Option<Spanned<u32>>,
    /// Small buffers of each service's transmit pool.
    pub transmit_small: Option<Spanned<u32>>,
    /// Large buffers of each service's transmit pool.
    pub transmit_large: Option<Spanned<u32>>,
}

/// `[access]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Permissions of the sockets that applications connect to, in octal.
    pub mode: Option<Spanned<String>>,
}
