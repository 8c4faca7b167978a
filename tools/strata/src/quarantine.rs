//! Who is to blame for crashes, and who is quarantined for it: a bounded table without a clock of
//! its own.
//!
//! ```text
//!   crash --> blame(layer, suspect) --> 1, 2 deaths: remembered for a minute
//!                                   --> the limit: quarantined, for ten minutes
//! ```
//!
//! What was at work in one crash, or in two, may have been so by chance: a connection that moves
//! much is often at work. Only a daemon's own end counts, so that killing daemons blames nobody.
//! The table is the supervisor's, which saves it at each change and before the layer runs again: a
//! supervisor that takes over goes on where its predecessor was.

use abi::suspect::Suspect;
use abi::{Nanos, ServiceId};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How long a crash is held against what was at work in it.
const REMEMBERED: Nanos = 60_000_000_000;
/// How long what is quarantined stays so: ports are used again by others.
pub const HELD: Nanos = 600_000_000_000;
/// Suspects at a time; the one that was blamed least recently makes room.
const SUSPECTS: usize = 256;
/// Quarantined at a time; the oldest makes room.
const MAX_HELD: usize = 64;

/// What is known of one crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When, in nanoseconds since 1970.
    pub at: u64,
    /// How the daemon ended.
    pub how: String,
    /// What begins the packet ([`abi::suspect::note`]); 0 without one.
    pub begins: u32,
    /// The packet, as far as it was kept.
    pub packet: Vec<u8>,
    /// Bytes it had in all.
    pub len: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    layer: ServiceId,
    suspect: Suspect,
    last: Nanos,
    crashes: Vec<Evidence>,
}

/// Something that is quarantined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The layer that died of it.
    pub layer: ServiceId,
    /// What it is.
    pub suspect: Suspect,
    /// Crashes it was at work in.
    pub crashes: u32,
    /// Since when.
    pub since: Nanos,
    /// Where it is saved.
    pub file: Option<String>,
}

/// All suspects.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    suspects: Vec<Entry>,
    held: Vec<Held>,
}

impl Ledger {
    /// What was saved at `path`; nothing when nothing was. Times are of the clock since the
    /// machine's start, which all supervisors share.
    ///
    /// # Errors
    /// When it cannot be read or is not what was saved.
    pub fn load(path: &Path) -> io::Result<Self> {
        let file = match OpenOptions::new().read(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            file => file?,
        };
        let mut ledger: Self = serde_json::from_reader(BufReader::new(file))?;
        ledger.suspects.truncate(SUSPECTS);
        ledger.held.truncate(MAX_HELD);
        Ok(ledger)
    }

