//! Invariant 11: payload is copied as often as the design says, and counters show it.

use crate::tcp::connect;
use anyhow::{Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, one_way};
use libsocket::Stack;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("copies_per_payload_byte", copies);
    trials.add("nothing_leaks_from_the_pools", pools_are_empty_afterwards);
}

const LEN: u64 = 64 << 20;

/// Down: user to session memory, session memory to device. Up: device to pool, pool to session
/// memory, session memory to user. Between the layers: nothing.
fn copies() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    one_way(ours, theirs, LEN, Writes::BIG)?;
    let payload = lab.counter("tcpd", "tx_payload_bytes")?;
    let copied = lab.counter("tcpd", "tx_copied_bytes")?;
    ensure!(payload >= LEN, "tcpd sent {payload} bytes of payload");
    // What is sent again counts twice, and the last bytes of a window may be few.
    ensure!(
        payload < LEN + LEN / 10,
        "tcpd sent {payload} bytes of payload for {LEN}"
    );
    ensure!(
        copied * 100 <= payload,
        "tcpd copied {copied} of {payload} bytes it sent"
    );

    let (theirs, ours) = connect(&lab, &stack, true)?;
    one_way(theirs, ours, LEN, Writes::BIG)?;
    let payload = lab.counter("tcpd", "rx_payload_bytes")?;
    let copied = lab.counter("tcpd", "rx_copied_bytes")?;
    ensure!(payload >= LEN, "tcpd received {payload} bytes of payload");
    ensure!(
        copied >= LEN && copied <= payload,
        "tcpd copied {copied} of {payload} bytes"
    );
    Ok(())
}

/// Invariant 2, seen from outside.
fn pools_are_empty_afterwards() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        one_way(ours, theirs, LEN / 4, Writes::MIXED)?;
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    for daemon in lab.status()?.daemons {
        // netdevd holds a small and a large slot ready for the next frame.
        let ready = if daemon.name.starts_with("netdevd") {
            128
        } else {
            0
        };
        ensure!(
            daemon.pool_used <= ready,
            "{} has {} slots in use",
            daemon.name,
            daemon.pool_used
        );
    }
    Ok(())
}
