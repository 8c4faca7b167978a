//! `SO_MAX_PACING_RATE` and `TCP_NOTSENT_LOWAT`, with the kernel at the other end, and tcpd killed
//! meanwhile.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::{Stack, TcpStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("max_pacing_rate_across_a_kill", max_pacing_rate);
    trials.add("notsent_lowat_across_a_kill", notsent_lowat);
}

/// Bytes a second.
const RATE: u64 = 4_000_000;
const TOTAL: usize = 8_000_000;

fn max_pacing_rate() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (mut theirs, mut ours) = connect(&lab, &stack, true)?;
    ensure!(ours.max_pacing_rate()? == u64::MAX);
    ours.set_max_pacing_rate(RATE)?;
    let begin = Instant::now();
    let writer = thread::spawn(move || -> Result<TcpStream> {
        ours.write_all(&vec![7; TOTAL])?;
        Ok(ours)
    });
    let reader = thread::spawn(move || -> Result<Duration> {
        theirs.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut all = vec![0; TOTAL];
        theirs.read_exact(&mut all)?;
        ensure!(all.iter().all(|&b| b == 7), "other bytes");
        Ok(begin.elapsed())
    });
    thread::sleep(Duration::from_millis(700));
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    let panicked = |_| anyhow::anyhow!("panicked");
    let took = reader.join().map_err(panicked)??;
    let ours = writer.join().map_err(panicked)??;
    println!("{TOTAL} bytes at {RATE} a second took {took:?}");
    // Two seconds; a unit or two may leave ahead of their time.
    ensure!(took > Duration::from_millis(1_850), "{took:?}");
    ensure!(took < Duration::from_secs(8), "{took:?}");
    ensure!(ours.max_pacing_rate()? == RATE);
    Ok(())
}

const MARK: u32 = 64 * 1024;

/// `tcpi_notsent_bytes`.
fn notsent(stream: &TcpStream) -> Result<u32> {
    let info = stream.tcp_info()?;
    let bytes = info.get(144..148).context("TCP_INFO is too short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

/// Writes until there is no room. Returns the bytes.
fn fill(stream: &mut TcpStream) -> Result<usize> {
    let mut written = 0;
    loop {
        match stream.write(&[7; 10_000]) {
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(written),
            Err(e) => return Err(e.into()),
        }
    }
}

fn is_writable(stream: &TcpStream, wait: u16) -> Result<bool> {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::from(wait))?;
    let seen = fds[0].revents().unwrap_or(PollFlags::empty());
    Ok(seen.contains(PollFlags::POLLOUT))
}

/// Writes until nothing leaves any more. Returns the bytes.
fn fill_up(stream: &mut TcpStream) -> Result<usize> {
    let mut written = 0;
    loop {
        written += fill(stream)?;
        if !is_writable(stream, 500)? {
            return Ok(written);
        }
    }
}

fn notsent_lowat() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (mut theirs, mut ours) = connect(&lab, &stack, true)?;
    theirs.set_read_timeout(Some(Duration::from_secs(10)))?;
    ours.set_nonblocking(true)?;
    ours.set_notsent_lowat(MARK)?;
    ensure!(ours.notsent_lowat()? == MARK);
    // Nobody reads: the peer's window fills, and beyond it no more than the mark.
    let mut written = fill_up(&mut ours)?;
    let unsent = notsent(&ours)?;
    println!("{written} bytes written, {unsent} not sent");
    ensure!((MARK / 2..=MARK).contains(&unsent), "{unsent} not sent");
    // The mark is in the record.
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    ensure!(ours.notsent_lowat()? == MARK);
    written += fill_up(&mut ours)?;
    let unsent = notsent(&ours)?;
    ensure!((MARK / 2..=MARK).contains(&unsent), "{unsent} after a kill");
    // Somebody reads: what is unsent leaves, and it is writable again.
    let mut read = 0;
    let mut buffer = vec![0; 1 << 16];
    while read < written {
        let n = theirs.read(&mut buffer)?;
        ensure!(n > 0, "it ended after {read} bytes");
        ensure!(buffer.iter().take(n).all(|&b| b == 7), "other bytes");
        read += n;
    }
    ensure!(is_writable(&ours, 2_000)?, "not writable again");
    ensure!(notsent(&ours)? == 0);
    // Without it the buffer is the limit: much more than the mark is taken at once.
    ours.set_notsent_lowat(0)?;
    fill_up(&mut ours)?;
    let unsent = notsent(&ours)?;
    ensure!(unsent > MARK, "{unsent} not sent without a mark");
    Ok(())
}
