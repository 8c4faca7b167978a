//! The link's thread: frames from the ports into the pipes, and out of them when they are due.

use super::{Port, Traffic, lock};
use abi::Nanos;
use abi::config::Impairment;
use anyhow::{Context, Result, ensure};
use netdevd::impair::{Packet, Pipe};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wire::vnet::VirtioNetHdr;

/// The longest frame: MTU and Ethernet header.
const FRAME: usize = 1514;
/// Frames of one port before the others have their turn.
const BATCH: usize = 32;
/// Longest sleep.
const SLEEP: Nanos = 1_000_000_000;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const TCP: u8 = 6;

/// The two ways of a path.
#[derive(Debug)]
struct Ways {
    pipes: [Pipe; 2],
    traffic: [Traffic; 2],
}

/// The paths and who takes which.
#[derive(Debug, Default)]
pub(super) struct Links {
    paths: Vec<Ways>,
    ports: HashMap<u16, usize>,
    pub(super) over: bool,
}

impl Links {
    pub(super) fn path(&mut self, up: &Impairment, down: &Impairment) -> usize {
        self.paths.push(Ways {
            pipes: [Pipe::new(up, 0), Pipe::new(down, 1)],
            traffic: [Traffic::default(); 2],
        });
        self.paths.len() - 1
    }

    pub(super) fn assign(&mut self, port: u16, path: usize) {
        self.ports.insert(port, path);
    }

    pub(super) fn set(&mut self, path: usize, up: &Impairment, down: &Impairment) {
        if let Some(ways) = self.paths.get_mut(path) {
            for (pipe, config) in ways.pipes.iter_mut().zip([up, down]) {
                pipe.set(config);
            }
        }
    }

    pub(super) fn traffic(&self, path: usize) -> [Traffic; 2] {
        self.paths
            .get(path)
            .map_or_else(Default::default, |ways| ways.traffic)
    }

    /// The path of a frame.
    fn of(&mut self, frame: &[u8]) -> Option<&mut Ways> {
        let [from, to] = tcp_ports(frame)?;
        let path = self.ports.get(&from).or_else(|| self.ports.get(&to))?;
        self.paths.get_mut(*path)
    }

    fn next(&self) -> Option<Nanos> {
        let pipes = self.paths.iter().flat_map(|ways| &ways.pipes);
        pipes.filter_map(Pipe::next).min()
    }
}

fn ethertype(frame: &[u8]) -> Option<u16> {
    let field = frame.get(12..14)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field))
}

