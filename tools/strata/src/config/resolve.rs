//! From [`File`] to [`Config`]: every value checked, alone and against the others.

use super::diagnostic::Diagnostic;
use super::file::{self, File, ImpairmentFile, PinFile};
use super::units::HumanDuration;
use super::{Config, Device, Pin, Sizes, routes};
use crate::policy::RestartPolicy;
use abi::config::{DeviceKind, Impairment, TcpConfig, UdpConfig};
use core::net::IpAddr;
use core::ops::{Range, RangeInclusive};
use core::time::Duration;
use ipnet::IpNet;
use std::collections::BTreeMap;
use toml::Spanned;

/// Devices a constellation can have; ids of services and pools bound it.
const MAX_DEVICES: usize = 32;

/// What a TAP's kernel side can be set to, less the smallest that IPv4 hosts must take
/// (RFC 1122 3.3.3).
const MTU: RangeInclusive<i64> = 576..=65_521;

/// Congestion control that tcpd has.
const CONGESTION: [&str; 1] = ["newreno"];

/// Collects problems while the file is walked.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Problems {
    /// Notes an error at `span`.
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors.push(Diagnostic::at(span, message, help));
    }

    fn warn(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.warnings.push(Diagnostic::at(span, message, help));
    }
}

/// Checks `file`; the configuration and the warnings, or the errors.
pub(super) fn resolve(file: &File) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut problems = Problems::default();
    let name = file.name.as_ref().map(|name| {
        if let Err(why) = crate::rundir::check_name(name.get_ref()) {
            problems.error(name.span(), why, "use letters, digits, `-`, `_` and `.`");
        }
        name.get_ref().clone()
    });
    let devices = devices(file, &mut problems);
    let routes = routes::resolve(file, &devices, &mut problems);
    let config = Config {
        name,
        routes,
        dns: file.dns.servers.clone(),
        restart: restart(&file.restart, &mut problems),
        tcp: tcp(&file.tcp, &mut problems),
        udp: udp(&file.udp, &mut problems),
        pin: pin(&file.cpu, &mut problems),
        sizes: sizes(&file.sizes, &mut problems),
        access_mode: access(&file.access, &mut problems),
        devices,
    };
    if problems.errors.is_empty() {
        Ok((config, problems.warnings))
    } else {
        let place = |d: &Diagnostic| d.span.as_ref().map_or(0, |span| span.start);
        problems.errors.sort_by_key(place);
        Err(problems.errors)
    }
}

fn devices(file: &File, problems: &mut Problems) -> Vec<Device> {
    if file.device.is_empty() {
        problems.errors.push(Diagnostic::whole(
            "no [[device]] is declared, so nothing could be sent or received",
            "add one: [[device]] name = \"tap0\" kind = \"tap\" addresses = [\"10.77.0.2/24\"]",
        ));
    }
    if let Some(beyond) = file.device.get(MAX_DEVICES) {
        let message = format!("more than {MAX_DEVICES} devices");
        problems.error(beyond.span(), message, "remove some");
    }
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut taken: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut devices = Vec::new();
    for spanned in &file.device {
        let device = spanned.get_ref();
        let name = device.name.get_ref().as_str();
        if names.insert(name, device.name.span()).is_some() {
            problems.error(
                device.name.span(),
                format!("two devices are called `{name}`"),
                "give each device an interface of its own",
            );
        }
        let resolved = one_device(device, problems);
        for (address, written) in resolved.addresses.iter().zip(&device.addresses) {
            if let Some(other) = taken.insert(address.addr(), name) {
                problems.error(
                    written.span(),
                    format!("address {} is already on `{other}`", address.addr()),
                    "an address belongs to one device",
                );
            }
        }
        devices.push(resolved);
    }
    devices
}

