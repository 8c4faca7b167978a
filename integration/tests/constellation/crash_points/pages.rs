//! tcpd dies while it gives pages of buffers back, which it does when memory is short.

use super::lab;
use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use shm::crash::{Point, Site, Trigger};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use strata::topology::TCPD;

/// What is passed only, or mostly, here.
pub(super) const POINTS: [Point; 2] = [Point::WriterShutOut, Point::PagesGiven];

/// Ways pages are given back: of sockets in use, of idle ones, of those that are freed.
const WAYS: usize = 5;

/// Sockets that nobody reads use the memory up; others transfer, or are idle.
pub(super) fn short() -> Result<()> {
    let trigger = Trigger::new()?;
    let lab = lab(&trigger, "memory = \"4MiB\"\n")?;
    let stack = Stack::open(lab.path());
    let mut idle = (0..4)
        .map(|_| connect(&lab, &stack, true))
        .collect::<Result<Vec<_>>>()?;
    let mut stalled = Vec::new();
    while lab.counter("tcpd", "memory_pressure")? == 0 {
        ensure!(stalled.len() < 100, "100 full buffers are no pressure");
        let (mut theirs, ours) = connect(&lab, &stack, true)?;
        // What does not fit waits in the kernel.
        theirs.write_all(&[7; 200 << 10])?;
        sleep(Duration::from_millis(5));
        stalled.push((theirs, ours));
    }
    let mut died: BTreeSet<Site> = BTreeSet::new();
    let mut rounds = 0;
    let begin = Instant::now();
    loop {
        let new = trigger
            .sites(TCPD)
            .into_iter()
            .find(|(site, _)| POINTS.contains(&site.point) && !died.contains(site));
        if new.is_none() && died.len() >= WAYS {
            break;
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(40),
            "died only at {died:?}\n{}",
            lab.log()
        );
        let deaths = trigger.deaths();
        if let Some((site, _)) = &new {
            trigger.arm_at(TCPD, site, 1);
        }
        let (theirs, ours) = connect(&lab, &stack, true)?;
        let transfer = thread::spawn(move || both_ways(ours, theirs, 2 << 20, Writes::BIG));
        for (theirs, ours) in &mut idle {
            let mut bytes = [0; 5000];
            theirs.write_all(&[3; 5000])?;
            ours.read_exact(&mut bytes).with_context(|| lab.log())?;
            ours.write_all(&bytes)?;
            theirs.read_exact(&mut bytes)?;
            ensure!(bytes == [3; 5000], "other bytes");
        }
        transfer
            .join()
            .map_err(|_| anyhow::anyhow!("panicked"))?
            .with_context(|| lab.log())?;
        sleep(Duration::from_millis(700));
        if trigger.deaths() > deaths {
            died.extend(new.map(|(site, _)| site));
        }
        rounds += 1;
    }
    for site in &died {
        println!("{site}");
    }
    println!("{rounds} rounds, {} deaths", trigger.deaths());
    Ok(())
}
