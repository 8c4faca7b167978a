//! The result: a table for people, an object for programs.

use super::datagrams::Exchange;
use super::echo::Ping;
use super::path::Walk;
use super::transfer::Transferred;
use crate::commands::table;
use crate::lab::{Lab, LabDevice};
use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    device: &'static str,
    pub(super) path: Option<Walk>,
    pub(super) pings: Vec<Ping>,
    pub(super) datagrams: Vec<Exchange>,
    pub(super) transfers: Vec<Transferred>,
    /// The whole demonstration.
    pub(super) seconds: f64,
}

impl Summary {
    pub(super) fn new(lab: &Lab) -> Self {
        Self {
            device: match lab.device() {
                LabDevice::Tap => "tap",
                LabDevice::Packet => "packet",
            },
            path: None,
            pings: Vec::new(),
            datagrams: Vec::new(),
            transfers: Vec::new(),
            seconds: 0.0,
        }
    }

    pub(super) fn render(&self) -> String {
        let mut rows = Vec::new();
        let mut row = |what: String, result: String| rows.push(vec![what, result]);
        if let Some(walk) = &self.path {
            let (down, up) = walk.times();
            row(
                "first packet down, with session and ARP".to_owned(),
                us(down),
            );
            row("first packet up".to_owned(), us(up));
        }
        for ping in &self.pings {
            row(format!("ping {}", ping.title()), ping.result());
        }
        for exchange in &self.datagrams {
            row(format!("UDP {}", exchange.title()), exchange.result());
        }
        for transfer in &self.transfers {
            let mut result = format!("{:.1} Gbit/s, SHA-256 right", transfer.gbit_per_second());
            let mut killed = "";
            if !transfer.faults.is_empty() {
                killed = ", each process killed in turn";
                result += &format!(", silent {:.1} ms at most", transfer.longest_silence_ms());
            }
            row(format!("{}{killed}", transfer.direction.name()), result);
        }
        row("everything".to_owned(), format!("{:.1} s", self.seconds));
        table::render(&["what", "result"], &rows)
    }
}

fn us(ns: u64) -> String {
    format!("{}.{} us", ns / 1000, ns / 100 % 10)
}