    /// Saves everything at `path`, for this user alone: packets are in it.
    ///
    /// # Errors
    /// When it cannot be written; what was saved before is still there.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, self)?;
        out.flush()?;
        fs::rename(fresh, path)
    }

    /// `suspect` was at work when `layer` crashed. Answers what is known of all its crashes when
    /// these are `limit` (0: never) and it is quarantined from now on.
    pub fn blame(
        &mut self,
        layer: ServiceId,
        suspect: Suspect,
        evidence: Evidence,
        limit: u32,
        now: Nanos,
    ) -> Option<Vec<Evidence>> {
        self.suspects
            .retain(|e| now.saturating_sub(e.last) < REMEMBERED);
        let known = self
            .suspects
            .iter()
            .position(|e| (e.layer, e.suspect) == (layer, suspect));
        let mut entry = match known {
            Some(at) => self.suspects.remove(at),
            None => Entry {
                layer,
                suspect,
                last: now,
                crashes: Vec::new(),
            },
        };
        entry.last = now;
        entry.crashes.push(evidence);
        if limit > 0 && entry.crashes.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            self.hold(&entry, now);
            return Some(entry.crashes);
        }
        // Oldest first.
        if self.suspects.len() >= SUSPECTS {
            self.suspects.remove(0);
        }
        self.suspects.push(entry);
        None
    }

    fn hold(&mut self, entry: &Entry, now: Nanos) {
        self.held
            .retain(|held| (held.layer, held.suspect) != (entry.layer, entry.suspect));
        if self.held.len() >= MAX_HELD {
            self.held.remove(0);
        }
        self.held.push(Held {
            layer: entry.layer,
            suspect: entry.suspect,
            crashes: u32::try_from(entry.crashes.len()).unwrap_or(u32::MAX),
            since: now,
            file: None,
        });
    }

    /// Notes where what was quarantined last is saved.
    pub fn saved(&mut self, file: String) {
        if let Some(held) = self.held.last_mut() {
            held.file = Some(file);
        }
    }

    /// Everything that is quarantined, oldest first.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// What `layer` is to leave alone: what it died of, and the flows of `protocol` that any layer
    /// died of, when it is the transport of these.
    #[must_use]
    pub fn of(&self, layer: ServiceId, protocol: Option<u8>) -> Vec<Suspect> {
        let concerns = |held: &&Held| {
            let is_its_flow =
                matches!(held.suspect, Suspect::Flow(flow) if Some(flow.protocol) == protocol);
            held.layer == layer || is_its_flow
        };
        let of = self.held.iter().filter(concerns);
        of.map(|held| held.suspect).collect()
    }

    /// Lets go what has been quarantined long enough; true when something was.
    pub fn expire(&mut self, now: Nanos) -> bool {
        let before = self.held.len();
        self.held.retain(|h| now.saturating_sub(h.since) < HELD);
        self.held.len() != before
    }

    /// When [`Ledger::expire`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        let ends = self.held.iter().map(|h| h.since.saturating_add(HELD));
        ends.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;
    const IPD: ServiceId = ServiceId(1);
    const TCPD: ServiceId = ServiceId(2);

    fn crash() -> Evidence {
        Evidence {
            at: 0,
            how: "SIGABRT".to_owned(),
            begins: 0,
            packet: Vec::new(),
            len: 0,
        }
    }

    fn flow(port: u16) -> Suspect {
        Suspect::Flow(abi::suspect::Flow {
            protocol: 6,
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            src_port: port,
            dst_port: 80,
        })
    }

    #[test]
    fn the_third_crash_quarantines_it_and_nothing_else() {
        let mut ledger = Ledger::default();
        for (at, port) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
            assert_eq!(ledger.blame(IPD, flow(port), crash(), 3, at * S), None);
        }
        // Another layer's crashes are not this one's.
        assert_eq!(ledger.blame(TCPD, flow(1), crash(), 3, 4 * S), None);
        let crashes = ledger.blame(IPD, flow(1), crash(), 3, 5 * S);
        assert_eq!(crashes.map(|c| c.len()), Some(3));
        assert_eq!(ledger.held().len(), 1);
        assert_eq!(ledger.of(IPD, None), [flow(1)]);
        // Its transport is to end the connection.
        assert_eq!(ledger.of(TCPD, Some(6)), [flow(1)]);
        assert!(ledger.of(TCPD, Some(17)).is_empty());
    }

    #[test]
    fn a_minute_of_good_running_clears_the_blame() {
        let mut ledger = Ledger::default();
        for at in [0, 59, 119, 179] {
            assert_eq!(ledger.blame(IPD, flow(1), crash(), 3, at * S), None, "{at}");
            ledger
                .suspects
                .iter_mut()
                .for_each(|e| e.crashes.truncate(1));
        }
        let mut ledger = Ledger::default();
        for at in [0, 61, 122, 183] {
            assert_eq!(ledger.blame(IPD, flow(1), crash(), 2, at * S), None, "{at}");
        }
    }

    #[test]
    fn nothing_is_quarantined_when_it_is_switched_off() {
        let mut ledger = Ledger::default();
        for at in 0..20 {
            assert_eq!(ledger.blame(IPD, flow(1), crash(), 0, at), None);
        }
        assert!(ledger.held().is_empty());
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut ledger = Ledger::default();
        for port in 0..1000 {
            let _ = ledger.blame(IPD, flow(port), crash(), 3, port.into());
        }
        assert_eq!(ledger.suspects.len(), SUSPECTS);
        for port in 0..1000 {
            assert!(ledger.blame(IPD, flow(port), crash(), 1, 5000).is_some());
        }
        assert_eq!(ledger.held().len(), MAX_HELD);
        assert_eq!(ledger.held()[0].suspect, flow(1000 - 64));
    }

    #[test]
    fn a_successor_goes_on_with_what_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("suspects");
        assert_eq!(Ledger::load(&path).unwrap(), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.blame(IPD, flow(1), crash(), 2, S);
        ledger.blame(IPD, flow(2), crash(), 1, S);
        ledger.saved("a file".to_owned());
        ledger.save(&path).unwrap();
        let mut next = Ledger::load(&path).unwrap();
        assert_eq!(next, ledger);
        assert!(next.blame(IPD, flow(1), crash(), 2, 2 * S).is_some());
        assert_eq!(next.of(IPD, None), [flow(2), flow(1)]);
        fs::write(&path, "{").unwrap();
        assert!(Ledger::load(&path).is_err());
    }

    #[test]
    fn a_quarantine_ends() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.deadline(), None);
        assert!(ledger.blame(IPD, flow(1), crash(), 1, S).is_some());
        assert_eq!(ledger.deadline(), Some(S + HELD));
        assert!(!ledger.expire(HELD));
        assert!(ledger.expire(S + HELD));
        assert!(ledger.of(IPD, None).is_empty());
    }
}
