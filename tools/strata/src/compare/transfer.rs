//! One transfer over a path: sent for a while, every byte compared where it arrives, measured,
//! and then let run out to its end over the healed path.

use super::cells::{Cell, Way};
use super::info::Info;
use super::stream::Stream;
use super::world::{Host, World};
use crate::demo::bytes::Bytes;
use crate::link::{Path, Traffic};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Bytes of a read or write.
const BLOCK: usize = 16 * 1024;
/// Until a transfer that should end counts as stuck.
const PATIENCE: Duration = Duration::from_secs(90);

/// A look at the sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Seconds since the connection was there.
    pub(super) at: f64,
    pub(super) info: Info,
}

/// What a transfer came to.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Mbit/s at the receiving application within the time, from the moment when both ends had
    /// the connection.
    pub(super) mbps: f64,
    /// The same of the second half of the time.
    pub(super) late_mbps: f64,
    /// The sender at the end of the time.
    pub(super) info: Info,
    /// What the path did to the data.
    pub(super) traffic: Traffic,
    pub(super) samples: Vec<Sample>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) host: Host,
    pub(super) way: Way,
    pub(super) cell: Cell,
    pub(super) path: Path,
    pub(super) seed: u64,
    pub(super) time: Duration,
    /// Between two looks at the sender; none: only at the end.
    pub(super) sampling: Option<Duration>,
    /// Whether the path is this transfer's to heal.
    pub(super) heals: bool,
}

/// Prepares a path for the transfers of a cell in one direction.
pub(super) fn path(world: &World, cell: &Cell, way: Way, seed: u64) -> Path {
    let [data, back] = cell.impairments(seed);
    match way {
        Way::Sends => world.link.path(&data, &back),
        Way::Receives => world.link.path(&back, &data),
    }
}

fn heal(world: &World, plan: &Plan) {
    let [data, back] = plan.cell.healed();
    match plan.way {
        Way::Sends => world.link.set(plan.path, &data, &back),
        Way::Receives => world.link.set(plan.path, &back, &data),
    }
}

#[derive(Debug, Default)]
struct Shared {
    arrived: AtomicU64,
    over: AtomicBool,
}

