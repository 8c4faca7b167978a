//! udpd on plumbing in this process, and plain applications.
#![allow(dead_code, unreachable_pub, reason = "not every test uses everything")]
#![allow(clippy::cast_possible_truncation, reason = "offsets in small buffers")]

use abi::config::{DeviceKind, Role};
use abi::session::{
    Answer, DATAGRAM_SKIP, DatagramHeader, Op, Reply, Request, SockOpt, SocketId, SocketKind,
    control,
};
use abi::{DevIndex, Endpoint, LAYOUT_VERSION, RegionId, ServiceId, codec};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use runtime::channel::{FdChannel, Received};
use runtime::testing::{Fabric, Worker};
use shm::SessionMemory;
use shm::sync::Ordering;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use udpd::Udpd;
use zerocopy::{FromBytes, IntoBytes};

pub const IPD: ServiceId = ServiceId(1);
pub const UDPD: ServiceId = ServiceId(2);
pub const NETDEVD: ServiceId = ServiceId(3);

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A fabric with a listening socket for udpd, and its address.
pub fn fabric() -> (Fabric, UnixAddr) {
    let mut fabric = Fabric::new(&[
        (IPD, Role::Ipd),
        (UDPD, Role::Udpd),
        (
            NETDEVD,
            Role::Netdevd {
                device: DevIndex(1),
            },
        ),
    ]);
    // A loopback device would have no broadcast address.
    for device in &mut fabric.stack_mut().devices {
        device.kind = DeviceKind::Tap;
    }
    let name = format!("udpd-test-{}-{}", std::process::id(), fastrand::u64(..));
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let fd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(fd.as_raw_fd(), &address).unwrap();
    listen(&fd, Backlog::new(16).unwrap()).unwrap();
    fabric.set_listener(UDPD, fd);
    (fabric, address)
}

/// An application with a session.
pub struct App {
    requests: FdChannel,
    next: u64,
    pub region: RegionId,
    pub memory: SessionMemory,
}

/// A socket of it.
pub struct Sock {
    pub id: SocketId,
    pub shadow: OwnedFd,
    pub tx_tail: u64,
    pub rx_head: u64,
    pub errors: u32,
}

/// A datagram as an application gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub ttl: u8,
    pub bytes: Vec<u8>,
}

impl App {
    pub fn new(address: &UnixAddr, udpd: &mut Worker<Udpd>) -> Self {
        let fd = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        connect(fd.as_raw_fd(), address).unwrap();
        let requests = FdChannel::new(fd).unwrap();
        requests
            .send(
                &Request {
                    id: 1,
                    op: Op::Hello {
                        version: LAYOUT_VERSION,
                    },
                },
                &[],
            )
            .unwrap();
        let (reply, fds) = wait(&requests, udpd);
        let Ok(Answer::Session { region }) = reply.result else {
            panic!("{reply:?}")
        };
        let memory = SessionMemory::attach(&fds[0]).unwrap();
        Self {
            requests,
            next: 2,
            region: RegionId(region),
            memory,
        }
    }

    /// Sends a request and does not wait.
    pub fn send_request(&mut self, op: Op) -> u64 {
        let id = self.next;
        self.next += 1;
        self.requests.send(&Request { id, op }, &[]).unwrap();
        id
    }

    pub fn call(&mut self, udpd: &mut Worker<Udpd>, op: Op) -> Result<Answer, i32> {
        self.call_fds(udpd, op).0
    }

    pub fn call_fds(
        &mut self,
        udpd: &mut Worker<Udpd>,
        op: Op,
    ) -> (Result<Answer, i32>, Vec<OwnedFd>) {
        let id = self.send_request(op);
        loop {
            let (reply, fds) = wait(&self.requests, udpd);
            if reply.id == id {
                return (reply.result, fds);
            }
        }
    }

    pub fn socket(&mut self, udpd: &mut Worker<Udpd>, kind: SocketKind, v6: bool) -> Sock {
        let (answer, mut fds) = self.call_fds(udpd, Op::Socket { v6, kind });
        let Ok(Answer::Socket(id)) = answer else {
            panic!("{answer:?}")
        };
        Sock {
            id,
            shadow: fds.pop().unwrap(),
            tx_tail: 0,
            rx_head: 0,
            errors: 0,
        }
    }

    pub fn bound(&mut self, udpd: &mut Worker<Udpd>, to: &str) -> Sock {
        let s = self.socket(udpd, SocketKind::Datagram, at(to).is_ipv6());
        assert_eq!(self.call(udpd, Op::Bind(s.id, at(to))), Ok(Answer::Done));
        s
    }

    pub fn option(&mut self, udpd: &mut Worker<Udpd>, s: &Sock, option: SockOpt) {
        assert_eq!(
            self.call(udpd, Op::SetOption(s.id, option)),
            Ok(Answer::Done)
        );
    }

    pub fn connect(&mut self, udpd: &mut Worker<Udpd>, s: &Sock, to: &str) {
        assert_eq!(
            self.call(udpd, Op::Connect(s.id, Some(at(to)))),
            Ok(Answer::Done)
        );
    }

    pub fn local(&mut self, udpd: &mut Worker<Udpd>, s: &Sock) -> SocketAddr {
        match self.call(udpd, Op::LocalAddr(s.id)) {
            Ok(Answer::Address(a)) => a,
            other => panic!("{other:?}"),
        }
    }

