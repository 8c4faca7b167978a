//! After a crash: what was at work, whether it was so too often, and what follows.

use super::Supervisor;
use super::daemon::Daemon;
use super::spawn::Ended;
use crate::admin::Quarantined;
use crate::quarantine::{Evidence, HELD, Ledger};
use crate::rundir::RunDir;
use abi::config::{DaemonConfig, Role};
use abi::control::ToDaemon;
use abi::skbuff::SkBuffDesc;
use abi::suspect::{Suspect, note};
use abi::{Endpoint, Handle, Nanos, ServiceId};
use anyhow::Context;
use nix::sys::signal::Signal;
use runtime::quarantine::identify;
use std::fs::{self, DirBuilder, File};
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use wire::pcapng::{Direction, LINKTYPE_ETHERNET, LINKTYPE_RAW, Writer};

/// Bytes kept of a packet.
const KEPT: usize = 4096;
/// Files kept; the oldest is removed.
const FILES: usize = 32;

/// Whether a process ended by its own doing. `SIGKILL` and what else is sent from outside is
/// nobody's fault; so is the end of a process that is not our child, of which we do not hear how.
/// The kernel's killer for want of memory looks like anybody's `SIGKILL` and is not counted
/// either; a memory limit of the process's own ends in `SIGABRT`, and is.
pub(super) fn is_crash(ended: Ended) -> bool {
    matches!(
        ended,
        Ended::Signal(
            Signal::SIGABRT
                | Signal::SIGSEGV
                | Signal::SIGBUS
                | Signal::SIGILL
                | Signal::SIGFPE
                | Signal::SIGTRAP
                | Signal::SIGSYS
        )
    )
}

/// Whom a predecessor blamed.
pub(super) fn saved(rundir: &RunDir) -> Ledger {
    let path = rundir.suspects_file();
    Ledger::load(&path).unwrap_or_else(|error| {
        tracing::warn!("{} is of no use: {error}", path.display());
        Ledger::default()
    })
}

impl Supervisor {
    /// The configuration of a daemon, with its core and what it is to leave alone.
    pub(super) fn config_of(&self, daemon: &Daemon, incarnation: u32) -> DaemonConfig {
        let protocol = match daemon.service.role {
            Role::Tcpd => Some(6),
            _ => None,
        };
        let mut config = self.topology.daemon_config(&daemon.service, incarnation);
        config.quarantine = self.ledger.of(daemon.service.id, protocol);
        config.core = self.core;
        config
    }

    /// The daemon `id` has crashed, its successor is not started yet.
    pub(super) fn blame(&mut self, id: ServiceId, how: &str, now: Nanos) {
        let Some((suspect, evidence)) = self.at_work(id, how) else {
            return;
        };
        let limit = self.options.config.restart.quarantine;
        let Some(daemon) = self.daemons.get(&id) else {
            return;
        };
        let name = daemon.service.name.clone();
        tracing::info!("{name} was at work on {suspect}");
        let Some(crashes) = self.ledger.blame(id, suspect, evidence, limit, now) else {
            self.save_ledger();
            return;
        };
        let count = crashes.len();
        match self.save(&name, &suspect, &crashes) {
            Ok(file) => {
                tracing::warn!(
                    "quarantined after {count} crashes of {name}: {suspect}; see {file}"
                );
                self.ledger.saved(file);
            }
            Err(error) => tracing::warn!(
                "quarantined after {count} crashes of {name}: {suspect}; not saved: {error:#}"
            ),
        }
        self.save_ledger();
        self.tell_quarantine();
    }

    /// Saves who is to blame. Without the file a supervisor that takes over begins to count anew.
    fn save_ledger(&self) {
        let path = self.options.rundir.suspects_file();
        if let Err(error) = self.ledger.save(&path) {
            tracing::warn!("cannot write {}: {error}", path.display());
        }
    }

    /// Lets go what has been quarantined long enough.
    pub(super) fn expire_quarantine(&mut self, now: Nanos) {
        if self.ledger.expire(now) {
            tracing::info!("quarantined for {} s: let go", HELD / 1_000_000_000);
            self.save_ledger();
            self.tell_quarantine();
        }
    }

    /// Tells the daemons that live; the others hear it when they start.
    fn tell_quarantine(&self) {
        for daemon in self.daemons.values() {
            if let Some(worker) = daemon.worker() {
                let config = self.config_of(daemon, daemon.incarnations.wrapping_sub(1));
                let _ = worker.control.send(ToDaemon::Configure(Box::new(config)));
            }
        }
    }

