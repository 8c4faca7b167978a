//! The loopback transport.

use super::{BLACK_HOLE, Knobs};
use abi::RegionId;
use abi::session::{
    Answer, DATAGRAM_SKIP, DatagramHeader, Op, Ring, Rings, SockOpt, SockOptName, SocketKind,
    SocketState, control, event, shut,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use session::{
    Adopted, Call, Event, Known, MemoryStore, NewSocket, Params, Revoked, Sessions, SocketRef,
};
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use zerocopy::{FromBytes, IntoBytes};

/// The transport was killed.
#[derive(Debug)]
pub struct Dead;

/// One socket's record.
#[derive(Debug, Clone)]
struct Rec {
    incarnation: u32,
    kind: SocketKind,
    state: SocketState,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    /// The other end of a connection.
    mate: Option<SocketRef>,
    known: Known,
    rx_limit: u32,
    fin: bool,
    shutdown: u32,
    error: i32,
    /// The application closed it.
    closed: bool,
    /// Waits to be accepted by this listener.
    waits_for: Option<SocketRef>,
    listening: bool,
    options: Vec<SockOpt>,
}

/// What is committed.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    sockets: HashMap<SocketRef, Rec>,
    /// The last request of each session and its answer.
    answered: HashMap<RegionId, (u64, Result<Answer, i32>)>,
    next_port: u16,
}

pub struct Fake<'a> {
    sessions: Sessions,
    store: &'a mut MemoryStore,
    durable: &'a mut Durable,
    now: Durable,
    touched: BTreeSet<(u32, u32)>,
    /// Sockets whose record is to go.
    done: Vec<SocketRef>,
    bell: &'a OwnedFd,
    knobs: Arc<Knobs>,
    random: fastrand::Rng,
    /// It has scribbled.
    lied: bool,
}

impl<'a> Fake<'a> {
    pub fn boot(
        listener: &OwnedFd,
        bell: &'a OwnedFd,
        params: Params,
        store: &'a mut MemoryStore,
        durable: &'a mut Durable,
        knobs: &Arc<Knobs>,
    ) -> Self {
        let stored = store.restored().unwrap();
        let (l, b) = (listener.try_clone().unwrap(), bell.try_clone().unwrap());
        let sessions = Sessions::restore(params, l, b, stored, store).unwrap();
        let mut fake = Self {
            sessions,
            store,
            now: durable.clone(),
            durable,
            touched: BTreeSet::new(),
            done: Vec::new(),
            bell,
            knobs: Arc::clone(knobs),
            random: fastrand::Rng::new(),
            lied: false,
        };
        fake.take_up();
        fake
    }

    /// Takes up what the predecessor committed.
    fn take_up(&mut self) {
        // Freed already; the slot may have been another's since.
        self.now.sockets.retain(|_, r| r.state != SocketState::Free);
        let all: Vec<_> = self
            .now
            .sockets
            .iter()
            .map(|(s, r)| (*s, r.incarnation))
            .collect();
        for (socket, incarnation) in all {
            match self
                .sessions
                .adopt(socket, incarnation, socket.slot, self.store)
            {
                Adopted::Live => {}
                Adopted::Lost => {
                    if let Some(r) = self.now.sockets.get_mut(&socket)
                        && r.waits_for.is_none()
                    {
                        r.closed = true;
                    }
                }
                Adopted::Gone => {
                    self.now.sockets.remove(&socket);
                }
            }
        }
        let waiting: Vec<_> = self
            .now
            .sockets
            .iter()
            .filter_map(|(s, r)| Some((*s, r.waits_for?)))
            .collect();
        for (socket, listener) in waiting {
            match self.sessions.revoke(socket, self.store) {
                Some(Revoked::Fresh(new)) => {
                    let r = self.now.sockets.get_mut(&socket).unwrap();
                    r.incarnation = new.incarnation;
                    let (peer, local) = (r.peer.unwrap(), r.local);
                    // Before anybody can take it.
                    *self.durable = self.now.clone();
                    let to = (peer.into(), local.into());
                    let _ = self
                        .sessions
                        .hand_over(listener, new, to.0, to.1, self.store);
                }
                Some(Revoked::Taken) => {
                    self.now.sockets.get_mut(&socket).unwrap().waits_for = None;
                }
                None => {}
            }
        }
        self.sessions.finish_restore(self.store);
        let all: Vec<_> = self
            .now
            .sockets
            .iter()
            .map(|(s, r)| (*s, r.clone()))
            .collect();
        for (socket, r) in all {
            let words = self.sessions.words(socket).unwrap();
            words.set_state(r.state);
            words.set_rx_tail(r.known.rx_tail);
            words.set_tx_head(r.known.tx_head);
            words.add_events(if r.fin { event::PEER_FIN } else { 0 });
            // What will listen must not have a token in front of its accept messages.
            if r.kind != SocketKind::Stream || r.mate.is_some() {
                // Extra tokens and drains are allowed; missing ones are not.
                self.sessions
                    .reconcile(socket, true, r.state != SocketState::Connecting, r.fin);
            }
            self.touch(socket);
        }
    }

