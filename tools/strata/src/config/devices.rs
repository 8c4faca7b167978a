//! Devices of `strata.toml`: names, addresses of both ends, MTU, link-layer address, faults.

use super::Device;
use super::diagnostic::Diagnostic;
use super::file::{self, File, ImpairmentFile};
use super::resolve::Problems;
use super::units::{HumanDuration, Probability};
use abi::config::{DeviceKind, Impairment};
use core::net::IpAddr;
use core::ops::{Range, RangeInclusive};
use ipnet::IpNet;
use std::collections::BTreeMap;
use toml::Spanned;

/// Devices a constellation can have; ids of services and pools bound it.
const MAX_DEVICES: usize = 32;

/// What a TAP's kernel side can be set to, less the smallest that IPv4 hosts must take
/// (RFC 1122 3.3.3).
const MTU: RangeInclusive<i64> = 576..=65_521;

/// Checks and resolves the devices of `file`.
pub(super) fn resolve(file: &File, problems: &mut Problems) -> Vec<Device> {
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
    let probability = |p: Option<Probability>| p.map_or(0.0, |p| p.0);
    let micros = |d: Option<HumanDuration>| {
        d.map_or(0, |d| u32::try_from(d.0.as_micros()).unwrap_or(u32::MAX))
    };
    Impairment {
        seed: written.seed,
        loss: probability(written.loss),
        loss_burst: written.loss_burst,
        ecn: written.ecn,
        duplicate: probability(written.duplicate),
        reorder: probability(written.reorder),
        corrupt: probability(written.corrupt),
        delay_us: micros(written.delay),
        jitter_us: micros(written.jitter),
        rate_kbps: written.rate.map_or(0, |rate| rate.0),
        queue: written.queue,
    }
}
