//! The sizes of TCP's buffers are what the configuration says.

use crate::path::{ACKED, info_of_kernel, info_of_stack};
use crate::tcp::connect;
use anyhow::{Result, ensure};
use integration::Trials;
use libsocket::Stack;
use std::io::{ErrorKind, Write};
use std::thread::sleep;
use std::time::Duration;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("buffers_are_as_large_as_configured", sizes);
}

/// Bytes that can be written until there was no room for a while.
fn fill(stream: &mut impl Write) -> Result<u64> {
    let (mut written, mut idle) = (0, 0);
    while idle < 20 {
        match stream.write(&[7; 16 << 10]) {
            Ok(n) => (written, idle) = (written + n as u64, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle += 1;
                sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn sizes() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        extra: "[tcp]\nreceive-buffer = [\"16KiB\", \"48KiB\"]\nsend-buffer = [\"16KiB\", \
                \"32KiB\"]\n"
            .to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (mut theirs, mut ours) = connect(&lab, &stack, stack_opens)?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let written = fill(&mut ours)?;
        let kept = written - info_of_stack(&ours)?.u64(ACKED);
        ensure!(
            kept <= 32 << 10 && kept >= 8 << 10,
            "{kept} bytes in the send buffer"
        );
        fill(&mut theirs)?;
        // The kernel counts its SYN.
        let taken = info_of_kernel(&theirs)?.u64(ACKED);
        ensure!(
            taken <= (48 << 10) + 1 && taken >= 8 << 10,
            "{taken} bytes in the receive buffer"
        );
    }
    Ok(())
}
