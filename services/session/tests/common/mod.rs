//! A transport's surroundings and a plain application, in one process.
#![allow(
    unsafe_code,
    dead_code,
    unreachable_pub,
    reason = "takes ownership of received descriptors; not every test uses everything"
)]

use abi::session::{AcceptMessage, Answer, Op, Reply, Request, SocketId, SocketKind};
use abi::{LAYOUT_VERSION, RegionId, ServiceId, codec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind,
    connect, listen, recvmsg, send, socket,
};
use session::{Call, Event, MemoryStore, NewSocket, Params, Sessions, SocketRef};
use shm::SessionMemory;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use zerocopy::FromBytes;

/// Listener, bell and store: what outlives a transport.
pub struct World {
    pub store: MemoryStore,
    pub listener: OwnedFd,
    pub address: UnixAddr,
    pub bell: OwnedFd,
    pub params: Params,
}

impl World {
    pub fn new() -> Self {
        let address = UnixAddr::new_abstract(
            format!("strata-test-{}-{}", std::process::id(), fastrand::u64(..)).as_bytes(),
        )
        .unwrap();
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(64).unwrap()).unwrap();
        let params = Params {
            sockets: 512,
            tx_capacity: 4096,
            rx_capacity: 4096,
            base: 4096,
            windows: 0,
            ..Params::tcp(ServiceId(5))
        };
        Self {
            store: MemoryStore::default(),
            listener,
            address,
            bell: EventFd::new().unwrap().into(),
            params,
        }
    }

    /// Starts a transport on what is kept.
    pub fn boot(&mut self) -> Sessions {
        self.store.crash();
        let stored = self.store.restored().unwrap();
        Sessions::restore(
            self.params,
            self.listener.try_clone().unwrap(),
            self.bell.try_clone().unwrap(),
            stored,
            &mut self.store,
        )
        .unwrap()
    }

    /// A turn's first phase, looking at everything.
    pub fn poll(&mut self, sessions: &mut Sessions) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..4 {
            sessions.on_fd();
            sessions.arm(false);
            sessions.poll(&mut self.store, &mut events);
        }
        events
    }

    pub fn calls(&mut self, sessions: &mut Sessions) -> Vec<Call> {
        self.poll(sessions)
            .into_iter()
            .filter_map(|e| match e {
                Event::Call(c) => Some(c),
                _ => None,
            })
            .collect()
    }

    /// A connected application with its session open.
    pub fn app(&mut self, sessions: &mut Sessions) -> App {
        let mut app = App::connect(self);
        let id = app.send(Op::Hello {
            version: LAYOUT_VERSION,
        });
        self.poll(sessions);
        sessions.release(&mut self.store);
        app.take_session(id);
        app
    }

    /// A socket of the application, by a whole turn.
    pub fn socket(&mut self, sessions: &mut Sessions, app: &mut App) -> (NewSocket, OwnedFd) {
        let id = app.send(Op::Socket {
            v6: false,
            kind: SocketKind::Stream,
        });
        let call = self.calls(sessions).pop().unwrap();
        let new = sessions.create(call.region).unwrap();
        sessions.set_owner(new.socket, 7);
        sessions
            .answer_socket(&call, new.socket, &mut self.store)
            .unwrap();
        sessions.release(&mut self.store);
        let (reply, mut fds) = app.recv().unwrap();
        assert_eq!(reply.id, id);
        assert_eq!(
            reply.result,
            Ok(Answer::Socket(SocketId {
                slot: new.socket.slot,
                incarnation: new.incarnation
            }))
        );
        (new, fds.pop().unwrap())
    }
}

/// An application.
pub struct App {
    pub request: OwnedFd,
    pub next: u64,
    pub region: Option<RegionId>,
    pub memory: Option<SessionMemory>,
    pub bell: Option<OwnedFd>,
}

impl App {
    pub fn connect(world: &World) -> Self {
        let request = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        connect(request.as_raw_fd(), &world.address).unwrap();
        Self {
            request,
            next: 1,
            region: None,
            memory: None,
            bell: None,
        }
    }

