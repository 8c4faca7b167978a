//! The configuration of a running constellation, as the supervisor hands it to the daemons.
//!
//! `strata.toml` is parsed and checked by the supervisor; what arrives here is already resolved
//! (indices, ids, defaults filled in). A daemon takes what concerns it.

use crate::Nanos;
use crate::ids::{DevIndex, LinkId, ServiceId};
use crate::suspect::Suspect;
use core::net::IpAddr;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What one daemon is told at its start and whenever the configuration changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonConfig {
    /// Who the daemon is.
    pub service: ServiceId,
    /// What it does.
    pub role: Role,
    /// How many times this service has been started before.
    pub incarnation: u32,
    /// The whole stack.
    pub stack: StackConfig,
    /// Packet buffers that are in nobody's hands for so long are taken back.
    pub lost_buffers: Nanos,
    /// What this daemon is to leave alone, because it was at work when it, or (a flow whose
    /// transport this is) another one, died again and again.
    pub quarantine: Vec<Suspect>,
    /// The core that it works on. It may restore itself on any: this one is its neighbours' too.
    /// `None` leaves it to the kernel.
    pub core: Option<u32>,
}

/// The work of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Drives the device.
    Netdevd {
        /// Which one.
        device: DevIndex,
    },
    /// Routes.
    Ipd,
    /// TCP.
    Tcpd,
    /// UDP, ICMP echo and raw sockets.
    Udpd,
}

impl Role {
    /// The daemon's name as people see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netdevd { .. } => "netdevd",
            Self::Ipd => "ipd",
            Self::Tcpd => "tcpd",
            Self::Udpd => "udpd",
        }
    }
}

/// Everything about the stack that more than one daemon may want to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackConfig {
    /// The constellation's name.
    pub name: String,
    /// Network devices.
    pub devices: Vec<DeviceConfig>,
    /// Routes beside the connected ones, which follow from the devices' addresses.
    pub routes: Vec<RouteConfig>,
    /// Links between services.
    pub links: Vec<LinkConfig>,
    /// Name servers for applications.
    pub dns: Vec<IpAddr>,
    /// TCP's parameters.
    pub tcp: TcpConfig,
    /// UDP's parameters.
    pub udp: UdpConfig,
    /// Secret for sequence numbers, ports and hashes; made once, kept across restarts.
    pub secret: [u8; 16],
}

/// A link joins an upper service (closer to the application) and a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkConfig {
    /// Its number.
    pub link: LinkId,
    /// The service above.
    pub upper: ServiceId,
    /// The service below.
    pub lower: ServiceId,
    /// The device at the lower end, when the lower service is a netdevd.
    pub device: Option<DevIndex>,
}

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A TAP interface; the kernel is at the other end.
    Tap,
    /// An `AF_PACKET` raw socket on an existing interface.
    Packet,
    /// In memory: what is sent comes back.
    Loopback,
}

/// What a device may leave to hardware or to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// Nothing: every frame complete and at most MTU-sized.
    None,
    /// Checksums.
    Checksum,
    /// Checksums and segmentation (64 KiB super-frames both ways).
    #[default]
    Full,
}

/// One network device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// Number, from 1.
    pub index: DevIndex,
    /// The interface's name.
    pub name: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// The netdevd that drives it.
    pub service: ServiceId,
    /// The stack's own addresses on it.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The stack's own link-layer address.
    pub mac: [u8; 6],
    /// What is left to the device.
    pub offload: Offload,
    /// Faults to inject, for tests and demonstrations.
    pub impairment: Impairment,
}

/// Faults injected between the device and netdevd, each direction alike, from one seed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Impairment {
    /// Seed of the generator.
    pub seed: u64,
    /// Probability that a frame is lost, 0 to 1.
    pub loss: f64,
    /// Frames that are lost in a row, on average, with `loss` the share of all in the end; up to
    /// 1: each by itself.
    pub loss_burst: f64,
    /// Whether packets of transports that understand congestion marks (RFC 3168) are marked
    /// instead of lost by `loss`.
    pub ecn: bool,
    /// Probability that a frame is sent twice.
    pub duplicate: f64,
    /// Probability that a frame is held back behind later ones.
    pub reorder: f64,
    /// Probability that one bit of a frame is flipped.
    pub corrupt: f64,
    /// Delay of each frame in microseconds.
    pub delay_us: u32,
    /// Random addition to the delay, up to so many microseconds.
    pub jitter_us: u32,
    /// Rate limit in kilobits per second; 0 for none.
    pub rate_kbps: u64,
    /// Frames that wait at the most for a limited rate, or without one are delayed at the most;
    /// 0 for 1,000.
    pub queue: u32,
}

