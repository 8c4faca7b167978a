//! What must be as it was when all traffic has ended.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::admin::{Answer, Request, Status};
use strata::lab::Lab;

/// How long closed connections may take to be gone: TIME_WAIT and a little more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Buffers that a netdevd holds ready for the next frame: a small one and its continuation.
const READY: u32 = 2;

/// Before any traffic.
#[derive(Debug)]
pub(super) struct Baseline {
    descriptors: BTreeMap<String, usize>,
    /// Stored by each layer: a transport's table of sessions.
    stored: BTreeMap<String, usize>,
}

impl Baseline {
    pub(super) fn of(lab: &Lab) -> Result<Self> {
        let status = lab.status()?;
        let stored = status.daemons.iter().map(|d| (d.name.clone(), d.stored));
        Ok(Self {
            descriptors: descriptors(&status),
            stored: stored.collect(),
        })
    }

    /// Waits until everything is as it was.
    pub(super) fn compare(&self, lab: &Lab) -> Result<()> {
        let begin = Instant::now();
        loop {
            let now = self.look(lab);
            if now.is_ok() || begin.elapsed() > PATIENCE {
                return now;
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn look(&self, lab: &Lab) -> Result<()> {
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
        for (name, now) in descriptors(&status) {
            let before = self.descriptors.get(&name).copied().unwrap_or(0);
            ensure!(
                now <= before,
                "{name} has {now} descriptors, {before} before"
            );
        }
        Ok(())
    }
}

/// Open descriptors of supervisor, keeper and layers.
fn descriptors(status: &Status) -> BTreeMap<String, usize> {
    let layers = status.daemons.iter().map(|d| (d.name.as_str(), d.pid));
    let others = [("keeper", status.keeper), ("supervisor", Some(status.pid))];
    let count = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    layers
        .chain(others)
        .filter_map(|(name, pid)| Some((name.to_owned(), count(pid?))))
        .collect()
}
