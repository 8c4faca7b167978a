//! The path of the first packet down and of the first one up, layer by layer, with times.
//!
//! Every daemon notes when a packet passes it; the packet's number (its handle without the hops)
//! joins the notes. The first packet of a connection is its SYN, and the first one up the SYN-ACK.

use crate::admin::{Answer, Request};
use crate::lab::Lab;
use abi::{Handle, Nanos};
use anyhow::{Context, Result, bail};
use libsocket::Stack;
use runtime::clock;
use serde::Serialize;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Stages that each daemon notes at the most.
const STAGES: u32 = 64;
/// EtherType of ARP.
const ARP: u64 = 0x0806;

/// One daemon's note.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    at: Nanos,
    layer: String,
    stage: String,
    packet: String,
    len: u64,
    detail: u64,
}

/// A line of the walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Stop {
    /// Nanoseconds since the application's call.
    after_ns: Nanos,
    /// Who.
    who: String,
    /// Did what.
    what: &'static str,
    /// Bytes of the packet there.
    len: Option<u64>,
    /// The packet's number.
    packet: Option<String>,
}

/// A call of the application, and what came of it in the layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Walk {
    down: Vec<Stop>,
    up: Vec<Stop>,
    /// Frames that resolved the peer's link-layer address in between.
    arp_frames: usize,
}

/// Connects once under trace.
pub(super) fn walk(lab: &Lab, stack: &Stack, server: SocketAddr) -> Result<Walk> {
    lab.ask(&Request::Trace { packets: STAGES })?;
    let called = clock::now();
    let stream = stack
        .connect_timeout(server, Duration::from_secs(5))
        .with_context(|| format!("cannot connect to {server}"))?;
    let returned = clock::now();
    let result = noted(lab, called, returned);
    lab.ask(&Request::Trace { packets: 0 })?;
    drop(stream);
    result
}

/// Asks until the notes are complete: the last of them may be written after the call returned.
fn noted(lab: &Lab, called: Nanos, returned: Nanos) -> Result<Walk> {
    let begin = Instant::now();
    loop {
        let Answer::Table { rows, .. } = lab.ask(&Request::Traces)? else {
            bail!("the supervisor answered no table to a question for traces");
        };
        let notes: Vec<_> = rows.iter().filter_map(|row| parse(row)).collect();
        if let Some(walk) = join(&notes, called, returned) {
            return Ok(walk);
        }
        if begin.elapsed() > Duration::from_secs(1) {
            bail!("the layers' notes of the first packet are incomplete: {notes:#?}");
        }
    }
}

fn parse(row: &[String]) -> Option<Note> {
    let [at, layer, stage, packet, len, detail] = row else {
        return None;
    };
    let handle = u64::from_str_radix(packet.strip_prefix("0x")?, 16).ok()?;
    Some(Note {
        at: at.parse().ok()?,
        layer: layer.clone(),
        stage: stage.clone(),
        packet: format!("{:#x}", Handle(handle).packet()),
        len: len.parse().ok()?,
        detail: detail.parse().ok()?,
    })
}

const DOWN: [(&str, &str); 3] = [
    ("transport-out", "makes the segment, hands it to ipd"),
    (
        "ip-out",
        "routes it, puts IPv4 and Ethernet headers in front",
    ),
    ("device-out", "writes the frame to the device"),
];
const UP: [(&str, &str); 3] = [
    ("device-in", "reads a frame into its receive pool"),
    ("ip-in", "checks the IPv4 header, hands it to tcpd"),
    ("transport-in", "takes the segment, updates the connection"),
];