impl Impairment {
    /// Whether nothing is to be done to frames.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.loss == 0.0
            && self.duplicate == 0.0
            && self.reorder == 0.0
            && self.corrupt == 0.0
            && self.delay_us == 0
            && self.jitter_us == 0
            && self.rate_kbps == 0
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// Destination.
    pub to: IpNet,
    /// Next hop; none when the destination is on the link.
    pub via: Option<IpAddr>,
    /// The device to leave by.
    pub device: DevIndex,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Lower wins among equal prefixes.
    pub metric: u32,
}

/// Explicit congestion notification (RFC 3168), as Linux's `tcp_ecn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EcnMode {
    /// Never.
    Off,
    /// Offered to peers, and accepted from them.
    On,
    /// Accepted from peers that offer it.
    #[default]
    Passive,
}

/// Path MTU discovery without the help of ICMP (RFC 4821), as Linux's `tcp_mtu_probing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtuProbing {
    /// ICMP alone.
    Off,
    /// When full segments time out again and again and no ICMP says why.
    #[default]
    Blackhole,
    /// Each connection begins with a size that nearly all paths take.
    Always,
}

/// TCP Fast Open (RFC 7413), as Linux's `tcp_fastopen`. Applications have to ask for it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastOpen {
    /// Never.
    Off,
    /// For connecting.
    Client,
    /// For listening.
    Server,
    /// For both.
    #[default]
    Both,
}

/// What all buffers of TCP may hold together before nothing grows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcpMemory {
    /// A share of the machine's memory, in hundredths of a percent.
    Share(u32),
    /// Bytes.
    Bytes(u64),
}

/// Bytes of each buffer that every TCP socket has of its own.
pub const TCP_BUFFER_BASE: u32 = 128 << 10;

/// Most bytes of a buffer of TCP.
pub const TCP_BUFFER_MOST: u32 = 8 << 20;

/// TCP's parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// Connections and listeners in all.
    pub max_sockets: u32,
    /// Default congestion control.
    pub congestion: String,
    /// TIME_WAIT in milliseconds.
    pub time_wait_ms: u32,
    /// Explicit congestion notification.
    pub ecn: EcnMode,
    /// The search for the path MTU without ICMP.
    pub mtu_probing: MtuProbing,
    /// Data with SYNs.
    pub fast_open: FastOpen,
    /// How long Fast Open cookies are given under the same key, in milliseconds.
    pub fast_open_key_ms: u32,
    /// SYN cookies when a listener's queue is full (RFC 4987 3.6).
    pub syn_cookies: bool,
    /// The user timeout option (RFC 5482), both ways.
    pub user_timeout_option: bool,
    /// Receive buffer in bytes of payload: at the start (at most [`TCP_BUFFER_BASE`]), and the most
    /// that it grows to by itself (at most [`TCP_BUFFER_MOST`]).
    pub receive_buffer: [u32; 2],
    /// Send buffer, likewise.
    pub send_buffer: [u32; 2],
    /// Where memory pressure begins: it ends below three quarters of it, and above one and a half
    /// times it nothing is taken that need not be.
    pub memory: TcpMemory,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            max_sockets: 16_384,
            congestion: "cubic".to_owned(),
            time_wait_ms: 60_000,
            ecn: EcnMode::default(),
            mtu_probing: MtuProbing::default(),
            fast_open: FastOpen::default(),
            fast_open_key_ms: 3_600_000,
            syn_cookies: true,
            user_timeout_option: false,
            receive_buffer: [TCP_BUFFER_BASE, TCP_BUFFER_MOST],
            send_buffer: [TCP_BUFFER_BASE, TCP_BUFFER_MOST],
            memory: TcpMemory::Share(625),
        }
    }
}

/// UDP's parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UdpConfig {
    /// Sockets in all.
    pub max_sockets: u32,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            max_sockets: 16_384,
        }
    }
}
