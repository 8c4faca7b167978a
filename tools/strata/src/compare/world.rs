//! Who takes part, and how they are joined.
//!
//! ```text
//!   present namespace:  netdevd - veth - [port  link  port] - veth - peer (namespace B)
//!                                        [port            ]
//!   namespace A:        kernel  - veth --+
//! ```
//!
//! All three are on one network, 10.77.0.0/24. No interface has offloads, so that what crosses
//! the link are packets as on a wire.

use super::stream::{Accept, Choose, Stream};
use crate::lab::{Lab, LabConfig, LabDevice};
use crate::link::{Link, Port};
use crate::netns::{Namespace, create_veth_into, no_offload, set_address, set_up};
use anyhow::{Context, Result};
use core::net::Ipv4Addr;
use libsocket::Stack;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Patience for a connection to be made over a bad link.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of the two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// The constellation.
    Stack,
    /// The kernel, in namespace A.
    Kernel,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct World {
    pub(super) lab: Lab,
    pub(super) link: Link,
    stack: Stack,
    kernel: Namespace,
    peer: Namespace,
    next_port: AtomicU16,
    /// What every socket has.
    pub(super) congestion: String,
}

impl World {
    /// Sets everything up. `congestion` is what every socket gets.
    pub(super) fn new(congestion: &str) -> Result<Self> {
        let lab = Lab::start(&LabConfig {
            kind: Some(LabDevice::Packet),
            offload: false,
            bare: true,
            ..LabConfig::default()
        })
        .context("the constellation could not be started")?;
        let kernel = host("kernel", "left", "kernel0", Ipv4Addr::new(10, 77, 0, 3))?;
        let peer = host("peer", "right", "peer0", lab.host)?;
        let ports = vec![
            Port::open(&lab.host_interface)?,
            Port::open("left")?,
            Port::open("right")?,
        ];
        let link = Link::start(ports)?;
        Ok(Self {
            stack: Stack::open(lab.path()),
            lab,
            link,
            kernel,
            peer,
            next_port: AtomicU16::new(5001),
            congestion: congestion.to_owned(),
        })
    }

    /// A port number that no connection had before: paths go by it.
    pub(super) fn port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection from `host` to the peer: both ends, ours first.
    pub(super) fn connect(&self, host: Host, port: u16) -> Result<[Box<dyn Stream>; 2]> {
        let to = SocketAddr::new(self.lab.host.into(), port);
        let listener = self.peer.run(move || TcpListener::bind(to))??;
        self.prepare(&listener)?;
        let ours: Box<dyn Stream> = match host {
            Host::Stack => {
                let stream = self.stack.connect_timeout(to, PATIENCE)?;
                self.prepare(&stream)?;
                Box::new(stream)
            }
            Host::Kernel => Box::new(self.connect_from(&self.kernel, to)?),
        };
        Ok([ours, listener.take(PATIENCE)?])
    }

    /// A connection from the peer to `host`, which listens: both ends, ours first.
    pub(super) fn accept(&self, host: Host, port: u16) -> Result<[Box<dyn Stream>; 2]> {
        let address = match host {
            Host::Stack => self.lab.stack,
            Host::Kernel => Ipv4Addr::new(10, 77, 0, 3),
        };
        let to = SocketAddr::new(address.into(), port);
        let listener: Box<dyn Accept> = match host {
            Host::Stack => {
                let listener = self.stack.listen(to)?;
                self.prepare(&listener)?;
                Box::new(listener)
            }
            Host::Kernel => Box::new(self.kernel.run(move || TcpListener::bind(to))??),
        };
        let theirs = self.connect_from(&self.peer, to)?;
        Ok([listener.take(PATIENCE)?, Box::new(theirs)])
    }

    /// Connects from a namespace, whose thread only makes the socket: connecting takes its time.
    ///
    /// The congestion control is chosen before: a connection of Linux that was opened with bbr,
    /// the default of some machines, keeps pacing whatever it is given afterwards.
    fn connect_from(&self, namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
        let stream = namespace.run(unconnected)??;
        self.prepare(&stream)?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok(stream)
    }

    /// Chooses the congestion control of a socket.
    fn prepare(&self, socket: &impl Choose) -> Result<()> {
        socket
            .choose(&self.congestion)
            .with_context(|| format!("cannot have {} congestion control", self.congestion))
    }
}

/// A socket of the present namespace.
fn unconnected() -> Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    Ok(TcpStream::from(fd))
}

/// A host of the kernel: a namespace with one interface, whose other end is a port of the link.
fn host(name: &str, port: &str, interface: &'static str, address: Ipv4Addr) -> Result<Namespace> {
    let namespace = Namespace::new(name)?;
    create_veth_into(port, interface, namespace.as_fd())?;
    no_offload(port)?;
    set_up(port)?;
    namespace.run(move || -> Result<()> {
        no_offload(interface)?;
        set_up(interface)?;
        set_address(interface, format!("{address}/24").parse()?)?;
        // Connections must not learn from earlier ones; ours do not either.
        fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
            .context("cannot switch the kernel's cache of TCP metrics off")
    })??;
    Ok(namespace)
}
