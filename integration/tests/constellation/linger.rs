//! `SO_LINGER` against the kernel as peer: closing blocks until all is acknowledged, or the time
//! is over, or it is reset; and whoever dies meanwhile.

use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::{SockOpt, SockOptName, Stack};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use shm::crash::{Point, Trigger, VARIABLE};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};
use strata::topology::TCPD;

pub(crate) fn add(trials: &mut Trials) {
    trials.add(
        "closing_lingers_until_all_is_acknowledged",
        until_acknowledged,
    );
    trials.add("closing_lingers_no_longer_than_asked", until_timeout);
    trials.add("closing_lingers_across_deaths_of_tcpd", across_deaths);
    trials.add("closing_lingers_whatever_step_tcpd_dies_at", freed_unsaid);
    trials.add(
        "closing_lingers_at_the_last_descriptor_only",
        last_descriptor,
    );
    trials.add("closing_lingers_only_where_linux_does", where_linux_does);
    trials.add("linger_is_inherited_and_shown_as_linux_does", shown);
}

const MS: Duration = Duration::from_millis(1);
/// More than the peer's receive buffer takes, less than the send buffer.
const BYTES: usize = 100_000;

fn pattern() -> Vec<u8> {
    (0..=250u8).cycle().take(BYTES).collect()
}

/// A stream of ours to a kernel socket that reads nothing and whose window is soon closed, with
/// all of [`pattern`] written.
fn stuck(lab: &Lab, stack: &Stack) -> Result<(std::net::TcpStream, libsocket::TcpStream)> {
    let listener = std::net::TcpListener::bind((lab.host, 0))?;
    setsockopt(&listener, sockopt::RcvBuf, &4096)?;
    let mut ours = stack.connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    theirs.set_read_timeout(Some(10_000 * MS))?;
    ours.write_all(&pattern())?;
    Ok((theirs, ours))
}

/// Closes in a thread, which answers how long that took.
fn close(ours: libsocket::TcpStream) -> thread::JoinHandle<Duration> {
    thread::spawn(move || {
        let begin = Instant::now();
        drop(ours);
        begin.elapsed()
    })
}

fn joined(closing: thread::JoinHandle<Duration>) -> Result<Duration> {
    closing.join().ok().context("the closing thread panicked")
}

fn read_all(mut theirs: &std::net::TcpStream) -> Result<()> {
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).context("the peer reads")?;
    ensure!(got == pattern(), "{} bytes, or others", got.len());
    Ok(())
}

fn until_acknowledged() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    // As Linux: a socket that does not block waits all the same; so does one that was shut down.
    for (nonblocking, shut) in [(false, false), (true, false), (false, true)] {
        let (theirs, ours) = stuck(&lab, &stack)?;
        ours.set_linger(Some(20_000 * MS))?;
        ours.set_nonblocking(nonblocking)?;
        if shut {
            let begin = Instant::now();
            ours.shutdown(Shutdown::Write)?;
            ensure!(begin.elapsed() < 100 * MS, "shutdown lingers");
        }
        let closing = close(ours);
        sleep(400 * MS);
        ensure!(!closing.is_finished(), "it did not wait");
        read_all(&theirs)?;
        let read = Instant::now();
        joined(closing)?;
        ensure!(
            read.elapsed() < 1000 * MS,
            "closed {:?} after the peer had read all",
            read.elapsed()
        );
    }
    Ok(())
}

fn until_timeout() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(700 * MS))?;
    let took = joined(close(ours))?;
    ensure!(
        (700 * MS..1200 * MS).contains(&took),
        "waited {took:?} instead of 700 ms"
    );
    // And goes on behind the scenes.
    read_all(&theirs)
}

