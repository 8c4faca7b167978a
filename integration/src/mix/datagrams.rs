//! UDP echo and ping: packets at a steady pace, and a receiver that blocks. What is lost is lost;
//! what comes must be right, and no call may fail.

use super::ends::Datagrams;
use super::{Mix, Part, Place, Shared, Traffic};
use anyhow::{Context, Result, ensure};
use libsocket::{PingSocket, UdpSocket};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pauses between two datagrams and between two pings: the resolution of the gaps.
const PACE: Duration = Duration::from_millis(1);
const PING_PACE: Duration = Duration::from_millis(2);

/// How long the side that echoes waits at a time.
const WAIT: Duration = Duration::from_millis(50);

/// What a ping carries.
const QUESTION: &[u8] = b"are you there";

/// Set however the receiver ends: the others would go on for ever.
#[derive(Default)]
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn add(mix: &mut Mix, place: &Place) -> Result<()> {
    add_echo(mix, place)?;
    add_ping(mix, place)
}

/// Has `send` do its work at a `pace` until the mix ends, and then until the receiver, which
/// blocks, has ended as well.
fn keep_on(
    shared: &Shared,
    (pace, patience): (Duration, Duration),
    over: &AtomicBool,
    mut send: impl FnMut() -> Result<()>,
) -> Result<()> {
    while !shared.is_stopping() && !over.load(Ordering::Relaxed) {
        send()?;
        sleep(pace);
    }
    let begin = Instant::now();
    while !over.load(Ordering::Relaxed) && begin.elapsed() < patience {
        send()?;
        sleep(10 * pace);
    }
    Ok(())
}

fn add_echo(mix: &mut Mix, place: &Place) -> Result<()> {
    let over = Over::default();
    let (ended, receiver_ended) = (Arc::clone(&over.0), Arc::clone(&over.0));
    let ours = Arc::new(place.stack.udp((place.stack_address, 0))?);
    let patience = place.patience;
    ours.set_read_timeout(Some(patience))?;
    ours.set_write_timeout(Some(patience))?;
    let theirs = place.peer.datagrams()?;
    theirs.patience(WAIT)?;
    let to = theirs.address()?;
    mix.spawn("UDP echo, the peer's side", move |_| {
        answer(&theirs, &ended)
    })?;
    let sender = Arc::clone(&ours);
    let sent = Arc::new(AtomicU64::new(0));
    let last = Arc::clone(&sent);
    mix.spawn("UDP echo, sender", move |shared| {
        keep_on(shared, (PACE, patience), &receiver_ended, || {
            let number = last.fetch_add(1, Ordering::Relaxed) + 1;
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(length(number)?, 7);
            sender.send_to(&bytes, to).context("send_to")?;
            Ok(())
        })
    })?;
    mix.spawn("UDP echo, receiver", move |shared| {
        let _over = over;
        let receiver = shared.silence.begin(Traffic::Datagrams);
        let ended = receive_echoes(&ours, to, &sent, shared, receiver);
        shared.silence.end(receiver);
        ended
    })
}

/// Length of datagram `number`.
fn length(number: u64) -> Result<usize> {
    Ok(8 + usize::try_from(number % 1200)?)
}

fn answer(theirs: &Datagrams, ended: &AtomicBool) -> Result<()> {
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
}

fn receive_echoes(
    ours: &UdpSocket,
    to: SocketAddr,
    sent: &AtomicU64,
    shared: &Shared,
    receiver: usize,
) -> Result<()> {
    let mut buffer = [0; 2048];
    while !shared.is_stopping() {
        let (n, from) = ours
            .recv_from(&mut buffer)
            .context("the recv_from that blocks")?;
        ensure!(from == to, "from {from}");
        let got = buffer.get(..n).unwrap_or_default();
        let (id, rest) = got.split_first_chunk().context("a short datagram")?;
        let id = u64::from_le_bytes(*id);
        ensure!(
            id <= sent.load(Ordering::Relaxed)
                && n == length(id)?
                && rest.iter().all(|&byte| byte == 7),
            "{n} bytes of datagram {id}"
        );
        shared.silence.hear(receiver);
        shared.did(Part::Datagrams);
    }
    Ok(())
}

fn add_ping(mix: &mut Mix, place: &Place) -> Result<()> {
    let over = Over::default();
    let ended = Arc::clone(&over.0);
    let ping = Arc::new(place.stack.ping(false)?);
    let patience = place.patience;
    ping.set_read_timeout(Some(patience))?;
    ping.socket().set_write_timeout(Some(patience))?;
    let host = place.peer.address();
    let sender = Arc::clone(&ping);
    mix.spawn("ping, sender", move |shared| {
        let mut seq = 0u16;
        keep_on(shared, (PING_PACE, patience), &ended, || {
            seq = seq.wrapping_add(1);
            let sent = sender.send_to(seq, QUESTION, host.into());
            sent.context("sending a ping")
        })
    })?;
    mix.spawn("ping, receiver", move |shared| {
        let _over = over;
        let receiver = shared.silence.begin(Traffic::Datagrams);
        let ended = receive_pongs(&ping, shared, receiver);
        shared.silence.end(receiver);
        ended
    })
}

fn receive_pongs(ping: &PingSocket, shared: &Shared, receiver: usize) -> Result<()> {
    let mut buffer = [0; 256];
    while !shared.is_stopping() {
        let echo = ping
            .recv_from(&mut buffer)
            .context("receiving a pong, which blocks")?;
        let got = buffer.get(..echo.len).unwrap_or_default();
        ensure!(got == QUESTION, "another pong: {got:?}");
        shared.silence.hear(receiver);
        shared.did(Part::Pings);
    }
    Ok(())
}