fn one_device(device: &file::Device, problems: &mut Problems) -> Device {
    let name = device.name.get_ref();
    if let Err(why) = check_interface_name(name) {
        problems.error(
            device.name.span(),
            format!("`{name}` cannot be an interface's name: {why}"),
            "use 1 to 15 characters without `/`, `:` and spaces, such as tap0",
        );
    }
    let loopback = device.kind == DeviceKind::Loopback;
    let addresses = own_addresses(&device.addresses, loopback, problems);
    let host_addresses = host_addresses(device, &addresses, problems);
    let host_up = device.host_up.as_ref().map(|up| *up.get_ref());
    if let Some(host_up) = &device.host_up
        && device.kind != DeviceKind::Tap
    {
        problems.error(
            host_up.span(),
            "`host-up` is for TAP devices, whose kernel side strata makes",
            "remove it; set the interface up yourself with `ip link set … up`",
        );
    }
    Device {
        name: name.clone(),
        kind: device.kind,
        mtu: mtu(device, problems),
        mac: mac(device, problems),
        offload: device.offload.unwrap_or_default(),
        host_up: host_up.unwrap_or(!host_addresses.is_empty()),
        impairment: device
            .impairment
            .as_ref()
            .map(impairment)
            .unwrap_or_default(),
        addresses,
        host_addresses,
    }
}

/// The kernel's own rule (`dev_valid_name`).
fn check_interface_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > 15 {
        return Err("it is longer than 15 bytes");
    }
    if name == "." || name == ".." {
        return Err("it is a directory's name");
    }
    if name
        .chars()
        .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control() || c == '%')
    {
        return Err("it has a character the kernel does not allow");
    }
    Ok(())
}

fn own_addresses(
    written: &[Spanned<String>],
    loopback: bool,
    problems: &mut Problems,
) -> Vec<IpNet> {
    let mut addresses = Vec::new();
    for text in written {
        if let Some(address) = interface_address(text.get_ref(), &text.span(), problems) {
            if address.addr().is_loopback() && !loopback {
                problems.error(
                    text.span(),
                    format!("{address} is a loopback address on a device that is not"),
                    "use an address of the network at the device's other end",
                );
            }
            if address.addr().is_ipv6() {
                problems.warn(
                    text.span(),
                    format!("IPv6 is not served yet: {address} stays silent"),
                    "give the device an IPv4 address too",
                );
            }
            addresses.push(address);
        }
    }
    addresses
}

/// Parses an address with its prefix length, as a host may have it.
fn interface_address(text: &str, span: &Range<usize>, problems: &mut Problems) -> Option<IpNet> {
    let address: IpNet = match text.parse() {
        Ok(address) => address,
        Err(_) if text.parse::<IpAddr>().is_ok() => {
            let prefix = if text.contains(':') { 64 } else { 24 };
            problems.error(
                span.clone(),
                format!("address `{text}` has no prefix length"),
                format!("write it with the network's, for example \"{text}/{prefix}\""),
            );
            return None;
        }
        Err(_) => {
            problems.error(
                span.clone(),
                format!("`{text}` is not an address with a prefix length"),
                "write for example \"10.77.0.2/24\"",
            );
            return None;
        }
    };
    let host_bits = address.max_prefix_len() - address.prefix_len();
    let ip = address.addr();
    let (what, first) = if ip.is_unspecified() {
        ("is the unspecified address", address.hosts().next())
    } else if ip.is_multicast() {
        ("is a multicast address", None)
    } else if host_bits > 1 && ip == address.network() {
        (
            "is the network itself, not a host in it",
            address.hosts().next(),
        )
    } else if host_bits > 1 && ip.is_ipv4() && ip == address.broadcast() {
        ("is the network's broadcast address", address.hosts().next())
    } else {
        return Some(address);
    };
    let help = match first {
        Some(first) if !first.is_unspecified() => format!(
            "write a host's address, for example \"{first}/{}\"",
            address.prefix_len()
        ),
        _ => "write a host's address, for example \"10.77.0.2/24\"".to_owned(),
    };
    problems.error(span.clone(), format!("{address} {what}"), help);
    None
}

fn host_addresses(device: &file::Device, own: &[IpNet], problems: &mut Problems) -> Vec<IpNet> {
    let Some(written) = &device.host_address else {
        return Vec::new();
    };
    let span = written.span();
    if device.kind != DeviceKind::Tap {
        problems.error(
            span,
            "`host-address` is for TAP devices, whose kernel side strata makes",
            "remove it; give the interface its address with `ip addr add`",
        );
        return Vec::new();
    }
    let mut addresses = Vec::new();
    for text in written.get_ref().as_slice() {
        let Some(address) = interface_address(text, &span, problems) else {
            continue;
        };
        if own.iter().any(|own| own.addr() == address.addr()) {
            problems.error(
                span.clone(),
                format!(
                    "{} is the stack's own address on this device",
                    address.addr()
                ),
                "the kernel's end needs another address of the same network",
            );
        } else if !own.is_empty() && !own.iter().any(|own| own.contains(&address.addr())) {
            problems.error(
                span.clone(),
                format!("{address} is in none of the device's networks"),
                "the two ends of a TAP talk when they share a network",
            );
        }
        addresses.push(address);
    }
    addresses
}