fn across_deaths() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(30_000 * MS))?;
    // While it is dead, while it waits, and again.
    let mut old = lab.signal("tcpd", Signal::SIGKILL)?;
    let closing = close(ours);
    for _ in 0..3 {
        lab.wait_replaced("tcpd", old)?;
        sleep(200 * MS);
        ensure!(!closing.is_finished(), "it did not wait");
        old = lab.signal("tcpd", Signal::SIGKILL)?;
    }
    lab.wait_replaced("tcpd", old)?;
    read_all(&theirs)?;
    let read = Instant::now();
    joined(closing)?;
    ensure!(
        read.elapsed() < 1500 * MS,
        "closed {:?} after the peer had read all",
        read.elapsed()
    );
    // Killed at about the moment at which all is acknowledged: whoever frees the slot, and
    // whether he could say so, closing ends.
    for round in 0..6 {
        let (theirs, ours) = stuck(&lab, &stack)?;
        ours.set_linger(Some(20_000 * MS))?;
        let closing = close(ours);
        sleep(50 * MS);
        let reader = thread::spawn(move || read_all(&theirs));
        sleep(MS * round);
        let old = lab.signal("tcpd", Signal::SIGKILL)?;
        reader.join().ok().context("the reader panicked")??;
        let took = joined(closing)?;
        ensure!(took < 5000 * MS, "waited {took:?}");
        lab.wait_replaced("tcpd", old)?;
    }
    Ok(())
}

/// The transport frees the socket and dies before it can say so: its successor knows nothing of it,
/// but who waits asks again.
fn freed_unsaid() -> Result<()> {
    let trigger = Trigger::new()?;
    let lab = Lab::start(&LabConfig {
        environment: vec![(VARIABLE.to_owned(), trigger.path())],
        extra: "[restart]\nat-once = 1000\ngive-up = 0\n".to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    for point in [
        Point::Committed,
        Point::Released,
        Point::RecordFlipped,
        Point::SocketFreed,
        Point::ReplySent,
        Point::RequestTaken,
    ] {
        let (theirs, ours) = stuck(&lab, &stack)?;
        ours.set_linger(Some(20_000 * MS))?;
        let deaths = trigger.deaths();
        let asking = matches!(point, Point::ReplySent | Point::RequestTaken);
        if asking {
            trigger.arm(TCPD, point, 1);
        }
        let closing = close(ours);
        sleep(100 * MS);
        ensure!(!closing.is_finished(), "it did not wait ({})", point.name());
        if !asking {
            trigger.arm(TCPD, point, 1);
        }
        read_all(&theirs)?;
        let read = Instant::now();
        joined(closing)?;
        ensure!(
            read.elapsed() < 3000 * MS,
            "closed {:?} after the peer had read all; death at {}",
            read.elapsed(),
            point.name()
        );
        while trigger.deaths() == deaths {
            ensure!(read.elapsed() < 5000 * MS, "no death at {}", point.name());
            sleep(MS);
        }
        trigger.disarm();
    }
    Ok(())
}

fn last_descriptor() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(20_000 * MS))?;
    let clone = ours.try_clone()?;
    let copied: OwnedFd = ours.as_fd().try_clone_to_owned()?;
    for (what, closing) in [("the first", close(ours)), ("a clone", close(clone))] {
        let took = joined(closing)?;
        ensure!(took < 300 * MS, "closing {what} of three took {took:?}");
    }
    // Nothing ended by that.
    theirs.set_read_timeout(Some(300 * MS))?;
    let mut got = vec![0; BYTES];
    (&theirs).read_exact(&mut got)?;
    ensure!(got == pattern());
    let quiet = (&theirs).read(&mut [0]).map_err(|e| e.kind());
    ensure!(quiet == Err(ErrorKind::WouldBlock), "{quiet:?}");
    drop(copied);
    theirs.set_read_timeout(Some(10_000 * MS))?;
    ensure!((&theirs).read(&mut [0])? == 0, "no FIN");
    Ok(())
}

/// A signal that is handled ends it, as the kernel's, at whatever moment it comes; the rest goes on
/// behind the scenes.
fn signalled(lab: &Lab, stack: &Stack, after: Duration) -> Result<()> {
    let (theirs, ours) = stuck(lab, stack)?;
    ours.set_linger(Some(20_000 * MS))?;
    let seen = Arc::new(AtomicBool::new(false));
    let handler = signal_hook::flag::register(Signal::SIGUSR2 as i32, Arc::clone(&seen))?;
    let closing = close(ours);
    sleep(after);
    ensure!(!closing.is_finished(), "it did not wait");
    #[allow(unsafe_code, reason = "nix is built without pthread_kill")]
    // SAFETY: the thread is not joined yet, so its name is good.
    let sent = unsafe { libc::pthread_kill(closing.as_pthread_t(), Signal::SIGUSR2 as i32) };
    ensure!(sent == 0);
    let took = joined(closing)?;
    ensure!(took < 2000 * MS, "a signal ended it after {took:?}");
    ensure!(seen.load(Ordering::Relaxed), "the signal was not handled");
    signal_hook::low_level::unregister(handler);
    read_all(&theirs)
}

