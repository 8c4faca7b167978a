//! The two ways from an application to the peer.

use crate::lab::Lab;
use crate::netns::{create_veth_into, set_address, set_up};
use anyhow::{Context, Result, anyhow};
use core::net::Ipv4Addr;
use libsocket::Stack;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket,
    sockopt::TcpCongestion,
};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// The congestion control that the kernel's sockets get, as far as it allows.
const CUBIC: &str = "cubic";

/// Network of the kernel's own pair.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const APPLICATION: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// A connected stream of either kind.
pub(super) trait Stream: Read + Write + Send {
    fn nodelay(&self) -> io::Result<()>;
    fn finish(&self) -> io::Result<()>;
}

/// A datagram socket of either kind.
pub(super) trait Datagrams: Send {
    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize>;
    fn recv(&self, into: &mut [u8]) -> io::Result<usize>;
    fn address(&self) -> io::Result<SocketAddr>;
    fn patience(&self, time: Duration) -> io::Result<()>;
}

macro_rules! sockets {
    ($stream:ty, $datagrams:ty) => {
        impl Stream for $stream {
            fn nodelay(&self) -> io::Result<()> {
                self.set_nodelay(true)
            }
            fn finish(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }

        impl Datagrams for $datagrams {
            fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
                Self::send_to(self, bytes, to)
            }
            fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
                Self::recv(self, into)
            }
            fn address(&self) -> io::Result<SocketAddr> {
                self.local_addr()
            }
            fn patience(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))
            }
        }
    };
}

sockets!(TcpStream, UdpSocket);
sockets!(libsocket::TcpStream, libsocket::UdpSocket);

/// Where the application's sockets are made.
#[derive(Debug)]
enum Maker {
    Stack(Stack),
    Kernel(Sender<Wanted>),
}

/// A socket of the other namespace.
#[derive(Debug)]
enum Wanted {
    Stream(SocketAddr, Sender<io::Result<TcpStream>>),
    Datagrams(Sender<io::Result<UdpSocket>>),
}

/// One way to the peer.
#[derive(Debug)]
pub(super) struct Side {
    maker: Maker,
    /// The peer's address, as this side sees it.
    pub(super) peer: Ipv4Addr,
    application: Ipv4Addr,
    /// Processes that do the work beside this one.
    pub(super) daemons: Vec<u32>,
}

impl Side {
    /// Connects the application to the peer.
    pub(super) fn connect(&self, port: u16) -> io::Result<Box<dyn Stream>> {
        let to = SocketAddr::new(self.peer.into(), port);
        Ok(match &self.maker {
            Maker::Stack(stack) => Box::new(stack.connect_timeout(to, Duration::from_secs(5))?),
            Maker::Kernel(maker) => Box::new(ask(maker, |answer| Wanted::Stream(to, answer))?),
        })
    }

    /// A datagram socket of the application.
    pub(super) fn datagrams(&self) -> io::Result<Box<dyn Datagrams>> {
        Ok(match &self.maker {
            Maker::Stack(stack) => Box::new(stack.udp((self.application, 0))?),
            Maker::Kernel(maker) => Box::new(ask(maker, Wanted::Datagrams)?),
        })
    }
}

fn ask<T>(
    maker: &Sender<Wanted>,
    wanted: impl FnOnce(Sender<io::Result<T>>) -> Wanted,
) -> io::Result<T> {
    let gone = || io::Error::other("the other namespace's thread is gone");
    let (answer, answered) = channel();
    maker.send(wanted(answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// Connects a socket of the kernel that competes. It does so before it connects: one that was
/// opened with bbr, the default of some machines, keeps pacing whatever it is given afterwards.
fn connect_competing(to: SocketAddr) -> io::Result<TcpStream> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    compete(&fd);
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

/// Gives a socket of the kernel the congestion control that is compared with; where the kernel
/// refuses, it keeps its own.
pub(super) fn compete(socket: &impl AsFd) {
    let _ = setsockopt(socket, TcpCongestion, &OsString::from(CUBIC));
}

/// What a socket of the kernel has after [`compete`].
pub(super) fn congestion(socket: &impl AsFd) -> String {
    let name = getsockopt(socket, TcpCongestion).unwrap_or_default();
    name.to_string_lossy().trim_end_matches('\0').to_owned()
}

/// Through the constellation.
pub(super) fn stack_side(lab: &Lab) -> Result<Side> {
    Ok(Side {
        maker: Maker::Stack(Stack::open(lab.path())),
        peer: lab.host,
        application: lab.stack,
        daemons: lab.status()?.daemons.iter().filter_map(|d| d.pid).collect(),
    })
}

/// Through a veth pair to another network namespace, which lives as long as its thread.
pub(super) fn kernel_side() -> Result<Side> {
    let (wanted, asked) = channel();
    let (entered, entering) = channel();
    let (linked, linking) = channel();
    let (ready, readying) = channel();
    thread::Builder::new()
        .name("namespace-b".to_owned())
        .spawn(move || {
            let _ = entered.send(enter());
            if linking.recv() != Ok(()) {
                return;
            }
            let _ = ready.send(set_up_application());
            serve(&asked);
        })?;
    let gone = |_| anyhow!("the other namespace's thread is gone");
    let namespace = entering.recv().map_err(gone)??;
    create_veth_into("bench0", "bench1", namespace.as_fd())?;
    set_up("bench0")?;
    set_address("bench0", format!("{PEER}/24").parse()?)?;
    let _ = linked.send(());
    readying.recv().map_err(gone)??;
    Ok(Side {
        maker: Maker::Kernel(wanted),
        peer: PEER,
        application: APPLICATION,
        daemons: Vec::new(),
    })
}

/// Moves the calling thread, alone, into a network namespace of its own.
fn enter() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a second network namespace")?;
    File::open("/proc/thread-self/ns/net").context("cannot open the second namespace")
}

fn set_up_application() -> Result<()> {
    set_up("bench1")?;
    set_address("bench1", format!("{APPLICATION}/24").parse()?)
}

/// Sockets belong to the namespace of the thread that makes them.
fn serve(asked: &Receiver<Wanted>) {
    for wanted in asked {
        match wanted {
            Wanted::Stream(to, answer) => {
                let _ = answer.send(connect_competing(to));
            }
            Wanted::Datagrams(answer) => {
                let _ = answer.send(UdpSocket::bind((APPLICATION, 0)));
            }
        }
    }
}
