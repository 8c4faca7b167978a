//! What must be as it was when all traffic has ended.

use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::admin::{Answer, Request, Status};
use strata::lab::Lab;

/// How long closed connections may take to be gone: TIME_WAIT and a little more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Buffers that a netdevd holds ready for the next frame: a small one and its continuation.
const READY: u32 = 2;

/// By how much a process's own memory may have grown, in KiB: what its allocator keeps, and for
/// each connection that it had what its tables were enlarged by.
const GROWTH_KB: u64 = 3 * 1024;
const GROWTH_KB_EACH: u64 = 4;

/// Before any traffic.
#[derive(Debug)]
pub struct Baseline {
    /// Private memory in KiB.
    memory: BTreeMap<String, u64>,
    descriptors: BTreeMap<String, Kinds>,
    /// Shared memories of each name that any process maps or holds.
    shared: BTreeMap<String, usize>,
    /// Stored by each layer: a transport's table of sessions.
    stored: BTreeMap<String, usize>,
}

impl Baseline {
    /// What there is now.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn of(lab: &Lab) -> Result<Self> {
        let begin = Instant::now();
        let mut status = lab.status()?;
        // The supervisor talks to spare processes as well.
        while status.daemons.iter().any(|d| d.spare.is_none()) {
            ensure!(begin.elapsed() < PATIENCE, "a layer has no spare process");
            sleep(Duration::from_millis(5));
            status = lab.status()?;
        }
        let stored = status.daemons.iter().map(|d| (d.name.clone(), d.stored));
        Ok(Self {
            memory: memory(&status),
            descriptors: descriptors(&status),
            shared: shared(&status),
            stored: stored.collect(),
        })
    }

    /// Waits until everything is as it was; there were so many `connections`.
    ///
    /// # Errors
    /// What has leaked.
    pub fn compare(&self, lab: &Lab, connections: usize) -> Result<()> {
        let begin = Instant::now();
        loop {
            let now = self.look(lab, connections);
            if now.is_ok() || begin.elapsed() > PATIENCE {
                return now;
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn look(&self, lab: &Lab, connections: usize) -> Result<()> {
        let status = lab.status()?;
        for daemon in &status.daemons {
            let (name, used) = (&daemon.name, daemon.pool_used);
            let held = if name.starts_with("netdevd") {
                READY
            } else {
                0
            };
            ensure!(used <= held, "{used} buffers of {name} are not free");
            let (stored, before) = (daemon.stored, self.stored.get(name).copied().unwrap_or(0));
            ensure!(
                stored <= before,
                "{stored} descriptors of {name} are stored, {before} before"
            );
        }
        for layer in ["tcpd", "udpd"] {
            let request = Request::Query {
                layer: layer.to_owned(),
                what: abi::control::Query::Sockets,
            };
            if let Answer::Table { rows, .. } = lab.ask(&request)? {
                ensure!(rows.is_empty(), "{layer} has sockets: {rows:?}");
            }
        }
        for (name, now) in memory(&status) {
            let before = self.memory.get(&name).copied().unwrap_or(0);
            let most = before + GROWTH_KB + GROWTH_KB_EACH * connections as u64;
            ensure!(
                now <= most,
                "{name} has {now} KiB of memory of its own, {before} KiB before"
            );
        }
        for (name, now) in descriptors(&status) {
            let before = self.descriptors.get(&name).cloned().unwrap_or_default();
            ensure!(
                now == before,
                "{name} has other descriptors than before: {now:?}, not {before:?}"
            );
        }
        for (name, now) in shared(&status) {
            let before = self.shared.get(&name).copied().unwrap_or(0);
            ensure!(
                now <= before,
                "there are {now} memories called {name}, {before} before"
            );
        }
        Ok(())
    }
}

/// Supervisor, keeper and layers.
fn processes(status: &Status) -> impl Iterator<Item = (String, u32)> + '_ {
    let layers = status.daemons.iter().map(|d| (d.name.as_str(), d.pid));
    let others = [("keeper", status.keeper), ("supervisor", Some(status.pid))];
    let all = layers.chain(others);
    all.filter_map(|(name, pid)| Some((name.to_owned(), pid?)))
}

/// How many descriptors there are of each kind.
type Kinds = BTreeMap<String, usize>;

/// Their open descriptors.
fn descriptors(status: &Status) -> BTreeMap<String, Kinds> {
    let unix = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let kinds = |pid: u32| {
        let mut kinds = Kinds::new();
        let all = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        for link in all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
            let link = link.to_string_lossy().into_owned();
            // Sockets and pipes have a number each.
            let (kind, number) = link.split_once(":[").unwrap_or((&link, ""));
            let number = number.trim_end_matches(']');
            let unix = unix
                .lines()
                .find(|line| line.split_whitespace().nth(6) == Some(number));
            // Type and state: 0005 is SEQPACKET, 0001 STREAM.
            let words = unix
                .into_iter()
                .flat_map(|line| line.split_whitespace().skip(3).take(3));
            let words: Vec<_> = words.collect();
            let kind = format!("{kind} {}", words.join(" "));
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    };
    processes(status)
        .map(|(name, pid)| (name, kinds(pid)))
        .collect()
}

/// The memfds that they map or hold, by name: how many different ones. (Those that there are from the
/// beginning have their whole size then, of pages that were used or not.)
fn shared(status: &Status) -> BTreeMap<String, usize> {
    let mut all: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut note = |target: &str, inode: Option<u64>| {
        let name = target
            .strip_prefix("/memfd:")
            .map(|name| name.trim_end_matches(" (deleted)").to_owned());
        if let Some((name, inode)) = name.zip(inode) {
            all.entry(name).or_default().insert(inode);
        }
    };
    for (_, pid) in processes(status) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for line in maps.lines() {
            // Address, access, offset, device, inode, name.
            let mut words = line.split_ascii_whitespace().skip(4);
            let inode = words.next().and_then(|inode| inode.parse().ok());
            note(words.next().unwrap_or_default(), inode);
        }
        let held = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        for path in held.filter_map(|entry| Some(entry.ok()?.path())) {
            let target = fs::read_link(&path).unwrap_or_default();
            let inode = fs::metadata(&path).ok().map(|about| about.ino());
            note(&target.to_string_lossy(), inode);
        }
    }
    let count = |(name, inodes): (String, BTreeSet<u64>)| (name, inodes.len());
    all.into_iter().map(count).collect()
}

/// Their memory that is nobody else's, in KiB.
fn memory(status: &Status) -> BTreeMap<String, u64> {
    let anonymous = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let words = line.and_then(|line| line.split_whitespace().next());
        words.and_then(|kb| kb.parse().ok()).unwrap_or(0)
    };
    processes(status)
        .map(|(name, pid)| (name, anonymous(pid)))
        .collect()
}