fn where_linux_does() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let prompt = |what, ours| -> Result<()> {
        let took = joined(close(ours))?;
        ensure!(took < 500 * MS, "closing {what} took {took:?}");
        Ok(())
    };
    // Zero: reset, at once.
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(Duration::ZERO))?;
    prompt("with a linger time of zero", ours)?;
    let mut got = Vec::new();
    let end = (&theirs).read_to_end(&mut got).map_err(|e| e.kind());
    ensure!(end == Err(ErrorKind::ConnectionReset), "{end:?}");
    // Off.
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(20_000 * MS))?;
    ours.set_linger(None)?;
    prompt("without linger", ours)?;
    read_all(&theirs)?;
    // Unread data: a reset, which ends it.
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(20_000 * MS))?;
    (&theirs).write_all(b"unread")?;
    while ours.peek(&mut [0; 8])? < 6 {
        sleep(MS);
    }
    prompt("with data unread", ours)?;
    // The peer resets while it waits.
    let (theirs, ours) = stuck(&lab, &stack)?;
    ours.set_linger(Some(20_000 * MS))?;
    let closing = close(ours);
    sleep(200 * MS);
    ensure!(!closing.is_finished(), "it did not wait");
    drop(theirs);
    let took = joined(closing)?;
    ensure!(took < 1000 * MS, "a reset ended it after {took:?}");
    for round in 0..10 {
        signalled(&lab, &stack, Duration::from_micros(50_000 + round * 1_700))?;
    }
    // All is acknowledged already, and the peer keeps its end open.
    let (theirs, ours) = crate::tcp::connect(&lab, &stack, true)?;
    ours.set_linger(Some(20_000 * MS))?;
    prompt("an idle connection", ours)?;
    ensure!((&theirs).read(&mut [0])? == 0, "no FIN");
    // The peer has closed first.
    let (theirs, ours) = crate::tcp::connect(&lab, &stack, false)?;
    ours.set_linger(Some(20_000 * MS))?;
    drop(theirs);
    ensure!((&ours).read(&mut [0])? == 0);
    prompt("after the peer", ours)?;
    // Neither connected nor listening, and listening.
    let begin = Instant::now();
    let socket = stack.socket(false, libsocket::SocketKind::Stream)?;
    socket.set_option(SockOpt::Linger(Some(20_000)))?;
    drop(socket);
    let listener = stack.listen((lab.stack, 0))?;
    listener
        .socket()
        .set_option(SockOpt::Linger(Some(20_000)))?;
    drop(listener);
    let took = begin.elapsed();
    ensure!(took < 1000 * MS, "unconnected sockets linger: {took:?}");
    Ok(())
}

fn shown() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let kernel = std::net::TcpListener::bind("127.0.0.1:0")?;
    let two = libc::linger {
        l_onoff: 1,
        l_linger: 2,
    };
    setsockopt(&kernel, sockopt::Linger, &two)?;
    let _kernels = std::net::TcpStream::connect(kernel.local_addr()?)?;
    let inherited = getsockopt(&kernel.accept()?.0, sockopt::Linger)?;
    ensure!((inherited.l_onoff, inherited.l_linger) == (1, 2));

    let listener = stack.listen((lab.stack, 0))?;
    listener.socket().set_option(SockOpt::Linger(Some(2000)))?;
    let _theirs = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    ensure!(ours.linger()? == Some(2000 * MS));
    ours.set_linger(None)?;
    ensure!(ours.linger()?.is_none());
    ours.set_linger(Some(Duration::from_micros(1)))?;
    ensure!(
        ours.linger()? == Some(MS),
        "rounded to zero, it would reset"
    );
    ours.set_linger(Some(1500 * MS))?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    let option = ours.socket().option(SockOptName::Linger)?;
    ensure!(option == SockOpt::Linger(Some(1500)), "{option:?}");
    // As long as what it sends is not acknowledged, it waits: 1.5 s.
    let (theirs, again) = stuck(&lab, &stack)?;
    again.set_linger(Some(1500 * MS))?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    let took = joined(close(again))?;
    ensure!((1500 * MS..2200 * MS).contains(&took), "waited {took:?}");
    read_all(&theirs)
}