    pub fn send(&mut self, op: Op) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send_as(id, op);
        id
    }

    pub fn send_as(&self, id: u64, op: Op) {
        self.send_raw(&codec::encode(&Request { id, op }).unwrap());
    }

    pub fn send_raw(&self, bytes: &[u8]) {
        send(self.request.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
    }

    /// The next reply, if there is one.
    pub fn recv(&self) -> Option<(Reply, Vec<OwnedFd>)> {
        let (bytes, fds) = receive(self.request.as_raw_fd(), 65536)?;
        Some((codec::decode(&bytes).unwrap(), fds))
    }

    pub fn is_closed(&self) -> bool {
        matches!(
            nix::sys::socket::recv(
                self.request.as_raw_fd(),
                &mut [0; 1],
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK
            ),
            Ok(0) | Err(nix::errno::Errno::ECONNRESET)
        )
    }

    pub fn take_session(&mut self, id: u64) {
        let (reply, fds) = self.recv().unwrap();
        assert_eq!(reply.id, id);
        let Ok(Answer::Session { region }) = reply.result else {
            panic!("{reply:?}")
        };
        let [memory, bell] = <[OwnedFd; 2]>::try_from(fds).unwrap();
        self.memory = Some(SessionMemory::attach(&memory).unwrap());
        self.region = Some(RegionId(region));
        self.bell = Some(bell);
    }

    pub fn memory(&self) -> &SessionMemory {
        self.memory.as_ref().unwrap()
    }

    pub fn socket_ref(&self, slot: u32) -> SocketRef {
        SocketRef {
            region: self.region.unwrap(),
            slot,
        }
    }
}

fn receive(fd: RawFd, room: usize) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; room];
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(fd, &mut iov, Some(&mut space), flags).ok()?;
    let mut fds = Vec::new();
    for c in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(raw) = c {
            // SAFETY: just received, nobody else's.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let n = message.bytes;
    bytes.truncate(n);
    (n > 0).then_some((bytes, fds))
}

/// Takes one accept message off a listener's shadow fd.
pub fn accept_message(listener: &OwnedFd) -> Option<(AcceptMessage, OwnedFd)> {
    let (bytes, mut fds) = receive(listener.as_raw_fd(), 64)?;
    assert_eq!(bytes.len(), 64);
    Some((
        AcceptMessage::read_from_bytes(&bytes).unwrap(),
        fds.pop().unwrap(),
    ))
}

/// Whether the application may have the connection, as libsocket decides it.
pub fn take(memory: &SessionMemory, m: &AcceptMessage) -> bool {
    use abi::session::{accept, control};
    use shm::sync::Ordering;
    let word = memory.u32(m.slot, control::ACCEPTED).unwrap();
    word.compare_exchange(
        accept::unaccepted(m.incarnation),
        m.incarnation,
        Ordering::SeqCst,
        Ordering::SeqCst,
    )
    .is_ok()
}

/// What epoll shows of a descriptor.
pub fn readiness(fd: &impl AsFd) -> EpollFlags {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let all =
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLPRI | EpollFlags::EPOLLRDHUP;
    epoll.add(fd, EpollEvent::new(all, 1)).unwrap();
    let mut events = [EpollEvent::empty(); 1];
    match epoll.wait(&mut events, EpollTimeout::ZERO).unwrap() {
        0 => EpollFlags::empty(),
        _ => events[0].events(),
    }
}

pub fn hung_up(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    fds[0].revents().unwrap().contains(PollFlags::POLLHUP)
}

/// Stuffs a shadow fd as libsocket does.
pub fn stuff(fd: &OwnedFd) {
    use abi::session::shadow::{POISON, STUFFING};
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    send(fd.as_raw_fd(), &[0; STUFFING], flags).unwrap();
    send(fd.as_raw_fd(), &[POISON], flags).unwrap();
}
