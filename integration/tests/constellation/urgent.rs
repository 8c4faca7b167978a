//! Urgent data: the same calls on the kernel's sockets and on the stack's, with the same results.

use crate::tcp::connect;
use abi::session::SockOpt;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::Stack;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use signal_hook::consts::SIGURG;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("urgent_data_is_as_the_kernel_gives_it", same_as_kernel);
    trials.add("urgent_data_survives_a_kill", survives);
    trials.add("urgent_data_raises_sigurg", raises_sigurg);
}

/// One end, on either stack.
trait End: AsFd {
    fn put(&self, bytes: &[u8], urgent: bool) -> io::Result<usize>;
    /// Reads without waiting.
    fn get(&self) -> io::Result<Vec<u8>>;
    fn oob(&self, peek: bool) -> io::Result<u8>;
    fn inline(&self, on: bool) -> Result<()>;
}

impl End for std::net::TcpStream {
    fn put(&self, bytes: &[u8], urgent: bool) -> io::Result<usize> {
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        flags.set(MsgFlags::MSG_OOB, urgent);
        Ok(send(self.as_raw_fd(), bytes, flags)?)
    }

    fn get(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let n = recv(self.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    fn oob(&self, peek: bool) -> io::Result<u8> {
        let mut byte = [0];
        let mut flags = MsgFlags::MSG_OOB;
        flags.set(MsgFlags::MSG_PEEK, peek);
        match recv(self.as_raw_fd(), &mut byte, flags)? {
            1 => Ok(byte[0]),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn inline(&self, on: bool) -> Result<()> {
        Ok(setsockopt(self, sockopt::OobInline, &on)?)
    }
}

impl End for libsocket::TcpStream {
    fn put(&self, bytes: &[u8], urgent: bool) -> io::Result<usize> {
        if urgent {
            self.socket().send_oob(bytes, false)
        } else {
            self.socket()
                .send_vectored(&[io::IoSlice::new(bytes)], false)
        }
    }

    fn get(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let mut bufs = [io::IoSliceMut::new(&mut bytes)];
        let n = self.socket().recv_vectored(&mut bufs, false, true)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    fn oob(&self, peek: bool) -> io::Result<u8> {
        self.socket()
            .recv_oob(peek)?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn inline(&self, on: bool) -> Result<()> {
        Ok(self.socket().set_option(SockOpt::OobInline(on))?)
    }
}

fn show<T: AsRef<[u8]>>(result: io::Result<T>) -> String {
    match result {
        Ok(bytes) => String::from_utf8_lossy(bytes.as_ref()).into_owned(),
        Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)).to_string(),
    }
}

/// What `poll` shows, and whether something is there at all.
fn events(end: &impl AsFd, wait_for: PollFlags) -> Result<PollFlags> {
    let mut fds = [PollFd::new(
        end.as_fd(),
        PollFlags::POLLIN | PollFlags::POLLPRI,
    )];
    let mut seen = PollFlags::empty();
    for _ in 0..200 {
        poll(&mut fds, PollTimeout::ZERO)?;
        seen = fds[0].revents().unwrap_or(PollFlags::empty());
        if seen.contains(wait_for) {
            break;
        }
        sleep(Duration::from_millis(5));
    }
    Ok(seen)
}

/// What the receiver sees of a fixed conversation.
fn script(from: &impl End, to: &impl End) -> Result<String> {
    let mut log = String::new();
    let pause = || sleep(Duration::from_millis(100));
    let pri = |log: &mut String, wait_for| -> Result<()> {
        let pri = events(to, wait_for)?.contains(PollFlags::POLLPRI);
        Ok(writeln!(log, "pri {pri}")?)
    };
    let none = PollFlags::empty();

    writeln!(log, "- in the middle of a stream")?;
    from.put(b"abc", false)?;
    from.put(b"defX", true)?;
    from.put(b"ghi", false)?;
    pri(&mut log, PollFlags::POLLIN | PollFlags::POLLPRI)?;
    pause();
    writeln!(log, "read {}", show(to.get()))?;
    pri(&mut log, none)?;
    writeln!(log, "peek {}", show(to.oob(true).map(|b| [b])))?;
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    pri(&mut log, none)?;
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "read {}", show(to.get()))?;

    writeln!(log, "- nothing but the urgent byte")?;
    from.put(b"Y", true)?;
    pri(&mut log, PollFlags::POLLPRI)?;
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    writeln!(log, "read {}", show(to.get()))?;
    pri(&mut log, none)?;

    writeln!(log, "- never taken: passed by reading")?;
    from.put(b"klM", true)?;
    from.put(b"no", false)?;
    pri(&mut log, PollFlags::POLLIN | PollFlags::POLLPRI)?;
    pause();
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    pri(&mut log, none)?;

    writeln!(log, "- a second one over the first")?;
    from.put(b"pQ", true)?;
    pri(&mut log, PollFlags::POLLPRI)?;
    from.put(b"rS", true)?;
    pause();
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "read {}", show(to.get()))?;

    writeln!(log, "- a second one while reading is at the first")?;
    from.put(b"tU", true)?;
    pri(&mut log, PollFlags::POLLPRI)?;
    writeln!(log, "read {}", show(to.get()))?;
    pause();
    from.put(b"vW", true)?;
    pause();
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "read {}", show(to.get()))?;

    writeln!(log, "- in line")?;
    to.inline(true)?;
    from.put(b"xyZ", true)?;
    from.put(b"12", false)?;
    pri(&mut log, PollFlags::POLLIN | PollFlags::POLLPRI)?;
    pause();
    writeln!(log, "take {}", show(to.oob(false).map(|b| [b])))?;
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "read {}", show(to.get()))?;
    writeln!(log, "read {}", show(to.get()))?;
    pri(&mut log, none)?;
    to.inline(false)?;
    from.put(b"end", false)?;
    events(to, PollFlags::POLLIN)?;
    pause();
    writeln!(log, "read {}", show(to.get()))?;
    Ok(log)
}