/// Source and destination of an unfragmented TCP segment over IPv4.
fn tcp_ports(frame: &[u8]) -> Option<[u16; 2]> {
    if ethertype(frame)? != ETHERTYPE_IPV4 || *frame.get(23)? != TCP {
        return None;
    }
    let header = usize::from(frame.get(14)? & 0xf) * 4;
    let ports = frame.get(14 + header..)?.first_chunk::<4>()?;
    let [a, b, c, d] = *ports;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

type Mac = [u8; 6];

/// The ports and what was learnt about them.
#[derive(Debug)]
struct Ports {
    ports: Vec<Port>,
    stations: HashMap<Mac, usize>,
}

impl Ports {
    /// Sends a frame to the port of its destination, or, of a group, to all but `from`.
    fn send(&self, frame: &[u8], from: Option<usize>) -> Result<()> {
        let Some(to) = frame.first_chunk::<6>() else {
            return Ok(());
        };
        if let Some(port) = self.stations.get(to).and_then(|port| self.ports.get(*port)) {
            // No room at the receiver's: lost, as on a real one.
            port.send(frame).context("sending a frame")?;
            return Ok(());
        }
        for (index, port) in self.ports.iter().enumerate() {
            if Some(index) != from {
                port.send(frame).context("sending a frame to all")?;
            }
        }
        Ok(())
    }

    fn learn(&mut self, frame: &[u8], port: usize) {
        if let Some(from) = frame.get(6..).and_then(|f| f.first_chunk::<6>()) {
            self.stations.insert(*from, port);
        }
    }
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct Switch {
    ports: Ports,
    links: Arc<Mutex<Links>>,
    wake: Arc<EventFd>,
    begin: Instant,
    due: Vec<Packet>,
}

impl Switch {
    pub(super) fn new(ports: Vec<Port>, links: Arc<Mutex<Links>>, wake: Arc<EventFd>) -> Self {
        Self {
            ports: Ports {
                ports,
                stations: HashMap::new(),
            },
            links,
            wake,
            begin: Instant::now(),
            due: Vec::new(),
        }
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn run(&mut self) -> Result<()> {
        urgent();
        while !lock(&self.links).over {
            let more = self.receive()?;
            let next = self.release()?;
            if !more {
                self.sleep(next)?;
            }
        }
        Ok(())
    }

    /// Takes frames in; whether there may be more.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0u8; 2 * FRAME];
        let mut more = false;
        let last = self.ports.ports.len() - 1;
        for index in 0..self.ports.ports.len() {
            for turn in 0..=BATCH {
                if turn == BATCH {
                    more = true;
                    break;
                }
                let Some(port) = self.ports.ports.get(index) else {
                    break;
                };
                let Some(len) = port.receive(&mut buffer).context("receiving a frame")? else {
                    break;
                };
                ensure!(
                    len <= FRAME,
                    "a frame of {len} bytes came: the offloads of the interface are on"
                );
                let frame = buffer.get(..len).unwrap_or_default();
                // The kernel's own noise on the veth ends (IPv6 discovery) is nobody's business.
                if !matches!(ethertype(frame), Some(ETHERTYPE_ARP | ETHERTYPE_IPV4)) {
                    continue;
                }
                self.ports.learn(frame, index);
                let way = usize::from(index == last);
                let now = self.now();
                let mut links = lock(&self.links);
                match links.of(frame).and_then(|ways| ways.pipes.get_mut(way)) {
                    Some(pipe) => pipe.push(now, VirtioNetHdr::default(), &[frame]),
                    None => {
                        drop(links);
                        self.ports.send(frame, Some(index))?;
                    }
                }
            }
        }
        Ok(more)
    }

    /// Lets out what is due; when the next is.
    fn release(&mut self) -> Result<Option<Nanos>> {
        let now = self.now();
        let mut links = lock(&self.links);
        for ways in &mut links.paths {
            for (pipe, traffic) in ways.pipes.iter_mut().zip(&mut ways.traffic) {
                while let Some(packet) = pipe.pop(now) {
                    traffic.frames += 1;
                    traffic.bytes += packet.bytes.len() as u64;
                    self.due.push(packet);
                }
                traffic.add(pipe.take_faults());
            }
        }
        let next = links.next();
        drop(links);
        for packet in self.due.drain(..) {
            self.ports.send(&packet.bytes, None)?;
        }
        Ok(next)
    }

    fn sleep(&self, next: Option<Nanos>) -> Result<()> {
        let now = self.now();
        let time = next.map_or(SLEEP, |at| at.saturating_sub(now).min(SLEEP));
        if time == 0 {
            return Ok(());
        }
        let mut fds: Vec<_> = self.ports.ports.iter().map(|port| port.as_fd()).collect();
        fds.push(self.wake.as_fd());
        let mut fds: Vec<_> = fds
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = TimeSpec::from(Duration::from_nanos(time));
        match ppoll(&mut fds, Some(timeout), Some(SigSet::empty())) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("waiting for frames"),
        }
        let _ = self.wake.read();
        Ok(())
    }
}

/// Real-time priority and exact timers, where they are to be had.
#[allow(unsafe_code, reason = "nix has no sched_setscheduler")]
fn urgent() {
    let _ = nix::sys::prctl::set_timerslack(1);
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: concerns the calling thread; the parameter lives until the call is over. Where it is
    // refused the thread is an ordinary one.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}