/// Carries a plan out.
pub(super) fn run(world: &World, plan: &Plan) -> Result<Outcome> {
    let port = world.port();
    world.link.assign(port, plan.path);
    let [ours, theirs] = match plan.way {
        Way::Sends => world.connect(plan.host, port),
        Way::Receives => world.accept(plan.host, port),
    }
    .context("cannot connect")?;
    let (sender, receiver) = match plan.way {
        Way::Sends => (ours, theirs),
        Way::Receives => (theirs, ours),
    };
    let begin = Instant::now();
    let congestion = sender.congestion()?;
    ensure!(
        congestion == world.congestion || (congestion == "newreno" && world.congestion == "reno"),
        "the sender has {congestion} congestion control"
    );
    let shared = Arc::new(Shared::default());
    let watched = sender.again()?;
    let ends = [sender.again()?, receiver.again()?];
    let sending = spawn("sender", &shared, plan.seed, sender, send)?;
    let receiving = spawn("receiver", &shared, plan.seed, receiver, receive)?;
    let mut samples = Vec::new();
    let half = measure(plan, begin, &shared, &*watched, &mut samples, &receiving)?;
    let time = begin.elapsed();
    let arrived = shared.arrived.load(Ordering::Relaxed);
    let info = watched.info()?;
    let [up, down] = world.link.traffic(plan.path);
    shared.over.store(true, Ordering::Relaxed);
    if plan.heals {
        heal(world, plan);
    }
    let end = Instant::now();
    let sent = finish("the sender", sending, end, &ends)?;
    let received = finish("the receiver", receiving, end, &ends)?;
    ensure!(
        sent == received,
        "{sent} bytes were sent and {received} arrived"
    );
    let mbps = |bytes: u64, time: Duration| as_mbit(bytes) / time.as_secs_f64().max(1e-9);
    Ok(Outcome {
        mbps: mbps(arrived, time),
        late_mbps: mbps(arrived - half.1, time.saturating_sub(half.0)),
        info,
        traffic: match plan.way {
            Way::Sends => up,
            Way::Receives => down,
        },
        samples,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn as_mbit(bytes: u64) -> f64 {
    bytes as f64 * 8e-6
}

/// Lets time pass, looking at the sender; when the first half was over and what had arrived.
fn measure(
    plan: &Plan,
    begin: Instant,
    shared: &Shared,
    sender: &dyn Stream,
    samples: &mut Vec<Sample>,
    receiving: &Job,
) -> Result<(Duration, u64)> {
    let step = plan.sampling.unwrap_or(Duration::from_millis(100));
    let mut half = None;
    let mut next = begin;
    while begin.elapsed() < plan.time {
        if receiving.is_finished() {
            // Its result says why.
            break;
        }
        if plan.sampling.is_some() {
            let at = begin.elapsed().as_secs_f64();
            let info = sender.info().context("TCP_INFO")?;
            samples.push(Sample { at, info });
        }
        if half.is_none() && begin.elapsed() >= plan.time / 2 {
            half = Some((begin.elapsed(), shared.arrived.load(Ordering::Relaxed)));
        }
        next += step;
        let left = plan.time.saturating_sub(begin.elapsed());
        sleep(next.saturating_duration_since(Instant::now()).min(left));
    }
    Ok(half.unwrap_or((Duration::ZERO, 0)))
}

type Job = JoinHandle<io::Result<u64>>;

fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    seed: u64,
    mut stream: Box<dyn Stream>,
    work: fn(&mut dyn Stream, &Shared, Bytes) -> io::Result<u64>,
) -> Result<Job> {
    let shared = Arc::clone(shared);
    let job = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&mut *stream, &shared, Bytes::new(seed)))?;
    Ok(job)
}

/// Waits for a thread; a stuck transfer is an error, not a wait without end.
fn finish(who: &str, job: Job, since: Instant, ends: &[Box<dyn Stream>; 2]) -> Result<u64> {
    while !job.is_finished() {
        if since.elapsed() > PATIENCE {
            let [sender, receiver] = ends.each_ref().map(|end| end.info().unwrap_or_default());
            for end in ends {
                let _ = end.abandon();
            }
            bail!("{who} is stuck; the sender: {sender:?}; the receiver: {receiver:?}");
        }
        sleep(Duration::from_millis(2));
    }
    job.join()
        .map_err(|_| anyhow!("{who} panicked"))?
        .with_context(|| who.to_owned())
}

/// Writes the stream until the time is over; how many bytes.
fn send(stream: &mut dyn Stream, shared: &Shared, mut bytes: Bytes) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut sent = 0;
    while !shared.over.load(Ordering::Relaxed) {
        bytes.fill(&mut block);
        stream.write_all(&block)?;
        sent += block.len() as u64;
    }
    stream.finish()?;
    Ok(sent)
}

/// Reads to the end and compares each byte; how many.
fn receive(stream: &mut dyn Stream, shared: &Shared, mut bytes: Bytes) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut expected = vec![0; BLOCK];
    let mut at = BLOCK;
    let mut received = 0u64;
    loop {
        let n = match stream.read(&mut block) {
            Ok(0) => return Ok(received),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = block.get(..n).unwrap_or_default();
        while !rest.is_empty() {
            if at == BLOCK {
                bytes.fill(&mut expected);
                at = 0;
            }
            let n = rest.len().min(BLOCK - at);
            let (now, later) = rest.split_at(n);
            if expected.get(at..at + n) != Some(now) {
                return Err(io::Error::other(format!(
                    "bytes differ from what was sent, between {received} and {}",
                    received + n as u64
                )));
            }
            at += n;
            received += n as u64;
            rest = later;
        }
        shared.arrived.store(received, Ordering::Relaxed);
    }
}
