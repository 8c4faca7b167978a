//! Routes of `strata.toml`: destination, next hop and device made to agree.

use super::file::{self, File};
use super::resolve::Problems;
use super::{Device, Route};
use core::net::IpAddr;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;
use toml::Spanned;

/// Checks and resolves the routes of `file` against its `devices`.
pub(super) fn resolve(file: &File, devices: &[Device], problems: &mut Problems) -> Vec<Route> {
    let mut seen = BTreeSet::new();
    let mut routes = Vec::new();
    for spanned in &file.route {
        let written = spanned.get_ref();
        let Some(route) = one_route(written, devices, problems) else {
            continue;
        };
        if !seen.insert((route.to, route.metric)) {
            problems.error(
                written.to.span(),
                format!(
                    "a second route to {} with metric {}",
                    route.to, route.metric
                ),
                "give them different metrics (the lower wins), or remove one",
            );
        }
        routes.push(route);
    }
    routes
}

fn one_route(written: &file::Route, devices: &[Device], problems: &mut Problems) -> Option<Route> {
    let to = destination(written, problems)?;
    if let Some(via) = &written.via
        && via.get_ref().is_ipv4() != matches!(to, IpNet::V4(_))
    {
        problems.error(
            via.span(),
            format!("next hop {} is not of the family of {to}", via.get_ref()),
            "use a next hop of the destination's family",
        );
        return None;
    }
    let device = device(written, devices, problems)?;
    if let Some(source) = &written.source {
        let own = devices
            .iter()
            .flat_map(|device| &device.addresses)
            .any(|own| own.addr() == *source.get_ref());
        if !own || source.get_ref().is_ipv4() != matches!(to, IpNet::V4(_)) {
            problems.error(
                source.span(),
                format!(
                    "source {} is none of the stack's addresses of that family",
                    source.get_ref()
                ),
                "use one of the addresses that the devices have",
            );
        }
    }
    Some(Route {
        to,
        via: written.via.as_ref().map(|via| *via.get_ref()),
        device,
        source: written.source.as_ref().map(|source| *source.get_ref()),
        metric: written.metric,
    })
}

fn destination(written: &file::Route, problems: &mut Problems) -> Option<IpNet> {
    let text = written.to.get_ref();
    if text == "default" {
        let v6 = written
            .via
            .as_ref()
            .or(written.source.as_ref())
            .is_some_and(|ip| ip.get_ref().is_ipv6());
        return Some(if v6 {
            IpNet::V6(Ipv6Net::default())
        } else {
            IpNet::V4(Ipv4Net::default())
        });
    }
    let parsed = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(to) = parsed else {
        problems.error(
            written.to.span(),
            format!("`{text}` is not a destination"),
            "write \"default\", a prefix such as \"10.0.0.0/8\", or an address",
        );
        return None;
    };
    if to.trunc() != to {
        problems.error(
            written.to.span(),
            format!("{to} has bits set behind its prefix"),
            format!("write \"{}\"", to.trunc()),
        );
        return None;
    }
    Some(to)
}

/// The device a route leaves by: the one named, or the one whose network holds the next hop.
fn device(written: &file::Route, devices: &[Device], problems: &mut Problems) -> Option<usize> {
    let on_link =
        |device: &Device, via: &IpAddr| device.addresses.iter().any(|own| own.contains(via));
    if let Some(via) = &written.via
        && let Some(owner) = devices.iter().find(|device| {
            device
                .addresses
                .iter()
                .any(|own| own.addr() == *via.get_ref())
        })
    {
        problems.error(
            via.span(),
            format!(
                "next hop {} is the stack's own address on `{}`",
                via.get_ref(),
                owner.name
            ),
            "write the router's address",
        );
        return None;
    }
    match (&written.dev, &written.via) {
        (Some(dev), via) => {
            let Some(index) = devices.iter().position(|d| d.name == *dev.get_ref()) else {
                let names: Vec<_> = devices.iter().map(|d| d.name.as_str()).collect();
                problems.error(
                    dev.span(),
                    format!("no device is called `{}`", dev.get_ref()),
                    format!("there is: {}", names.join(", ")),
                );
                return None;
            };
            if let Some(via) = via
                && let Some(device) = devices.get(index)
                && !on_link(device, via.get_ref())
            {
                off_link(via, Some(&device.name), problems);
                return None;
            }
            Some(index)
        }
        (None, Some(via)) => {
            let index = devices.iter().position(|d| on_link(d, via.get_ref()));
            if index.is_none() {
                off_link(via, None, problems);
            }
            index
        }
        (None, None) => match devices {
            [_] => Some(0),
            _ => {
                problems.error(
                    written.to.span(),
                    "the route has neither a next hop nor a device",
                    "add `via = \"…\"` or `dev = \"…\"`",
                );
                None
            }
        },
    }
}

fn off_link(via: &Spanned<IpAddr>, device: Option<&str>, problems: &mut Problems) {
    let address = via.get_ref();
    let message = match device {
        Some(device) => format!("next hop {address} is in none of the networks of `{device}`"),
        None => format!("next hop {address} is in no device's network"),
    };
    problems.error(
        via.span(),
        message,
        "a next hop must be reachable without a router: correct it, or the device's prefix",
    );
}
