//! An application in a process of its own, to be killed or to run wild.
//!
//! ```text
//!   trial --start--> application: connects to the given address, again and again; says "ready"
//!         --"wild"--> writes noise over all of its session memories for a second; says "done"
//!         --kill-->
//! ```
//!
//! What its connections do goes by their number: nothing; write without end; read without end.

use anyhow::{Context, Result, ensure};
use libsocket::Stack;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Environment variable that makes an executable an application: address, number, directory.
const ROLE: &str = "STRATA_APPLICATION_ROLE";

/// For how long it writes noise.
const WILD: Duration = Duration::from_secs(1);

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Idle,
    /// The application writes without end.
    Writes,
    /// It reads without end.
    Reads,
}

/// What the connection of that number does.
#[must_use]
pub const fn work(number: usize) -> Work {
    match number % 3 {
        0 => Work::Idle,
        1 => Work::Writes,
        _ => Work::Reads,
    }
}

/// Behaves as an application if this process was started to be one: for the head of `main`.
#[must_use]
pub fn become_application_if_asked() -> Option<ExitCode> {
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
    let mut words = role.splitn(3, ' ');
    let mut word = || words.next().context("a word of the role is missing");
    let to: SocketAddr = word()?.parse()?;
    let count: usize = word()?.parse()?;
    let stack = Stack::open(word()?);
    let mut idle = Vec::new();
    for number in 0..count {
        let mut stream = stack.connect(to)?;
        // The errors are what a wild application deserves.
        match work(number) {
            Work::Idle => idle.push(stream),
            Work::Writes => {
                thread::spawn(move || while stream.write_all(&[7; 10_000]).is_ok() {});
            }
            Work::Reads => {
                thread::spawn(move || {
                    let mut block = vec![0; 10_000];
                    while stream.read(&mut block).is_ok_and(|n| n > 0) {}
                });
            }
        }
    }
    println!("ready");
    for line in std::io::stdin().lines() {
        ensure!(line? == "wild", "an unknown order");
        run_wild()?;
        println!("done");
    }
    Ok(())
}

/// Writes noise over all of this process's session memories.
fn run_wild() -> Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let sessions: Vec<(u64, u64)> = maps
        .lines()
        .filter(|line| line.contains("/memfd:strata-session"))
        .filter_map(|line| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let number = |hex| u64::from_str_radix(hex, 16).ok();
            Some((number(from)?, number(to)?))
        })
        .collect();
    ensure!(!sessions.is_empty(), "no session memory is mapped");
    let memory = File::options().write(true).open("/proc/self/mem")?;
    let mut random = fastrand::Rng::new();
    let begin = Instant::now();
    let head = u64::try_from(abi::session::CONTROL_OFFSET + 64 * abi::session::CONTROL_SIZE)?;
    while begin.elapsed() < WILD {
        for &(from, to) in &sessions {
            // All of the words, over and over, and something of the buffers: the memory is
            // sparse, and a gigabyte.
            let block: Vec<u8> = (0..head).map(|_| random.u8(..)).collect();
            memory.write_all_at(&block, from)?;
            for _ in 0..200 {
                let at = from + 8 * random.u64(0..(to - from) / 8);
                memory.write_all_at(&random.u64(..).to_ne_bytes(), at)?;
            }
        }
    }
    Ok(())
}

/// An application that runs; killed when it is dropped.
#[derive(Debug)]
pub struct Application {
    child: Child,
    orders: ChildStdin,
    words: BufReader<ChildStdout>,
}

impl Application {
    /// Starts one that opens `count` connections to `to`, which must be taken meanwhile.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn start(dir: &std::path::Path, to: SocketAddr, count: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, format!("{to} {count} {}", dir.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start an application")?;
        let orders = child.stdin.take().context("no pipe")?;
        let words = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut this = Self {
            child,
            orders,
            words,
        };
        this.wait("ready")?;
        Ok(this)
    }

    fn wait(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.words.read_line(&mut line)?;
        ensure!(line.trim() == word, "the application says: {line}");
        Ok(())
    }

    /// Has it write noise over all of its session memories.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn run_wild(&mut self) -> Result<()> {
        self.orders.write_all(b"wild\n")?;
        self.wait("done")
    }

    /// `SIGKILL`.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