/// The walk, if each layer's note of both packets is there.
fn join(notes: &[Note], called: Nanos, returned: Nanos) -> Option<Walk> {
    let notes: Vec<_> = notes.iter().filter(|n| n.at >= called).collect();
    let first = |stage: &str, layer: &str| {
        let mut fit = notes
            .iter()
            .filter(|n| n.stage == stage && n.layer == layer);
        fit.next().map(|n| n.packet.clone())
    };
    let stops = |packet: &str, stages: &[(&str, &'static str)]| -> Option<Vec<Stop>> {
        let stop = |(stage, what): &(&str, &'static str)| {
            let note = notes
                .iter()
                .find(|n| n.packet == packet && n.stage == *stage)?;
            Some(Stop {
                after_ns: note.at - called,
                who: note.layer.clone(),
                what,
                len: Some(note.len),
                packet: Some(note.packet.clone()),
            })
        };
        stages.iter().map(stop).collect()
    };
    let application = |after_ns, what| Stop {
        after_ns,
        who: "application".to_owned(),
        what,
        len: None,
        packet: None,
    };
    let mut down = vec![application(0, "calls connect()")];
    down.extend(stops(&first("transport-out", "tcpd")?, &DOWN)?);
    let mut up = stops(&first("transport-in", "tcpd")?, &UP)?;
    up.push(application(returned - called, "connect() returns"));
    let arp = |n: &&&Note| n.stage == "device-in" && n.detail == ARP && n.at <= returned;
    let arp_frames = notes.iter().filter(arp).count();
    Some(Walk {
        down,
        up,
        arp_frames,
    })
}

impl Walk {
    /// Nanoseconds from the call to the frame in the device, and from the device to the return.
    pub(super) fn times(&self) -> (Nanos, Nanos) {
        let at = |stop: Option<&Stop>| stop.map_or(0, |s| s.after_ns);
        let up = at(self.up.last()).saturating_sub(at(self.up.first()));
        (at(self.down.last()), up)
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        section(&mut text, "down: SYN", &self.down);
        if self.arp_frames > 0 {
            let _ = writeln!(
                text,
                "(before its turn ipd had to ask for the kernel's Ethernet address: {} ARP frame came)",
                self.arp_frames
            );
        }
        text.push('\n');
        section(&mut text, "up: SYN-ACK", &self.up);
        text
    }
}

fn section(text: &mut String, title: &str, stops: &[Stop]) {
    let packet = stops
        .iter()
        .find_map(|s| s.packet.as_deref())
        .unwrap_or_default();
    let _ = writeln!(text, "{title}, packet {packet}");
    for stop in stops {
        let len = stop.len.map_or_else(String::new, |len| format!("{len} B"));
        let _ = writeln!(
            text,
            "{:>9} us  {:<17} {:>6}  {}",
            format!("{}.{}", stop.after_ns / 1000, stop.after_ns / 100 % 10),
            stop.who,
            len,
            stop.what
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(at: Nanos, layer: &str, stage: &str, packet: &str, detail: u64) -> Note {
        let (layer, stage) = (layer.to_owned(), stage.to_owned());
        let packet = packet.to_owned();
        Note {
            at,
            layer,
            stage,
            packet,
            len: 60,
            detail,
        }
    }

    #[test]
    fn notes_are_joined_by_the_packets_number() {
        let mut notes = vec![
            note(50, "tcpd", "transport-out", "0x1", 0),
            note(110, "tcpd", "transport-out", "0x5", 0),
            note(120, "netdevd@t", "device-in", "0x9", ARP),
            note(130, "ipd", "ip-out", "0x5", 0),
            note(140, "netdevd@t", "device-out", "0x5", 0),
            note(150, "netdevd@t", "device-in", "0x7", 0x800),
            note(160, "ipd", "ip-in", "0x7", 0),
        ];
        assert_eq!(join(&notes, 100, 200), None, "tcpd has not noted it yet");
        notes.push(note(170, "tcpd", "transport-in", "0x7", 0));
        let walk = join(&notes, 100, 200).unwrap();
        let times: Vec<_> = walk
            .down
            .iter()
            .chain(&walk.up)
            .map(|s| s.after_ns)
            .collect();
        assert_eq!(times, [0, 10, 30, 40, 50, 60, 70, 100]);
        assert_eq!((walk.arp_frames, walk.times()), (1, (40, 50)));
    }
}
