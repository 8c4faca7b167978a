//! Idle connections by the thousand, held by other processes: a process may have 20,000
//! descriptors on some machines, and each connection takes one at either end.
//!
//! ```text
//!   mix --start--> crowd process: connects, half of them each way; says "ready"
//!       --"end"--> both directions of each carry a few bytes; says what is lost; ends
//! ```

use super::states::{greet, idle};
use super::{Amounts, Mix, OWN_IDLE, PATIENCE, Peer, Place, Shared};
use anyhow::{Context, Result, bail, ensure};
use libsocket::Stack;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// Environment variable that makes an executable a crowd: number, keepalive in milliseconds,
/// addresses, directory.
const ROLE: &str = "STRATA_CROWD_ROLE";

/// Connections that one process holds.
const EACH: usize = 2_500;

/// Behaves as a crowd if this process was started to be one: for the head of `main`.
#[must_use]
pub fn become_crowd_if_asked() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    Some(match be(&role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn be(role: &str) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut words = role.splitn(5, ' ');
    let mut word = || words.next().context("a word of the role is missing");
    let count: usize = word()?.parse()?;
    let keepalive_ms: u32 = word()?.parse()?;
    let stack_address: Ipv4Addr = word()?.parse()?;
    let peer: Ipv4Addr = word()?.parse()?;
    let place = Place {
        stack: Stack::open(word()?),
        stack_address,
        peer: Peer::Kernel(peer),
        patience: PATIENCE,
    };
    let pairs = idle(&place, count, keepalive_ms)?;
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.is_empty() {
        // Whoever started us is gone.
        return Ok(());
    }
    let mut lost = Vec::new();
    for (number, (theirs, ours)) in pairs.into_iter().enumerate() {
        if let Err(error) = greet(theirs, ours) {
            lost.push(format!("idle connection {number}: {error:#}"));
        }
    }
    ensure!(lost.is_empty(), "{}", lost.join("\n"));
    println!("well");
    Ok(())
}

/// A crowd that runs; killed when it is dropped.
#[derive(Debug)]
struct Crowd {
    child: Child,
    orders: ChildStdin,
    words: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(role: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process with idle connections")?;
        let orders = child.stdin.take().context("no pipe")?;
        let words = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self {
            child,
            orders,
            words,
        })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let mut line = String::new();
        self.words.read_line(&mut line)?;
        if line.trim() != "ready" {
            let mut rest = String::new();
            self.words.read_to_string(&mut rest)?;
            bail!("idle connections cannot be made: {line}{rest}");
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.orders.write_all(b"end\n")?;
        let mut said = String::new();
        self.words.read_to_string(&mut said)?;
        self.child.wait()?;
        ensure!(said.trim() == "well", "{said}");
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Adds those idle connections that are other processes'.
pub(super) fn add(mix: &mut Mix, place: &Place, amounts: &Amounts) -> Result<()> {
    let Peer::Kernel(host) = place.peer else {
        bail!("a crowd of idle connections is with the kernel");
    };
    let mut crowds = Vec::new();
    let mut left = amounts.idle.saturating_sub(OWN_IDLE);
    while left > 0 {
        let now = left.min(EACH);
        let dir = place.stack.dir().display();
        let role = format!(
            "{now} {} {} {host} {dir}",
            amounts.keepalive_ms, place.stack_address
        );
        let mut crowd = Crowd::start(&role)?;
        crowd.wait_ready()?;
        crowds.push(crowd);
        left -= now;
    }
    mix.spawn(
        "idle connections of other processes",
        move |shared: &Shared| {
            shared.wait();
            let ended: Vec<_> = crowds.into_iter().map(Crowd::end).collect();
            let lost: Vec<_> = ended
                .into_iter()
                .filter_map(|end| Some(format!("{:#}", end.err()?)))
                .collect();
            ensure!(lost.is_empty(), "{}", lost.join("\n"));
            Ok(())
        },
    )
}
