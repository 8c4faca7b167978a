//! Applications that are killed, or write noise over their session memory: their own connections
//! end properly at the peers, nobody else's are touched, nothing leaks.

use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::application::{Application, Work, work};
use integration::campaign::Baseline;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("a_killed_application_ends_its_connections_alone", || {
        one(false)
    });
    trials.add(
        "an_application_that_scribbles_over_its_sessions_hurts_itself_alone",
        || one(true),
    );
}

/// Connections of the application.
const COUNT: usize = 12;

/// When the peers must have heard of the end.
const END: Duration = Duration::from_secs(10);

fn pids(lab: &Lab) -> Result<Vec<Option<u32>>> {
    Ok(lab.status()?.daemons.iter().map(|d| d.pid).collect())
}

/// The kernel's end of a connection: works until the connection's end, and says which it was.
fn peer(mut stream: TcpStream, work: Work) -> JoinHandle<Result<&'static str>> {
    thread::spawn(move || {
        stream.set_read_timeout(Some(END * 2))?;
        stream.set_write_timeout(Some(END * 2))?;
        let mut block = vec![0; 10_000];
        let error = loop {
            let done = match work {
                Work::Reads => stream.write(&block),
                Work::Idle | Work::Writes => stream.read(&mut block),
            };
            match done {
                Ok(0) => return Ok("FIN"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let known = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        ensure!(known.contains(&error.kind()), "{work:?}: {error}");
        Ok("RST")
    })
}

fn one(wild: bool) -> Result<()> {
    let lab = Lab::start(&LabConfig {
        extra: "[restart]\nlost-buffers = \"1s\"\n[tcp]\ntime-wait = \"1s\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let baseline = Baseline::of(&lab)?;
    let before = pids(&lab)?;
    {
        let stack = Stack::open(lab.path());
        let (theirs, ours) = crate::tcp::connect(&lab, &stack, true)?;
        let transfer = thread::spawn(move || both_ways(ours, theirs, 256 << 20, Writes::BIG));

        let listener = TcpListener::bind((lab.host, 0))?;
        let to = listener.local_addr()?;
        let accepted = thread::spawn(move || -> Result<Vec<_>> {
            (0..COUNT)
                .map(|number| Ok(peer(listener.accept()?.0, work(number))))
                .collect()
        });
        let mut application = Application::start(&lab.path(), to, COUNT)?;
        let panicked = |_| anyhow::anyhow!("panicked");
        let peers = accepted.join().map_err(panicked)??;
        thread::sleep(Duration::from_millis(200));
        if wild {
            application.run_wild()?;
        }
        application.kill()?;
        let killed = Instant::now();
        for (number, peer) in peers.into_iter().enumerate() {
            let end = peer.join().map_err(panicked)?;
            end.with_context(|| format!("connection {number}, {:?}", work(number)))?;
        }
        let lasted = killed.elapsed();
        ensure!(
            lasted < END,
            "the last peer heard of the end after {lasted:?}"
        );
        transfer
            .join()
            .map_err(panicked)?
            .context("another application's transfer")?;
        ensure!(pids(&lab)? == before, "somebody died:\n{}", lab.log());
    }
    baseline
        .compare(&lab, COUNT)
        .with_context(|| format!("afterwards:\n{}", lab.log()))
}
