//! A committed record that is corrupt: its connection ends, at both ends, and no other notices.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("a_corrupt_record_ends_its_connection_at_both_ends", one);
}

const PAGE: u64 = 4096;

fn word(file: &File, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

/// tcpd's state memory, through the supervisor's descriptor.
fn state(lab: &Lab) -> Result<File> {
    for entry in fs::read_dir(format!("/proc/{}/fd", lab.status()?.pid))? {
        let path = entry?.path();
        if fs::read_link(&path)
            .is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:strata-state-tcpd"))
        {
            return Ok(File::options().read(true).write(true).open(path)?);
        }
    }
    anyhow::bail!("the supervisor holds no state of tcpd")
}

/// Where the current copies of the records in use are (see `shm::records` for the layout).
fn records(file: &File) -> Result<Vec<u64>> {
    let sizes = word(file, 24)?;
    let (count, len) = (sizes >> 32, sizes & 0xffff_ffff);
    let stride = (16 + len).next_multiple_of(64);
    let copies = (PAGE + 8 * count).next_multiple_of(PAGE);
    let mut all = Vec::new();
    for index in 0..count.min(64) {
        let word = word(file, PAGE + 8 * index)?;
        if word & 1 != 0 {
            all.push(copies + (2 * index + (word >> 1 & 1)) * stride);
        }
    }
    Ok(all)
}

fn one() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (mut theirs, mut ours) = connect(&lab, &stack, true)?;
    theirs.write_all(b"hello")?;
    ours.read_exact(&mut [0; 5])?;
    ours.write_all(b"world")?;
    theirs.read_exact(&mut [0; 5])?;
    let (other_theirs, other_ours) = connect(&lab, &stack, true)?;
    // Until nothing is committed any more.
    thread::sleep(Duration::from_millis(300));
    let file = state(&lab)?;
    let first = *records(&file)?.first().context("no record")?;

    let value = word(&file, first + 256)?;
    file.write_all_at(&(!value).to_le_bytes(), first + 256)?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    ensure!(
        lab.counter("tcpd", "records_corrupt")? == 1,
        "{}",
        lab.log()
    );

    theirs.set_read_timeout(Some(Duration::from_secs(5)))?;
    let error = theirs.read(&mut [0]).err().context("the kernel's end")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
    ours.set_read_timeout(Some(Duration::from_secs(5)))?;
    let error = ours.read(&mut [0]).err().context("the stack's end")?;
    ensure!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
        ),
        "{error}"
    );
    both_ways(other_ours, other_theirs, 4 << 20, Writes::MIXED)?;
    Ok(())
}
