//! Daemons die while they free buffers that nobody would, after something wrote over the words that
//! say whose they are.

use super::lab;
use crate::scribbled::{memories, used};
use crate::tcp::connect;
use abi::ServiceId;
use anyhow::{Context, Result, ensure};
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use shm::crash::{Point, Site, Trigger};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strata::lab::Lab;
use strata::topology::{IPD, TCPD, UDPD};

const PAGE: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(10);

/// Names some free slots of every pool as those of `owner`.
fn scribble(lab: &Lab, owner: ServiceId, generation: u64) -> Result<()> {
    for pool in memories(lab, "strata-pool-")? {
        for slot in 40..48 {
            let word = generation << 32 | u64::from(owner.0);
            pool.write_all_at(&word.to_le_bytes(), PAGE + 8 * slot)?;
        }
    }
    Ok(())
}

fn wait<T>(what: &str, mut found: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = found()? {
            return Ok(found);
        }
        ensure!(begin.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(5));
    }
}

pub(super) fn everywhere() -> Result<()> {
    let trigger = Trigger::new()?;
    let lab = lab(&trigger, "")?;
    let services = [
        ("netdevd", ServiceId(4)),
        ("ipd", IPD),
        ("tcpd", TCPD),
        ("udpd", UDPD),
    ];
    for (layer, service) in services {
        let site = |trigger: &Trigger| -> Option<Site> {
            let mut sites = trigger.sites(service).into_iter().map(|(site, _)| site);
            sites.find(|site| site.point == Point::SlotFreed && site.place().contains("lost.rs"))
        };
        scribble(&lab, service, 8)?;
        let site = wait("nothing that is lost is freed", || Ok(site(&trigger)))
            .with_context(|| layer.to_owned())?;
        let (old, deaths) = (
            lab.layer(layer)?.pid.context("no process")?,
            trigger.deaths(),
        );
        trigger.arm_at(service, &site, 2);
        scribble(&lab, service, 4096)?;
        wait("it did not die", || {
            Ok((trigger.deaths() > deaths).then_some(()))
        })
        .with_context(|| layer.to_owned())?;
        lab.wait_replaced(layer, old)?;
        wait("buffers are lost", || Ok((used(&lab)? == 0).then_some(())))
            .with_context(|| format!("after {layer} died at {site}\n{}", lab.log()))?;
    }
    let (theirs, ours) = connect(&lab, &Stack::open(lab.path()), true)?;
    both_ways(ours, theirs, 4 << 20, Writes::MIXED).context("afterwards")?;
    println!("{} deaths", trigger.deaths());
    Ok(())
}
