//! One side's turn at one kind of work.

use super::cpu::{Application, Placement, Times};
use super::load::{self, Round};
use super::sides::{Datagrams, Side, Stream, compete};
use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Before measuring begins: slow start, caches, adaptive polling.
const WARM_UP: Duration = Duration::from_millis(150);
/// Until threads that should end count as stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Work {
    /// The application sends over so many connections.
    Upload(usize),
    /// The application receives over so many connections.
    Download(usize),
    /// Messages there and back over TCP.
    PingPong,
    /// The application sends datagrams.
    DatagramsOut,
    /// The application receives datagrams.
    DatagramsIn,
}

impl Work {
    /// Every kind, with `streams` connections in the bulk ones.
    pub(super) fn all(streams: usize) -> [Self; 5] {
        [
            Self::Upload(streams),
            Self::Download(streams),
            Self::PingPong,
            Self::DatagramsOut,
            Self::DatagramsIn,
        ]
    }
}

impl core::fmt::Display for Work {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let streams = |n: usize| match n {
            1 => "1 stream".to_owned(),
            n => format!("{n} streams"),
        };
        match self {
            Self::Upload(n) => write!(f, "TCP bulk to the peer, {}", streams(*n)),
            Self::Download(n) => write!(f, "TCP bulk from the peer, {}", streams(*n)),
            Self::PingPong => write!(f, "TCP ping-pong of {} B", load::MESSAGE),
            Self::DatagramsOut => write!(f, "UDP {} B to the peer", load::MESSAGE),
            Self::DatagramsIn => write!(f, "UDP {} B from the peer", load::MESSAGE),
        }
    }
}

/// What a round measured.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Bytes, messages or round trips.
    pub(super) arrived: u64,
    pub(super) time: Duration,
    pub(super) cpu: Times,
    /// Of round trips, in nanoseconds.
    pub(super) latency: Option<Histogram<u64>>,
}

type Job = JoinHandle<Result<Option<Histogram<u64>>>>;

/// The threads of a round.
struct Crew<'a> {
    round: Arc<Round>,
    application: Arc<Application>,
    placement: &'a Arc<Placement>,
    jobs: Vec<Job>,
}

impl Crew<'_> {
    /// A thread of the application.
    fn application<F>(&mut self, work: F) -> Result<()>
    where
        F: FnOnce(&Round) -> std::io::Result<Option<Histogram<u64>>> + Send + 'static,
    {
        let (round, enrolled) = (Arc::clone(&self.round), Arc::clone(&self.application));
        let placement = Arc::clone(self.placement);
        let job = thread::Builder::new()
            .name("application".to_owned())
            .spawn(move || {
                placement.application();
                enrolled.enrol();
                work(&round).context("the application")
            })?;
        self.jobs.push(job);
        Ok(())
    }

    /// A thread of the peer.
    fn peer<F>(&mut self, work: F) -> Result<()>
    where
        F: FnOnce(&Round) -> std::io::Result<()> + Send + 'static,
    {
        let round = Arc::clone(&self.round);
        let placement = Arc::clone(self.placement);
        let job = thread::Builder::new()
            .name("peer".to_owned())
            .spawn(move || {
                placement.peer();
                work(&round).context("the peer")?;
                Ok(None)
            })?;
        self.jobs.push(job);
        Ok(())
    }

    /// Lets them work, measures, and sends them home.
    fn measure(self, side: &Side, time: Duration) -> Result<Outcome> {
        sleep(WARM_UP);
        let round = &self.round;
        let cpu = Times::now(&side.daemons, &self.application)?;
        let (begin, before) = (Instant::now(), round.arrived.load(Ordering::Relaxed));
        round.measuring.store(true, Ordering::Relaxed);
        sleep(time);
        let arrived = round.arrived.load(Ordering::Relaxed) - before;
        let time = begin.elapsed();
        let cpu = Times::now(&side.daemons, &self.application)?.since(cpu);
        round.over.store(true, Ordering::Relaxed);
        let latency = finish(self.jobs)?;
        ensure!(arrived > 0, "nothing arrived in {time:?}");
        Ok(Outcome {
            arrived,
            time,
            cpu,
            latency,
        })
    }
}

/// Waits for the threads; a stuck one is an error, not a wait without end.
fn finish(jobs: Vec<Job>) -> Result<Option<Histogram<u64>>> {
    let begin = Instant::now();
    let mut latency = None;
    for job in jobs {
        while !job.is_finished() {
            if begin.elapsed() > PATIENCE {
                bail!("a connection is stuck");
            }
            sleep(Duration::from_millis(1));
        }
        match job.join() {
            Ok(result) => latency = result?.or(latency),
            Err(_) => bail!("a thread panicked"),
        }
    }
    Ok(latency)
}

/// One turn.
pub(super) fn run(
    work: Work,
    side: &Side,
    placement: &Arc<Placement>,
    time: Duration,
) -> Result<Outcome> {
    let mut crew = Crew {
        round: Arc::default(),
        application: Arc::default(),
        placement,
        jobs: Vec::new(),
    };
    match work {
        Work::Upload(streams) => {
            for (mut ours, mut theirs) in connections(side, streams)? {
                crew.peer(move |round| load::drain(&mut theirs, round))?;
                crew.application(move |round| load::pour(&mut *ours, round).map(|()| None))?;
            }
        }
        Work::Download(streams) => {
            for (mut ours, mut theirs) in connections(side, streams)? {
                crew.application(move |round| load::drain(&mut *ours, round).map(|()| None))?;
                crew.peer(move |round| load::pour(&mut theirs, round))?;
            }
        }
        Work::PingPong => {
            for (mut ours, mut theirs) in connections(side, 1)? {
                crew.peer(move |_| load::pong(&mut theirs))?;
                crew.application(move |round| load::ping(&mut *ours, round).map(Some))?;
            }
        }
        Work::DatagramsOut => {
            let (ours, theirs) = datagrams(side)?;
            let to = theirs.address()?;
            crew.peer(move |round| load::gather(&theirs, round))?;
            crew.application(move |round| load::scatter(&*ours, to, round).map(|()| None))?;
        }
        Work::DatagramsIn => {
            let (ours, theirs) = datagrams(side)?;
            let to = ours.address()?;
            crew.application(move |round| load::gather(&*ours, round).map(|()| None))?;
            crew.peer(move |round| load::scatter(&theirs, to, round))?;
        }
    }
    crew.measure(side, time)
}

type Connection = (Box<dyn Stream>, std::net::TcpStream);

/// Connections of the application to the peer.
fn connections(side: &Side, count: usize) -> Result<Vec<Connection>> {
    let listener = TcpListener::bind((side.peer, 0)).context("the peer cannot listen")?;
    compete(&listener);
    let port = listener.local_addr()?.port();
    let mut connections = Vec::new();
    for _ in 0..count {
        let ours = side
            .connect(port)
            .context("the application cannot connect")?;
        let (theirs, _) = listener.accept()?;
        connections.push((ours, theirs));
    }
    Ok(connections)
}

fn datagrams(side: &Side) -> Result<(Box<dyn Datagrams>, UdpSocket)> {
    let ours = side.datagrams().context("the application cannot bind")?;
    let theirs = UdpSocket::bind(SocketAddr::new(side.peer.into(), 0))?;
    for patience in [&*ours, &theirs as &dyn Datagrams] {
        patience.patience(Duration::from_millis(50))?;
    }
    Ok((ours, theirs))
}
