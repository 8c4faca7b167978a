//! What must be as it was when all traffic has ended.

use anyhow::{Result, ensure};
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
    descriptors: usize,
}

impl Baseline {
    pub(super) fn of(lab: &Lab) -> Result<Self> {
        Ok(Self {
            descriptors: descriptors(&lab.status()?),
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
            let stored = daemon.stored;
            ensure!(stored == 0, "{stored} descriptors of {name} are stored");
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
        let now = descriptors(&status);
        ensure!(
            now <= self.descriptors,
            "supervisor, keeper and layers have {now} descriptors, {} before",
            self.descriptors
        );
        Ok(())
    }
}

/// Open descriptors of supervisor, keeper and layers together.
fn descriptors(status: &Status) -> usize {
    let layers = status.daemons.iter().filter_map(|d| d.pid);
    let all = layers.chain(status.keeper).chain([status.pid]);
    all.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .map(Iterator::count)
        .sum()
}
