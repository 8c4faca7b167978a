//! UDP echo and ping. What is lost is lost; what comes must be right, and no call may fail.

use super::{Mix, Part, Place};
use anyhow::{Context, Result, ensure};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// How long to wait for an answer.
const WAIT: Duration = Duration::from_millis(50);

/// Set however the one side ends: the other would echo for ever.
#[derive(Default)]
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn add(mix: &mut Mix, place: &Place) -> Result<()> {
    let over = Over::default();
    let ended = Arc::clone(&over.0);
    let ours = place.stack.udp((place.stack_address, 0))?;
    ours.set_read_timeout(Some(WAIT))?;
    let theirs = place.peer.datagrams()?;
    theirs.patience(WAIT)?;
    let to = theirs.address()?;
    mix.spawn("UDP echo, the peer's side", move |_| {
        let mut buffer = [0; 2048];
        while !ended.load(Ordering::Relaxed) {
            match theirs.recv_from(&mut buffer) {
                Ok((n, from)) => {
                    theirs.send_to(buffer.get(..n).unwrap_or_default(), from)?;
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("receiving to echo"),
            }
        }
        Ok(())
    })?;
    mix.spawn("UDP echo, the stack's side", move |shared| {
        let _over = over;
        let mut buffer = [0; 2048];
        let mut number = 0u64;
        while !shared.is_stopping() {
            number += 1;
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(8 + usize::try_from(number % 1200)?, 7);
            ours.send_to(&bytes, to).context("send_to")?;
            loop {
                match ours.recv_from(&mut buffer) {
                    Ok((n, from)) => {
                        ensure!(from == to, "from {from}");
                        let got = buffer.get(..n).unwrap_or_default();
                        let id = got.first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
                        ensure!(
                            id <= number && n as u64 == 8 + id % 1200,
                            "{n} bytes of datagram {id}"
                        );
                        // One that is late is of an earlier round.
                        if id == number {
                            shared.did(Part::Datagrams);
                            break;
                        }
                    }
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        break;
                    }
                    Err(error) => return Err(error).context("recv_from"),
                }
            }
            sleep(Duration::from_millis(2));
        }
        Ok(())
    })?;
    let ping = place.stack.ping(false)?;
    ping.set_read_timeout(Some(WAIT))?;
    let host = place.peer.address();
    mix.spawn("ping", move |shared| {
        let mut buffer = [0; 256];
        let mut seq = 0u16;
        while !shared.is_stopping() {
            seq = seq.wrapping_add(1);
            ping.send_to(seq, b"are you there", host.into())
                .context("sending a ping")?;
            match ping.recv_from(&mut buffer) {
                Ok(_) => shared.did(Part::Pings),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("receiving a pong"),
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    })
}