fn same_as_kernel() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let a = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (b, _) = listener.accept()?;
    a.set_nodelay(true)?;
    let expected = script(&a, &b).context("between two of the kernel's")?;
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        ours.set_nodelay(true)?;
        theirs.set_nodelay(true)?;
        let received = script(&theirs, &ours).context("kernel to stack")?;
        ensure!(
            received == expected,
            "the stack receives:\n{received}\nthe kernel:\n{expected}"
        );
        let sent = script(&ours, &theirs).context("stack to kernel")?;
        ensure!(
            sent == expected,
            "from the stack comes:\n{sent}\nfrom the kernel:\n{expected}"
        );
    }
    Ok(())
}

/// The mark, the byte and `POLLPRI` are still there when tcpd is another.
fn survives() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (mut theirs, ours) = connect(&lab, &stack, true)?;
    theirs.put(b"abX", true)?;
    theirs.put(b"cd", false)?;
    let both = PollFlags::POLLIN | PollFlags::POLLPRI;
    ensure!(events(&ours, both)?.contains(both), "nothing came");
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    ensure!(
        events(&ours, both)?.contains(both),
        "nothing shows after the restart"
    );
    ensure!(!ours.socket().at_mark()?);
    ensure!(ours.get()? == b"ab");
    ensure!(ours.socket().at_mark()?);
    ensure!(ours.oob(false)? == b'X');
    ensure!(ours.get()? == b"cd");
    ours.put(b"efY", true)?;
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    ensure!(events(&theirs, both)?.contains(both));
    ensure!(theirs.oob(false)? == b'Y');
    let mut rest = [0; 2];
    theirs.read_exact(&mut rest)?;
    ensure!(&rest == b"ef");
    Ok(())
}

/// `F_SETOWN` works on the descriptor as on any: each urgent byte raises the signal, also when
/// another tcpd receives it.
fn raises_sigurg() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let raised = Arc::new(AtomicBool::new(false));
    let hook = signal_hook::flag::register(SIGURG, raised.clone())?;
    set_owner(&ours)?;
    theirs.put(b"no", false)?;
    ensure!(events(&ours, PollFlags::POLLIN)?.contains(PollFlags::POLLIN));
    ensure!(!raised.load(Ordering::Relaxed), "data that are not urgent");
    for byte in [b'X', b'Y', b'Z'] {
        theirs.put(&[byte], true)?;
        ensure!(events(&ours, PollFlags::POLLPRI)?.contains(PollFlags::POLLPRI));
        let mut patience = 200;
        while !raised.swap(false, Ordering::Relaxed) {
            ensure!(patience > 0, "no signal");
            patience -= 1;
            sleep(Duration::from_millis(5));
        }
        ensure!(ours.oob(false)? == byte);
        let old = lab.signal("tcpd", Signal::SIGKILL)?;
        lab.wait_replaced("tcpd", old)?;
    }
    signal_hook::low_level::unregister(hook);
    Ok(())
}

/// `SIGURG` for this descriptor goes to this process.
#[expect(unsafe_code, reason = "nix has no F_SETOWN")]
fn set_owner(end: &impl AsFd) -> Result<()> {
    let this = nix::unistd::getpid().as_raw();
    // SAFETY: the descriptor is open; the call takes a number and touches no memory.
    let result = unsafe { libc::fcntl(end.as_fd().as_raw_fd(), libc::F_SETOWN, this) };
    Errno::result(result)?;
    Ok(())
}