    fn touch(&mut self, socket: SocketRef) {
        self.touched.insert((socket.region.0, socket.slot));
    }

    /// A place to die at.
    fn step(&mut self) -> Result<(), Dead> {
        let death = self.knobs.death.load(Ordering::Relaxed);
        if death > 0 && self.random.u32(..1_000_000) < death {
            Err(Dead)
        } else {
            Ok(())
        }
    }

    pub fn run(&mut self) -> Result<(), Dead> {
        while !self.knobs.stop.load(Ordering::Relaxed) {
            self.knobs.turns.fetch_add(1, Ordering::Relaxed);
            if !self.turn()? {
                self.sleep();
            }
        }
        Ok(())
    }

    fn sleep(&mut self) {
        self.sessions.arm(true);
        fence(Ordering::SeqCst);
        if !self.sessions.has_input() {
            let mut fds = [
                PollFd::new(self.sessions.fd(), PollFlags::POLLIN),
                PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            let _ = nix::unistd::read(self.bell, &mut [0; 8]);
            self.sessions.on_fd();
        }
        self.sessions.arm(false);
    }

    /// One turn; answers whether there was something to do.
    fn turn(&mut self) -> Result<bool, Dead> {
        let mut events = Vec::new();
        self.sessions.poll(self.store, &mut events);
        self.step()?;
        let mut busy = !events.is_empty() || !self.touched.is_empty();
        for event in events {
            match event {
                Event::Call(call) => self.call(&call),
                Event::Dirty(socket) => self.dirty(socket),
                Event::Closed(socket) => {
                    self.dirty(socket);
                    if let Some(r) = self.now.sockets.get_mut(&socket) {
                        r.closed = true;
                    }
                    self.touch(socket);
                }
            }
        }
        busy |= self.work();
        self.step()?;
        *self.durable = self.now.clone();
        self.step()?;
        self.sessions.release(self.store);
        self.publish()?;
        if self.knobs.hostile.load(Ordering::Relaxed) {
            self.scribble();
        }
        self.now.sockets.retain(|_, r| r.state != SocketState::Free);
        Ok(busy)
    }

    /// Writes nonsense into the words that are the transport's to write.
    fn scribble(&mut self) {
        self.lied = true;
        let all: Vec<_> = self.now.sockets.keys().copied().collect();
        for socket in all {
            let memory = self.sessions.words(socket).unwrap().memory();
            let word = control::RX_TOKEN + 4 * self.random.usize(..(236 - control::RX_TOKEN) / 4);
            let value = match self.random.u8(..4) {
                0 => 0,
                1 => u32::MAX,
                2 => self.random.u32(..8),
                _ => self.random.u32(..),
            };
            memory
                .u32(socket.slot, word)
                .unwrap()
                .store(value, Ordering::Relaxed);
            let at = memory.rx_offset(socket.slot).unwrap();
            let bytes: Vec<u8> = std::iter::repeat_with(|| self.random.u8(..))
                .take(64)
                .collect();
            assert!(memory.mapping().copy_in(at, &bytes));
            self.sessions.readable(socket, self.random.bool());
            self.sessions.writable(socket);
        }
    }

    /// Loads what the application wrote.
    fn dirty(&mut self, socket: SocketRef) {
        let (Some(r), Some(words)) = (
            self.now.sockets.get_mut(&socket),
            self.sessions.words(socket),
        ) else {
            return;
        };
        if r.waits_for.is_some() && self.sessions.accepted(socket) {
            r.waits_for = None;
        }
        if r.state == SocketState::Closed {
            return;
        }
        let app = match words.load(&r.known) {
            Ok(app) => app,
            // It read what we said was there, and was not.
            Err(_) if self.lied => return,
            Err(fault) => panic!("our own library scribbled: {fault:?}"),
        };
        r.known.tx_tail = app.tx_tail;
        r.known.rx_head = app.rx_head;
        r.shutdown |= app.shutdown;
        self.touch(socket);
    }

    fn call(&mut self, call: &Call) {
        if let Some((id, answer)) = self.now.answered.get(&call.region)
            && *id == call.id
        {
            self.sessions.answer(call, answer.clone());
            return;
        }
        if let Op::Socket { kind, v6 } = call.op {
            self.make(call, kind, v6);
            return;
        }
        let answer = self.ask(call);
        self.now
            .answered
            .insert(call.region, (call.id, answer.clone()));
        self.sessions.answer(call, answer);
    }

    fn new_rec(&mut self, new: NewSocket, kind: SocketKind, v6: bool) -> Rec {
        let words = self.sessions.words(new.socket).unwrap();
        let layout = words.memory().layout();
        let unset: SocketAddr = if v6 {
            "[::1]:0".parse().unwrap()
        } else {
            (Ipv4Addr::LOCALHOST, 0).into()
        };
        Rec {
            incarnation: new.incarnation,
            kind,
            state: SocketState::Idle,
            local: unset,
            peer: None,
            mate: None,
            known: Known {
                tx_limit: layout.tx_base(),
                ..Known::default()
            },
            rx_limit: layout.rx_base(),
            fin: false,
            shutdown: 0,
            error: 0,
            closed: false,
            waits_for: None,
            listening: false,
            options: Vec::new(),
        }
    }

    fn make(&mut self, call: &Call, kind: SocketKind, v6: bool) {
        let new = match self.sessions.create(call.region) {
            Ok(new) => new,
            Err(e) => return self.sessions.answer(call, Err(e.errno())),
        };
        let rec = self.new_rec(new, kind, v6);
        self.sessions.set_owner(new.socket, new.socket.slot);
        self.sessions
            .answer_socket(call, new.socket, self.store)
            .unwrap();
        self.now.sockets.insert(new.socket, rec);
    }

    fn port(&mut self) -> u16 {
        self.now.next_port = self.now.next_port.wrapping_add(1).max(32768);
        self.now.next_port
    }

    fn ask(&mut self, call: &Call) -> Result<Answer, i32> {
        let id = match &call.op {
            Op::Bind(id, _)
            | Op::Connect(id, _)
            | Op::Listen(id, _)
            | Op::SetOption(id, _)
            | Op::GetOption(id, _)
            | Op::LocalAddr(id)
            | Op::PeerAddr(id)
            | Op::TcpInfo(id)
            | Op::Closing(id) => *id,
            Op::Hello { .. } | Op::Socket { .. } | Op::ConnectWithData(..) => {
                return Err(libc::EPROTO);
            }
        };
        self.sessions.resolve(call.region, id).ok_or(libc::EBADF)?;
        let socket = SocketRef {
            region: call.region,
            slot: id.slot,
        };
        let fresh = self.port();
        let r = self.now.sockets.get_mut(&socket).ok_or(libc::EBADF)?;
        match &call.op {
            Op::Bind(_, at) => {
                let port = if at.port() == 0 { fresh } else { at.port() };
                let local = SocketAddr::new(at.ip(), port);
                let kind = r.kind;
                let taken = |(s, r): (&SocketRef, &Rec)| {
                    *s != socket
                        && r.local == local
                        && r.kind == kind
                        && (r.listening || kind != SocketKind::Stream)
                        && r.state != SocketState::Closed
                };
                if self.now.sockets.iter().any(taken) {
                    return Err(libc::EADDRINUSE);
                }
                self.now.sockets.get_mut(&socket).ok_or(libc::EBADF)?.local = local;
            }
            Op::Connect(_, to) if r.kind != SocketKind::Stream => {
                r.peer = *to;
                r.state = if to.is_some() {
                    SocketState::Connected
                } else {
                    SocketState::Idle
                };
                let state = r.state;
                if r.local.port() == 0 {
                    r.local.set_port(fresh);
                }
                self.sessions.words(socket).unwrap().set_state(state);
            }
            Op::Connect(_, to) => {
                if r.state != SocketState::Idle {
                    return Err(libc::EISCONN);
                }
                r.peer = *to;
                r.state = SocketState::Connecting;
                if r.local.port() == 0 {
                    r.local.set_port(fresh);
                }
                // Before the reply: the application looks at it then.
                self.sessions
                    .words(socket)
                    .unwrap()
                    .set_state(SocketState::Connecting);
            }
            Op::Listen(..) => {
                r.listening = true;
                r.state = SocketState::Listening;
                self.sessions
                    .words(socket)
                    .unwrap()
                    .set_state(SocketState::Listening);
            }
            Op::SetOption(_, option) => r.options.push(option.clone()),
            Op::GetOption(_, name) => {
                let name = format!("{name:?}(");
                let set = r
                    .options
                    .iter()
                    .rev()
                    .find(|o| format!("{o:?}").starts_with(&name));
                return match (set, &call.op) {
                    (Some(o), _) => Ok(Answer::Option(o.clone())),
                    (None, Op::GetOption(_, SockOptName::NoDelay)) => {
                        Ok(Answer::Option(SockOpt::NoDelay(false)))
                    }
                    _ => Err(libc::ENOPROTOOPT),
                };
            }
            Op::LocalAddr(_) => return Ok(Answer::Address(r.local)),
            Op::PeerAddr(_) => return r.peer.map(Answer::Address).ok_or(libc::ENOTCONN),
            Op::TcpInfo(_) => return Ok(Answer::Bytes(vec![7; 104])),
            Op::Closing(_) => return Err(libc::EBUSY),
            Op::Hello { .. } | Op::Socket { .. } | Op::ConnectWithData(..) => {
                return Err(libc::EPROTO);
            }
        }
        self.touch(socket);
        Ok(Answer::Done)
    }

    /// The protocol, such as it is.
    fn work(&mut self) -> bool {
        let mut busy = false;
        let all: Vec<_> = self.now.sockets.keys().copied().collect();
        for socket in all {
            let Some(r) = self.now.sockets.get(&socket).cloned() else {
                continue;
            };
            busy |= match r.kind {
                SocketKind::Stream if r.state == SocketState::Connecting => self.connect(socket),
                SocketKind::Stream => self.stream(socket),
                _ => self.datagrams(socket),
            };
        }
        busy
    }

    fn connect(&mut self, socket: SocketRef) -> bool {
        let r = self.now.sockets[&socket].clone();
        if r.closed {
            return self.fail(socket, libc::ECONNABORTED);
        }
        let Some(peer) = r.peer.filter(|p| p.port() != BLACK_HOLE) else {
            return false;
        };
        let found = self
            .now
            .sockets
            .iter()
            .find(|(_, l)| l.listening && l.local == peer);
        let Some(listener) = found.map(|(s, _)| *s) else {
            return self.fail(socket, libc::ECONNREFUSED);
        };
        let Ok(new) = self.sessions.create_waiting(listener.region) else {
            return self.fail(socket, libc::ECONNREFUSED);
        };
        self.sessions.set_owner(new.socket, new.socket.slot);
        let mut other = self.new_rec(new, SocketKind::Stream, peer.is_ipv6());
        other.state = SocketState::Connected;
        other.local = peer;
        other.peer = Some(r.local);
        other.mate = Some(socket);
        other.waits_for = Some(listener);
        self.sessions
            .words(new.socket)
            .unwrap()
            .set_state(SocketState::Connected);
        let (from, to) = (r.local.into(), peer.into());
        if self
            .sessions
            .hand_over(listener, new, from, to, self.store)
            .is_err()
        {
            self.sessions.free(new.socket, self.store);
            return self.fail(socket, libc::ECONNREFUSED);
        }
        self.now.sockets.insert(new.socket, other);
        let r = self.now.sockets.get_mut(&socket).unwrap();
        r.state = SocketState::Connected;
        r.mate = Some(new.socket);
        self.touch(socket);
        true
    }

    /// A reset.
    fn fail(&mut self, socket: SocketRef, errno: i32) -> bool {
        let Some(r) = self.now.sockets.get_mut(&socket) else {
            return false;
        };
        if r.state == SocketState::Closed {
            return false;
        }
        r.state = SocketState::Closed;
        r.error = errno;
        self.touch(socket);
        true
    }

    fn stream(&mut self, socket: SocketRef) -> bool {
        let r = self.now.sockets[&socket].clone();
        if r.closed && (r.listening || r.mate.is_none() || r.state == SocketState::Closed) {
            // Nobody is interested any more.
            self.now.sockets.get_mut(&socket).unwrap().state = SocketState::Free;
            self.touch(socket);
            return true;
        }
        if r.state != SocketState::Connected {
            return false;
        }
        // The slot may be another connection's by now.
        let ours = |m: &SocketRef| {
            self.now
                .sockets
                .get(m)
                .is_some_and(|o| o.mate == Some(socket))
        };
        let Some(mate) = r.mate.filter(ours) else {
            // The other side's record is gone: it was closed to the end.
            if r.closed || r.waits_for.is_some() {
                self.now.sockets.get_mut(&socket).unwrap().state = SocketState::Free;
                self.touch(socket);
                return true;
            }
            return false;
        };
        if r.closed && r.known.rx_head != r.known.rx_tail {
            // RFC 2525 2.17: closed with data unread.
            self.fail(mate, libc::ECONNRESET);
            self.now.sockets.get_mut(&socket).unwrap().state = SocketState::Closed;
            return true;
        }
        let m = self.now.sockets[&mate].clone();
        if m.state != SocketState::Connected {
            return false;
        }
        let ready = usize::try_from(r.known.tx_tail - r.known.tx_head).unwrap();
        let used = m.known.rx_tail - m.known.rx_head;
        let room = usize::try_from(u64::from(m.rx_limit) - used).unwrap();
        let chunk = match self.knobs.chunk.load(Ordering::Relaxed) {
            0 => usize::MAX,
            n => self.random.usize(1..=n as usize),
        };
        let len = ready.min(room).min(chunk);
        if len > 0 {
            let mut bytes = vec![0; len];
            self.copy(socket, r.known.tx_head, &mut bytes, false);
            self.copy(mate, m.known.rx_tail, &mut bytes, true);
            self.now.sockets.get_mut(&socket).unwrap().known.tx_head += len as u64;
            self.now.sockets.get_mut(&mate).unwrap().known.rx_tail += len as u64;
            self.touch(socket);
            self.touch(mate);
        }
        if (r.shutdown & shut::WR != 0 || r.closed) && len == ready && !m.fin {
            self.now.sockets.get_mut(&mate).unwrap().fin = true;
            self.touch(mate);
            return true;
        }
        let m_done = m.closed
            || m.waits_for
                .is_some_and(|l| !self.now.sockets.contains_key(&l));
        if r.closed && m_done && len == 0 {
            self.now.sockets.get_mut(&socket).unwrap().state = SocketState::Free;
            self.touch(socket);
            return true;
        }
        len > 0
    }

    /// Copies from the send buffer, or into the receive buffer.
    fn copy(&self, socket: SocketRef, position: u64, bytes: &mut [u8], into: bool) {
        let memory = self.sessions.words(socket).unwrap().memory();
        // Its own, not what anybody may have scribbled.
        let layout = memory.layout();
        let rings = Rings {
            tx: Ring::new(layout.tx_base()),
            rx: Ring::new(layout.rx_base()),
            ..Rings::default()
        };
        let buffer = if into {
            shm::Buffer::Rx
        } else {
            shm::Buffer::Tx
        };
        let map = memory.mapping();
        let mut done = 0;
        assert!(memory.pieces(
            socket.slot,
            buffer,
            &rings,
            position,
            bytes.len(),
            |at, len| {
                let part = &mut bytes[done..done + len];
                done += len;
                if into {
                    map.copy_in(at, part)
                } else {
                    map.copy_out(at, part)
                }
            }
        ));
    }

    fn datagrams(&mut self, socket: SocketRef) -> bool {
        let mut busy = false;
        if self.now.sockets[&socket].closed {
            self.now.sockets.get_mut(&socket).unwrap().state = SocketState::Free;
            self.touch(socket);
            return true;
        }
        loop {
            let r = self.now.sockets[&socket].clone();
            let capacity = u64::from(
                self.sessions
                    .words(socket)
                    .unwrap()
                    .memory()
                    .layout()
                    .tx_capacity,
            );
            let left = r.known.tx_tail - r.known.tx_head;
            if left == 0 {
                return busy;
            }
            busy = true;
            self.touch(socket);
            let mut bytes = [0; 64];
            self.copy(socket, r.known.tx_head, &mut bytes[..4], false);
            if bytes[..4] == DATAGRAM_SKIP.to_ne_bytes() {
                let skip = capacity - (r.known.tx_head & (capacity - 1));
                self.now.sockets.get_mut(&socket).unwrap().known.tx_head += skip;
                continue;
            }
            self.copy(socket, r.known.tx_head, &mut bytes, false);
            let header = DatagramHeader::read_from_bytes(&bytes).unwrap();
            let mut payload = vec![0; header.len as usize];
            self.copy(socket, r.known.tx_head + 64, &mut payload, false);
            let size = (64 + u64::from(header.len)).next_multiple_of(16);
            assert!(size <= left, "a record of {size} in {left} bytes");
            let me = self.now.sockets.get_mut(&socket).unwrap();
            me.known.tx_head += size;
            if me.local.port() == 0 {
                me.local.set_port(40_000);
            }
            let (from, kind) = (me.local, me.kind);
            let to = header.peer.socket_addr().or(me.peer).unwrap();
            if kind == SocketKind::Ping {
                payload[0] = if to.is_ipv6() { 129 } else { 0 };
                self.deliver(socket, to, &payload);
                continue;
            }
            let found = self
                .now
                .sockets
                .iter()
                .find(|(_, o)| o.kind == kind && o.local == to);
            match found.map(|(s, _)| *s) {
                Some(other) => self.deliver(other, from, &payload),
                None => self.now.sockets.get_mut(&socket).unwrap().error = libc::ECONNREFUSED,
            }
        }
    }

    /// Queues a datagram, in one piece and behind a filler where it would not be.
    fn deliver(&mut self, socket: SocketRef, from: SocketAddr, payload: &[u8]) {
        let r = self.now.sockets[&socket].clone();
        let rx_head = {
            let words = self.sessions.words(socket).unwrap();
            words.load(&r.known).unwrap().rx_head
        };
        let capacity = u64::from(r.rx_limit);
        let size = (64 + payload.len() as u64).next_multiple_of(16);
        let to_end = capacity - (r.known.rx_tail & (capacity - 1));
        let skip = if size > to_end { to_end } else { 0 };
        if r.known.rx_tail - rx_head + skip + size > capacity {
            return;
        }
        let mut tail = r.known.rx_tail;
        if skip > 0 {
            self.copy(socket, tail, &mut DATAGRAM_SKIP.to_ne_bytes(), true);
            tail += skip;
        }
        let mut header = DatagramHeader {
            len: u32::try_from(payload.len()).unwrap(),
            wire_len: u32::try_from(payload.len()).unwrap(),
            peer: from.into(),
            local: r.local.into(),
            ttl: 64,
            ..DatagramHeader::default()
        };
        self.copy(socket, tail, header.as_mut_bytes(), true);
        self.copy(socket, tail + 64, &mut payload.to_vec(), true);
        self.now.sockets.get_mut(&socket).unwrap().known.rx_tail = tail + size;
        self.touch(socket);
    }

    /// Lets out what is committed.
    fn publish(&mut self) -> Result<(), Dead> {
        let touched: Vec<_> = std::mem::take(&mut self.touched).into_iter().collect();
        for (region, slot) in touched {
            self.step()?;
            let socket = SocketRef {
                region: RegionId(region),
                slot,
            };
            let Some(r) = self.now.sockets.get(&socket).cloned() else {
                continue;
            };
            if r.state == SocketState::Free {
                self.sessions.free(socket, self.store);
                continue;
            }
            let Some(words) = self.sessions.words(socket) else {
                continue;
            };
            let map = words.memory();
            let shown = map
                .u64(slot, control::RX_TAIL)
                .unwrap()
                .load(Ordering::Relaxed);
            let head = map
                .u64(slot, control::RX_HEAD)
                .unwrap()
                .load(Ordering::Relaxed);
            words.set_tx_head(r.known.tx_head);
            words.set_rx_tail(r.known.rx_tail);
            if r.error != 0 {
                words.post_error(r.error);
                self.now.sockets.get_mut(&socket).unwrap().error = 0;
            }
            if r.fin {
                words.add_events(event::PEER_FIN);
            }
            if r.state == SocketState::Closed {
                words.add_events(event::RESET);
            }
            words.set_state(r.state);
            self.step()?;
            if r.listening {
                continue;
            }
            if r.state == SocketState::Closed {
                self.sessions.reset(socket, self.store);
                self.sessions.free(socket, self.store);
                self.now.sockets.get_mut(&socket).unwrap().state = SocketState::Free;
                continue;
            }
            if r.known.rx_tail != head || r.error != 0 {
                self.sessions
                    .readable(socket, head == shown && r.known.rx_tail != shown);
            }
            self.step()?;
            if r.fin {
                self.sessions.shut_wr(socket);
            }
            let used = r.known.tx_tail - r.known.tx_head;
            let room = used <= u64::from(r.known.tx_limit) * 3 / 4;
            if r.state != SocketState::Connecting && (room || r.shutdown & shut::WR != 0) {
                self.sessions.writable(socket);
            }
        }
        Ok(())
    }
}
