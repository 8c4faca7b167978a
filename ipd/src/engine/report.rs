//! The tables as rows of text, for people.

use super::Engine;
use abi::{DevIndex, Nanos};

/// Columns and rows.
pub type Report = (Vec<String>, Vec<Vec<String>>);

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

impl Engine {
    fn device_name(&self, index: DevIndex) -> String {
        self.devices
            .get(index)
            .map_or_else(|| format!("#{}", index.0), |d| d.name.clone())
    }

    /// The neighbour table, as `ip neighbour` shows it.
    #[must_use]
    pub fn neighbours(&self, now: Nanos) -> Report {
        let row = |n: &super::neigh::Neighbour| {
            let state = n.state_at(now);
            let mac = if state.is_valid() {
                n.mac.to_string()
            } else {
                "-".to_owned()
            };
            let confirmed = match n.confirmed {
                0 => "-".to_owned(),
                at => format!("{} s ago", now.saturating_sub(at) / 1_000_000_000),
            };
            let device = self.device_name(n.key.device);
            let queued = n.queue.len().to_string();
            vec![
                n.key.ip.to_string(),
                device,
                mac,
                state.name().to_owned(),
                confirmed,
                queued,
            ]
        };
        let names = [
            "address",
            "device",
            "lladdr",
            "state",
            "confirmed",
            "queued",
        ];
        (columns(&names), self.neigh.iter().map(row).collect())
    }

    /// The routes, path MTUs among them as host routes.
    #[must_use]
    pub fn routes(&self, now: Nanos) -> Report {
        let dash =
            |ip: Option<std::net::IpAddr>| ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let routes = self.fib.routes().into_iter().map(|r| {
            let mtu = self.devices.get(r.device).map_or(0, |d| d.mtu);
            vec![
                r.to.to_string(),
                dash(r.via),
                self.device_name(r.device),
                r.source.to_string(),
                r.metric.to_string(),
                mtu.to_string(),
            ]
        });
        let paths = self.pmtu.iter().filter(|p| p.expires > now).map(|p| {
            let left = (p.expires - now) / 1_000_000_000;
            let none = || "-".to_owned();
            vec![
                p.dst.to_string(),
                none(),
                none(),
                none(),
                none(),
                format!("{} (path, {left} s left)", p.mtu),
            ]
        });
        let names = ["to", "via", "device", "source", "metric", "mtu"];
        (columns(&names), routes.chain(paths).collect())
    }

    /// Devices and how full the tables are.
    #[must_use]
    pub fn summary(&self) -> Report {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut row = |key: String, value: String| rows.push(vec![key, value]);
        for d in self.devices.iter() {
            let addresses: Vec<String> = d.addresses.iter().map(ToString::to_string).collect();
            let text = format!("{} mtu {} lladdr {}", addresses.join(" "), d.mtu, d.mac);
            row(format!("device {}", d.name), text);
        }
        row(
            "neighbours".to_owned(),
            self.neigh.iter().count().to_string(),
        );
        row("reassembling".to_owned(), self.reassembly.len().to_string());
        row("path mtus".to_owned(), self.pmtu.iter().count().to_string());
        (columns(&["key", "value"]), rows)
    }
}
