//! What a request changes is committed before it is shown (ARCHITECTURE.md, invariant 4): a daemon
//! dies while it carries one out, nobody succeeds it, and the words in session memory are looked at.

use super::lab;
use abi::session::{CONTROL_OFFSET, CONTROL_SIZE, SocketKind, SocketState, control};
use anyhow::{Context, Result, ensure};
use libsocket::Stack;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm::crash::{Point, Trigger};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use strata::topology::TCPD;

/// Deaths.
const TIMES: u32 = 16;

/// How long a reply that was sent may take to be seen.
const SOON: Duration = Duration::from_millis(300);

/// The states of the first sockets of every session that `holder` has descriptors of.
fn states(holder: u32) -> Result<Vec<u32>> {
    let mut states = Vec::new();
    for entry in fs::read_dir(format!("/proc/{holder}/fd"))? {
        let path = entry?.path();
        let target = fs::read_link(&path).unwrap_or_default();
        if !target
            .to_string_lossy()
            .starts_with("/memfd:strata-session")
        {
            continue;
        }
        let file = File::open(&path)?;
        for slot in 0..16 {
            let mut word = [0; 4];
            let at = CONTROL_OFFSET + CONTROL_SIZE * slot + control::STATE;
            file.read_exact_at(&mut word, at as u64)?;
            states.push(u32::from_le_bytes(word));
        }
    }
    Ok(states)
}

/// tcpd dies between carrying out and committing, or a turn later, while a socket is made a listener:
/// it is seen to be one only if the call returns, without a successor.
pub(super) fn not_before_the_commit() -> Result<()> {
    let trigger = Trigger::new()?;
    let lab = lab(&trigger, "")?;
    let stack = Stack::open(lab.path());
    let supervisor = lab.status()?.pid;
    let pid = Pid::from_raw(i32::try_from(supervisor)?);
    let listening = SocketState::Listening as u32;
    let (mut seen, mut unseen) = (0, 0);
    for time in 0..TIMES {
        let socket = stack.socket(false, SocketKind::Stream)?;
        socket.bind((lab.stack, 0).into())?;
        let old = lab.layer("tcpd")?.pid.context("no process")?;
        let deaths = trigger.deaths();
        // Its heartbeats would be turns of tcpd, and it would start a successor.
        kill(pid, Signal::SIGSTOP)?;
        trigger.arm(TCPD, Point::Polled, 1 + time % 2);
        let call = thread::spawn(move || socket.listen(5).map(|()| socket));
        let begin = Instant::now();
        while trigger.deaths() == deaths && begin.elapsed() < SOON {
            sleep(Duration::from_millis(1));
        }
        let died = trigger.deaths() > deaths;
        trigger.disarm();
        let shown = states(supervisor)?.contains(&listening);
        let begin = Instant::now();
        while shown && !call.is_finished() && begin.elapsed() < SOON {
            sleep(Duration::from_millis(1));
        }
        let returned = call.is_finished();
        kill(pid, Signal::SIGCONT)?;
        if died {
            lab.wait_replaced("tcpd", old)?;
        }
        let socket = call.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(
            returned || !shown,
            "time {time}: a listener is seen before its record is committed"
        );
        ensure!(
            states(supervisor)?.contains(&listening),
            "and not afterwards"
        );
        *if shown { &mut seen } else { &mut unseen } += 1;
        drop(socket);
        let begin = Instant::now();
        while states(supervisor)?.contains(&listening) {
            ensure!(begin.elapsed() < Duration::from_secs(5), "it stays");
            sleep(Duration::from_millis(1));
        }
    }
    println!(
        "{} deaths; seen {seen} times, not yet {unseen} times",
        trigger.deaths()
    );
    ensure!(unseen > 0, "tcpd never died before it showed");
    Ok(())
}