    /// Writes a datagram into the send buffer and marks the socket dirty.
    pub fn send(&self, s: &mut Sock, bytes: &[u8], to: Option<&str>) {
        let header = DatagramHeader {
            peer: to.map_or(Endpoint::NONE, |t| at(t).into()),
            ..DatagramHeader::default()
        };
        self.send_record(s, header, bytes);
    }

    pub fn send_record(&self, s: &mut Sock, mut header: DatagramHeader, bytes: &[u8]) {
        let capacity = u64::from(self.memory.layout().tx_capacity);
        let size = (64 + bytes.len() as u64).next_multiple_of(16);
        let map = self.memory.mapping();
        let base = self.memory.tx_offset(s.id.slot).unwrap();
        let mut offset = s.tx_tail & (capacity - 1);
        if offset + size > capacity {
            assert!(map.copy_in(base + offset as usize, &DATAGRAM_SKIP.to_ne_bytes()));
            s.tx_tail += capacity - offset;
            offset = 0;
        }
        header.len = bytes.len() as u32;
        assert!(map.copy_in(base + offset as usize, header.as_bytes()));
        assert!(map.copy_in(base + offset as usize + 64, bytes));
        s.tx_tail += size;
        let used = s.tx_tail - self.u64(s, control::TX_HEAD);
        assert!(used <= capacity, "the test sends too much: {used}");
        self.memory
            .u64(s.id.slot, control::TX_TAIL)
            .unwrap()
            .store(s.tx_tail, Ordering::Release);
        let _ = self.memory.mark_dirty(s.id.slot);
    }

    pub fn u64(&self, s: &Sock, word: usize) -> u64 {
        self.memory
            .u64(s.id.slot, word)
            .unwrap()
            .load(Ordering::Acquire)
    }

    pub fn u32(&self, s: &Sock, word: usize) -> u32 {
        self.memory
            .u32(s.id.slot, word)
            .unwrap()
            .load(Ordering::Acquire)
    }

    /// Takes the next datagram.
    pub fn recv(&self, s: &mut Sock) -> Option<Got> {
        let capacity = u64::from(self.memory.layout().rx_capacity);
        let base = self.memory.rx_offset(s.id.slot).unwrap();
        let tail = self.u64(s, control::RX_TAIL);
        let mut header = [0; 64];
        loop {
            if s.rx_head == tail {
                return None;
            }
            let offset = s.rx_head & (capacity - 1);
            let mut word = [0; 4];
            assert!(
                self.memory
                    .mapping()
                    .copy_out(base + offset as usize, &mut word)
            );
            if u32::from_ne_bytes(word) == DATAGRAM_SKIP {
                s.rx_head += capacity - offset;
                continue;
            }
            assert!(
                self.memory
                    .mapping()
                    .copy_out(base + offset as usize, &mut header)
            );
            let header = DatagramHeader::read_from_bytes(&header).unwrap();
            let mut bytes = vec![0; header.len as usize];
            assert!(
                self.memory
                    .mapping()
                    .copy_out(base + offset as usize + 64, &mut bytes)
            );
            s.rx_head += (64 + u64::from(header.len)).next_multiple_of(16);
            assert!(s.rx_head <= tail);
            self.memory
                .u64(s.id.slot, control::RX_HEAD)
                .unwrap()
                .store(s.rx_head, Ordering::Release);
            return Some(Got {
                from: header.peer.socket_addr().unwrap(),
                to: header.local.socket_addr().unwrap(),
                ttl: header.ttl,
                bytes,
            });
        }
    }

    /// Takes the pending error.
    pub fn error(&self, s: &mut Sock) -> Option<i32> {
        let seq = self.u32(s, control::ERROR_SEQ);
        if seq == s.errors {
            return None;
        }
        s.errors = seq;
        i32::try_from(self.u32(s, control::ERROR)).ok()
    }

    /// Takes the tokens off the shadow fd, as a reader that found nothing.
    pub fn take_tokens(&self, s: &Sock) -> bool {
        use nix::sys::socket::{MsgFlags, recv};
        let got = recv(s.shadow.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok();
        self.memory
            .u32(s.id.slot, control::RX_TOKEN)
            .unwrap()
            .store(0, Ordering::SeqCst);
        got
    }

    pub fn requests(&self) -> &FdChannel {
        &self.requests
    }
}

fn wait(requests: &FdChannel, udpd: &mut Worker<Udpd>) -> (Reply, Vec<OwnedFd>) {
    for _ in 0..100 {
        udpd.turn(now());
        match requests.recv::<Reply>().unwrap() {
            Received::Message(reply, fds) => return (reply, fds),
            Received::Closed => panic!("the session was closed"),
            Received::Empty => {}
        }
    }
    panic!("no reply");
}

pub fn now() -> abi::Nanos {
    runtime::clock::now()
}

/// What poll shows of a shadow fd: readable, writable.
pub fn readiness(s: &Sock) -> (bool, bool) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(
        s.shadow.as_fd(),
        PollFlags::POLLIN | PollFlags::POLLOUT,
    )];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    let e = fds[0].revents().unwrap();
    (
        e.contains(PollFlags::POLLIN),
        e.contains(PollFlags::POLLOUT),
    )
}

/// Keeps codec in the harness honest.
pub fn encoded(op: Op) -> Vec<u8> {
    codec::encode(&Request { id: 99, op }).unwrap()
}