fn mtu(device: &file::Device, problems: &mut Problems) -> u16 {
    let default = match device.kind {
        DeviceKind::Loopback => 65_521,
        DeviceKind::Tap | DeviceKind::Packet => 1500,
    };
    let Some(written) = &device.mtu else {
        return default;
    };
    let value = *written.get_ref();
    match u16::try_from(value) {
        Ok(mtu) if MTU.contains(&value) => mtu,
        _ => {
            problems.error(
                written.span(),
                format!("an MTU of {value} is out of range"),
                format!(
                    "use {} to {} bytes; Ethernet's is 1500",
                    MTU.start(),
                    MTU.end()
                ),
            );
            default
        }
    }
}

fn mac(device: &file::Device, problems: &mut Problems) -> Option<[u8; 6]> {
    let written = device.mac.as_ref()?;
    let text = written.get_ref();
    let help = "write six bytes such as \"02:00:00:00:00:02\", or leave it out to have one chosen";
    let Some(mac) = parse_mac(text) else {
        let message = format!("`{text}` is not a link-layer address");
        problems.error(written.span(), message, help);
        return None;
    };
    let [first, ..] = mac;
    if first & 1 != 0 || mac == [0; 6] {
        let message = format!("{text} is a group address or zero, which no station can have");
        problems.error(written.span(), message, help);
        return None;
    }
    Some(mac)
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn impairment(written: &ImpairmentFile) -> Impairment {
    let probability = |p: Option<super::units::Probability>| p.map_or(0.0, |p| p.0);
    let micros = |d: Option<HumanDuration>| {
        d.map_or(0, |d| u32::try_from(d.0.as_micros()).unwrap_or(u32::MAX))
    };
    Impairment {
        seed: written.seed,
        loss: probability(written.loss),
        duplicate: probability(written.duplicate),
        reorder: probability(written.reorder),
        corrupt: probability(written.corrupt),
        delay_us: micros(written.delay),
        jitter_us: micros(written.jitter),
        rate_kbps: written.rate.map_or(0, |rate| rate.0),
        queue: written.queue,
    }
}

/// A duration within bounds, or the default with the problem noted.
fn bounded(
    written: Option<&Spanned<HumanDuration>>,
    bounds: RangeInclusive<Duration>,
    default: Duration,
    what: &str,
    problems: &mut Problems,
) -> Duration {
    let Some(written) = written else {
        return default;
    };
    let value = written.get_ref().0;
    if bounds.contains(&value) {
        return value;
    }
    problems.error(
        written.span(),
        format!("{what} of {value:?} is out of range"),
        format!(
            "use {:?} to {:?}; the default is {default:?}",
            bounds.start(),
            bounds.end()
        ),
    );
    default
}

fn restart(written: &file::Restart, problems: &mut Problems) -> RestartPolicy {
    let default = RestartPolicy::default();
    let ms = Duration::from_millis;
    let s = Duration::from_secs;
    let policy = RestartPolicy {
        hang: bounded(
            written.hang.as_ref(),
            ms(50)..=s(600),
            default.hang,
            "`hang`",
            problems,
        ),
        start: bounded(
            written.start.as_ref(),
            ms(100)..=s(600),
            default.start,
            "`start`",
            problems,
        ),
        backoff: bounded(
            written.backoff.as_ref(),
            ms(1)..=s(600),
            default.backoff,
            "`backoff`",
            problems,
        ),
        backoff_max: bounded(
            written.backoff_max.as_ref(),
            ms(1)..=s(3600),
            default.backoff_max,
            "`backoff-max`",
            problems,
        ),
        stable: bounded(
            written.stable.as_ref(),
            Duration::ZERO..=s(3600),
            default.stable,
            "`stable`",
            problems,
        ),
        at_once: written.at_once.unwrap_or(default.at_once),
        give_up: written.give_up.unwrap_or(default.give_up),
    };
    if policy.backoff > policy.backoff_max
        && let Some(span) = written
            .backoff_max
            .as_ref()
            .or(written.backoff.as_ref())
            .map(Spanned::span)
    {
        problems.error(
            span,
            format!(
                "`backoff` ({:?}) is longer than `backoff-max` ({:?})",
                policy.backoff, policy.backoff_max
            ),
            "the delay grows from the one to the other",
        );
    }
    policy
}

fn count(
    written: Option<&Spanned<u32>>,
    bounds: RangeInclusive<u32>,
    default: u32,
    what: &str,
    problems: &mut Problems,
) -> u32 {
    let Some(written) = written else {
        return default;
    };
    let value = *written.get_ref();
    if bounds.contains(&value) {
        return value;
    }
    problems.error(
        written.span(),
        format!("{what} of {value} is out of range"),
        format!(
            "use {} to {}; the default is {default}",
            bounds.start(),
            bounds.end()
        ),
    );
    default
}

fn tcp(written: &file::Tcp, problems: &mut Problems) -> TcpConfig {
    let default = TcpConfig::default();
    let congestion = written.congestion.as_ref().map_or_else(
        || default.congestion.clone(),
        |congestion| {
            let name = congestion.get_ref();
            if !CONGESTION.contains(&name.as_str()) {
                problems.error(
                    congestion.span(),
                    format!("no congestion control is called `{name}`"),
                    format!("there is: {}", CONGESTION.join(", ")),
                );
            }
            name.clone()
        },
    );
    let time_wait = bounded(
        written.time_wait.as_ref(),
        Duration::from_millis(1)..=Duration::from_secs(240),
        Duration::from_millis(u64::from(default.time_wait_ms)),
        "`time-wait`",
        problems,
    );
    TcpConfig {
        max_sockets: count(
            written.max_sockets.as_ref(),
            16..=65_536,
            default.max_sockets,
            "`max-sockets`",
            problems,
        ),
        congestion,
        time_wait_ms: u32::try_from(time_wait.as_millis()).unwrap_or(default.time_wait_ms),
    }
}

fn udp(written: &file::Udp, problems: &mut Problems) -> UdpConfig {
    let default = UdpConfig::default();
    UdpConfig {
        max_sockets: count(
            written.max_sockets.as_ref(),
            16..=65_536,
            default.max_sockets,
            "`max-sockets`",
            problems,
        ),
    }
}

fn pin(written: &file::Cpu, problems: &mut Problems) -> Pin {
    let Some(pin) = &written.pin else {
        return Pin::default();
    };
    match pin.get_ref() {
        PinFile::Core(core) if *core < 1024 => Pin::Core(*core),
        PinFile::Word(word) if word == "auto" => Pin::Auto,
        PinFile::Word(word) if word == "off" => Pin::Off,
        other => {
            let (PinFile::Core(_) | PinFile::Word(_)) = other;
            problems.error(
                pin.span(),
                "`pin` is neither a word nor a core that is known",
                "write \"auto\" (all daemons on the last core), \"off\", or a core's number",
            );
            Pin::default()
        }
    }
}

fn sizes(written: &file::Sizes, problems: &mut Problems) -> Sizes {
    let mut slots = |written: Option<&Spanned<u32>>, bounds: RangeInclusive<u32>, what: &str| {
        let written = written?;
        let value = *written.get_ref();
        if !bounds.contains(&value) {
            problems.error(
                written.span(),
                format!("{what} of {value} buffers is out of range"),
                format!("use {} to {}", bounds.start(), bounds.end()),
            );
        }
        Some(value)
    };
    Sizes {
        receive_small: slots(
            written.receive_small.as_ref(),
            64..=65_536,
            "`receive-small`",
        ),
        receive_large: slots(written.receive_large.as_ref(), 8..=4096, "`receive-large`"),
        transmit_small: slots(
            written.transmit_small.as_ref(),
            64..=65_536,
            "`transmit-small`",
        ),
        transmit_large: slots(
            written.transmit_large.as_ref(),
            8..=4096,
            "`transmit-large`",
        ),
    }
}

/// Owner and group by default: raw sockets are among what the stack hands out.
const ACCESS_MODE: u32 = 0o660;

fn access(written: &file::Access, problems: &mut Problems) -> u32 {
    let Some(mode) = &written.mode else {
        return ACCESS_MODE;
    };
    match u32::from_str_radix(mode.get_ref(), 8) {
        Ok(bits) if bits & !0o777 == 0 => bits,
        _ => {
            problems.error(
                mode.span(),
                format!("`{}` is not a file mode", mode.get_ref()),
                "write three octal digits, such as \"660\" or \"666\"",
            );
            ACCESS_MODE
        }
    }
}
