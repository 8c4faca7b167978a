//! Requests of applications.
//!
//! A request may come twice (see `session`): what changes a socket notes the request's number in
//! the socket's record, and a number that is noted is answered without doing it again.

use super::Tcpd;
use super::publish::Asked;
use super::socket::Socket;
use crate::engine::{ConnId, OpenParams, Route, SocketRef, State, Tcb};
use abi::Endpoint;
use abi::session::{Answer, Op, SockOpt, SocketId, SocketKind};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use runtime::Context;
use session::{Call, Known};

type Outcome = Result<Answer, i32>;

impl Tcpd {
    /// Carries a request out and answers it.
    pub(super) fn call(&mut self, call: &Call, cx: &mut Context<'_>) {
        if let Op::Socket { v6, kind } = call.op {
            if let Err(errno) = self.make_socket(call, v6, kind, cx) {
                self.sessions.answer(call, Err(errno));
            }
            return;
        }
        let result = self.carry_out(call, cx);
        self.sessions.answer(call, result);
    }

    fn make_socket(
        &mut self,
        call: &Call,
        v6: bool,
        kind: SocketKind,
        cx: &mut Context<'_>,
    ) -> Result<(), i32> {
        if kind != SocketKind::Stream {
            return Err(libc::EPROTONOSUPPORT);
        }
        let new = self.sessions.create(call.region).map_err(|e| e.errno())?;
        let params = OpenParams {
            owner: SocketRef {
                region: new.socket.region.0,
                slot: new.socket.slot,
            },
            v6,
            rcv_capacity: self.params.rx_capacity,
            snd_capacity: self.params.tx_capacity,
        };
        let id = match self.engine.open(cx.now, &params) {
            Ok(id) => id,
            Err(errno) => {
                self.sessions.free(new.socket, &mut cx.plumbing.store);
                return Err(errno.0);
            }
        };
        self.sessions.set_owner(new.socket, id.0);
        if let Err(error) = self
            .sessions
            .answer_socket(call, new.socket, &mut cx.plumbing.store)
        {
            self.engine.close(cx.now, id);
            self.sessions.free(new.socket, &mut cx.plumbing.store);
            return Err(error.errno());
        }
        self.sockets.insert(id, Socket::new(new));
        self.attach_region(call.region, cx.plumbing);
        Ok(())
    }

    fn carry_out(&mut self, call: &Call, cx: &mut Context<'_>) -> Outcome {
        let target = match &call.op {
            Op::Bind(s, _)
            | Op::Connect(s, _)
            | Op::ConnectWithData(s, _)
            | Op::Listen(s, _)
            | Op::SetOption(s, _)
            | Op::GetOption(s, _)
            | Op::LocalAddr(s)
            | Op::PeerAddr(s)
            | Op::TcpInfo(s)
            | Op::Closing(s) => *s,
            Op::Hello { .. } | Op::Socket { .. } => return Err(libc::EPROTO),
        };
        let id = self.resolve(call, target)?;
        let noted = self
            .engine
            .record(id)
            .is_some_and(|tcb| tcb.last_request == call.id);
        match &call.op {
            Op::Bind(..)
            | Op::Connect(..)
            | Op::ConnectWithData(..)
            | Op::Listen(..)
            | Op::SetOption(..)
                if noted =>
            {
                Ok(Answer::Done)
            }
            Op::Bind(_, address) => self.bind(id, *address, cx),
            Op::Connect(_, address) => self.connect(id, *address, false, cx),
            Op::ConnectWithData(_, address) => self.connect(id, Some(*address), true, cx),
            Op::Listen(_, backlog) => self.listen(id, *backlog, cx),
            Op::SetOption(_, option) => {
                self.engine
                    .set_option(cx.now, id, option)
                    .map_err(|e| e.0)?;
                let fin = self.engine.record(id).is_some_and(Tcb::peer_finished);
                self.asked.push((id, Asked::Options { fin }));
                // A size that was set is shown after the commit.
                if matches!(
                    option,
                    SockOpt::RecvBuffer(_) | SockOpt::SendBuffer(_) | SockOpt::NotSentLowat(_)
                ) {
                    self.resized.push(id);
                }
                Ok(Answer::Done)
            }
            Op::GetOption(_, name) => self
                .engine
                .option(id, *name)
                .map(Answer::Option)
                .map_err(|e| e.0),
            Op::LocalAddr(_) => self.local_address(id),
            Op::PeerAddr(_) => {
                let tcb = self.engine.record(id).ok_or(libc::EBADF)?;
                tcb.remote
                    .socket_addr()
                    .map(Answer::Address)
                    .ok_or(libc::ENOTCONN)
            }
            Op::TcpInfo(_) => {
                let info = self.engine.info(cx.now, id).ok_or(libc::EBADF)?;
                Ok(Answer::Bytes(zerocopy::IntoBytes::as_bytes(&info).to_vec()))
            }
            // The event of the last descriptor comes by itself.
            Op::Closing(_) => match self.sockets.get(id) {
                Some(socket) if self.sessions.is_closed(socket.place) => Ok(Answer::Done),
                Some(socket) if self.sessions.is_open(socket.place) => Err(libc::EBUSY),
                _ => Err(libc::EBADF),
            },
            Op::Hello { .. } | Op::Socket { .. } => Err(libc::EPROTO),
        }
        .inspect(|_| {
            if !noted {
                self.engine.note_request(cx.now, id, call.id);
            }
        })
    }