    /// What the dead daemon `id` noted last, if it still had it.
    fn at_work(&self, id: ServiceId, how: &str) -> Option<(Suspect, Evidence)> {
        let vitals = &self.daemons.get(&id)?.gauges.vitals;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let mut evidence = Evidence {
            at: u64::try_from(at.as_nanos()).ok()?,
            how: how.to_owned(),
            begins: 0,
            packet: Vec::new(),
            len: 0,
        };
        let (begins, handle) = vitals.noted();
        let handle = Handle(handle);
        let owner = self.topology.pools.iter().find(|p| p.id == handle.pool());
        let pool = owner
            .and_then(|plan| self.daemons.get(&plan.owner))
            .map(|daemon| daemon.gauges.pool);
        let (offset, len) = vitals.noted_place();
        // All of it is what the dead one, or whoever scribbled over its memory, wrote.
        let packet = pool
            .filter(|_| (note::FRAME..=note::TRANSPORT).contains(&begins))
            .and_then(|pool| pool.peek(handle, id, offset, len));
        let Some((desc, bytes)) = packet else {
            let (index, generation) = vitals.noted_socket()?;
            return Some((Suspect::Socket { index, generation }, evidence));
        };
        let suspect = identify(begins, &desc, &bytes);
        let header = match begins {
            note::TRANSPORT => ip_header(&desc, bytes.len()),
            _ => Vec::new(),
        };
        evidence.begins = begins;
        evidence.len = header.len() + bytes.len();
        evidence.packet = header;
        evidence.packet.extend(bytes.iter().take(KEPT));
        Some((suspect, evidence))
    }

    fn save(&self, layer: &str, what: &Suspect, crashes: &[Evidence]) -> anyhow::Result<String> {
        let directory = self.options.rundir.quarantine();
        // Packets are nobody else's to read.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        make_room(&directory);
        let at = crashes.last().map_or(0, |crash| crash.at / 1_000_000);
        let path = directory.join(format!("{at}-{layer}.pcapng"));
        let file =
            File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        write(BufWriter::new(file), layer, what, crashes)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// What is quarantined, for people.
    pub(super) fn quarantined(&self, now: Nanos) -> Vec<Quarantined> {
        let name = |id| {
            let daemon = self.daemons.get(&id);
            daemon.map_or_else(String::new, |d| d.service.name.clone())
        };
        let held = self.ledger.held().iter();
        held.map(|held| Quarantined {
            layer: name(held.layer),
            what: held.suspect.to_string(),
            crashes: held.crashes,
            for_ms: now.saturating_sub(held.since) / 1_000_000,
            file: held.file.clone(),
        })
        .collect()
    }
}

/// Between transports and ipd addresses travel beside the packet: analysers want a header.
fn ip_header(desc: &SkBuffDesc, payload: usize) -> Vec<u8> {
    let ip = |addr| {
        let family = desc.family;
        Endpoint {
            addr,
            family,
            port: 0,
        }
        .ip()
    };
    let mut header = vec![0; wire::ipv4::HEADER_LEN];
    if let (Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) = (ip(desc.src), ip(desc.dst)) {
        let repr = wire::ipv4::Repr {
            src,
            dst,
            protocol: desc.protocol,
            ttl: 64,
            tos: desc.tos,
            ident: 0,
            dont_frag: false,
            more_frags: false,
            frag_offset: 0,
            total_len: u16::try_from(header.len() + payload).unwrap_or(u16::MAX),
            options: Default::default(),
        };
        if repr.emit(&mut header).is_ok() {
            return header;
        }
    }
    Vec::new()
}

fn write(
    sink: impl Write,
    layer: &str,
    what: &Suspect,
    crashes: &[Evidence],
) -> std::io::Result<()> {
    let mut writer = Writer::new(sink)?;
    let ethernet = writer.interface(layer, LINKTYPE_ETHERNET, 0)?;
    let raw = writer.interface(layer, LINKTYPE_RAW, 0)?;
    for (n, crash) in crashes.iter().enumerate() {
        let begins = match crash.begins {
            note::FRAME | note::IP => "the packet as it was taken",
            note::TRANSPORT => "the IP header is made from the descriptor",
            _ => "at work on no packet",
        };
        let comment = format!(
            "{layer} died (crash {} of {}): {}; at work on {what}; {begins}",
            n + 1,
            crashes.len(),
            crash.how
        );
        let interface = if crash.begins == note::FRAME {
            ethernet
        } else {
            raw
        };
        let len = u32::try_from(crash.len).ok();
        let packet: &[&[u8]] = &[&crash.packet];
        writer.commented(
            interface,
            crash.at,
            Direction::Unknown,
            packet,
            len,
            &comment,
        )?;
    }
    writer.flush()
}

/// Removes the oldest files, by their names.
fn make_room(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let surplus = (files.len() + 1).saturating_sub(FILES);
    for file in files.iter().take(surplus) {
        let _ = fs::remove_file(file);
    }
}