    fn resolve(&self, call: &Call, target: SocketId) -> Result<ConnId, i32> {
        self.sessions
            .resolve(call.region, target)
            .map(ConnId)
            .ok_or(libc::EBADF)
    }

    fn bind(&mut self, id: ConnId, address: SocketAddr, cx: &Context<'_>) -> Outcome {
        let ip = address.ip().to_canonical();
        if !ip.is_unspecified() && !self.fib.is_local(ip) {
            return Err(libc::EADDRNOTAVAIL);
        }
        self.engine
            .bind(cx.now, id, Endpoint::from(address))
            .map_err(|e| e.0)?;
        Ok(Answer::Done)
    }

    fn connect(
        &mut self,
        id: ConnId,
        to: Option<SocketAddr>,
        with_data: bool,
        cx: &Context<'_>,
    ) -> Outcome {
        let Some(mut to) = to else {
            return Err(libc::EOPNOTSUPP);
        };
        // As Linux: the unspecified address is this host.
        if to.ip().is_unspecified() {
            to.set_ip(match to.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let hop = self
            .fib
            .lookup(to.ip().to_canonical())
            .ok_or(libc::ENETUNREACH)?;
        let route = Route {
            source: hop.source,
            mtu: hop.mtu,
        };
        let to = Endpoint::from(to);
        if with_data {
            let written = self.written_before(id).ok_or(libc::EINVAL)?;
            self.engine
                .connect_with_data(cx.now, id, to, &route, written)
        } else {
            self.engine.connect(cx.now, id, to, &route)
        }
        .map_err(|e| e.0)?;
        self.asked.push((id, Asked::State));
        Ok(Answer::Done)
    }

    /// What lies in the send buffer of a socket that is not connected; `None` for the impossible.
    fn written_before(&self, id: ConnId) -> Option<u64> {
        let tcb = self.engine.record(id)?;
        let words = self.sessions.words(self.sockets.get(id)?.place)?;
        let known = Known {
            tx_tail: 0,
            tx_head: 0,
            tx_limit: tcb.opts.snd_capacity,
            rx_head: 0,
            rx_tail: 0,
        };
        words.load(&known).ok().map(|w| w.tx_tail)
    }

    fn listen(&mut self, id: ConnId, backlog: u32, cx: &Context<'_>) -> Outcome {
        self.engine.listen(cx.now, id, backlog).map_err(|e| e.0)?;
        self.asked.push((id, Asked::State));
        Ok(Answer::Done)
    }

    fn local_address(&self, id: ConnId) -> Outcome {
        let tcb = self.engine.record(id).ok_or(libc::EBADF)?;
        let v6 = tcb.has(crate::engine::tcb::flag::V6);
        let unbound = if v6 {
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)
        } else {
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
        };
        let local = tcb.local.socket_addr().unwrap_or(unbound);
        debug_assert!(tcb.state() != State::Listen || local.port() != 0);
        Ok(Answer::Address(local))
    }
}
